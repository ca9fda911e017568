"""The table of records: which rows an expression picks, what it refuses, and every format."""

import json

import numpy as np
import pandas as pd
import pytest

import launch
from experiments.compact import PART_COLUMNS, compact
from experiments.expression import rows_where
from experiments.stages import freeze_plan
from experiments.table import as_text, records_of
from train.columns import CURVE_COLUMNS, EVALUATION_COLUMNS, RUN_COLUMNS, column_type
from train.config import SpecError

TABLE = pd.DataFrame(
    {
        "n_layers": [2, 3, 4, 5],
        "lr": [0.1, 0.02, np.nan, 0.04],
        "status": ["finished", "diverged", "finished", None],
        "is_exact": [True, False, True, True],
    }
)


@pytest.mark.parametrize(
    "text,picked",
    [
        ("n_layers > 3", [2, 3]),
        ("3 <= n_layers < 5", [1, 2]),
        ("n_layers > 2 and not (lr < 0.03)", [2, 3]),
        ("status == 'finished' or n_layers == 5", [0, 2, 3]),
        ("status != 'finished'", [1]),
        ("lr is None", [2]),
        ("status is not None", [0, 1, 2]),
        ("n_layers in [2, 5]", [0, 3]),
        ("status not in ('finished',)", [1]),
        ("n_layers * 2 + 1 == 9", [2]),
        ("lr / 2 >= -(-0.02)", [0, 3]),
        ("n_layers % 2 == 1 and n_layers ** 2 // 3 > 2", [1, 3]),
        ("is_exact", [0, 2, 3]),
        ("not is_exact", [1]),
        ("is_exact == False", [1]),
        ("lr != 0.1", [1, 3]),
        ("n_layers < 9**9**9", [0, 1, 2, 3]),
        ("1 < 2", [0, 1, 2, 3]),
        ("  n_layers == 2  ", [0]),
    ],
)
def test_an_expression_picks_rows(text, picked):
    assert rows_where(TABLE, text).index.tolist() == picked


@pytest.mark.parametrize(
    "text,complaint",
    [
        ("__import__('os').system('true')", "is no condition"),
        ("n_layers.__class__ == 1", "n_layers.__class__ is not known here"),
        ("lr.max() > 1", "is not known here"),
        ("abs(lr) > 1", "is not known here"),
        ("__builtins__ == 1", "there is no column '__builtins__'"),
        ("[x for x in (1,)] == 1", "is not known here"),
        ("(lambda: 1)() == 1", "is not known here"),
        ("status[0] == 'f'", "is not known here"),
        ("f'{lr}' == 'a'", "is not known here"),
        ("(n := 3) == 3", "is not known here"),
        ("n_layers in open", "there must be a list"),
        ("n_layers in [open('x')]", "no number or text"),
        ("n_layers in range(3)", "there must be a list"),
        ("lr == b'x'", "is not known here"),
        ("status * 2 == 'x'", "is text"),
        ("'a' * 1000000000 == 'x'", "is text"),
        ("n_layers", "is no condition"),
        ("n_layers + 1", "is no condition"),
        ("'finished'", "is no condition"),
        ("3 in [3]", "stands where a column must"),
        ("lr < None", "None is compared by is"),
        ("lr is 3", "compare with None alone"),
        ("n_layers >", "cannot be read"),
        ("n_layers = 3", "cannot be read"),
        ("import os", "cannot be read"),
        ("", "cannot be read"),
        ("a\0b", "cannot be read"),
        ("(" * 500 + "1" + ")" * 500, "cannot be read"),
        ("lr > 1 or " * 400, "at most 2000"),
        ("status > 3", "does not go together"),
        ("n_layer > 3", "did you mean n_layers"),
        ("zzz > 3", "there are: n_layers, lr, status, is_exact"),
    ],
)
def test_what_is_no_such_expression_is_refused(text, complaint):
    with pytest.raises(SpecError) as error:
        rows_where(TABLE, text)
    assert complaint in str(error.value) and str(error.value).startswith("where")


@pytest.fixture
def sweep(plan, workspace, commit):
    """Three records of the plan, two of them in its compacted table."""
    folder = workspace.sweep(plan.name)
    freeze_plan(plan, folder)
    for number in (0, 1):
        commit(plan.cells[number].spec, loss_nats=1.5 + number, lr=0.02)
    compact(plan, workspace.runs, folder)
    commit(plan.cells[2].spec, status="diverged", loss_nats=None, diverged_step=7, lr=0.5)
    return plan.name


@pytest.fixture
def table(sweep, workspace, capsys):
    """launch.py table with these arguments: exit code, output, complaints."""

    def table(*arguments, name=sweep):
        capsys.readouterr()
        code = launch.main(["table", name, "--out", str(workspace.root), *arguments])
        found = capsys.readouterr()
        return code, found.out, found.err

    return table


def test_records_come_from_the_table_and_from_what_is_newer(plan, sweep, workspace):
    whole = records_of(workspace, sweep)
    assert list(whole.columns) == [*RUN_COLUMNS, *PART_COLUMNS]
    assert whole["run_id"].tolist() == [cell.spec.run_id for cell in plan.cells[:3]]
    assert whole["role"].tolist() == ["grid"] * 3
    every = records_of(workspace, "all")
    assert list(every.columns) == list(RUN_COLUMNS)
    expected = whole.sort_values("run_id").loc[:, list(RUN_COLUMNS)].reset_index(drop=True)
    pd.testing.assert_frame_equal(every, expected)


def test_rows_columns_and_order_as_asked(table):
    arguments = ("--columns", "lr", "loss_nats", "--format", "csv", "--sort", "loss_nats")
    assert table(*arguments) == (0, "lr,loss_nats\n0.02,1.5\n0.02,2.5\n0.5,\n", "")
    assert table(*arguments, "--descending")[1].split() == [
        "lr,loss_nats", "0.02,2.5", "0.02,1.5", "0.5,",
    ]  # fmt: skip
    code, out, _ = table(*arguments, "--where", "status == 'diverged' and lr > 0.1")
    assert (code, out) == (0, "lr,loss_nats\n0.5,\n")
    code, out, _ = table(*arguments, "--where", "loss_nats < 2", name="all")
    assert (code, out) == (0, "lr,loss_nats\n0.02,1.5\n")


def test_formats_say_the_same(table, tmp_path):
    columns = ("--columns", "run_id", "loss_nats", "diverged_step")
    path = tmp_path / "runs.parquet"
    assert table(*columns, "--format", "parquet", "--output", str(path))[0] == 0
    whole = pd.read_parquet(path)
    assert whole["loss_nats"].tolist()[:2] == [1.5, 2.5]
    assert whole["diverged_step"].tolist()[2] == 7
    rows = json.loads(table(*columns, "--format", "json")[1])
    assert [row["loss_nats"] for row in rows] == [1.5, 2.5, None]
    assert [row["run_id"] for row in rows] == whole["run_id"].tolist()
    lines = table(*columns, "--format", "md")[1].splitlines()
    assert lines[0] == "| run_id | loss_nats | diverged_step |" and lines[4].endswith("| - | 7 |")
    code, out, _ = table(*columns)
    assert code == 0 and out.split()[:3] == ["run_id", "loss_nats", "diverged_step"]
    assert table("--format", "csv", "--output", str(tmp_path / "runs.csv"))[0] == 0
    assert list(pd.read_csv(tmp_path / "runs.csv").columns) == [*RUN_COLUMNS, *PART_COLUMNS]
    assert table("--output", str(tmp_path / "runs.txt"))[0] == 0
    assert len((tmp_path / "runs.txt").read_text().splitlines()) == 4
    assert not list(tmp_path.glob(".*"))


def test_numbers_are_exact_where_machines_read_them():
    values = [0.1 + 0.2, 1e-9, 123456789.123456789, 6.02e23]
    found = pd.DataFrame({"a": values})
    assert [float(line) for line in as_text(found, "csv").split()[1:]] == values
    assert [row["a"] for row in json.loads(as_text(found, "json"))] == values


@pytest.mark.parametrize(
    "arguments,complaint",
    [
        (("--columns", "loss_nat"), "no column 'loss_nat'; did you mean loss_nats"),
        (("--sort", "params"), "did you mean n_params_"),
        (("--where", "loss_nats <"), "cannot be read"),
        (("--format", "parquet"), "--output runs.parquet"),
        (("--output", "missing/runs.csv", "--format", "csv"), "cannot be written"),
    ],
)
def test_wrong_questions_are_told_in_one_line(table, arguments, complaint):
    code, out, err = table(*arguments)
    assert (code, out) == (2, "")
    assert complaint in err and len(err.splitlines()) == 1


def test_a_workspace_without_a_record_says_so(workspace, capsys):
    assert launch.main(["table", "all", "--out", str(workspace.root)]) == 2
    assert "no finished run yet" in capsys.readouterr().err


def test_every_column_has_a_type():
    names = {*RUN_COLUMNS, *CURVE_COLUMNS, *EVALUATION_COLUMNS}
    of_type = {kind: {n for n in names if column_type(n) == kind} for kind in ("whole", "reals")}
    assert of_type["reals"] == {"position_edges", "position_loss_nats", "position_se_document"}
    assert of_type["whole"] == {
        "attempt", "diverged_step", "n_layers", "d_model", "n_heads", "d_head", "d_ff",
        "vocab_size", "seq_len", "batch_size", "batch_tokens", "n_steps", "warmup_steps",
        "seed_init", "seed_data", "n_params_embedding", "n_params_non_embedding", "n_params_norm",
        "n_params_head", "n_params_total", "n_tokens", "n_tokens_unique", "parent_step",
        "stopped_step", "n_validation_tokens", "resumed_from_step", "record_version", "step",
    }  # fmt: skip
