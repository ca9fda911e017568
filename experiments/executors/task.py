"""What a SLURM array task or a Ray task runs: a share of the jobs that lie in a queue's folder.

    queues/<hash>/setup.json, jobs.json   what train.pull reads
    queues/<hash>/tasks/<task>.json       the process that a task is or was (train.lease.Holder)

A task hears from no launcher: it takes what is not committed and not held, and ends when nothing is
left. Nothing here imports jax before train.pull configures it.
"""

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.workspace import Workspace
from train import lease
from train.data.corpora import TokenizedCorpus
from train.jobs import Job
from train.records import write_atomically
from train.worker import Setup

ROOT = Path(__file__).resolve().parents[2]
LOOK_S = 0.2


@dataclass
class Task:
    """A share of a queue's jobs, to be called in the main thread of a process of its own.

    `name`: of its file; what may begin again under the same name replaces it.
    """

    folder: str
    share: int
    n_shares: int
    name: str = ""
    _stop = None
    _thread = None

    def __call__(self) -> int:
        """Train until nothing is left, or until told to stop; returns how many it committed."""
        found: list[Any] = []
        stop = threading.Event()

        def work() -> None:
            try:
                from train.pull import pull

                found.append(pull(Path(self.folder), self.share, self.n_shares, stop))
            except BaseException as error:
                found.append(error)

        # In a thread, since a signal's handler has to wait for the checkpoints.
        thread = threading.Thread(target=work)
        self._stop, self._thread = stop, thread
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        write_holder(Path(self.folder), self.name)
        thread.start()
        try:
            _wait(thread)
        except KeyboardInterrupt:
            self.stop()
            raise
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    def stop(self) -> None:
        """Leave checkpoints; returns when they are written. May be called by a handler."""
        if self._stop is not None and self._thread is not None:
            self._stop.set()
            _wait(self._thread)


def _wait(thread: threading.Thread) -> None:
    # Not Thread.join, which a handler that interrupts it could not call again.
    while thread.is_alive():
        time.sleep(LOOK_S)


def make_queue(
    jobs: Sequence[Job], corpus: TokenizedCorpus, workspace: Workspace, n_rows: int | None
) -> Path:
    """The folder of a queue of these jobs; the same jobs have the same folder."""
    root = workspace.root.absolute()
    ids = json.dumps(sorted(job.spec.run_id for job in jobs))
    folder = root / "queues" / hashlib.sha256(ids.encode()).hexdigest()[:16]
    (folder / "tasks").mkdir(parents=True, exist_ok=True)
    home = Workspace(root)
    setup = Setup(
        str(home.runs), str(home.data), str(home.cache),
        corpus.name, corpus.tokenizer, n_rows=n_rows,
    )  # fmt: skip
    write_atomically(folder / "setup.json", json.dumps(asdict(setup)) + "\n")
    write_atomically(folder / "jobs.json", json.dumps([job.to_json() for job in jobs]) + "\n")
    return folder


def python_path() -> str:
    """PYTHONPATH under which a task finds this code, on a host that sees the same folders."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def write_holder(folder: Path, name: str) -> None:
    """Say which process a task is."""
    text = json.dumps(asdict(lease.this_process()))
    write_atomically(folder / "tasks" / f"{name}.json", text + "\n")


def read_holder(folder: Path, name: str) -> lease.Holder | None:
    """Which process a task is or was; None if it has not begun."""
    try:
        return lease.Holder(**json.loads((folder / "tasks" / f"{name}.json").read_text()))
    except FileNotFoundError:
        return None
