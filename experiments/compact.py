"""Turn the records of a plan's runs into tables of runs, curves and evaluations (Parquet)."""

import uuid
from pathlib import Path

from experiments.plan import Plan
from experiments.workspace import SweepFolder
from train.records import (
    CURVE_COLUMNS,
    EVALUATION_COLUMNS,
    RUN_COLUMNS,
    committed_attempt,
    naming,
    read_evaluations,
    read_points,
    read_run,
)

_PART_COLUMNS = ("role", "isoflop_budget", "trunk_run_id")


def compact(plan: Plan, store: Path, folder: SweepFolder) -> int:
    """Write runs, curves and evaluations.parquet from a plan's committed runs, in plan order.

    Columns are those of train.records, with the run's `role`, `isoflop_budget` (FLOPs, NaN if none)
    and `trunk_run_id` (of the trunk that it branches off, even if it was trained alone) in this
    plan. Losses by position are list columns.

    Returns: the number of committed runs.
    """
    import pandas as pd

    rows, points, evaluations = [], [], []
    for cell in plan.cells:
        row = read_run(store, cell.spec.run_id)
        if row is None:
            continue
        trunk = plan.jobs[cell.spec.run_id].trunk
        part = {
            "role": cell.role,
            "isoflop_budget": cell.isoflop_budget,
            "trunk_run_id": None if trunk is None else trunk.run_id,
        }
        rows.append({**row, **part})
        attempt = committed_attempt(store, row)
        points += read_points(attempt)
        evaluations += read_evaluations(attempt)
    runs = pd.DataFrame(rows, columns=[*RUN_COLUMNS, *_PART_COLUMNS])
    runs["isoflop_budget"] = runs["isoflop_budget"].astype("float64")
    runs["loss_nats"] = runs["loss_nats"].astype("float64")
    _replace(runs, folder.runs_table)
    _replace(pd.DataFrame(points, columns=list(CURVE_COLUMNS)), folder.curves_table)
    columns = list(EVALUATION_COLUMNS)
    _replace(pd.DataFrame(evaluations, columns=columns), folder.evaluations_table)
    return len(rows)


def _replace(table, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with naming(path):
            table.to_parquet(temporary, index=False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
