"""Train the missing runs of a plan by a SLURM job array, submitted by submitit.

Each task takes what is left of the queue (experiments.executors.task). Before its time limit, or
when it is preempted, SLURM signals it: it leaves checkpoints and is requeued. The launcher watches;
it may end and come again, and finds its tasks by the name that SLURM knows them under.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.executors import N_TASKS, How, Slurm
from experiments.executors.task import Task, python_path
from experiments.executors.watching import Ended, train_on
from experiments.workspace import Workspace
from train.config import SpecError
from train.data.corpora import TokenizedCorpus
from train.jobs import Job

MAX_REQUEUES = 1000
"""At time limits and preemptions, each of which leaves a checkpoint."""


def execute_on_slurm(
    jobs: Sequence[Job],
    corpus: TokenizedCorpus,
    workspace: Workspace,
    *,
    how: How,
    console: Console,
) -> int:
    """Train what has no record yet in at most how.workers tasks; returns how many runs that were.

    Raises: SpecError: no submitit, no SLURM here, or it refuses what tasks ask for. And as
        watching.train_on.
    """

    @contextlib.contextmanager
    def array(folder: Path, n_runs: int) -> Iterator[Array]:
        _check_installed()
        logs = workspace.root.absolute() / "logs" / "slurm"
        yield Array(folder, logs, min(how.workers or N_TASKS, n_runs), how.slurm)

    return train_on(array, jobs, corpus, workspace, how.rows, console)


class SlurmTask(Task):
    """A task that is known by its job's id, and that submitit can stop and requeue."""

    def __call__(self) -> int:
        self.name = task_id(os.environ)
        return super().__call__()

    def checkpoint(self) -> Any:
        """What submitit is to run when the job is requeued; called by its handler."""
        from submitit.helpers import DelayedSubmission

        self.stop()
        return DelayedSubmission(SlurmTask(self.folder, self.share, self.n_shares))


class Array:
    """The tasks of one queue in SLURM: a watching.Cluster.

    A task's job is named after the queue, alone or with its share, so that any launcher finds it.
    """

    def __init__(self, folder: Path, logs: Path, n_tasks: int, asked: Slurm):
        self._folder, self._logs, self.n_tasks, self._asked = folder, logs, n_tasks, asked
        self._name = f"queue-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
        self._shares: dict[str, int] = {}
        self._live: set[str] = set()
        self._ended: list[Ended] = []

    def start(self, shares: Sequence[int]) -> None:
        """Requeue the tasks that these shares had, or submit new ones.

        Raises: SpecError: SLURM refuses.
        """
        with self._sole_submitter():
            live = self.live()  # another launcher of this queue may have been faster
            wanted = [share for share in shares if share not in live]
            had = {share: task for task, share in self._shares.items()}
            new = [share for share in wanted if not (share in had and _requeue(had[share]))]
            if new == list(range(self.n_tasks)) and len(new) > 1:
                self._submit(self._name, new)
            else:
                for share in new:
                    self._submit(f"{self._name}-{share}", [share])

    def live(self) -> set[int]:
        """Shares whose task SLURM lists as queued, running or ending."""
        listed = _asked(["squeue", "--me", "--array", "--noheader", "--format=%i|%j|%K"])
        if listed is None:  # its controller is away for a while
            return {self._shares[task] for task in self._live}
        found = dict(tasks_of(self._name, listed))
        for task in self._live - found.keys():
            why = ending_of(task)
            self._ended.append(Ended(task, self._shares[task], why, str(self._log(task))))
        self._live = set(found)
        self._shares |= found
        return set(found.values())

    def ended(self) -> list[Ended]:
        """Tasks that SLURM listed once and does no longer."""
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        """Cancel what waits, signal what runs; returns when SLURM lists none of it."""
        self.close()
        while self.live():
            # One that was about to begin hears nothing yet, so it is said again.
            _scancel(self._live, "--signal=TERM", "--state=RUNNING")
            time.sleep(2)
            self.close()

    def close(self) -> None:
        """Cancel tasks that have not begun."""
        _scancel(self._live, "--state=PENDING")

    def _submit(self, name: str, shares: Sequence[int]) -> None:
        import submitit
        from submitit.core.utils import FailedJobError

        executor = submitit.SlurmExecutor(self._logs, max_num_timeout=MAX_REQUEUES)
        executor.update_parameters(**sbatch_parameters(self._asked, name))
        tasks = [SlurmTask(str(self._folder), share, self.n_tasks) for share in shares]
        try:
            with executor.batch():
                submitted = [executor.submit(task) for task in tasks]
            ids = [job.job_id for job in submitted]
        except (FailedJobError, subprocess.CalledProcessError) as error:
            told = re.sub(r"\s+", " ", str(getattr(error, "stderr", None) or error))
            raise SpecError(f"SLURM refuses the tasks: {told}; see the --slurm flags") from error
        self._shares |= dict(zip(ids, shares, strict=True))
        self._live |= set(ids)

    def _log(self, task: str) -> Path:
        return self._logs / f"{task}_0_log.out"

    @contextlib.contextmanager
    def _sole_submitter(self) -> Iterator[None]:
        """Held for seconds; the kernel frees it however the process ends."""
        with open(self._folder / "submitting", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def sbatch_parameters(asked: Slurm, name: str) -> dict[str, Any]:
    """What submitit.SlurmExecutor is told."""
    more = dict(option.split("=", 1) for option in asked.options)
    given = {
        "partition": asked.partition, "account": asked.account, "mem": _memory(asked.memory_gb),
        "gpus_per_task": asked.gpus_per_task or None,
    }  # fmt: skip
    return {
        "job_name": name,
        "time": asked.minutes,
        "signal_delay_s": asked.notice_s,
        "cpus_per_task": asked.cpus_per_task,
        "stderr_to_stdout": True,
        "setup": [f"export PYTHONPATH={shlex.quote(python_path())}"],
        "additional_parameters": {"requeue": True, **more},
        **{key: value for key, value in given.items() if value is not None},
    }


def task_id(environment: Any) -> str:
    """A task's id as squeue has it, from the variables that SLURM sets for it."""
    array = environment.get("SLURM_ARRAY_JOB_ID")
    if array is None:
        return environment["SLURM_JOB_ID"]
    return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}"


def ending_of(task: str) -> str | None:
    """How a task ended, in SLURM's words; None if by itself."""
    told = _asked(["scontrol", "--oneliner", "show", "job", task])
    if told is not None:
        names = ("JobState", "ExitCode", "NodeList")
        return describe_ending(*(_field(name, told) for name in names))
    # The controller forgets a job after some minutes; accounting, where there is any, does not.
    command = ["sacct", "-n", "-P", "-X", "-j", task, "-o", "State,ExitCode,NodeList"]
    told = _asked(command) if shutil.which("sacct") else None
    first = told.split("\n")[0].split("|") if told else []
    return describe_ending(*(first if len(first) == 3 else ("", "", "")))


def describe_ending(state: str, code: str, node: str) -> str | None:
    """A sentence on how a task ended; None if by itself."""
    if state == "COMPLETED":
        return None
    where = f" on {node}" if node and node != "(null)" else ""
    match state.split(" ")[0]:
        case "":
            return "SLURM no longer knows how"
        case "OUT_OF_MEMORY":
            return f"OUT_OF_MEMORY{where}: ask for more with --slurm.memory-gb"
        case "TIMEOUT":
            return (
                f"TIMEOUT{where}: no checkpoint within the notice before the time limit; raise "
                "--slurm.notice-s or --slurm.minutes"
            )
        case word:
            return f"{word}{where}, exit code {code}"


def _check_installed() -> None:
    if importlib.util.find_spec("submitit") is None:
        raise SpecError("--executor slurm needs submitit; install it: pip install -e .[slurm]")
    if shutil.which("sbatch") is None:
        raise SpecError(
            "--executor slurm needs SLURM's sbatch, which is not on this machine; run this on a "
            "login node, or leave --executor away"
        )


def tasks_of(name: str, listed: str) -> Iterator[tuple[str, int]]:
    """Task and share of each line of squeue that belongs to a queue."""
    for line in listed.splitlines():
        task, job, index = line.strip().split("|")
        if job == name:
            yield task, int(index)
        elif job.startswith(f"{name}-"):
            yield task, int(job.removeprefix(f"{name}-"))


def _requeue(task: str) -> bool:
    """Let an ended task begin again, at once; False if SLURM cannot."""
    done = subprocess.run(["scontrol", "requeue", task], capture_output=True)
    if done.returncode:
        return False
    # SLURM would let it wait for two minutes.
    update = ["scontrol", "update", f"JobId={task}", "StartTime=now"]
    subprocess.run(update, capture_output=True)
    return True


def _scancel(tasks: Collection[str], *options: str) -> None:
    if tasks:  # without ids it would mean every job of the user
        subprocess.run(["scancel", "--quiet", *options, *sorted(tasks)], capture_output=True)


def _asked(command: list[str]) -> str | None:
    """What a command of SLURM's prints, None if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def _field(name: str, told: str) -> str:
    found = re.search(rf"\b{name}=(\S+)", told)
    return found[1] if found else ""


def _memory(gb: float | None) -> str | None:
    return None if gb is None else f"{round(gb * 1024)}M"
