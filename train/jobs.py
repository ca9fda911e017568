"""What an executor hands out and hears back: jobs, the queue that they wait in, progress.

Nothing here belongs to a run's identity: a job trained from a trunk ends in the bits of its spec
trained alone. No jax in this module.
"""

import bisect
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.accounting import train_flops
from train.config import RunSpec, SpecError, from_json, to_json
from train.schedule import learning_rates

Shape = tuple[Any, ...]
"""A spec's compile_key."""


@dataclass(frozen=True)
class Progress:
    """Where a run is: steps done, of how many, the last logged training loss (nats/token)."""

    run_id: str
    step: int
    n_steps: int
    loss_nats: float


@dataclass(frozen=True)
class Job:
    """One run to train. `branch_steps`: after which steps its state is kept for other runs;
    `trunk`: the run whose kept state this one may begin from; `retry_of`: run_id of the diverged
    run that this one repeats at a lower learning rate, for its record.
    """

    spec: RunSpec
    branch_steps: tuple[int, ...] = ()
    trunk: RunSpec | None = None
    retry_of: str | None = None

    def __post_init__(self) -> None:
        steps, n_steps = self.branch_steps, self.spec.n_steps
        if list(steps) != sorted(set(steps)) or not all(0 < s <= n_steps for s in steps):
            raise SpecError(
                f"branch_steps={steps} of run {self.spec.run_id} must rise within 1 to {n_steps}"
            )

    @property
    def n_steps_own(self) -> int:
        """Optimizer steps that are left to take if the trunk's state is there."""
        shared = 0 if self.trunk is None else shared_steps(self.trunk, self.spec)
        return self.spec.n_steps - shared

    @property
    def is_linked(self) -> bool:
        """Whether it hands a state on, or takes one over, which both must have computed alike.

        Such jobs have a program of their own: in how many rows changes the last bits.
        """
        return bool(self.branch_steps) or self.trunk is not None

    def to_json(self) -> dict[str, Any]:
        """The job as JSON values."""
        return {
            "spec": to_json(self.spec),
            "branch_steps": list(self.branch_steps),
            "trunk": None if self.trunk is None else to_json(self.trunk),
            "retry_of": self.retry_of,
        }


def job_from_json(values: dict[str, Any]) -> Job:
    """Rebuild a job from its to_json's values.

    Raises: SpecError: a field is wrong.
    """
    trunk = values["trunk"]
    return Job(
        from_json(RunSpec, values["spec"]),
        tuple(values["branch_steps"]),
        None if trunk is None else from_json(RunSpec, trunk, "trunk"),
        values["retry_of"],
    )


def shared_steps(trunk: RunSpec, branch: RunSpec) -> int:
    """First steps in which two runs do the same: all of them up to a difference in learning rate.

    0 unless the specs are equal in everything but budget and schedule, and for runs that may stop
    early, whose looks are not shared. Batches, averaging rates and
    all other inputs of a step depend on the step alone and not on how long the run will be.
    """
    # The models first: in a plan most pairs differ there, and an identity costs more to form.
    if trunk.early_stopping is not None:
        return 0
    if trunk.model != branch.model or _besides_schedule(trunk) != _besides_schedule(branch):
        return 0
    steps = np.arange(min(trunk.n_steps, branch.n_steps))
    differs = learning_rates(trunk, steps) != learning_rates(branch, steps)
    return int(np.argmax(differs)) if differs.any() else len(steps)


def _besides_schedule(spec: RunSpec) -> dict[str, Any]:
    return {k: v for k, v in spec.identity().items() if k not in ("budget", "schedule")}


class JobQueue:
    """Jobs to hand out: whole shapes at first, so each compiles once; the largest work first.

    An open queue may yet get jobs, and can be waited at; `close` ends the waits.
    """

    def __init__(self, jobs: Iterable[Job] = (), *, is_open: bool = False):
        self._changed = threading.Condition()
        self._is_open = is_open
        self._by_shape: dict[Shape, list[Job]] = {}
        self._claimed: set[Shape] = set()
        self.put(*jobs)

    def put(self, *jobs: Job) -> None:
        """Add jobs, all at once for whoever waits."""
        with self._changed:
            for job in jobs:
                same = self._by_shape.setdefault(job.spec.compile_key, [])
                bisect.insort(same, job, key=n_flops_own)
            self._changed.notify_all()

    def take(self, shape: Shape | None, *, wait: bool = False) -> Job | None:
        """The largest job left of the worker's shape, else of the largest unclaimed, else any.

        None: nothing is left; with `wait`, and the queue is closed.
        """
        with self._changed:
            while not (left := {s: jobs for s, jobs in self._by_shape.items() if jobs}):
                if not (wait and self._is_open):
                    return None
                self._changed.wait()
            if shape not in left:
                unclaimed = {s: jobs for s, jobs in left.items() if s not in self._claimed}
                candidates = unclaimed or left
                shape = max(candidates, key=lambda s: sum(map(n_flops_own, candidates[s])))
                self._claimed.add(shape)
            return left[shape].pop()

    def take_more(self, shape: Shape, n_max: int) -> list[Job]:
        """Up to n_max jobs to be rows of this shape's program, the largest first; no waiting."""
        with self._changed:
            found = self._rows_of(shape)[-n_max:][::-1] if n_max > 0 else []
            for job in found:
                self._by_shape[shape].remove(job)
            return found

    def n_left(self) -> int:
        """How many jobs wait."""
        with self._changed:
            return sum(map(len, self._by_shape.values()))

    def n_more(self, shape: Shape) -> int:
        """How many jobs `take_more` could give."""
        with self._changed:
            return len(self._rows_of(shape))

    def _rows_of(self, shape: Shape) -> list[Job]:
        return [job for job in self._by_shape.get(shape, []) if not job.is_linked]

    def close(self) -> None:
        """No more jobs will come."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()


def n_flops_own(job: Job) -> int:
    """FLOPs (matmul_full) of the steps that a job has to take itself."""
    n_tokens = job.n_steps_own * job.spec.batch_tokens
    return train_flops(job.spec.model, n_tokens, "matmul_full")
