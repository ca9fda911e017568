"""The runs of a sweep as plain rows, read without building 10,000 specs.

`cells.parquet` is written beside a plan as it is frozen and says of each run what status and tables
need of it. It is a copy: where it is missing or damaged, the plan is read instead. Runs that a
sweep adds to its plan while it runs are those that the experiment asks for (ending.extended) and
repeats of diverged ones (experiments.diverged).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from experiments import diverged
from experiments.plan import Plan, frozen_plan
from experiments.workspace import SweepFolder
from model.accounting import count_params
from train.config import RunSpec, SpecError
from train.jobs import Job, n_flops_own

_TEXT = ("run_id", "role", "trunk_run_id", "retry_of")
_REAL = ("isoflop_budget", "train_flops_charged")


@dataclass(frozen=True)
class CellRow:
    """A run of a sweep; `n_steps_own` without those that a trunk takes for it, as are the FLOPs
    (matmul_full). `retry_of`: the diverged run that it repeats.
    """

    run_id: str
    role: str
    isoflop_budget: float | None
    trunk_run_id: str | None
    retry_of: str | None
    n_layers: int
    d_model: int
    n_params_total: int
    n_tokens: int
    n_steps: int
    n_steps_own: int
    train_flops_charged: float


@dataclass(frozen=True)
class SweepCells:
    """All runs of a sweep, and which plan of which experiment they come from."""

    name: str
    experiment: str
    plan_hash: str
    cells: tuple[CellRow, ...]


def cell_rows(plan: Plan, parents: Mapping[str, str] = {}) -> tuple[CellRow, ...]:
    """The cells of a plan in order. `parents`: the diverged run that each repeat is of."""
    jobs = plan.jobs
    ids = [cell.spec.run_id for cell in plan.cells]
    return tuple(
        _row(cell.spec, cell.role, cell.isoflop_budget, jobs[run_id], parents.get(run_id))
        for run_id, cell in zip(ids, plan.cells, strict=True)
    )


def _row(
    spec: RunSpec, role: str, isoflop_budget: float | None, job: Job, retry_of: str | None
) -> CellRow:
    return CellRow(
        spec.run_id,
        role,
        isoflop_budget,
        None if job.trunk is None else job.trunk.run_id,
        retry_of,
        spec.model.n_layers,
        spec.model.d_model,
        count_params(spec.model).total,
        spec.n_tokens,
        spec.n_steps,
        job.n_steps_own,
        float(n_flops_own(job)),
    )


def complete(plan: Plan, folder: SweepFolder, store: Path) -> Plan:
    """The plan with every run that the sweep has added to it so far."""
    from experiments import ending

    experiment = ending.of_plan(plan)
    if experiment is not None:
        plan = ending.extended(experiment, plan, store)
    return diverged.with_retries(plan, folder)


def all_cells(plan: Plan, folder: SweepFolder, store: Path) -> tuple[CellRow, ...]:
    """Rows of the complete plan."""
    return cell_rows(complete(plan, folder, store), diverged.parents(folder))


def read_cells(folder: SweepFolder, store: Path) -> SweepCells:
    """Every run of a sweep as it stands.

    Raises: SpecError: the sweep has no plan, or a damaged one.
    """
    if not folder.plan.exists():
        raise SpecError(f"sweep {folder.path.name} has no plan; run it first")
    kept = _kept(folder)
    if kept is None or _grows(kept.experiment):
        plan = frozen_plan(folder)
        cells = all_cells(plan, folder, store)
        return SweepCells(plan.name, plan.experiment, plan.hash, cells)
    if folder.retries.exists():
        rows = {cell.run_id: cell for cell in kept.cells}
        for parent, spec in diverged.repeats(tuple(rows), folder):
            like = rows[parent]
            rows[spec.run_id] = _row(spec, like.role, like.isoflop_budget, Job(spec), parent)
        return replace(kept, cells=tuple(rows.values()))
    return kept


def write_cells(plan: Plan, folder: SweepFolder) -> None:
    """Keep the rows of a frozen plan beside it."""
    import pyarrow as pa

    from experiments.parquet import write_table

    about = {"name": plan.name, "experiment": plan.experiment, "plan_hash": plan.hash}
    columns = _columns(cell_rows(plan))
    schema = pa.schema([(name, _type(name)) for name in columns])
    table = pa.table(columns, schema=schema).replace_schema_metadata({"plan": json.dumps(about)})
    write_table(table, folder.cells_table)


def _kept(folder: SweepFolder) -> SweepCells | None:
    from experiments.parquet import read_table

    table = read_table(folder.cells_table)
    names = [field.name for field in fields(CellRow)]
    if table is None or table.column_names != names or b"plan" not in (table.schema.metadata or {}):
        return None
    about = json.loads(table.schema.metadata[b"plan"])
    rows = zip(*(table.column(name).to_pylist() for name in names), strict=True)
    return SweepCells(**about, cells=tuple(CellRow(*row) for row in rows))


def _grows(experiment: str) -> bool:
    from experiments.catalog import EXPERIMENTS

    return hasattr(EXPERIMENTS.get(experiment), "extend")


def _columns(rows: Iterable[CellRow]) -> dict[str, list[Any]]:
    values = [asdict(row) for row in rows]
    return {field.name: [row[field.name] for row in values] for field in fields(CellRow)}


def _type(name: str) -> Any:
    import pyarrow as pa

    if name in _TEXT:
        return pa.string()
    return pa.float64() if name in _REAL else pa.int64()
