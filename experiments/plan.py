"""A plan: every run of a study, exactly, before a step is taken."""

import functools
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from experiments.branches import make_jobs
from experiments.workspace import SweepFolder, read_json
from model.accounting import FLOPS_CONVENTIONS, FlopsConvention, train_flops
from train.config import RunSpec, SpecError, canonical_json, from_json, to_json, without_added
from train.jobs import Job

Role = Literal["grid", "seed", "held_out", "trunk"]
"""A trunk is trained for the states that it leaves to other runs and is no point of any law."""

BUDGET_TOLERANCE = 0.01
BUDGET_CONVENTION: FlopsConvention = "matmul_full"
"""Of budgets that do not say: a plan written before it could be chosen has the same hash."""


@dataclass(frozen=True)
class Cell:
    """One run of a plan and its part in it.

    Args:
        isoflop_budget: FLOPs that the run shares with the others of its isoFLOP curve.
        isoflop_convention: what these FLOPs count (model.accounting).
    """

    spec: RunSpec
    role: Role
    isoflop_budget: float | None = None
    isoflop_convention: FlopsConvention = BUDGET_CONVENTION

    @property
    def budget_error(self) -> float | None:
        """By which share the run spends more than its budget: D is a whole number of steps."""
        if self.isoflop_budget is None:
            return None
        spent = train_flops(self.spec.model, self.spec.n_tokens, self.isoflop_convention)
        return spent / self.isoflop_budget - 1


@dataclass(frozen=True)
class Plan:
    """A study's runs in order, with the options they came from. Its hash is its identity."""

    name: str
    experiment: str
    options: dict[str, Any]
    overrides: dict[str, Any]
    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        counts = Counter(cell.spec.run_id for cell in self.cells)
        twice = sorted(run_id for run_id, count in counts.items() if count > 1)
        if twice:
            raise SpecError(f"plan {self.name} holds the same run twice: {twice}; remove one")
        for cell in self.cells:
            self._check_budget(cell)
        budgeted = [c for c in self.cells if c.isoflop_budget is not None]
        conventions = sorted({cell.isoflop_convention for cell in budgeted})
        if len(conventions) > 1:
            raise SpecError(
                f"plan {self.name}: isoflop_convention={' and '.join(conventions)}; equal budgets "
                "of two conventions are no isoFLOP curve: use one of them, or two plans"
            )

    def _check_budget(self, cell: Cell) -> None:
        error = cell.budget_error
        if error is not None and abs(error) > BUDGET_TOLERANCE:
            raise SpecError(
                f"plan {self.name}: run {cell.spec.run_id} is {error:+.1%} off its budget of "
                f"{cell.isoflop_budget:.3g} FLOPs (at most {BUDGET_TOLERANCE:.0%}); "
                "use a smaller batch_size or a larger budget"
            )

    @property
    def hash(self) -> str:
        """16 hex digits over experiment and cells; name and options are labels.

        Spec fields that came later are left out at the value that means what was done before, so
        that a plan keeps its hash when there are new ones.
        """
        cells = [_cell_json(c) for c in self.cells]
        lasting = [{**c, "spec": without_added(c["spec"])} for c in cells]
        return _hash(self.experiment, lasting)

    def of_role(self, *roles: Role) -> tuple[Cell, ...]:
        """Cells with one of these roles, in order."""
        return tuple(cell for cell in self.cells if cell.role in roles)

    @functools.cached_property
    def jobs(self) -> dict[str, Job]:
        """What to train, by run_id: every cell, a branch with its trunk, a trunk with its steps."""
        trunks = [cell.spec for cell in self.of_role("trunk")]
        others = [cell.spec for cell in self.cells if cell.role != "trunk"]
        return {job.spec.run_id: job for job in make_jobs(trunks, others)}

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values, with the run_id of every cell beside its spec."""
        return {
            "name": self.name,
            "experiment": self.experiment,
            "hash": self.hash,
            "options": self.options,
            "overrides": self.overrides,
            "cells": [{"run_id": c.spec.run_id, **_cell_json(c)} for c in self.cells],
        }


def frozen_plan(folder: SweepFolder) -> Plan:
    """The plan of a sweep.

    Raises: SpecError: there is none, or it is damaged or was edited.
    """
    if not folder.plan.exists():
        raise SpecError(f"sweep {folder.path.name} has no plan; run it first")
    values = read_json(folder.plan)
    try:
        return plan_from_json(values)
    except SpecError as error:
        raise SpecError(
            f"{folder.plan}: {error}; move {folder.path} away and run again, finished runs are kept"
        ) from error


def plan_from_json(values: dict[str, Any]) -> Plan:
    """Rebuild a plan from to_json's values.

    Raises: SpecError: a field is wrong, or the content does not give the hash written in it.
    """
    try:
        cells = tuple(
            Cell(
                from_json(RunSpec, c["spec"]), c["role"], c["isoflop_budget"],
                _convention(c.get("isoflop_convention", BUDGET_CONVENTION)),
            )
            for c in values["cells"]
        )  # fmt: skip
        labels = {key: values[key] for key in ("name", "experiment", "options", "overrides")}
        plan, written = Plan(**labels, cells=cells), values["hash"]
    except (KeyError, TypeError) as error:
        raise SpecError(
            f"the plan lacks or garbles {error}; plan again under another --name"
        ) from error
    as_written = [{k: v for k, v in c.items() if k != "run_id"} for c in values["cells"]]
    if written not in (plan.hash, _hash(plan.experiment, as_written)):
        raise SpecError(f"plan {plan.name} has hash {plan.hash} but says {written}; it was edited")
    return plan


def _hash(experiment: str, cells: list[dict[str, Any]]) -> str:
    identity = {"experiment": experiment, "cells": cells}
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:16]


def _cell_json(cell: Cell) -> dict[str, Any]:
    convention = cell.isoflop_convention
    return {
        "role": cell.role,
        "isoflop_budget": cell.isoflop_budget,
        **({} if convention == BUDGET_CONVENTION else {"isoflop_convention": convention}),
        "spec": to_json(cell.spec),
    }


def _convention(name: str) -> FlopsConvention:
    if name not in FLOPS_CONVENTIONS:
        known = ", ".join(FLOPS_CONVENTIONS)
        raise SpecError(f"isoflop_convention={name!r} is unknown; use one of {known}")
    return name


def charged_flops(job: Job, convention: FlopsConvention = BUDGET_CONVENTION) -> int:
    """FLOPs that a run has to pay: without the steps that its trunk has taken."""
    n_tokens = job.n_steps_own * job.spec.batch_tokens
    return train_flops(job.spec.model, n_tokens, convention)
