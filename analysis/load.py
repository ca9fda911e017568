"""Records or any CSV in, a tidy table of points out; every row left out is listed with its reason.

Conventions are arguments here and nowhere later: a `Points` table carries one meaning of N and one
of C, and every fit of it repeats both.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from analysis.table.csv_table import ColumnSource, CsvTable, read_csv
from analysis.table.flags import row_flags
from analysis.table.points import (
    NUMBERS,
    CConvention,
    NConvention,
    Points,
    drop_flagged,
    points_from_columns,
    select,
)
from train.columns import EVALUATION_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

RUN_N_CONVENTIONS = ("total", "non_embedding")
RUN_C_CONVENTIONS = ("matmul_full", "matmul_causal", "6n_total", "6n_non_embedding")

HELD_OUT_ROLE = "held_out"
TRUNK_ROLE = "trunk"
SAME_COMPUTE = 0.01  # relative spread of C within which rows of a CSV are one isoFLOP group
MIN_GROUP_SIZES = 3  # sizes that make a group: through fewer there is no parabola
GROUPED_SHARE = (
    0.25  # of rows: fewer in groups are chance meetings of a scatter, not isoFLOP curves
)

RUN_EXTRA = {  # further column -> column of a run's record
    "n_tokens_unique": "n_tokens_unique",
    "n_steps": "n_steps",
    "batch_tokens": "batch_tokens",
    "learning_rate": "lr",
    "d_model": "d_model",
    "n_layers": "n_layers",
    "n_epochs": "n_epochs",
    "warmup_steps": "warmup_steps",
    "weight_decay": "weight_decay",
    "seed": "seed_init",
    "seed_data": "seed_data",
}


__all__ = [
    "CConvention", "NConvention", "Points", "Sweep", "drop_flagged", "load_sweep",
    "points_from_columns", "points_from_csv", "points_from_runs", "select",
]  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """A compacted sweep: a row a run, a row a logged curve point, a row an evaluation, the plan.

    `run_id` of the curves is categorical: a name is kept once and not with every point. Sweeps of
    earlier versions have no evaluations.
    """

    runs: "pd.DataFrame"
    curves: "pd.DataFrame"
    evaluations: "pd.DataFrame"
    meta: dict[str, Any]


def load_sweep(sweep_dir: Path | str) -> Sweep:
    """Read runs.parquet, curves.parquet and, where they are, evaluations.parquet and plan.json.

    Raises: ValueError: a table is not there (the sweep has not been run or compacted).
    """
    import pandas as pd

    folder = Path(sweep_dir)
    runs, curves = folder / "runs.parquet", folder / "curves.parquet"
    for path in (runs, curves):
        if not path.is_file():
            raise ValueError(f"{path} does not exist; run the sweep first")
    plan, evaluated = folder / "plan.json", folder / "evaluations.parquet"
    meta = json.loads(plan.read_text()) if plan.is_file() else {}
    columns = list(EVALUATION_COLUMNS)
    try:
        evaluations = (
            pd.read_parquet(evaluated, columns=columns)
            if evaluated.is_file()
            else pd.DataFrame(columns=columns)
        )
        return Sweep(pd.read_parquet(runs), _read_curves(curves), evaluations, meta)
    except (ValueError, OSError) as error:  # pyarrow has both for a file cut short
        raise ValueError(
            f"a table in {folder} is damaged ({error}); write it anew from the records: "
            f"python launch.py fit {folder.name}"
        ) from error


def points_from_runs(
    runs: "pd.DataFrame",
    n_convention: NConvention = "total",
    c_convention: CConvention = "matmul_full",
) -> Points:
    """Points of a table of runs (train.records), flagged.

    Rejected are held-out runs, trunks, and diverged ones. Branches of one trunk are one cluster.

    Raises: ValueError: an unknown convention, or columns missing.
    """
    if n_convention not in RUN_N_CONVENTIONS:
        raise ValueError(f"n_convention={n_convention!r}; use one of {RUN_N_CONVENTIONS}")
    if c_convention not in RUN_C_CONVENTIONS:
        raise ValueError(f"c_convention={c_convention!r}; use one of {RUN_C_CONVENTIONS}")
    names = {
        "n_params": f"n_params_{n_convention}",
        "n_tokens": "n_tokens",
        "train_flops": f"train_flops_{c_convention}",
        "loss_nats": "loss_nats",
        "loss_se": "loss_se_document",
        "budget": "isoflop_budget",
    }
    needed = {*names.values(), "run_id", "status", "role", "diverged_step"}
    if absent := sorted(needed - set(runs.columns)):
        raise ValueError(f"table of runs lacks columns {absent}; it has {sorted(runs.columns)}")
    run_ids = tuple(str(run_id) for run_id in runs["run_id"])
    arrays: dict[str, Any] = {k: runs[name].to_numpy(np.float64) for k, name in names.items()}
    points = Points(
        **arrays,
        run_id=run_ids,
        cluster=_codes(_trunks_or_own(runs, run_ids)),
        flags=((),) * len(run_ids),
        n_convention=n_convention,
        c_convention=c_convention,
        extra=_extra_of_runs(runs),
    )
    points = select(points, _reasons_against_runs(runs))
    return replace(points, flags=row_flags(points))


def points_from_csv(
    path: Path | str,
    columns: Mapping[str, ColumnSource] | None = None,
    n_convention: NConvention = "as_given",
    c_convention: CConvention | None = None,
) -> Points:
    """Points of any CSV that has a loss (or an accuracy) and what it depends on.

    Columns are found by letter or long name (N or n_params, D or n_tokens, C or train_flops, L or
    loss_nats, ...; table.csv_table.LETTERS has them all) or as `columns` maps them. Of N, D and
    C in C = 6ND the third follows from two, the rest is NaN. Rows with a value missing, not a
    number, not finite or not positive are rejected with the row number (the first row after the
    header is row 1). Rows of a run_id are one cluster unless there is a column cluster. Without a
    budget, sizes whose C agrees to 1% are an isoFLOP group.

    Args:
        path: of the file; separated by comma, semicolon, tab or bar, in UTF-8.
        columns: from analysis.table.csv_table.parse_columns.
        n_convention: what N counts, for the record.
        c_convention: what C counts; default as_given, or 6nd where it follows from N and D.

    Raises: ValueError: unreadable file, columns missing, or an unknown convention.
    """
    if n_convention not in get_args(NConvention):
        raise ValueError(f"n_convention={n_convention!r}; use one of {get_args(NConvention)}")
    if c_convention not in (None, *get_args(CConvention)):
        raise ValueError(f"c_convention={c_convention!r}; use one of {get_args(CConvention)}")
    table = read_csv(Path(path), columns)
    if table.has_derived_compute and (c_convention or "").startswith("matmul"):
        raise ValueError(
            f"c_convention={c_convention!r} but the table has no C; map it, as in c=flops"
        )
    arrays: dict[str, Any] = {name: table.number(name) for name in NUMBERS}
    points = Points(
        **arrays,
        run_id=table.labels(),
        cluster=_clusters(table),
        flags=((),) * table.n_rows,
        n_convention=n_convention,
        c_convention=c_convention or ("6nd" if table.has_derived_compute else "as_given"),
        extra=_extra_of_csv(table),
    )
    points = select(points, [table.faults.get(i) for i in range(table.n_rows)])
    if "budget" not in table.numbers:
        points = replace(points, budget=_budgets(points.train_flops, points.n_params))
    return replace(points, flags=row_flags(points))


def _read_curves(path: Path) -> "pd.DataFrame":
    """The curves a column at a time, so that Arrow's copy of all of them is never there."""
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    columns = {}
    with parquet.ParquetFile(path, read_dictionary=["run_id"]) as file:
        for name in file.schema_arrow.names:
            columns[name] = file.read([name]).column(name).to_pandas()
            pa.default_memory_pool().release_unused()
    return pd.DataFrame(columns, copy=False)


def _reasons_against_runs(runs: "pd.DataFrame") -> list[str | None]:
    columns = ("role", "status", "diverged_step", "loss_nats")
    rows = zip(*(runs[name].tolist() for name in columns), strict=True)
    repeats = _repeats(runs)
    return [
        _reason_against_run(*row, repeat=repeats.get(run_id))
        for run_id, row in zip(runs["run_id"], rows, strict=True)
    ]


def _repeats(runs: "pd.DataFrame") -> dict[str, str]:
    """The run that repeats each diverged one at a lower rate."""
    if "retry_of" not in runs.columns:
        return {}
    pairs = zip(runs["retry_of"].tolist(), runs["run_id"].tolist(), strict=True)
    return {parent: run_id for parent, run_id in pairs if isinstance(parent, str)}


def _reason_against_run(
    role: str, status: str, step: float | None, loss: float, repeat: str | None
) -> str | None:
    if role == HELD_OUT_ROLE:
        return "held out: scored against the prediction, never fitted"
    if role == TRUNK_ROLE:
        return "trunk: its learning rate never came down; its branches are the runs of the study"
    if status == "diverged":
        reason = f"diverged: at step {int(step)}" if step and step > 0 else "diverged"
        return reason if repeat is None else f"{reason}; repeated as {repeat}"
    if status != "finished":
        return f"not finished: status {status!r}"
    if not 0 < loss < np.inf:
        return f"not a positive finite number: loss_nats={loss}"
    return None


def _trunks_or_own(runs: "pd.DataFrame", run_ids: Sequence[str]) -> list[str]:
    """Of each run the trunk that it branches off, which others may share, else itself."""
    if "trunk_run_id" not in runs.columns:
        return list(run_ids)
    trunks = runs["trunk_run_id"].tolist()
    return [t if isinstance(t, str) else own for t, own in zip(trunks, run_ids, strict=True)]


def _extra_of_runs(runs: "pd.DataFrame") -> dict[str, np.ndarray]:
    present = {ours: name for ours, name in RUN_EXTRA.items() if name in runs.columns}
    extra = {
        ours: runs[name].to_numpy(np.float64, na_value=np.nan) for ours, name in present.items()
    }
    body, total = "n_params_non_embedding", "n_params_total"
    if {body, total} <= set(runs.columns):
        extra["embedding_share"] = 1 - runs[body].to_numpy(float) / runs[total].to_numpy(float)
    return extra | (_corpus(runs["corpus"].tolist()) if "corpus" in runs.columns else {})


def _extra_of_csv(table: CsvTable) -> dict[str, np.ndarray]:
    extra = {name: values for name, values in table.numbers.items() if name not in NUMBERS}
    return extra | (_corpus(table.words["corpus"]) if "corpus" in table.words else {})


def _corpus(names: Sequence[str]) -> dict[str, np.ndarray]:
    return {"corpus": _codes(names).astype(np.float64), "corpus_name": np.array(names, str)}


def _clusters(table: CsvTable) -> np.ndarray:
    """Codes of the column cluster, else of run_id; a row without a name is on its own."""
    names = table.words.get("cluster") or table.words.get("run_id")
    if not names:
        return np.arange(table.n_rows)
    return _codes([name or f"\0{i}" for i, name in enumerate(names)])


def _codes(names: Sequence[str]) -> np.ndarray:
    """The number of each name in order of first appearance."""
    codes: dict[str, int] = {}
    return np.array([codes.setdefault(name, len(codes)) for name in names], np.int64)


def _budgets(train_flops: np.ndarray, n_params: np.ndarray) -> np.ndarray:
    """The median C of the isoFLOP group of each row, NaN for rows in none.

    A group lies within SAME_COMPUTE, apart from every other row by more, and has enough sizes. None
    is one if few rows are in groups.
    """
    budgets = np.full(len(train_flops), np.nan)
    order = np.argsort(train_flops)[: np.isfinite(train_flops).sum()]
    gaps = np.flatnonzero(np.diff(np.log(train_flops[order])) > np.log1p(SAME_COMPUTE))
    for rows in np.split(order, gaps + 1):
        if len(rows) < MIN_GROUP_SIZES:
            continue
        is_narrow = train_flops[rows[-1]] <= train_flops[rows[0]] * (1 + SAME_COMPUTE)
        if is_narrow and len(np.unique(n_params[rows])) >= MIN_GROUP_SIZES:
            budgets[rows] = np.median(train_flops[rows])
    is_scatter = np.isfinite(budgets).sum() < GROUPED_SHARE * len(budgets)
    return np.full(len(budgets), np.nan) if is_scatter else budgets
