"""Train the missing runs of a plan by Ray tasks, on this machine or a cluster.

Each task takes what is left of the queue (experiments.executors.task). A task whose worker or node
dies is started again by the launcher (experiments.executors.watching), and not by Ray, which could
not tell a run that kills its workers from bad luck.
"""

import contextlib
import importlib.util
import itertools
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.executors import How
from experiments.executors import Ray as Asked
from experiments.executors.task import Task, python_path
from experiments.executors.watching import Ended, train_on
from experiments.workspace import Workspace
from train.config import SpecError
from train.data.corpora import TokenizedCorpus
from train.jobs import Job
from train.runtime import n_cores

PATIENCE_S = 60.0
"""A task that takes longer to leave its checkpoints, or to end, is killed."""


def execute_on_ray(
    jobs: Sequence[Job],
    corpus: TokenizedCorpus,
    workspace: Workspace,
    *,
    how: How,
    console: Console,
) -> int:
    """Train what has no record yet in at most how.workers tasks; returns how many runs that were.

    Raises: SpecError: no Ray, no cluster at the address, or one without room for a task. And as
        watching.train_on.
    """

    @contextlib.contextmanager
    def cluster(folder: Path, n_runs: int) -> Iterator[Tasks]:
        if importlib.util.find_spec("ray") is None:
            raise SpecError("--executor ray needs Ray; install it: pip install -e .[ray]")
        ray = importlib.import_module("ray")
        _connect(how.ray.address)
        try:
            room = _room(how.ray)
            logs = workspace.root.absolute() / "logs" / "ray"
            yield Tasks(folder, logs, min(how.workers or room, room, n_runs), how.ray)
        finally:
            ray.shutdown()

    return train_on(cluster, jobs, corpus, workspace, how.rows, console)


class Tasks:
    """The tasks of one queue in Ray: a watching.Cluster."""

    def __init__(self, folder: Path, logs: Path, n_tasks: int, asked: Asked):
        ray = importlib.import_module("ray")  # not of every installation
        self._ray, self._folder, self._logs, self.n_tasks = ray, folder, logs, n_tasks
        # A process serves one task, so that each configures jax anew.
        self._remote = ray.remote(
            max_calls=1, max_retries=0,
            num_cpus=asked.cpus_per_task, num_gpus=asked.gpus_per_task,
            runtime_env={"env_vars": {"PYTHONPATH": python_path()}},
        )(train_share)  # fmt: skip
        self._numbers = itertools.count()
        self._live: dict[Any, tuple[str, int]] = {}
        self._ended: list[Ended] = []

    def start(self, shares: Sequence[int]) -> None:
        """Queue a task for each share."""
        for share in shares:
            name = f"{os.getpid()}-{next(self._numbers)}"
            ref = self._remote.remote(
                str(self._folder), share, self.n_tasks, name, str(self._log(name))
            )
            self._live[ref] = (name, share)

    def live(self) -> set[int]:
        """Shares whose task Ray has not ended."""
        for ref in self._ended_within(0):
            name, share = self._live.pop(ref)
            self._ended.append(Ended(name, share, self._why(ref), str(self._log(name))))
        return {share for _, share in self._live.values()}

    def ended(self) -> list[Ended]:
        """Tasks that Ray has ended."""
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        """Interrupt all tasks; one that does not end in time is killed."""
        for is_forced in (False, True):
            for ref in self._live:
                self._ray.cancel(ref, force=is_forced)
            since = time.monotonic()
            while self._live and time.monotonic() - since < PATIENCE_S:
                self._ended_within(1)
                self.live()

    def close(self) -> None:
        """Wait for tasks to find that nothing is left; what they leave behind is tidy then."""
        self._ended_within(PATIENCE_S)

    def _ended_within(self, seconds: float) -> list[Any]:
        if not self._live:
            return []
        return self._ray.wait([*self._live], num_returns=len(self._live), timeout=seconds)[0]

    def _why(self, ref: Any) -> str | None:
        """How a task ended; None if by itself."""
        try:
            self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            return plain(str(error))
        return None

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"


def train_share(folder: str, share: int, n_shares: int, name: str, log: str) -> int:
    """A task, in a worker process of Ray's; what it prints goes to its log."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    return Task(folder, share, n_shares, name)()


def plain(text: str) -> str:
    """What Ray says, on one line, without its colours."""
    return " ".join(re.sub(r"\x1b\[\d*m", "", text).split())[:500]


def _connect(address: str | None) -> None:
    ray = importlib.import_module("ray")
    try:
        if address is not None and ":" in address:
            _knock(address)  # Ray itself would try for many minutes
        if address is None:
            ray.init(
                address="local", num_cpus=n_cores(), include_dashboard=False,
                log_to_driver=False, logging_level="error",
            )  # fmt: skip
        else:
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, ValueError, RuntimeError) as error:
        raise SpecError(f"--ray.address={address}: {plain(str(error))}") from error


def _knock(address: str) -> None:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()


def _room(asked: Asked) -> int:
    """Tasks that the cluster can run at once, by what it has and not by what is free now.

    Raises: SpecError: not one.
    """
    there = importlib.import_module("ray").cluster_resources()
    needed = {"CPU": asked.cpus_per_task, "GPU": asked.gpus_per_task}
    room = min(int(there.get(kind, 0) // n) for kind, n in needed.items() if n)
    if room < 1:
        has = ", ".join(f"{there.get(kind, 0):g} {kind}" for kind in needed)
        raise SpecError(
            f"a Ray task asks for {asked.cpus_per_task:g} CPU and {asked.gpus_per_task:g} GPU, "
            f"the cluster has {has}; lower --ray.cpus-per-task or --ray.gpus-per-task"
        )
    return room
