"""`launch.py table`: the records of a sweep, or of all runs, as one table."""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from experiments.cells import read_cells
from experiments.compact import sweep_table
from experiments.expression import rows_where, unknown_column
from experiments.workspace import Workspace
from train.config import SpecError
from train.records import to_plain, write_atomically

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
SHORT = ("run_id", "status", "n_params_total", "n_tokens", "lr", "loss_nats", "seconds")
"""What is shown where a person reads, unless other columns are asked for."""


@dataclass(frozen=True)
class TableFlags:
    """Which runs and columns, in what order and format."""

    sweep: Positional[str] = "quickstart"
    """Name of a sweep, or all: every committed record of the folder."""
    out: Path = Path("out")
    """Folder of corpora, runs and sweeps."""
    where: str | None = None
    """Rows to keep, as in --where "n_layers > 4 and status == 'finished'"."""
    columns: tuple[str, ...] = ()
    """Columns in order; docs/records.md says what they hold. Default: a few as text or Markdown,
    else all."""
    sort: str | None = None
    """Column to sort by; empty values come last."""
    descending: bool = False
    """Largest first."""
    format: Literal["text", "csv", "parquet", "md", "json"] = "text"
    """text and md are rounded, the others are exact."""
    output: Path | None = None
    """File to write; Parquet needs one."""


def show(flags: TableFlags) -> int:
    """The records of a sweep, or of all runs, as one table."""
    if flags.format == "parquet" and flags.output is None:
        raise SpecError("format=parquet is no text; say where to write it: --output runs.parquet")
    found = chosen(records_of(Workspace(flags.out), flags.sweep), flags)
    if flags.output is not None:
        write(found, flags.format, flags.output)
        print(f"wrote {flags.output}: {len(found):,} runs, {len(found.columns)} columns")
    else:
        sys.stdout.write(as_text(found, flags.format))
    return 0


def records_of(workspace: Workspace, sweep: str) -> "pd.DataFrame":
    """Committed records, a row a run: of a sweep with its PART_COLUMNS, or `all` there are.

    Raises: SpecError: no such sweep, or no record.
    """
    if sweep == ALL:
        table = _every_record(workspace)
    else:
        folder = workspace.sweep(sweep)
        cells = read_cells(folder, workspace.runs).cells
        table = sweep_table(cells, workspace.runs, folder)
    if len(table) == 0:
        raise SpecError(f"{sweep} has no finished run yet; python launch.py run it first")
    return table.to_pandas()


def _every_record(workspace: Workspace) -> Any:
    from experiments.compact import records_table

    ids = sorted(path.parent.name for path in workspace.runs.glob("*/run.json"))
    folders = [workspace.sweep(name) for name in workspace.sweep_names()]
    return records_table(ids, workspace.runs, folders)


def chosen(table: "pd.DataFrame", flags: TableFlags) -> "pd.DataFrame":
    """The rows and columns asked for, in order.

    Raises: SpecError: an unknown column, or an expression that cannot be read.
    """
    columns = flags.columns
    if not columns:
        is_short = flags.format in ("text", "md")
        columns = SHORT if is_short else tuple(table.columns)
    for name in (*columns, *([flags.sort] if flags.sort else [])):
        if name not in table.columns:
            raise unknown_column(name, table.columns)
    if flags.where is not None:
        table = rows_where(table, flags.where)
    if flags.sort is not None:
        table = table.sort_values(
            flags.sort, ascending=not flags.descending, kind="stable", na_position="last"
        )
    return table.loc[:, list(columns)].reset_index(drop=True)


def as_text(table: "pd.DataFrame", form: str) -> str:
    """A table as text, md, csv or json; the last two hold exact numbers, and nothing for null."""
    if form == "text":
        return _aligned(table)
    if form == "csv":
        return table.to_csv(index=False, lineterminator="\n")
    if form == "json":
        # pandas' own writer keeps 15 digits of a number, one or two less than tell it.
        rows = to_plain(table.to_dict("records"))
        return json.dumps(rows, indent=1, allow_nan=False) + "\n"
    from analysis.tables import render

    rows = [dict(zip(table.columns, values, strict=True)) for values in _shown(table)]
    return render(rows, "markdown")


def write(table: "pd.DataFrame", form: str, path: Path) -> None:
    """Write a table to a file in a format, atomically.

    Raises: SpecError: the folder is missing or cannot be written.
    """
    try:
        if form == "parquet":
            import pyarrow as pa

            from experiments.parquet import write_table

            write_table(pa.Table.from_pandas(table, preserve_index=False), path)
        else:
            write_atomically(path, as_text(table, form))
    except OSError as error:
        raise SpecError(f"output={path} cannot be written ({error.strerror})") from error


def _aligned(table: "pd.DataFrame") -> str:
    """Lines of a table with aligned columns; lines longer than the terminal are not cut."""
    body = [list(table.columns), *_shown(table)]
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    is_number = [table[name].dtype.kind in "if" for name in table.columns]
    lines = (
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in body
    )
    return "\n".join(lines) + "\n"


def _shown(table: "pd.DataFrame") -> list[list[str]]:
    return [[_text(value) for value in row] for row in table.itertuples(index=False, name=None)]


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{int(value)}" if value.is_integer() and abs(value) < 1e9 else f"{value:.6g}"
    return str(value)
