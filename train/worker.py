"""A process that trains the jobs it is handed: JSON lines in, JSON lines out.

    in    first what is common to all jobs (Setup), then one job a line (train.jobs)
    out   idle: a device is free      progress: a run logged a point      record: one was committed
          warning: something to tell      failed: a run could not be trained, and the worker ends

On a CPU a worker is one core with one device: XLA's pool is one thread, so a run's bits depend on
neither the number of cores nor what runs beside it. On an accelerator one worker serves all local
devices, a thread each. The end of its input stops the runs under way, with a checkpoint: a worker
ends with whoever started it, however that ended.
"""

import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from train.jobs import Job, job_from_json
from train.runtime import configure, confine_to_one_core, has_accelerator


@dataclass(frozen=True)
class Setup:
    """What is common to all jobs of a worker: folders, the corpus, how many runs at a time."""

    store: str
    data_dir: str
    cache_dir: str
    corpus: str
    tokenizer: str
    n_slots: int
    checkpoint_every_s: float = 60.0


class Inbox:
    """Jobs that came in and wait for a device; closed, it gives None and stops what runs."""

    def __init__(self, n_slots: int):
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._n_slots = n_slots
        self.stop = threading.Event()

    def put(self, job: Job) -> None:
        """One more job."""
        self._jobs.put(job)

    def take(self) -> Job | None:
        """Wait for a job."""
        return self._jobs.get()

    def close(self) -> None:
        """No more jobs."""
        self.stop.set()
        for _ in range(self._n_slots):
            self._jobs.put(None)


def main() -> int:
    """Serve standard input; returns the exit code."""
    tell = _teller()
    setup = Setup(**json.loads(sys.stdin.readline()))
    inbox = Inbox(setup.n_slots)
    # Ctrl-C reaches every process of a terminal; the launcher answers it, and closes our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: inbox.close())
    logging.getLogger("train").addHandler(_Warnings(tell))
    configure(Path(setup.cache_dir))
    if not has_accelerator():
        confine_to_one_core()
    threading.Thread(target=_listen, args=(inbox,), daemon=True).start()
    try:
        _serve(setup, inbox, tell)
    except Exception as error:
        logging.exception("the worker ends")
        tell("failed", is_input=isinstance(error, ValueError), message=str(error) or repr(error))
        return 1
    return 0


def _serve(setup: Setup, inbox: Inbox, tell: Callable[..., None]) -> None:
    import jax

    from train.data.corpora import load
    from train.pack import train_all

    def take(shape: Any) -> Job | None:
        tell("idle")
        return inbox.take()

    train_all(
        take,
        load(setup.corpus, Path(setup.data_dir), tokenizer=setup.tokenizer),
        Path(setup.store),
        devices=jax.local_devices()[: setup.n_slots],
        on_progress=lambda progress: tell("progress", **asdict(progress)),
        on_record=lambda row: tell("record", run_id=row["run_id"]),
        stop=inbox.stop,
        checkpoint_every_s=setup.checkpoint_every_s,
    )


def _listen(inbox: Inbox) -> None:
    for line in sys.stdin:
        inbox.put(job_from_json(json.loads(line)))
    inbox.close()


def _teller() -> Callable[..., None]:
    """Writes events to what was standard output, which now goes where errors go."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()

    def tell(event: str, **values: Any) -> None:
        with lock:
            print(json.dumps({"event": event, **values}), file=events)

    return tell


class _Warnings(logging.Handler):
    def __init__(self, tell: Callable[..., None]):
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell("warning", message=record.getMessage())


if __name__ == "__main__":
    sys.exit(main())
