"""A process of train.worker as its launcher holds it: what it does, its log, what it tells."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from train.jobs import Job, Shape
from train.worker import Setup

ROOT = Path(__file__).resolve().parents[2]

Events = queue.SimpleQueue[tuple["WorkerProcess", dict[str, Any]]]
"""What workers told, in the order in which it came; the last of each is `ended`."""


class WorkerProcess:
    """A worker and the jobs that it holds, on a core of its own if one is given."""

    def __init__(self, setup: Setup, log: Path, events: Events, core: int | None = None):
        self.log, self.core = log, core
        log.parent.mkdir(parents=True, exist_ok=True)
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with open(log, "w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "train.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )  # fmt: skip
        if core is not None:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(self.process.pid, {core})
        self.n_slots = 0
        self.shape: Shape | None = None
        self.running: dict[str, Job] = {}
        self._send(asdict(setup))
        self._listener = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self._listener.start()

    def give(self, jobs: Sequence[Job]) -> None:
        """Hand over jobs, all at once: of how many there are it makes its rows."""
        self.running |= {job.spec.run_id: job for job in jobs}
        self._send([job.to_json() for job in jobs])

    def dismiss(self) -> None:
        """No more jobs; what runs is stopped at its next dispatch, with a checkpoint."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def forget(self) -> None:
        """Close what is open of an ended worker; leave a log only where there is one to read."""
        self.process.wait()
        self.dismiss()
        self._listener.join()
        assert self.process.stdout
        self.process.stdout.close()
        if self.log.exists() and self.log.stat().st_size == 0:
            self.log.unlink()

    def _send(self, values: Any) -> None:
        assert self.process.stdin
        # Of a worker that is gone its output tells, by ending.
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(values), file=self.process.stdin, flush=True)

    def _listen(self, events: Events) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.endswith("\n"):  # not torn by the worker's death
                events.put((self, json.loads(line)))
        events.put((self, {"event": "ended"}))
