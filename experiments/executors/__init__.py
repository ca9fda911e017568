"""Where the runs of a plan are trained: on this machine, by SLURM's tasks, or by Ray's.

All leave the same bits. local hands jobs to worker processes; slurm and ray queue tasks that take
what is left from a folder (experiments.executors.task), and watch the files that these write.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from train.config import SpecError
from train.runtime import has_accelerator, n_cores

if TYPE_CHECKING:
    from rich.console import Console

    from experiments.workspace import Workspace
    from train.data.corpora import TokenizedCorpus
    from train.jobs import Job

N_TASKS = 16
"""SLURM tasks at most, where it is not said."""


@dataclass(frozen=True)
class Slurm:
    """What each task asks SLURM for. A task trains one run at a time on a CPU."""

    partition: str | None = None
    """Partition. Default: the cluster's."""
    minutes: int = 60
    """Time limit. Before it a task leaves checkpoints and is requeued, so shorter limits start
    sooner and lose nothing."""
    notice_s: int = 90
    """Seconds before the time limit at which a task is told to leave checkpoints."""
    cpus_per_task: int = 1
    """Cores of a task; training on a CPU uses one."""
    gpus_per_task: int = 0
    """GPUs of a task, all used, with several runs on each."""
    memory_gb: float | None = None
    """Memory of a task. Default: the partition's."""
    account: str | None = None
    """Account to charge."""
    options: tuple[str, ...] = ()
    """More of sbatch's options, as NAME=VALUE: qos=low constraint=a100."""

    def __post_init__(self) -> None:
        at_least = {
            "minutes": 1, "notice_s": 1, "cpus_per_task": 1, "gpus_per_task": 0, "memory_gb": 0,
        }  # fmt: skip
        _check(self, "slurm", at_least)
        if self.notice_s >= 60 * self.minutes:
            raise SpecError(
                f"slurm.notice_s={self.notice_s} leaves nothing of slurm.minutes={self.minutes}; "
                "lower the one or raise the other"
            )
        for option in self.options:
            if "=" not in option.strip("="):
                raise SpecError(f"slurm.options={option!r} must be NAME=VALUE, such as qos=low")


@dataclass(frozen=True)
class Ray:
    """What each task asks Ray for."""

    address: str | None = None
    """Of a Ray cluster, or `auto`. Default: one of this machine, for this command only."""
    cpus_per_task: float = 1.0
    """Cores of a task; training on a CPU uses one."""
    gpus_per_task: float = 0.0
    """GPUs of a task, all used, with several runs on each."""

    def __post_init__(self) -> None:
        _check(self, "ray", {"cpus_per_task": 0, "gpus_per_task": 0})


@dataclass(frozen=True)
class How:
    """Where runs are trained; rows change the last digits of a result, all else nothing."""

    executor: Literal["local", "slurm", "ray"] = "local"
    """local: worker processes here. slurm: a job array. ray: tasks."""
    workers: int | None = None
    """Cores of a CPU, or accelerators, to train on; with slurm and ray tasks at most. Default: all
    there are, and 16 tasks of SLURM."""
    rows: int | None = None
    """Runs of one shape in one program on each of them. Default: as many as measure fastest on an
    accelerator, 1 on a CPU."""
    slurm: Slurm = field(default_factory=Slurm)
    """What tasks ask SLURM for."""
    ray: Ray = field(default_factory=Ray)
    """What tasks ask Ray for."""

    @property
    def n_side_by_side(self) -> int:
        """Workers or tasks at once, as far as that is known before they start."""
        here = 1 if has_accelerator() else n_cores()
        return self.workers or (N_TASKS if self.executor == "slurm" else here)


def execute(
    jobs: "Sequence[Job]",
    corpus: "TokenizedCorpus",
    workspace: "Workspace",
    *,
    how: How,
    console: "Console",
) -> int:
    """Train what has no record yet; returns how many runs that were.

    Raises: SpecError: `how` asks for what is not there.
    """
    check_how(how)
    if how.executor == "local":
        from experiments.executors import local

        return local.execute(
            jobs, corpus, workspace, n_workers=how.workers, n_rows=how.rows, console=console
        )
    if how.executor == "slurm":
        from experiments.executors.slurm import execute_on_slurm

        return execute_on_slurm(jobs, corpus, workspace, how=how, console=console)
    from experiments.executors.ray import execute_on_ray

    return execute_on_ray(jobs, corpus, workspace, how=how, console=console)


def check_how(how: How) -> None:
    """Raises: SpecError: no worker or row, or here more workers than cores."""
    _check(how, "", {"workers": 1, "rows": 1})
    if how.executor == "local":
        from experiments.executors.local import check_workers

        check_workers(how.workers)


def _check(values: object, prefix: str, at_least: dict[str, int]) -> None:
    for name, least in at_least.items():
        value = getattr(values, name)
        if value is not None and value < least:
            where = f"{prefix}.{name}" if prefix else name
            raise SpecError(f"{where}={value} must be at least {least}, or be left out")
