"""Watch the tasks of a cluster train a queue's jobs: from files, and from what the cluster says.

Files tell what is done (records, halts, curves) and who is at it (leases). The cluster tells only
which tasks have ended. A task that ended while there is work for it is started again.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from experiments.executors.failures import Failure, RunsFailed, failure_of, halted
from experiments.executors.local import missing_jobs
from experiments.executors.task import make_queue, read_holder
from experiments.progress import SweepProgress
from experiments.workspace import Workspace
from train import lease, records
from train.data.corpora import TokenizedCorpus
from train.jobs import Job, Progress
from train.lease import Halt
from train.records import Attempt, RecordError, read_run

MAX_DEATHS = 3
"""Tasks that may die under one run before that is taken for the run's own doing; and starts of a
task without a step trained by any before it is left."""
LOOK_EVERY_S = 1.0


class TasksFailed(ChildProcessError):
    """Tasks of a cluster ended again and again without a step trained; the message says how."""


@dataclass(frozen=True)
class Ended:
    """A task that is no more. `why`: None if it found nothing left to do."""

    task: str
    share: int
    why: str | None
    log: str


class Cluster(Protocol):
    """What starts tasks, at most `n_tasks`; each begins with another of a queue's shares."""

    n_tasks: int

    def start(self, shares: Sequence[int]) -> None:
        """Queue a task for each of these shares, none of which has one that is live."""
        ...

    def live(self) -> set[int]:
        """Shares with a task that is queued or runs, by now."""
        ...

    def ended(self) -> list[Ended]:
        """Tasks found to have ended by `live` since this was asked last."""
        ...

    def stop(self) -> None:
        """End all tasks, with checkpoints; returns when they are gone."""
        ...

    def close(self) -> None:
        """Nothing is left to do: see to tasks that have not ended yet."""
        ...


Opening = Callable[[Path, int], AbstractContextManager[Cluster]]
"""Opens a cluster for a queue's folder and so many runs, at the first need of it."""


def train_on(
    cluster: Opening,
    jobs: Sequence[Job],
    corpus: TokenizedCorpus,
    workspace: Workspace,
    n_rows: int | None,
    console: Console,
) -> int:
    """Train what has no record yet by a cluster's tasks.

    Returns: how many runs have a record now that had none.
    Raises: RunsFailed: runs failed, and the others are done. TasksFailed. KeyboardInterrupt:
        Ctrl-C; the tasks have left checkpoints. What `cluster` raises.
    """
    missing, failures = missing_jobs(jobs, workspace.runs, console)
    if missing:
        folder = make_queue(jobs, corpus, workspace, n_rows)
        n_done = len(jobs) - len(missing) - len(failures)
        with cluster(folder, len(missing)) as tasks:
            console.print(
                f"training {len(missing)} runs in {tasks.n_tasks} tasks; {n_done} done before",
                highlight=False,
            )
            with SweepProgress(missing, n_done, console) as progress:
                watcher = Watcher(missing, folder, workspace.runs, tasks, progress, console)
                watcher.run()
        failures += watcher.failures
    if failures:
        raise RunsFailed(failures)
    return sum(read_run(workspace.runs, job.spec.run_id) is not None for job in missing)


class Watcher:
    """What is left of a queue, and who is at it."""

    def __init__(
        self,
        jobs: Iterable[Job],
        folder: Path,
        store: Path,
        cluster: Cluster,
        progress: SweepProgress,
        console: Console,
    ):
        self.failures: list[Failure] = []
        self._left = {job.spec.run_id: job for job in jobs}
        self._folder, self._store = folder, store
        self._cluster, self._progress, self._console = cluster, progress, console
        self._silence = lease.Watch()
        self._steps: dict[str, int] = {}
        self._deaths: Counter[str] = Counter()
        self._starts: Counter[int] = Counter()
        self._last = "their logs say why"

    def run(self) -> None:
        """Return once every job is committed or halted.

        Raises: TasksFailed. KeyboardInterrupt: Ctrl-C; the tasks have left checkpoints.
        """
        try:
            while True:
                began = time.monotonic()
                self._look()
                if not self._left:
                    self._cluster.close()
                    return
                self._tend()
                # Of many runs on a slow file system a look takes long.
                time.sleep(max(LOOK_EVERY_S, 5 * (time.monotonic() - began)))
        except KeyboardInterrupt:
            self._say("stopping the tasks; they leave checkpoints (again: do not wait)")
            self._cluster.stop()
            raise

    def _look(self) -> None:
        """See what was committed, halted or logged since the last look."""
        for run_id, job in tuple(self._left.items()):
            try:
                row, why = read_run(self._store, run_id), lease.halt_of(self._store, run_id)
            except RecordError as error:
                self.failures.append(failure_of(job.spec, str(error)))
                self._say(str(error))
            else:
                if row is None and why is None:
                    self._look_at_curve(job)
                    continue
                self._close(job, row, why)
            del self._left[run_id]
            self._starts.clear()

    def _close(self, job: Job, row: dict[str, Any] | None, why: Halt | None) -> None:
        if row is not None:
            self._progress.on_record(row)
        elif why is not None:
            self._say(f"{job.spec.run_id} {why.kind}: {why.reason}")
            if why.kind == "failed":
                self.failures.append(halted(job.spec, why))

    def _look_at_curve(self, job: Job) -> None:
        run_id = job.spec.run_id
        tried = records.attempts(self._store, run_id)
        point = records.last_point(tried[-1]) if tried else {}
        if (step := point.get("step", 0)) > self._steps.get(run_id, 0):
            self._steps[run_id] = step
            self._starts.clear()
            at = Progress(run_id, step, job.spec.n_steps, point["loss_nats"])
            self._progress.on_progress(at)

    def _tend(self) -> None:
        """Settle what ended tasks left behind, and start tasks where there is work for them."""
        live = self._cluster.live()
        for ended in self._cluster.ended():
            self._settle(ended)
        self._look()  # what a task committed before it ended is no work for another
        if len(live) >= self._cluster.n_tasks:
            return
        n_held, n_free = self._count()
        n_wanted = n_free - max(0, len(live) - n_held)
        idle = [share for share in range(self._cluster.n_tasks) if share not in live]
        shares = [share for share in idle if self._starts[share] < MAX_DEATHS][: max(0, n_wanted)]
        if shares:
            self._cluster.start(shares)
            self._starts.update(shares)
        elif n_free and not n_held and not live:
            raise TasksFailed(
                f"tasks ended {MAX_DEATHS} times without a step trained ({self._last}); the same "
                "command tries again"
            )

    def _count(self) -> tuple[int, int]:
        """How many of the runs left are held, and how many could be taken."""
        held = free = 0
        for run_id, job in self._left.items():
            if not self._silence.is_available(self._store, run_id):
                held += 1
            elif job.trunk is None or job.trunk.run_id not in self._left:
                free += 1
        return held, free

    def _settle(self, ended: Ended) -> None:
        """Free the runs that a task died under; halt those that it was not the first to die of."""
        under = self._held_by(ended.task)
        if ended.why is None and not under:
            return
        why = ended.why or "it ended without a word"
        self._last = f"the last: {why}; log: {ended.log}"
        told = f" under {', '.join(a.directory.parent.name for a in under)}" if under else ""
        self._say(f"task {ended.task} ended{told}: {why}; log: {ended.log}")
        holder = read_holder(self._folder, ended.task)
        for attempt in under:
            lease.end(attempt)
            run_id = attempt.directory.parent.name
            self._deaths[run_id] += 1
            if self._deaths[run_id] == MAX_DEATHS:
                reason = f"{MAX_DEATHS} tasks died under it; the last: {why}"
                host = holder.host if holder else "unknown"
                lease.halt(self._store, run_id, Halt("failed", reason, host, ended.log))

    def _held_by(self, task: str) -> list[Attempt]:
        """Attempts that a task which is no more has not ended itself."""
        holder = read_holder(self._folder, task)
        if holder is None:
            return []
        tried = [records.attempts(self._store, run_id)[-1:] for run_id in self._left]
        return [
            attempt
            for attempts in tried
            for attempt in attempts
            if not (attempt.directory / "ended").exists() and lease.holder_of(attempt) == holder
        ]

    def _say(self, text: str) -> None:
        self._console.print(f"  {text}", highlight=False, soft_wrap=True)
