"""A plan: every run of a study, exactly, before a step is taken."""

import hashlib
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model.accounting import FLOPS_CONVENTIONS, count_params, train_flops
from train.config import RunSpec, SpecError, canonical_json, from_json, to_json, without_added

Role = Literal["grid", "seed", "held_out"]

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
    """Rates from finished, uninterrupted runs; documented defaults when there are none."""
    rates: dict[tuple[int, int], list[float]] = {}
    compiles = []
    for row in rows:
        seconds = row["seconds"] - row["seconds_compile"]
        if row["status"] != "finished" or row["resumed_from_step"] or seconds <= 0:
            continue
        size = (row["n_layers"], row["d_model"])
        rates.setdefault(size, []).append(row["train_flops_matmul_full"] / seconds)
        compiles.append(row["seconds_compile"])
    if not rates:
        return Calibration(DEFAULT_FLOPS_PER_SECOND, {}, DEFAULT_COMPILE_SECONDS, False)
    by_size = {size: statistics.median(found) for size, found in rates.items()}
    overall = statistics.median(rate for found in rates.values() for rate in found)
    return Calibration(overall, by_size, statistics.median(compiles), True)


def estimate_seconds(spec: RunSpec, calibration: Calibration) -> float:
    """Seconds of training one run on one device, compilation left out."""
    size = (spec.model.n_layers, spec.model.d_model)
    rate = calibration.by_size.get(size, calibration.flops_per_second)
    return train_flops(spec.model, spec.n_tokens, "matmul_full") / rate


def estimate_total_seconds(
    cells: Sequence[Cell], calibration: Calibration, n_workers: int
) -> float:
    """Wall time of these runs: held-out ones wait for all others, which share the workers."""

    def stage(specs: Sequence[RunSpec]) -> float:
        seconds = [estimate_seconds(spec, calibration) for spec in specs]
        n_shapes = len({spec.compile_key for spec in specs})
        work = sum(seconds) + n_shapes * calibration.compile_seconds
        return max(work / n_workers, max(seconds, default=0.0))

    held_out = [cell.spec for cell in cells if cell.role == "held_out"]
    return stage([c.spec for c in cells if c.role != "held_out"]) + stage(held_out)


def plan_table(plan: Plan, calibration: Calibration) -> list[dict[str, Any]]:
    """One row a run: what it is, what it costs under every convention, how long it may take."""
    return [_plan_row(cell, calibration) for cell in plan.cells]


def _plan_row(cell: Cell, calibration: Calibration) -> dict[str, Any]:
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
        "seconds": estimate_seconds(spec, calibration),
    }
