"""Train the missing runs of a plan on this machine, in worker processes (train.worker).

On a CPU there is a worker a core; on an accelerator one worker serves all devices. A worker holds
as many jobs as it asked for. One that is killed loses nothing but the steps since a checkpoint:
another takes its place and its runs.
"""

import contextlib
import json
import math
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.branches import waves
from experiments.progress import SweepProgress
from experiments.workspace import Workspace
from train.config import SpecError
from train.data.corpora import TokenizedCorpus
from train.jobs import Job, JobQueue, Progress, Shape
from train.records import read_run
from train.runtime import has_accelerator, n_cores
from train.worker import Setup

ROOT = Path(__file__).resolve().parents[2]
MAX_DEATHS = 3
"""Workers that may die under one run before that is taken for the run's own doing."""


Events = queue.SimpleQueue[tuple["_Worker", dict[str, Any]]]
"""What workers told, in the order in which it came."""


class WorkerError(ChildProcessError):
    """A worker died or failed; the message says under which run, and where its log is."""


def execute(
    jobs: Sequence[Job],
    corpus: TokenizedCorpus,
    workspace: Workspace,
    *,
    n_workers: int | None,
    n_rows: int | None = None,
    console: Console,
) -> int:
    """Train what has no record yet, on `n_workers` cores or devices (None: all).

    On each `n_rows` runs are rows of one program (None: as measured on an accelerator, else 1).
    A branch waits for its trunk. A run that fails stops the others, with checkpoints.

    Returns: how many runs were trained.
    Raises: SpecError: more workers than cores, no row, or a run that cannot be. WorkerError: a
        fault, or a run under which workers died again and again. KeyboardInterrupt: Ctrl-C.
    """
    missing = [job for job in jobs if read_run(workspace.runs, job.spec.run_id) is None]
    if not missing:
        return 0
    if n_workers is not None and not 1 <= n_workers <= n_cores():
        raise SpecError(f"workers={n_workers} but there are {n_cores()} cores; use 1 to that")
    if n_rows is not None and n_rows < 1:
        raise SpecError(f"rows={n_rows} but a program has one at least; use 1 or more, or leave it")
    n_done = len(jobs) - len(missing)
    n = min(n_workers or n_cores(), len(missing))
    how = "on the accelerator" if has_accelerator() else f"{n} at a time"
    console.print(f"training {len(missing)} runs {how}; {n_done} done before", highlight=False)
    with SweepProgress(missing, n_done, console) as progress:
        # On an accelerator one process serves all devices.
        n_processes, n_devices = (1, n_workers) if has_accelerator() else (n, 1)
        setup = Setup(
            str(workspace.runs), str(workspace.data), str(workspace.cache),
            corpus.name, corpus.tokenizer, n_devices, n_rows,
        )  # fmt: skip
        pool = _Pool(missing, setup, workspace.root / "logs", n_processes, progress, console)
        try:
            pool.run()
        finally:
            pool.close()
    return len(missing)


class _Pool:
    """The workers, the jobs that wait, and who does what."""

    def __init__(
        self,
        jobs: Sequence[Job],
        setup: Setup,
        logs: Path,
        n_processes: int,
        progress: SweepProgress,
        console: Console,
    ):
        first, *later = waves(jobs)
        self._queue = JobQueue(first)
        self._waiting = [job for wave in later for job in wave]
        self._setup, self._store, self._logs = setup, Path(setup.store), logs
        self._progress, self._console = progress, console
        self._events: Events = queue.SimpleQueue()
        self._deaths: Counter[str] = Counter()
        self._n_left = len(jobs)
        self._n_started = 0
        self._workers: list[_Worker] = []
        for _ in range(n_processes):
            self._start()

    def run(self) -> None:
        """Hand out every job and see it committed."""
        while self._n_left:
            worker, event = self._events.get()
            match event.pop("event"):
                case "ready":
                    worker.n_slots = event["n_slots"]
                case "progress":
                    self._progress.on_progress(Progress(**event))
                case "record":
                    self._on_record(worker, event["run_id"])
                case "warning":
                    self._console.print(f"  {event['message']}", highlight=False, soft_wrap=True)
                case "failed":
                    kind = SpecError if event["is_input"] else WorkerError
                    where = "" if event["is_input"] else f" (log: {worker.log})"
                    raise kind(f"{event['message']}{where}")
                case "ended":
                    self._on_death(worker)
            self._hand_out()

    def close(self) -> None:
        """Stop every worker at its next dispatch, with a checkpoint; a second Ctrl-C kills."""
        try:
            for worker in self._workers:
                worker.dismiss()
            for worker in self._workers:
                worker.process.wait()
        except KeyboardInterrupt:
            for worker in self._workers:
                worker.process.kill()
            raise
        finally:
            for worker in self._workers:
                worker.forget()

    def _start(self) -> None:
        self._n_started += 1
        log = self._logs / f"worker-{os.getpid()}-{self._n_started}.log"
        self._workers.append(_Worker(self._setup, log, self._events))

    def _hand_out(self) -> None:
        share = math.ceil(self._n_left / len(self._workers))
        for worker in self._workers:
            n_free = min(worker.n_slots, share) - len(worker.running)
            taken: list[Job] = []
            while len(taken) < n_free and (job := self._queue.take(worker.shape)) is not None:
                worker.shape = job.spec.compile_key
                taken.append(job)
            if taken:
                worker.give(taken)

    def _on_record(self, worker: "_Worker", run_id: str) -> None:
        del worker.running[run_id]
        row = read_run(self._store, run_id)
        assert row is not None
        self._progress.on_record(row)
        self._n_left -= 1
        released = [j for j in self._waiting if j.trunk and j.trunk.run_id == run_id]
        self._waiting = [j for j in self._waiting if j not in released]
        for branch in released:
            self._queue.put(branch)

    def _on_death(self, worker: "_Worker") -> None:
        self._workers.remove(worker)
        code = worker.process.wait()
        worker.forget()
        for run_id in tuple(worker.running):
            if read_run(self._store, run_id) is not None:
                self._on_record(worker, run_id)
        lost = tuple(worker.running)
        told = f"a worker ended with code {code} under {', '.join(lost) or 'no run'}; log: "
        self._deaths.update(lost)
        if not lost or max(self._deaths.values()) >= MAX_DEATHS:
            raise WorkerError(f"{told}{worker.log}")
        self._console.print(f"  {told}{worker.log}; it goes on in another", highlight=False)
        for job in worker.running.values():
            self._queue.put(job)
        self._start()


class _Worker:
    """A process of train.worker, its log, and the jobs that it holds."""

    def __init__(self, setup: Setup, log: Path, events: "Events"):
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with open(log, "w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "train.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )  # fmt: skip
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

    def _listen(self, events: "Events") -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.endswith("\n"):  # not torn by the worker's death
                events.put((self, json.loads(line)))
        events.put((self, {"event": "ended"}))
