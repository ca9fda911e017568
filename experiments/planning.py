"""What `plan` says of a plan before a step is taken: the table, totals, shapes, and estimates."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from experiments import config_diff, footprint, trimming
from experiments.chips import Slice, of_slice
from experiments.estimates import (
    Calibration,
    Estimate,
    calibrate,
    estimate,
    of_this_machine,
    probe,
)
from experiments.executors import How
from experiments.plan import Cell, Plan, charged_flops, frozen_plan
from experiments.workspace import SweepFolder, Workspace, write_json_once
from model.accounting import FLOPS_CONVENTIONS, count_params, train_flops
from train.config import SpecError
from train.data.batches import n_windows
from train.data.corpora import TokenizedCorpus
from train.jobs import Job
from train.records import read_sound_run, to_plain
from train.runtime import has_accelerator, n_cores

MAX_ROWS_READ = 300
"""Newest records that a calibration reads: of a workspace of 10,000 it must not wait."""


@dataclass(frozen=True)
class Limits:
    """What a plan may cost: `budget` as given (1e15, 2h), and whether to trim the plan to it."""

    budget: str | None = None
    trim: bool = False

    def __post_init__(self) -> None:
        if self.trim and self.budget is None:
            raise SpecError("trim without a budget; give one, such as --budget 1e13 or --budget 2h")


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Planned:
    """A plan with all that can be said before a step is taken."""

    plan: Plan
    dropped: tuple[Cell, ...]
    rows: tuple[dict[str, Any], ...]
    shapes: tuple[dict[str, Any], ...]
    totals: dict[str, Any]
    differences: tuple[config_diff.Difference, ...]
    calibration: Calibration
    seconds_left: float
    slice: Slice | None = None

    def to_json(self) -> dict[str, Any]:
        """Plan, table, shapes and totals as JSON values; seconds that are not known are null."""
        return to_plain(
            {
                **self.plan.to_json(),
                "table": list(self.rows),
                "shapes": list(self.shapes),
                "totals": self.totals,
                "differences": [d.sentence for d in self.differences],
                "dropped": [cell.spec.run_id for cell in self.dropped],
                "estimates_from": self.calibration.source,
                "seconds_left": self.seconds_left,
                "slice": None if self.slice is None else dataclasses.asdict(self.slice),
            }
        )


def calibration_of(workspace: Workspace, n_workers: int) -> Calibration:
    """From the newest records of this kind of machine; without any, from a probe of it.

    Workers beyond the cores are other machines': the probe starts none of them.
    """
    paths = sorted(workspace.runs.glob("*/run.json"), key=os.path.getmtime, reverse=True)
    ids = [path.parent.name for path in paths[:MAX_ROWS_READ]]
    rows = [row for run_id in ids if (row := read_sound_run(workspace.runs, run_id)) is not None]
    return calibrate(of_this_machine(rows), lambda: probe(min(n_workers, n_cores())))


def limited(
    plan: Plan, limits: Limits, calibration: Calibration, corpus: TokenizedCorpus,
    n_workers: int, workspace: Workspace,
) -> tuple[Plan, tuple[Cell, ...]]:  # fmt: skip
    """The plan within its limits, and what was dropped; one that was frozen stays as it is.

    Raises: SpecError: it does not fit, or the budget cannot be read.
    """
    if limits.budget is None:
        return plan, ()
    budget = trimming.parse_budget(limits.budget)
    n_validation = len(corpus.validation_tokens) - 1

    def wall_seconds(candidate: Plan) -> float:
        return estimate(candidate, calibration, n_workers, n_validation).wall_seconds

    if limits.trim:
        name = trimming.trimmed_name(plan, budget)
        # Its estimates may say another thing by now; a sweep that was begun keeps its runs.
        if (folder := workspace.sweep(name)).plan.exists():
            frozen = frozen_plan(folder)
            kept = {cell.spec.run_id for cell in frozen.cells if cell.role != "trunk"}
            if kept <= {cell.spec.run_id for cell in plan.cells}:
                return frozen, tuple(
                    c for c in plan.cells if c.role != "trunk" and c.spec.run_id not in kept
                )
    return trimming.within(plan, budget, wall_seconds, trim=limits.trim)


def planned(
    experiment: ModuleType, plan: Plan, corpus: TokenizedCorpus, workspace: Workspace,
    limits: Limits, *, n_workers: int | None, price_per_hour: float | None,
    topology: str | None = None,
) -> Planned:  # fmt: skip
    """Everything that `plan` prints and writes.

    Raises: SpecError: the plan does not fit its limits, or a run its corpus or the chips of a
        topology; a price below zero.
    """
    if price_per_hour is not None and not 0 <= price_per_hour < float("inf"):
        raise SpecError(f"price_per_hour={price_per_hour} must be finite, at least 0")
    n = How(workers=n_workers).n_side_by_side
    calibration = calibration_of(workspace, n)
    plan, dropped = limited(plan, limits, calibration, corpus, n, workspace)
    found = estimate(plan, calibration, n, len(corpus.validation_tokens) - 1)
    done = frozenset(i for i in plan.jobs if read_sound_run(workspace.runs, i) is not None)
    left = estimate(plan, calibration, n, len(corpus.validation_tokens) - 1, done).wall_seconds
    rows = plan_table(plan, found, corpus)
    on_slice = None
    if topology is not None:
        on_slice = of_slice([cell.spec for cell in plan.cells], topology, price_per_hour)
    return Planned(
        plan=plan,
        dropped=dropped,
        rows=rows,
        shapes=shape_buckets(plan, found),
        totals=totals(plan, rows, found, n, None if on_slice else price_per_hour),
        differences=config_diff.differences(plan, getattr(experiment, "VARIES", ())),
        calibration=calibration,
        seconds_left=left if len(done) < len(plan.cells) else 0.0,
        slice=on_slice,
    )


def plan_table(plan: Plan, found: Estimate, corpus: TokenizedCorpus) -> tuple[dict[str, Any], ...]:
    """One row a run: what it is, what it costs under every convention, what it takes here.

    Raises: SpecError: a run asks for more unique tokens than the corpus has.
    """
    shapes = {key: k for k, key in enumerate(_by_shape(plan))}
    return tuple(
        {
            **_run_row(cell, plan.jobs[cell.spec.run_id], corpus),
            "seconds": found.seconds[cell.spec.run_id],
            "shape": shapes[cell.spec.compile_key],
        }
        for cell in plan.cells
    )


def _run_row(cell: Cell, job: Job, corpus: TokenizedCorpus) -> dict[str, Any]:
    spec, counts = cell.spec, count_params(cell.spec.model)
    available = _unique_tokens(cell, corpus)
    platform = "gpu" if has_accelerator() else "cpu"
    return {
        "run_id": spec.run_id,
        "role": cell.role,
        "isoflop_budget": cell.isoflop_budget,
        "isoflop_convention": cell.isoflop_convention if cell.isoflop_budget else None,
        "budget_error": cell.budget_error,
        "n_layers": spec.model.n_layers,
        "d_model": spec.model.d_model,
        "n_params_embedding": counts.embedding,
        "n_params_non_embedding": counts.non_embedding,
        "n_params_norm": counts.norm,
        "n_params_head": counts.head,
        "n_params_total": counts.total,
        "n_tokens": spec.n_tokens,
        "n_tokens_unique": min(spec.n_tokens, available),
        "n_epochs": spec.n_tokens / available,
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
        "memory_bytes": footprint.device_bytes(spec, platform),
        "disk_bytes": footprint.disk_bytes(spec),
        "checkpoint_bytes": footprint.checkpoint_bytes(spec),
    }


def _unique_tokens(cell: Cell, corpus: TokenizedCorpus) -> int:
    """Distinct tokens that a run may see: whole windows."""
    spec = cell.spec
    total = n_windows(len(corpus.train_tokens), spec.model.seq_len)
    wanted = spec.data.n_tokens_unique
    unique = total if wanted is None else wanted // spec.model.seq_len
    if not 0 < unique <= total:
        raise SpecError(
            f"data.n_tokens_unique={wanted} of run {spec.run_id}: {corpus.name} has "
            f"{total * spec.model.seq_len:,} tokens in windows of {spec.model.seq_len}; use fewer"
        )
    return unique * spec.model.seq_len


def _by_shape(plan: Plan) -> dict[Any, list[Cell]]:
    found: dict[Any, list[Cell]] = {}
    for cell in plan.cells:
        found.setdefault(cell.spec.compile_key, []).append(cell)
    return found


def shape_buckets(plan: Plan, found: Estimate) -> tuple[dict[str, Any], ...]:
    """The runs by what they compile to: one executable a row, the worker's unit of work."""
    return tuple(
        {
            "shape": k,
            "n_layers": cells[0].spec.model.n_layers,
            "d_model": cells[0].spec.model.d_model,
            "batch_size": cells[0].spec.batch_size,
            "seq_len": cells[0].spec.model.seq_len,
            "optimizer": cells[0].spec.optimizer.kind,
            "n_runs": len(cells),
            "seconds": sum(found.seconds[cell.spec.run_id] for cell in cells),
        }
        for k, cells in enumerate(_by_shape(plan).values())
    )


def totals(
    plan: Plan, rows: Sequence[dict[str, Any]], found: Estimate, n_workers: int,
    price_per_hour: float | None,
) -> dict[str, Any]:  # fmt: skip
    """Sums over a plan: FLOPs, tokens, hours, bytes, and money at a price an hour of the machine.

    Disk is what is left of finished runs, and beside it the states of a worker each under way and
    of all branch points at once.
    """
    hours = found.wall_seconds / 3600
    largest = sorted((row["checkpoint_bytes"] for row in rows), reverse=True)[:n_workers]
    points = sum(
        len(plan.jobs[row["run_id"]].branch_steps) * row["checkpoint_bytes"] for row in rows
    )
    return {
        "n_runs": len(rows),
        "n_tokens": sum(row["n_tokens"] for row in rows),
        "train_flops_charged": sum(row["train_flops_charged"] for row in rows),
        "train_flops_standalone": sum(
            row["train_flops_standalone"] for row in rows if row["role"] != "trunk"
        ),
        "n_workers": n_workers,
        "worker_hours": sum(found.seconds.values()) / 3600,
        "hours": hours,
        "price": None if price_per_hour is None else hours * price_per_hour,
        "memory_bytes_largest": max(row["memory_bytes"] for row in rows),
        "disk_bytes": sum(row["disk_bytes"] for row in rows),
        "disk_bytes_under_way": sum(largest) + points,
    }


def write_estimates(
    plan: Plan, found: Estimate, calibration: Calibration, n_workers: int, folder: SweepFolder
) -> None:
    """Beside the plan, once: seconds of every run as they were estimated before the first step."""
    values = {
        "plan_hash": plan.hash,
        "n_workers": n_workers,
        "source": calibration.source,
        "total_seconds": found.wall_seconds,
        "seconds": dict(found.seconds),
    }
    write_json_once(folder.estimates, to_plain(values))
