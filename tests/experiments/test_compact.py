"""Tables as copies of the records: brought up to date, equal whoever writes them, never torn."""

import os
import threading

import pandas as pd
import pytest
from pyarrow import parquet

from analysis.load import load_sweep
from experiments import compact as compacting
from experiments import parquet as files
from experiments.compact import compact
from experiments.compacting import compacting as compacting_beside
from experiments.stages import freeze_plan
from train import records
from train.columns import CURVE_COLUMNS, EVALUATION_COLUMNS
from train.records import RecordError

TABLES = ("runs.parquet", "curves.parquet", "evaluations.parquet")


def point(run_id, step):
    return {**dict.fromkeys(CURVE_COLUMNS), "run_id": run_id, "step": step, "loss_nats": 2.0}


def evaluation(attempt, run_id, corpus):
    row = {**dict.fromkeys(EVALUATION_COLUMNS), "run_id": run_id, "attempt": attempt.number}
    return row | {"step": 1, "split": "validation", "corpus_hash": corpus, "position_edges": [1, 2]}


@pytest.fixture
def folder(plan, workspace):
    found = workspace.sweep(plan.name)
    freeze_plan(plan, found)
    return found


@pytest.fixture
def add(plan, workspace, commit):
    """Commit cells of the plan by number, each with a curve of two points and an evaluation."""

    def add(*numbers, **values):
        for number in numbers:
            spec = plan.cells[number].spec
            attempt = commit(spec, **values)
            records.append_points(attempt, [point(spec.run_id, 1), point(spec.run_id, number + 2)])
            records.add_evaluations(attempt, [evaluation(attempt, spec.run_id, "own")])

    return add


def content(folder):
    return {name: (folder.path / name).read_bytes() for name in TABLES}


def test_in_steps_or_at_once_the_bytes_are_the_same(plan, workspace, folder, add):
    add(3, 1, loss_nats=None, status="diverged", diverged_step=4)
    assert compact(plan, workspace.runs, folder) == 2
    add(0, 5, 2)
    assert compact(plan, workspace.runs, folder) == 5
    in_steps = content(folder)
    for name in TABLES:
        (folder.path / name).unlink()
    compact(plan, workspace.runs, folder)
    assert content(folder) == in_steps
    ids = [plan.cells[i].spec.run_id for i in (0, 1, 2, 3, 5)]
    runs, curves = pd.read_parquet(folder.runs_table), pd.read_parquet(folder.curves_table)
    assert runs["run_id"].tolist() == ids
    assert curves["run_id"].tolist() == [i for run_id in ids for i in (run_id, run_id)]
    assert curves["step"].tolist() == [1, 2, 1, 3, 1, 4, 1, 5, 1, 7]
    assert load_sweep(folder.path).evaluations["position_edges"].tolist()[0].tolist() == [1, 2]
    assert not list(folder.path.glob(".*"))


def test_only_what_is_new_is_read(plan, workspace, folder, add, monkeypatch):
    add(0, 1)
    compact(plan, workspace.runs, folder)
    add(2)
    seen = []
    read_run = records.read_run
    monkeypatch.setattr(
        compacting,
        "read_run",
        lambda store, run_id: (seen.append(run_id), read_run(store, run_id))[1],
    )
    compact(plan, workspace.runs, folder)
    assert seen == [plan.cells[2].spec.run_id]
    before = [os.stat(folder.path / name).st_ino for name in TABLES]
    compact(plan, workspace.runs, folder)
    assert [os.stat(folder.path / name).st_ino for name in TABLES] == before, "nothing was new"


def test_later_evaluations_and_runs_made_anew_are_seen(plan, workspace, folder, add):
    import shutil

    add(0, 1)
    compact(plan, workspace.runs, folder)
    spec = plan.cells[1].spec
    row = records.read_run(workspace.runs, spec.run_id)
    assert row is not None
    attempt = records.committed_attempt(workspace.runs, row)
    records.add_evaluations(attempt, [evaluation(attempt, spec.run_id, "other")])
    compact(plan, workspace.runs, folder)
    assert pd.read_parquet(folder.evaluations_table)["corpus_hash"].tolist() == ["own"] * 2 + [
        "other"
    ]
    shutil.rmtree(workspace.runs / spec.run_id)
    compact(plan, workspace.runs, folder)
    assert len(pd.read_parquet(folder.runs_table)) == 1
    add(1, loss_nats=1.25)
    compact(plan, workspace.runs, folder)
    assert pd.read_parquet(folder.runs_table)["loss_nats"].tolist() == [1.5, 1.25]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("harm", ["truncated", "empty", "flipped", "foreign"])
def test_a_damaged_table_is_written_again_from_the_records(
    plan, workspace, folder, add, name, harm
):
    add(0, 1, 2)
    compact(plan, workspace.runs, folder)
    whole, path = content(folder), folder.path / name
    data = bytearray(path.read_bytes())
    if harm == "flipped":  # the last byte of a column's data, of which the footer says nothing
        column = parquet.ParquetFile(path).metadata.row_group(0).column(0)
        data[column.dictionary_page_offset + column.total_compressed_size - 1] ^= 255
    elif harm == "foreign":
        pd.DataFrame({"a": [1]}).to_parquet(path)
        data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b""}.get(harm, data))
    compact(plan, workspace.runs, folder)
    assert content(folder) == whole


def test_a_reader_is_told_of_damage_with_the_remedy(plan, workspace, folder, add):
    add(0)
    compact(plan, workspace.runs, folder)
    folder.curves_table.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="is damaged .* python launch.py fit "):
        load_sweep(folder.path)


@pytest.mark.parametrize("name", ["curve.jsonl", "evaluations.jsonl"])
def test_damage_after_compaction_is_seen_by_the_next_one(plan, workspace, folder, add, name):
    add(0)
    compact(plan, workspace.runs, folder)
    path = workspace.runs / plan.cells[0].spec.run_id / "attempt-1" / name
    path.write_bytes(path.read_bytes().replace(b'"step"', b'*step"', 1))
    with pytest.raises(RecordError, match=str(path)):
        compact(plan, workspace.runs, folder)


def test_a_value_of_another_type_names_the_run(plan, workspace, folder, add):
    add(0, lr="fast")
    with pytest.raises(RecordError, match=f"{plan.cells[0].spec.run_id}.*another type"):
        compact(plan, workspace.runs, folder)


def test_a_write_that_fails_leaves_the_table_before(plan, workspace, folder, add, monkeypatch):
    add(0)
    compact(plan, workspace.runs, folder)
    before = content(folder)
    add(1)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        compact(plan, workspace.runs, folder)
    monkeypatch.undo()
    assert content(folder) == before and not list(folder.path.glob(".*"))


def test_launchers_side_by_side_write_the_same(plan, workspace, folder, add):
    add(0, 1, 2, 3)
    failures = []

    def work():
        try:
            compact(plan, workspace.runs, folder)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    side_by_side = content(folder)
    for name in TABLES:
        (folder.path / name).unlink()
    compact(plan, workspace.runs, folder)
    assert content(folder) == side_by_side


def test_tables_follow_while_a_sweep_runs(plan, workspace, folder, add, monkeypatch):
    monkeypatch.setattr("experiments.compacting.EVERY_S", 0.01)
    monkeypatch.setattr("experiments.compacting.MAX_SHARE", 1.0)
    said, is_there = [], threading.Event()
    wait = is_there.wait
    with compacting_beside(plan, workspace.runs, folder, said.append):
        add(0)
        for _ in range(500):
            if folder.runs_table.exists() and len(pd.read_parquet(folder.runs_table)):
                break
            wait(0.02)
        path = workspace.runs / plan.cells[1].spec.run_id / "run.json"
        path.parent.mkdir()
        path.write_text("{")
        for _ in range(500):
            if said:
                break
            wait(0.02)
    assert len(pd.read_parquet(folder.runs_table)) == 1
    assert len(said) == 1 and "not up to date" in said[0] and "damaged" in said[0], "told once"
