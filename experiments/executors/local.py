"""Train the missing runs of a plan on this machine, in worker processes (train.worker).

On a CPU there is a worker a core; on an accelerator one worker serves all devices. A worker holds
as many jobs as it asked for. One that is killed loses nothing but the steps since a checkpoint:
another takes its place and its runs. Another launcher may be at work on the same runs: those that
it holds are set aside until they are committed, or free.
"""

import contextlib
import math
import os
import queue
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.executors import memory
from experiments.executors.failures import Failure, RunsFailed, failure_of, halted
from experiments.executors.worker_process import Events, WorkerProcess
from experiments.progress import SweepProgress
from experiments.workspace import Workspace
from train import lease, records
from train.config import SpecError
from train.data.corpora import TokenizedCorpus
from train.jobs import Job, JobQueue, Progress
from train.lease import Halt, Watch
from train.outcomes import Unfinished, suggest_memory
from train.records import RecordError, read_run
from train.runtime import has_accelerator, n_cores
from train.worker import Setup

MAX_DEATHS = 3
"""Workers that may die under one run before that is taken for the run's own doing."""

POLL_S = 1.0
"""Between two looks at the runs that others hold."""


class WorkerError(ChildProcessError):
    """No worker can be kept alive; the message says why, and where its log is."""


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
    A branch waits for its trunk. A run that fails stops no other; cancelled ones are left out.

    Returns: how many runs have a record now that had none.
    Raises: SpecError: more workers than cores, no row, or a corpus that cannot be read. RunsFailed:
        runs failed, and the others are done. WorkerError: no worker stays alive.
        KeyboardInterrupt: Ctrl-C; a second one kills the workers.
    """
    check_workers(n_workers)
    if n_rows is not None and n_rows < 1:
        raise SpecError(f"rows={n_rows} but a program has one at least; use 1 or more, or leave it")
    missing, failures = missing_jobs(jobs, workspace.runs, console)
    if missing:
        n_done = len(jobs) - len(missing) - len(failures)
        with SweepProgress(missing, n_done, console) as progress:
            pool = _Pool(missing, corpus, workspace, n_workers, n_rows, progress, console)
            try:
                pool.run()
            except KeyboardInterrupt:
                console.print("stopping with a checkpoint of each run; again: at once")
                raise
            finally:
                pool.close()
        failures += pool.failures
    if failures:
        raise RunsFailed(failures)
    return sum(read_run(workspace.runs, job.spec.run_id) is not None for job in missing)


def check_workers(n_workers: int | None) -> None:
    """Raises: SpecError: more workers than cores, or none."""
    if n_workers is not None and not 1 <= n_workers <= n_cores():
        raise SpecError(f"workers={n_workers} but there are {n_cores()} cores; use 1 to that")


def missing_jobs(
    jobs: Sequence[Job], store: Path, console: Console
) -> tuple[list[Job], list[Failure]]:
    """Jobs to train; and those that cannot be, as they failed before or their record is damaged."""
    missing, failures = [], []
    for job in jobs:
        try:
            if read_run(store, job.spec.run_id) is not None:
                continue
            why = lease.halt_of(store, job.spec.run_id)
        except RecordError as error:
            failures.append(failure_of(job.spec, str(error)))
            continue
        if why is None:
            missing.append(job)
        elif why.kind == "failed":
            failures.append(halted(job.spec, why))
        else:
            console.print(f"  {job.spec.run_id} was cancelled ({why.reason})", highlight=False)
    return missing, failures


class _Pool:
    """The workers, the jobs that wait, and who does what."""

    def __init__(
        self,
        jobs: Sequence[Job],
        corpus: TokenizedCorpus,
        workspace: Workspace,
        n_workers: int | None,
        n_rows: int | None,
        progress: SweepProgress,
        console: Console,
    ):
        self.failures: list[Failure] = []
        self._open = {job.spec.run_id: job for job in jobs}
        self._queue = JobQueue(job for job in jobs if not self._waits(job))
        self._aside: set[str] = set()
        self._watch, self._looked_s = Watch(), time.monotonic()
        self._store, self._logs = workspace.runs, workspace.root / "logs"
        self._progress, self._console = progress, console
        self._events: Events = queue.SimpleQueue()
        self._deaths: Counter[str] = Counter()
        self._n_deaths_idle, self._n_oom_kills = 0, memory.oom_kills()
        self._n_started = 0
        self._workers: list[WorkerProcess] = []
        # On an accelerator one process serves all devices.
        self._n_processes, n_devices = (1, n_workers)
        if not has_accelerator():
            self._n_processes, n_devices = self._n_that_fit(n_workers or n_cores()), 1
        self._setup = Setup(
            str(workspace.runs), str(workspace.data), str(workspace.cache),
            corpus.name, corpus.tokenizer, n_devices, n_rows,
        )  # fmt: skip

    def run(self) -> None:
        """Hand out every job and see it committed, here or by another launcher."""
        how = "on the accelerator" if has_accelerator() else f"{self._n_processes} at a time"
        self._say(f"training {len(self._open)} runs {how}; {self._progress.n_before} done before")
        cores: Sequence[int | None] = [None] * self._n_processes
        # Fewer workers than cores stay free to move: others may be on any core.
        if not has_accelerator() and self._n_processes == n_cores():
            cores = sorted(os.sched_getaffinity(0))
        for core in cores:
            self._start(core)
        while self._open:
            with contextlib.suppress(queue.Empty):
                self._hear(*self._events.get(timeout=POLL_S))
            if time.monotonic() - self._looked_s >= POLL_S:
                self._look_aside()
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

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _waits(self, job: Job) -> bool:
        """Whether a job is a branch of a trunk that is not done."""
        return job.trunk is not None and job.trunk.run_id in self._open

    def _n_that_fit(self, n_wanted: int) -> int:
        """Workers for cores and jobs, as far as memory holds them."""
        n = min(n_wanted, len(self._open))
        available = memory.available_bytes()
        fit = memory.workers_that_fit((job.spec for job in self._open.values()), available)
        if fit is None or available is None or fit >= n:
            return n
        self._say(f"{fit} workers instead of {n}: {available / 1e9:.1f} GB of memory hold no more")
        return fit

    def _start(self, core: int | None) -> None:
        self._n_started += 1
        log = self._logs / f"worker-{os.getpid()}-{self._n_started}.log"
        self._workers.append(WorkerProcess(self._setup, log, self._events, core))

    def _hear(self, worker: WorkerProcess, event: dict[str, Any]) -> None:
        match event.pop("event"):
            case "ready":
                worker.n_slots = event["n_slots"]
            case "progress":
                self._progress.on_progress(Progress(**event))
            case "record":
                self._n_deaths_idle = 0
                del worker.running[event["run_id"]]
                self._on_record(event["run_id"])
            case "unfinished":
                self._on_unfinished(worker, Unfinished(**event))
            case "warning":
                self._say(f"  {event['message']}")
            case "broken":
                kind = SpecError if event["is_input"] else WorkerError
                where = "" if event["is_input"] else f" (log: {worker.log})"
                raise kind(f"{event['message']}{where}")
            case "ended":
                self._on_death(worker)

    def _hand_out(self) -> None:
        n_left = len(self._open) - len(self._aside)
        share = math.ceil(n_left / max(1, len(self._workers)))
        for worker in self._workers:
            n_free = min(worker.n_slots, share) - len(worker.running)
            taken: list[Job] = []
            while len(taken) < n_free and (job := self._queue.take(worker.shape)) is not None:
                worker.shape = job.spec.compile_key
                taken.append(job)
            if taken:
                worker.give(taken)

    def _on_record(self, run_id: str) -> None:
        row = read_run(self._store, run_id)
        assert row is not None
        self._progress.on_record(row)
        self._close(run_id)

    def _on_unfinished(self, worker: WorkerProcess, found: Unfinished) -> None:
        job = worker.running.pop(found.run_id)
        if found.kind != "failed":
            self._aside.add(found.run_id)
            return
        log = str(worker.log)
        self._fail(
            failure_of(
                job.spec, found.reason, is_machine=found.is_machine, log=log,
                suggestion=found.suggestion,
            )
        )  # fmt: skip

    def _fail(self, failure: Failure) -> None:
        self._say(f"  {failure.run_id} failed: {failure.reason}")
        self.failures.append(failure)
        self._close(failure.run_id)

    def _close(self, run_id: str) -> None:
        """A run needs nothing more. Its branches begin from what it left, or alone."""
        del self._open[run_id]
        branches = [j for j in self._open.values() if j.trunk and j.trunk.run_id == run_id]
        self._queue.put(*branches)

    def _look_aside(self) -> None:
        """What became of the runs that others held."""
        self._looked_s = time.monotonic()
        for run_id in tuple(self._aside):
            if not self._is_settled(run_id):
                if not self._watch.is_available(self._store, run_id):
                    continue
                self._queue.put(self._open[run_id])
            self._aside.remove(run_id)

    def _is_settled(self, run_id: str) -> bool:
        """Whether others have committed or halted an open run, which is closed then."""
        try:
            if read_run(self._store, run_id) is not None:
                self._on_record(run_id)
                return True
            why = lease.halt_of(self._store, run_id)
        except RecordError as error:
            self._fail(failure_of(self._open[run_id].spec, str(error)))
            return True
        if why is None:
            return False
        if why.kind == "failed":
            self._fail(halted(self._open[run_id].spec, why))
        else:
            self._say(f"  {run_id} was cancelled ({why.reason})")
            self._close(run_id)
        return True

    def _on_death(self, worker: WorkerProcess) -> None:
        self._workers.remove(worker)
        code = worker.process.wait()
        worker.forget()
        n_oom_kills = memory.oom_kills()
        is_oom = code == -signal.SIGKILL and n_oom_kills > self._n_oom_kills
        self._n_oom_kills = n_oom_kills
        how = _describe_end(code) + (", out of memory" if is_oom else "")
        held = [run_id for run_id in worker.running if not self._is_settled(run_id)]
        under = [run_id for run_id in held if self._was_training(worker, run_id)]
        told = f"a worker {how} under {', '.join(under) or 'no run'}; log: {worker.log}"
        self._n_deaths_idle = 0 if under else self._n_deaths_idle + 1
        if self._n_deaths_idle >= MAX_DEATHS:
            raise WorkerError(told)
        self._say(f"  {told}")
        self._deaths.update(under)
        for run_id in held:
            if self._deaths[run_id] < MAX_DEATHS:
                self._queue.put(self._open[run_id])
                continue
            reason = f"{MAX_DEATHS} workers died under it; the last {how}"
            with contextlib.suppress(OSError):  # told all the same
                lease.halt(self._store, run_id, Halt("failed", reason, log=str(worker.log)))
            suggestion = suggest_memory("cpu") if is_oom else ""
            spec, log = self._open[run_id].spec, str(worker.log)
            self._fail(failure_of(spec, reason, log=log, suggestion=suggestion))
        if is_oom and self._workers:
            self._say(f"  going on with {len(self._workers)} workers, for want of memory")
        elif self._open:
            self._start(worker.core)

    def _was_training(self, worker: WorkerProcess, run_id: str) -> bool:
        tried = records.attempts(self._store, run_id)
        holder = lease.holder_of(tried[-1]) if tried else None
        is_its = holder is not None and holder.pid == worker.process.pid
        return is_its and not (tried[-1].directory / "ended").exists()


def _describe_end(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
