import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import tiny_study

from experiments import stages
from experiments.workspace import Workspace, read_json

SCRIPT = Path(tiny_study.__file__)


@pytest.fixture
def folder(finished_study):
    workspace = Workspace(finished_study)
    (name,) = workspace.sweep_names()
    return workspace.sweep(name)


def run_files(workspace):
    """Every file of every run, with the time of its last change."""
    return {
        path.relative_to(workspace.runs).as_posix(): path.stat().st_mtime_ns
        for path in workspace.runs.rglob("*")
    }


def test_one_command_leaves_tables_fits_figures_and_a_report(folder):
    runs, curves = pd.read_parquet(folder.runs_table), pd.read_parquet(folder.curves_table)
    assert len(runs) == tiny_study.N_RUNS
    assert runs["role"].value_counts().to_dict() == {"grid": 9, "seed": 1, "held_out": 1}
    assert set(runs["status"]) == {"finished"}
    assert runs["loss_nats"].between(1.0, 3.0).all()
    assert set(curves["run_id"]) == set(runs["run_id"])
    by_budget = runs[runs["role"] == "grid"].groupby("isoflop_budget")["train_flops_matmul_full"]
    assert all((flops / budget - 1).abs().max() < 0.01 for budget, flops in by_budget)
    names = {path.stem for path in folder.figures.glob("*.png")}
    assert len(names) >= 5
    for path in folder.figures.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5_000
    page = folder.report.read_text()
    assert "<html" in page and page.count('id="chart-') >= 8, "charts"
    assert page.count("data:image/png") >= 1, "figures that are no chart"
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=.https?:", page), (
        "not self-contained"
    )


def test_prediction_came_before_the_run_it_predicts(folder, finished_study):
    prediction, score = read_json(folder.prediction), read_json(folder.score)
    runs = Workspace(finished_study).runs
    record = runs / prediction["run_id"] / "run.json"
    first_file = min(p.stat().st_mtime_ns for p in (runs / prediction["run_id"]).rglob("*.json*"))
    assert folder.prediction.stat().st_mtime_ns < first_file
    assert score["measured_loss_nats"] == read_json(record)["loss_nats"]
    plan = read_json(folder.plan)
    assert prediction["plan_hash"] == score["plan_hash"] == plan["hash"]
    assert read_json(folder.fits)["plan_hash"] == plan["hash"]
    for entry in prediction["predictions"]:
        assert entry["ok"], entry["status"]
        low, high = entry["new_run_interval"]
        assert low <= entry["loss_nats"] <= high
        assert 1.0 < entry["loss_nats"] < 3.0


def test_a_second_run_trains_nothing_and_keeps_the_prediction(
    finished_study, tmp_path, launched, monkeypatch, capsys
):
    out = tmp_path / "out"
    shutil.copytree(finished_study, out)
    workspace = Workspace(out)
    folder = workspace.sweep(workspace.sweep_names()[0])
    frozen = {path: path.read_bytes() for path in (folder.prediction, folder.plan, folder.score)}
    before, drawn = run_files(workspace), []
    monkeypatch.setattr(stages, "draw", lambda *a: drawn.append(a))
    assert launched("run", "quickstart", *tiny_study.FLAGS, "--out", out) == 0
    assert run_files(workspace) == before
    assert {path: path.read_bytes() for path in frozen} == frozen
    assert len(drawn) == 1
    told = capsys.readouterr().out
    assert "about 0 s" in told and "training" not in told.replace("training left", "")


@pytest.mark.slow
def test_killed_midway_and_started_again_repeats_no_finished_run(tmp_path):
    out = tmp_path / "out"
    workspace = Workspace(out)
    command = [
        sys.executable, str(SCRIPT), "run", "quickstart", *tiny_study.FLAGS, "--out", str(out)
    ]  # fmt: skip
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 240
    while len(list(workspace.runs.glob("*/run.json"))) < 4:
        assert first.poll() is None, first.stderr and first.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    finished = {path: path.stat().st_mtime_ns for path in workspace.runs.glob("*/run.json")}
    attempts = {
        path.parent: sorted(p.name for p in path.parent.glob("attempt-*")) for path in finished
    }
    assert 4 <= len(finished) < tiny_study.N_RUNS

    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert f"{len(finished)} done before" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    for run, names in attempts.items():
        assert sorted(p.name for p in run.glob("attempt-*")) == names
    assert len(list(workspace.runs.glob("*/run.json"))) == tiny_study.N_RUNS
    assert workspace.sweep(workspace.sweep_names()[0]).report.exists()


@pytest.mark.slow
def test_ctrl_c_stops_with_checkpoints_and_code_130(tmp_path):
    out = tmp_path / "out"
    command = [
        sys.executable, str(SCRIPT), "run", "quickstart", *tiny_study.FLAGS, "--out", str(out)
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 240
    while not list(Workspace(out).runs.glob("*/attempt-*/curve.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert told.strip().startswith("stopped; finished runs and checkpoints are kept")


@pytest.mark.slow
def test_two_launchers_on_one_sweep_end_well_with_one_record_a_run(tmp_path):
    """The same command twice at once: the runs are shared, and what is written beside is whole."""
    out = tmp_path / "out"
    workspace = Workspace(out)
    command = [
        sys.executable, str(SCRIPT), "run", "quickstart", *tiny_study.FLAGS, "--out", str(out)
    ]  # fmt: skip
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(2)]  # fmt: skip
    told = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    folder = workspace.sweep(workspace.sweep_names()[0])
    table = pd.read_parquet(folder.runs_table)
    assert len(table) == tiny_study.N_RUNS and set(table["status"]) == {"finished"}
    for run_id in table["run_id"]:
        assert len(list((workspace.runs / run_id).glob("attempt-*"))) == 1
    assert {path.name for path in workspace.runs.iterdir()} == set(table["run_id"])
    prediction, score = read_json(folder.prediction), read_json(folder.score)
    assert prediction["is_blind"] and score["run_id"] == prediction["run_id"]
    assert folder.report.exists() and not list(folder.path.rglob(".*"))
