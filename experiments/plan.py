"""A plan: every run of a study, exactly, before a step is taken."""

import functools
import hashlib
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from experiments.branches import make_jobs, waves
from model.accounting import FLOPS_CONVENTIONS, count_params, train_flops
from train.config import RunSpec, SpecError, canonical_json, from_json, to_json, without_added
from train.jobs import Job

Role = Literal["grid", "seed", "held_out", "trunk"]
"""A trunk is trained for the states that it leaves to other runs and is no point of any law."""

DEFAULT_FLOPS_PER_SECOND = 1.5e10
"""Of one CPU core on models of this size (measured on two kinds of core: 1.0e10 to 2.3e10)."""

DEFAULT_COMPILE_SECONDS = 6.0
BUDGET_TOLERANCE = 0.01


@dataclass(frozen=True)
class Cell:
    """One run of a plan and its part in it; `isoflop_budget` in FLOPs, convention matmul_full."""

    spec: RunSpec
    role: Role
    isoflop_budget: float | None = None


@dataclass(frozen=True)
class Plan:
    """A study's runs in order, with the options they came from. Its hash is its identity."""

    name: str
    experiment: str
    options: dict[str, Any]
    overrides: dict[str, Any]
    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        ids = [cell.spec.run_id for cell in self.cells]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise SpecError(f"plan {self.name} holds the same run twice: {twice}; remove one")
        for cell in self.cells:
            self._check_budget(cell)

    def _check_budget(self, cell: Cell) -> None:
        if cell.isoflop_budget is None:
            return
        spent = train_flops(cell.spec.model, cell.spec.n_tokens, "matmul_full")
        error = abs(spent / cell.isoflop_budget - 1)
        if error > BUDGET_TOLERANCE:
            raise SpecError(
                f"plan {self.name}: run {cell.spec.run_id} is {error:.1%} off its budget of "
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


def plan_from_json(values: dict[str, Any]) -> Plan:
    """Rebuild a plan from to_json's values.

    Raises: SpecError: a field is wrong, or the content does not give the hash written in it.
    """
    try:
        cells = tuple(
            Cell(from_json(RunSpec, c["spec"]), c["role"], c["isoflop_budget"])
            for c in values["cells"]
        )
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
    values = to_json(cell.spec)
    return {"role": cell.role, "isoflop_budget": cell.isoflop_budget, "spec": values}


@dataclass(frozen=True)
class Calibration:
    """What a device does: FLOP/s (matmul_full) by model size and in the median, compile seconds."""

    flops_per_second: float
    by_size: dict[tuple[int, int], float]
    compile_seconds: float
    is_measured: bool


def calibrate(rows: Iterable[dict[str, Any]]) -> Calibration:
    """Rates from finished runs that took all their steps in one go; defaults if there are none."""
    rates: dict[tuple[int, int], list[float]] = {}
    compiles = []
    for row in rows:
        seconds = row["seconds"] - row["seconds_compile"]
        is_whole = not row["resumed_from_step"] and not row["parent_step"]
        if row["status"] != "finished" or not is_whole or seconds <= 0:
            continue
        size = (row["n_layers"], row["d_model"])
        rates.setdefault(size, []).append(row["train_flops_matmul_full"] / seconds)
        compiles.append(row["seconds_compile"])
    if not rates:
        return Calibration(DEFAULT_FLOPS_PER_SECOND, {}, DEFAULT_COMPILE_SECONDS, False)
    by_size = {size: statistics.median(found) for size, found in rates.items()}
    overall = statistics.median(rate for found in rates.values() for rate in found)
    return Calibration(overall, by_size, statistics.median(compiles), True)


def charged_flops(job: Job) -> int:
    """FLOPs (matmul_full) that a run has to pay: without the steps that its trunk has taken."""
    n_tokens = job.n_steps_own * job.spec.batch_tokens
    return train_flops(job.spec.model, n_tokens, "matmul_full")


def estimate_seconds(job: Job, calibration: Calibration) -> float:
    """Seconds of training one run on one device, compilation left out."""
    size = (job.spec.model.n_layers, job.spec.model.d_model)
    rate = calibration.by_size.get(size, calibration.flops_per_second)
    return charged_flops(job) / rate


def estimate_total_seconds(
    plan: Plan, cells: Sequence[Cell], calibration: Calibration, n_workers: int
) -> float:
    """Wall time of these cells of a plan, which share the workers.

    Branches wait for all trunks, held-out runs for all others.
    """

    def stage(jobs: Sequence[Job]) -> float:
        seconds = [estimate_seconds(job, calibration) for job in jobs]
        n_shapes = len({job.spec.compile_key for job in jobs})
        work = sum(seconds) + n_shapes * calibration.compile_seconds
        return max(work / n_workers, max(seconds, default=0.0))

    held_out = [plan.jobs[c.spec.run_id] for c in cells if c.role == "held_out"]
    others = [plan.jobs[c.spec.run_id] for c in cells if c.role != "held_out"]
    return sum(map(stage, waves(others))) + stage(held_out)


def plan_table(plan: Plan, calibration: Calibration) -> list[dict[str, Any]]:
    """One row a run: what it is, what it costs under every convention, how long it may take."""
    return [_plan_row(cell, plan.jobs[cell.spec.run_id], calibration) for cell in plan.cells]


def _plan_row(cell: Cell, job: Job, calibration: Calibration) -> dict[str, Any]:
    spec, counts = cell.spec, count_params(cell.spec.model)
    return {
        "run_id": spec.run_id,
        "role": cell.role,
        "isoflop_budget": cell.isoflop_budget,
        "n_layers": spec.model.n_layers,
        "d_model": spec.model.d_model,
        "n_params_embedding": counts.embedding,
        "n_params_non_embedding": counts.non_embedding,
        "n_params_norm": counts.norm,
        "n_params_head": counts.head,
        "n_params_total": counts.total,
        "n_tokens": spec.n_tokens,
        "n_steps": spec.n_steps,
        "batch_tokens": spec.batch_tokens,
        "lr": spec.optimizer.lr,
        "seed": spec.seed_init,
        **{
            f"train_flops_{convention}": train_flops(spec.model, spec.n_tokens, convention)
            for convention in FLOPS_CONVENTIONS
        },
        "train_flops_standalone": train_flops(spec.model, spec.n_tokens, "matmul_full"),
        "train_flops_charged": charged_flops(job),
        "seconds": estimate_seconds(job, calibration),
    }
