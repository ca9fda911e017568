import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from experiments import stages, summary
from experiments.compact import compact
from experiments.executors.local import execute
from experiments.plan import frozen_plan
from experiments.progress import SweepProgress
from experiments.stages import Stage, freeze_plan
from experiments.workspace import read_json, write_json, write_json_once
from model.accounting import train_flops_per_token
from train import records
from train.columns import CURVE_COLUMNS, RUN_COLUMNS
from train.config import SpecError
from train.jobs import Job, Progress


@pytest.fixture
def stage(workspace):
    return Stage(workspace, Console(quiet=True))


@pytest.fixture
def folder(workspace, plan):
    return workspace.sweep(plan.name)


def point(spec, step):
    return {**dict.fromkeys(CURVE_COLUMNS), "run_id": spec.run_id, "step": step, "loss_nats": 2.0}


def test_a_plan_is_frozen_once(plan, folder):
    freeze_plan(plan, folder)
    text = folder.plan.read_bytes()
    freeze_plan(dataclasses.replace(plan, options={"label": "other"}), folder)
    assert folder.plan.read_bytes() == text
    assert frozen_plan(folder) == plan
    other = dataclasses.replace(plan, cells=plan.cells[1:])
    with pytest.raises(SpecError, match=f"holds plan {plan.hash}, not {other.hash}"):
        freeze_plan(other, folder)
    assert folder.plan.read_bytes() == text


def test_a_damaged_plan_is_told_by_its_file(plan, folder):
    freeze_plan(plan, folder)
    folder.plan.write_text(folder.plan.read_text().replace("n_tokens_unique", "n_tokeNs_unique"))
    with pytest.raises(SpecError, match=r"plan\.json: .*n_tokeNs_unique.*; move .* away"):
        frozen_plan(folder)


def test_a_sweep_without_a_plan_is_said(workspace):
    with pytest.raises(SpecError, match="sweep nothing has no plan; run it first"):
        frozen_plan(workspace.sweep("nothing"))


def test_json_files_are_whole_or_named(tmp_path):
    path = tmp_path / "deep" / "values.json"
    with pytest.raises(SpecError, match=r"values\.json cannot be read"):
        read_json(path)
    assert write_json_once(path, {"a": 1})
    assert not write_json_once(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    write_json(path, {"a": 3})
    assert read_json(path) == {"a": 3}
    path.write_text("{")
    with pytest.raises(SpecError, match=r"values\.json cannot be read"):
        read_json(path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})


def test_tables_hold_the_committed_runs_in_plan_order(plan, workspace, folder, commit):
    folder.path.mkdir(parents=True)
    last, first = plan.cells[-1], plan.cells[0]
    assert last.role == "held_out"
    for cell, status, loss in ((last, "finished", 1.25), (first, "diverged", None)):
        attempt = commit(cell.spec, status=status, loss_nats=loss)
        records.append_points(attempt, [point(cell.spec, 1), point(cell.spec, 2)])
    begun = plan.cells[1].spec
    records.append_points(records.begin_attempt(workspace.runs, begun.run_id), [point(begun, 1)])

    assert compact(plan, workspace.runs, folder) == 2
    runs, curves = pd.read_parquet(folder.runs_table), pd.read_parquet(folder.curves_table)
    assert list(runs.columns) == [*RUN_COLUMNS, "role", "isoflop_budget", "trunk_run_id"]
    assert list(curves.columns) == list(CURVE_COLUMNS)
    assert runs["run_id"].tolist() == [first.spec.run_id, last.spec.run_id]
    assert runs["role"].tolist() == ["grid", "held_out"]
    assert runs["isoflop_budget"].dtype == runs["loss_nats"].dtype == np.float64
    assert runs["isoflop_budget"][0] == first.isoflop_budget and np.isnan(runs["isoflop_budget"][1])
    assert np.isnan(runs["loss_nats"][0]) and runs["loss_nats"][1] == 1.25
    assert curves["run_id"].tolist() == [first.spec.run_id] * 2 + [last.spec.run_id] * 2
    assert not list(folder.path.glob(".*"))


def test_an_empty_sweep_has_empty_tables_and_no_fit(plan, workspace, folder, stage):
    freeze_plan(plan, folder)
    assert compact(plan, workspace.runs, folder) == 0
    assert list(pd.read_parquet(folder.runs_table).columns)[: len(RUN_COLUMNS)] == [*RUN_COLUMNS]
    with pytest.raises(SpecError, match="has no finished run yet"):
        stages.refit(plan.name, stage)


def test_a_diverged_run_has_its_record_and_one_under_way_has_none(plan, workspace, commit):
    finished, diverged, begun, untouched = (cell.spec for cell in plan.cells[:4])
    commit(finished, loss_nats=1.23456, seconds=61.7)
    commit(diverged, status="diverged", loss_nats=None)
    attempt = records.begin_attempt(workspace.runs, begun.run_id)
    records.append_points(attempt, [point(begun, 5)])
    assert untouched in [cell.spec for cell in stages.missing(plan, workspace)]
    assert len(stages.missing(plan, workspace)) == len(plan.cells) - 2


def prediction_of(spec, *entries):
    keys = ("ok", "loss_nats", "new_run_interval")
    return {
        "run_id": spec.run_id,
        "is_blind": True,
        "predictions": [dict(zip(keys, entry, strict=True)) for entry in entries],
    }


def test_score_says_hit_miss_or_no_prediction(plan, workspace, folder, commit):
    held_out = plan.of_role("held_out")[0].spec
    stages.score(plan, workspace, folder)
    assert not folder.score.exists(), "there is no prediction"
    no_interval = [None, None]
    written = prediction_of(
        held_out, (True, 1.52, [1.4, 1.6]), (True, 1.7, [1.6, 1.8]), (True, 1.5, no_interval),
        (False, None, no_interval),
    )  # fmt: skip
    write_json(folder.prediction, written)
    stages.score(plan, workspace, folder)
    assert not folder.score.exists(), "nothing was measured"
    commit(held_out, loss_nats=1.5, loss_se_iid=0.001)
    stages.score(plan, workspace, folder)
    scored = read_json(folder.score)
    assert scored["measured_loss_nats"] == 1.5
    assert [entry["hit"] for entry in scored["predictions"]] == [True, False, None, None]
    errors = [entry["error_nats"] for entry in scored["predictions"]]
    assert errors[:3] == pytest.approx([-0.02, -0.2, 0.0]) and errors[3] is None
    assert read_json(folder.prediction) == written


def test_tables_of_predictions_bear_what_is_missing(capsys):
    labels = {"version": "settled", "status": "too few points", "error_nats": None, "hit": None}
    none = [None, None]
    entries = [
        {**labels, "n_convention": "total", "ok": True, "loss_nats": 1.5,
         "mean_interval": [1.4, 1.6], "new_run_interval": [1.3, 1.7],
         "error_nats": 0.3, "hit": False},
        {**labels, "n_convention": "total", "ok": True, "loss_nats": 1.5, "mean_interval": none,
         "new_run_interval": none},
        {**labels, "n_convention": "total", "ok": False, "loss_nats": None, "mean_interval": none,
         "new_run_interval": none},
    ]  # fmt: skip
    values = {
        "run_id": "feedfeedfeed", "is_blind": True, "predictions": entries,
        "measured_loss_nats": 1.8, "measured_loss_se_iid": 0.01,
    }  # fmt: skip
    console = Console(width=200)
    console.print(summary.prediction_table(values))
    console.print(summary.score_table(values))
    out = capsys.readouterr().out
    assert "feedfeed" in out and "1.8000 ± 0.0100" in out
    assert "MISS" in out and "+0.3000" in out and "[1.3000, 1.7000]" in out
    assert "no prediction: too few points" in out


def test_a_diverged_held_out_run_is_not_scored(plan, workspace, folder, commit):
    held_out = plan.of_role("held_out")[0].spec
    write_json(folder.prediction, prediction_of(held_out, (True, 1.5, [1.4, 1.6])))
    commit(held_out, status="diverged", loss_nats=None)
    stages.score(plan, workspace, folder)
    assert not folder.score.exists()


def test_a_prediction_is_written_once_and_says_if_it_was_blind(
    plan, workspace, folder, commit, monkeypatch
):
    def fitted(table_hash):
        return SimpleNamespace(
            settled=[SimpleNamespace(fit=SimpleNamespace(table_hash=table_hash))]
        )

    entry = SimpleNamespace(to_json=lambda: {"loss_nats": float("nan"), "ok": False})
    monkeypatch.setattr(stages, "predict_held_out", lambda *a, **k: (entry,))
    cell = plan.of_role("held_out")[0]
    stages.freeze_prediction(plan, cell, fitted("first"), workspace)
    text = folder.prediction.read_bytes()
    commit(cell.spec, status="finished", loss_nats=1.5)
    stages.freeze_prediction(plan, cell, fitted("second"), workspace)
    assert folder.prediction.read_bytes() == text
    assert json.loads(text)["table_hash"] == "first" and json.loads(text)["is_blind"]
    folder.prediction.unlink()
    stages.freeze_prediction(plan, cell, fitted("third"), workspace)
    assert not json.loads(folder.prediction.read_text())["is_blind"]
    assert json.loads(text)["predictions"] == [{"loss_nats": None, "ok": False}]


def test_more_workers_than_cores_are_refused(plan, workspace, corpus):
    jobs = [Job(plan.cells[0].spec)]
    for n in (0, 99):
        with pytest.raises(SpecError, match=rf"workers={n} but there are \d+ cores"):
            execute(jobs, corpus, workspace, n_workers=n, console=Console(quiet=True))


def test_nothing_is_executed_twice(plan, workspace, corpus, commit):
    spec = plan.cells[0].spec
    commit(spec)
    execute([Job(spec)], corpus, workspace, n_workers=None, console=Console(quiet=True))
    assert len(records.attempts(workspace.runs, spec.run_id)) == 1


def test_progress_off_a_terminal_is_plain_lines_with_eta(plan, monkeypatch, capsys):
    monkeypatch.setattr("experiments.progress.PLAIN_EVERY_S", 0.0)
    first, second = (cell.spec for cell in plan.cells[:2])
    with SweepProgress([Job(first), Job(second)], 3, Console(width=200)) as progress:
        progress.on_progress(Progress(first.run_id, 50, first.n_steps, 2.345))
        done = {"run_id": first.run_id, "status": "finished", "loss_nats": 1.5, "seconds": 7.0}
        progress.on_record({**done, "loss_se_iid": 0.01})
        progress.on_record(
            {"run_id": second.run_id, "status": "diverged", "diverged_step": 8, "seconds": 1.0}
        )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "[3/5]" in lines[0] and f"step 50/{first.n_steps} loss 2.345" in lines[0]
    assert "ETA" in lines[0]
    assert "[4/5]" in lines[1] and "loss 1.5000 ± 0.0100 nats/token" in lines[1]
    assert "[5/5]" in lines[2] and "diverged at step 8" in lines[2]


def test_time_left_weighs_a_shape_by_how_fast_it_runs_and_tells_hours(plan, monkeypatch):
    small = plan.cells[0].spec
    wide = dataclasses.replace(
        small, model=dataclasses.replace(small.model, d_model=256, n_heads=4, n_layers=8)
    )
    clock = iter((0.0, 1000.0))
    monkeypatch.setattr("experiments.progress.time.monotonic", lambda: next(clock))
    progress = SweepProgress([Job(small), Job(wide)], 0, Console(quiet=True))
    progress._work[small.run_id] = progress._done(small, small.n_steps)
    flops = [train_flops_per_token(spec.model, "matmul_full") for spec in (small, wide)]
    hours, minutes, seconds = map(int, progress._note().split("ETA ")[1].split(":"))
    left = 3600 * hours + 60 * minutes + seconds
    by_flops = 1000 * flops[1] / flops[0]
    assert 0.25 * by_flops < left < 0.75 * by_flops, "a wide model reaches more of a core"


def test_a_changed_prediction_is_refused(folder):
    values = {"run_id": "x", "is_blind": True, "predictions": [{"loss_nats": 1.5}]}
    write_json(folder.prediction, values)
    assert stages.written_prediction(folder) == values, "one of an earlier version has no hash"
    hashed = {**values, "hash": stages._hash_of(values)}
    write_json(folder.prediction, hashed)
    assert stages.written_prediction(folder) == hashed
    folder.prediction.write_text(folder.prediction.read_text().replace("1.5", "1.6"))
    with pytest.raises(SpecError, match=r"prediction\.json is not as it was written"):
        stages.written_prediction(folder)
