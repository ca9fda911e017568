"""Turn the records of a sweep's runs into tables of runs, curves and evaluations (Parquet).

The tables are copies of the records: what is missing, damaged or out of date in them is read from
the records again, and only that. Each file says in its metadata of which files every run's rows
came (a stamp of time and size), and is a function of the records and the order of the runs: whoever
writes it, at whatever time, writes the same.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.cells import CellRow, all_cells
from experiments.parquet import read_table, write_table
from experiments.plan import Plan
from experiments.workspace import SweepFolder
from train.columns import CURVE_COLUMNS, EVALUATION_COLUMNS, RUN_COLUMNS, column_type
from train.records import Attempt, RecordError, read_evaluations, read_points, read_run

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE = 500
"""Runs whose rows are held as Python objects at a time, which take far more memory than tables."""

PART_COLUMNS = {
    "role": "of the run in this sweep: grid, seed, held_out, trunk",
    "isoflop_budget": "FLOPs (matmul_full) that its group shares; null if none",
    "trunk_run_id": "trunk that it branches off, even if it was trained alone; null if none",
}
"""Columns of a sweep's table of runs besides RUN_COLUMNS: what the plan says of a run."""


@dataclass(frozen=True)
class Compacted:
    """A table whose rows stand run by run, the stamp of each run in it, and whether the file that
    it was read from holds just this.
    """

    table: "pa.Table"
    stamps: Mapping[str, str]
    is_stored: bool = True


def compact(plan: Plan, store: Path, folder: SweepFolder) -> int:
    """Bring runs, curves and evaluations.parquet up to date with a plan's committed runs.

    Rows stand in plan order, then those of the runs that the sweep has added (cells.complete).
    Columns are those of train.records; the runs' are followed by PART_COLUMNS.

    Returns: the number of committed runs.
    Raises: RecordError: a record is damaged.
    """
    return compact_cells(all_cells(plan, folder, store), store, folder)


def compact_cells(cells: Sequence[CellRow], store: Path, folder: SweepFolder) -> int:
    """The same of a sweep's runs as rows."""
    runs = runs_table(cells, store, folder)
    whole = _with_parts(runs, cells)
    if not runs.is_stored or not _holds(folder.runs_table, whole.table):
        _write(whole, folder.runs_table)
    numbers = runs.table.column("attempt").to_pylist()
    attempts = {
        run_id: Attempt(store / run_id / f"attempt-{number}", number)
        for run_id, number in zip(runs.stamps, numbers, strict=True)
    }

    def stamped(name: str) -> dict[str, str]:
        return {
            i: f"{stamp} {stamp_of(attempts[i].directory / name)}"
            for i, stamp in runs.stamps.items()
        }

    curves = _updated(
        folder.curves_table, CURVE_COLUMNS, stamped("curve.jsonl"),
        lambda i: read_points(attempts[i]),
    )  # fmt: skip
    if not curves.is_stored:
        _write(curves, folder.curves_table)
    evaluations = _updated(
        folder.evaluations_table, EVALUATION_COLUMNS, stamped("evaluations.jsonl"),
        lambda i: read_evaluations(attempts[i]),
    )  # fmt: skip
    if not evaluations.is_stored:
        _write(evaluations, folder.evaluations_table)
    return len(runs.stamps)


def runs_table(cells: Sequence[CellRow], store: Path, folder: SweepFolder) -> Compacted:
    """Records of the committed runs of a sweep, in the order of its cells; nothing is written."""
    stamps = {
        cell.run_id: stamp
        for cell in cells
        if (stamp := stamp_of(store / cell.run_id / "run.json")) is not None
    }
    return _updated(folder.runs_table, RUN_COLUMNS, stamps, lambda i: _record(store, i))


def sweep_table(cells: Sequence[CellRow], store: Path, folder: SweepFolder) -> "pa.Table":
    """The table of runs as `compact` would write it."""
    return _with_parts(runs_table(cells, store, folder), cells).table


def records_table(
    run_ids: Sequence[str], store: Path, folders: Sequence[SweepFolder]
) -> "pa.Table":
    """Records of any committed runs, taken from the tables of sweeps where these are up to date."""
    import pyarrow as pa

    schema = _schema(RUN_COLUMNS)
    stamps = {run_id: stamp_of(store / run_id / "run.json") for run_id in run_ids}
    tables, left = [schema.empty_table()], dict(stamps)
    for folder in folders:
        found = stored_runs(folder, list(RUN_COLUMNS))
        if found is None or not found.table.schema.remove_metadata().equals(schema):
            continue
        kept = [left.get(i, "") == stamp for i, stamp in found.stamps.items()]
        left = {k: v for k, v in left.items() if found.stamps.get(k) != v}
        tables.append(found.table.replace_schema_metadata().filter(pa.array(kept, pa.bool_())))
    rows = [row for run_id in left for row in _record(store, run_id)]
    return pa.concat_tables([*tables, _table(rows, schema)]).sort_by("run_id")


def stored_runs(folder: SweepFolder, columns: list[str]) -> Compacted | None:
    """Columns of a sweep's table of runs as it was last written; None if it cannot be used."""
    table = read_table(folder.runs_table, columns)
    return None if table is None else Compacted(table, _stamps(table))


def stamp_of(path: Path) -> str | None:
    """What tells one version of a file from another; None if there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return f"{stat.st_mtime_ns:x}.{stat.st_size:x}"


def _record(store: Path, run_id: str) -> list[dict[str, Any]]:
    row = read_run(store, run_id)
    return [] if row is None else [row]


def _updated(
    path: Path,
    columns: Mapping[str, str],
    stamps: Mapping[str, str],
    read: Callable[[str], list[dict[str, Any]]],
) -> Compacted:
    """The rows of these runs in this order: kept from the file where the stamp is the same."""
    import pyarrow as pa

    schema = _schema(columns)
    old = read_table(path, list(columns))
    is_sound = old is not None and old.schema.remove_metadata().equals(schema)
    old = old if old is not None and is_sound else schema.empty_table()
    kept = _stamps(old)
    if is_sound and list(kept.items()) == list(stamps.items()):
        return Compacted(old.replace_schema_metadata(), stamps)
    fresh = [run_id for run_id, stamp in stamps.items() if kept.get(run_id) != stamp]
    new = pa.concat_tables(
        _table([row for run_id in fresh[i : i + AT_ONCE] for row in read(run_id)], schema)
        for i in range(0, len(fresh) + 1, AT_ONCE)
    )
    is_fresh = set(fresh)
    places = {k: v for k, v in _places(old, 0).items() if k in kept and k not in is_fresh}
    places |= _places(new, len(old))
    both = pa.concat_tables([old.replace_schema_metadata(), new])
    order = [np.arange(*places[run_id]) for run_id in stamps if run_id in places]
    taken = both.take(np.concatenate(order) if order else np.array([], np.int64))
    return Compacted(taken.combine_chunks(), stamps, is_stored=False)


def _table(rows: list[dict[str, Any]], schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    try:
        return pa.table(
            {field.name: pa.array([r[field.name] for r in rows], field.type) for field in schema},
            schema=schema,
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError) as error:
        ids = ", ".join(sorted({str(row.get("run_id")) for row in rows})[:3])
        raise RecordError(
            f"a record or curve among those of runs {ids} has a value of another type ({error}); "
            "move the run's folder away and run again"
        ) from error


def _places(table: "pa.Table", offset: int) -> dict[str, tuple[int, int]]:
    """First row of each run, and one past its last, counted from `offset`."""
    if len(table) == 0:
        return {}
    ids = table.column("run_id").combine_chunks().dictionary_encode()
    codes = ids.indices.to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    ends = np.append(starts[1:], len(codes))
    names = ids.dictionary.to_pylist()
    bounds = zip(codes[starts].tolist(), starts.tolist(), ends.tolist(), strict=True)
    return {names[code]: (start + offset, end + offset) for code, start, end in bounds}


def _with_parts(runs: Compacted, cells: Sequence[CellRow]) -> Compacted:
    """The runs with what the sweep says of each; it knows of a repeat even if another sweep, which
    did not, has trained that run.
    """
    import pyarrow as pa

    by_id = {cell.run_id: cell for cell in cells}
    there = [by_id[run_id] for run_id in runs.stamps]
    parts = [asdict(cell) for cell in there]
    table = runs.table
    for name in PART_COLUMNS:
        kind = pa.float64() if name == "isoflop_budget" else pa.string()
        table = table.append_column(name, pa.array([part[name] for part in parts], kind))
    said = table.column("retry_of").to_pylist()
    merged = [cell.retry_of or own for cell, own in zip(there, said, strict=True)]
    place = table.column_names.index("retry_of")
    table = table.set_column(place, "retry_of", pa.array(merged, pa.string()))
    return Compacted(table, runs.stamps)


def _write(found: Compacted, path: Path) -> None:
    stamps = json.dumps(dict(found.stamps))
    write_table(found.table.replace_schema_metadata({"stamps": stamps}), path)


def _holds(path: Path, table: "pa.Table") -> bool:
    there = read_table(path)
    return there is not None and there.equals(table, check_metadata=False)


def _stamps(table: "pa.Table") -> dict[str, str]:
    return json.loads((table.schema.metadata or {}).get(b"stamps", b"{}"))


def _schema(columns: Mapping[str, str]) -> "pa.Schema":
    import pyarrow as pa

    return pa.schema([(name, _type(name)) for name in columns])


def _type(name: str) -> "pa.DataType":
    import pyarrow as pa

    return {
        "text": pa.string(), "truth": pa.bool_(), "real": pa.float64(), "whole": pa.int64(),
        "reals": pa.list_(pa.field("element", pa.float64())),  # as Parquet names it
    }[column_type(name)]  # fmt: skip
