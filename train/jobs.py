"""What an executor is handed: a spec, where its states are to be kept, where it may begin.

Nothing here belongs to a run's identity: a job trained from a trunk ends in the bits of its spec
trained alone. No jax in this module.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from train.config import RunSpec, SpecError, from_json, to_json
from train.schedule import learning_rates


@dataclass(frozen=True)
class Job:
    """One run to train. `branch_steps`: after which steps its state is kept for other runs;
    `trunk`: the run whose kept state this one may begin from.
    """

    spec: RunSpec
    branch_steps: tuple[int, ...] = ()
    trunk: RunSpec | None = None

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

    def to_json(self) -> dict[str, Any]:
        """The job as JSON values."""
        return {
            "spec": to_json(self.spec),
            "branch_steps": list(self.branch_steps),
            "trunk": None if self.trunk is None else to_json(self.trunk),
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
