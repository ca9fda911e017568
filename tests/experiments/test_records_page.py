"""docs/records.md lists every column there is, with its type and meaning; its SQL runs."""

import re
from pathlib import Path

import pytest

from experiments.compact import PART_COLUMNS
from train.columns import CURVE_COLUMNS, EVALUATION_COLUMNS, RUN_COLUMNS, column_type

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "records.md").read_text()
KINDS = {
    "text": "text",
    "truth": "truth",
    "real": "real",
    "whole": "whole",
    "reals": "list of reals",
}


def rows_under(heading):
    section = PAGE.split(f"\n### {heading}\n")[1].split("\n### ")[0]
    return re.findall(r"^\| `(\w+)` \| ([\w ]+) \| ?(.*?) ?\|$", section, re.MULTILINE)


@pytest.mark.parametrize(
    "heading,columns",
    [("runs", RUN_COLUMNS), ("curves", CURVE_COLUMNS), ("evaluations", EVALUATION_COLUMNS)],
)
def test_every_column_is_documented(heading, columns):
    expected = [(name, KINDS[column_type(name)], meaning) for name, meaning in columns.items()]
    found = rows_under(heading)
    if heading == "runs":
        parts = found[len(expected) :]
        assert [(name, meaning) for name, _, meaning in parts] == list(PART_COLUMNS.items())
        found = found[: len(expected)]
    assert found == expected


def test_the_sql_runs_where_duckdb_is_installed(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    import pandas as pd

    rows = {
        "run_id": ["a", "b"], "status": "finished", "role": "grid", "isoflop_budget": 1e12,
        "loss_nats": [2.0, 1.5],
    }  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "runs.parquet")
    (query,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    query = query.replace("out/sweeps/quickstart", str(tmp_path))
    assert duckdb.sql(query).fetchall() == [(1e12, "b", 1.5)]
