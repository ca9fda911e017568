"""A process that trains the jobs it is handed: JSON lines in, JSON lines out.

    in    first what is common to all jobs (Setup), then lists of jobs (train.jobs), one a line
    out   ready: how many jobs it wants at a time      progress: a run logged a point
          record: one was committed, and another job may come      warning: something to tell
          unfinished: one ended without a record (train.outcomes), and another job may come
          broken: the worker itself failed, and ends

On a CPU a worker is one core with one device: XLA's pool is one thread, so a run's bits depend on
neither the number of cores nor what runs beside it. On an accelerator one worker serves all local
devices, a thread each, and several runs of one shape are rows of one program (train.rows). The end
of its input stops the runs under way, with a checkpoint: a worker ends with whoever started it,
however that ended.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from model import custom
from train.jobs import JobQueue, job_from_json
from train.runtime import configure, confine_to_one_core, has_accelerator


@dataclass(frozen=True)
class Setup:
    """What is common to all jobs of a worker: folders, the corpus, the devices and their rows.

    `n_devices`: at most so many, None for all. `n_rows`: runs in one program; None for what
    measures fastest on an accelerator, and 1 on a CPU.
    """

    store: str
    data_dir: str
    cache_dir: str
    corpus: str
    tokenizer: str
    n_devices: int | None = None
    n_rows: int | None = None
    checkpoint_every_s: float = 60.0


def main() -> int:
    """Serve standard input; returns the exit code."""
    tell = _teller()
    setup = Setup(**json.loads(sys.stdin.readline()))
    jobs, stop = JobQueue(is_open=True), threading.Event()
    # A job's size is asked for as it comes in, and that of a user's model is counted from its code.
    custom.look_in(Path(setup.store).parent / "ideas")

    def end(*_: Any) -> None:
        stop.set()
        jobs.close()

    # Ctrl-C, or its end, reaches every process of a terminal; the launcher answers it, and with it
    # our input is closed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    logging.getLogger("train").addHandler(_Warnings(tell))
    configure(Path(setup.cache_dir))
    if not has_accelerator():
        confine_to_one_core()
    threading.Thread(target=_listen, args=(jobs, end, tell), daemon=True).start()
    try:
        _serve(setup, jobs, stop, tell)
    except Exception as error:
        logging.exception("the worker ends")
        tell("broken", is_input=isinstance(error, ValueError), message=str(error) or repr(error))
        return 1
    return 0


@dataclass(frozen=True)
class Equipment:
    """What jobs are trained with: the corpus, the devices, and the rows on each, at most."""

    corpus: Any
    devices: Sequence[Any]
    n_rows_at_most: int
    choose_n_rows: Callable[..., int]


def equip(setup: Setup) -> Equipment:
    """Read the corpus and find the devices; imports jax."""
    import jax

    from train.data.corpora import load
    from train.row_choice import MAX_ROWS, measured_rows

    corpus = load(setup.corpus, Path(setup.data_dir), tokenizer=setup.tokenizer)
    devices = jax.local_devices()[: setup.n_devices]
    n_rows = setup.n_rows or (1 if devices[0].platform == "cpu" else 0)
    if n_rows:
        return Equipment(corpus, devices, n_rows, lambda *_: n_rows)
    cache = Path(setup.cache_dir) / "rows.json"
    return Equipment(corpus, devices, MAX_ROWS, partial(measured_rows, corpus=corpus, cache=cache))


def _serve(setup: Setup, jobs: JobQueue, stop: threading.Event, tell: Callable[..., None]) -> None:
    from train.pack import train_all

    has = equip(setup)
    # Runs of one length end at once: a second load at hand fills their rows without a wait.
    n_loads = 1 if has.n_rows_at_most == 1 else 2
    tell("ready", n_slots=len(has.devices) * has.n_rows_at_most * n_loads)
    train_all(
        jobs,
        has.corpus,
        Path(setup.store),
        devices=has.devices,
        on_progress=lambda progress: tell("progress", **asdict(progress)),
        on_record=lambda row: tell("record", run_id=row["run_id"]),
        on_unfinished=lambda found: tell("unfinished", **asdict(found)),
        choose_n_rows=has.choose_n_rows,
        stop=stop,
        checkpoint_every_s=setup.checkpoint_every_s,
    )


def _listen(jobs: JobQueue, end: Callable[[], None], tell: Callable[..., None]) -> None:
    try:
        for line in sys.stdin:
            jobs.put(*map(job_from_json, json.loads(line)))
    except Exception as error:
        # Untold, the launcher would wait for jobs that never came in.
        tell("broken", is_input=isinstance(error, ValueError), message=str(error) or repr(error))
    end()


def _teller() -> Callable[..., None]:
    """Writes events to what was standard output, which now goes where errors go."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()

    def tell(event: str, **values: Any) -> None:
        # Of a launcher that is gone the end of our input tells.
        with lock, contextlib.suppress(BrokenPipeError):
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
