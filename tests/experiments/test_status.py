"""What status says of runs, from planted files and from processes that hold runs or held them."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import launch
from experiments import cells as cell_table
from experiments import status as looking
from experiments import status_view
from experiments.cells import cell_rows, read_cells
from experiments.compact import compact
from experiments.stages import freeze_plan
from experiments.status import sweep_status
from experiments.status_view import StatusFlags, clock, most_wanted, totals
from train import lease, records
from train.columns import CURVE_COLUMNS
from train.config import SpecError
from train.lease import Halt

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pathlib import Path
from train import lease
lease.claim(Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(plan, workspace):
    found = workspace.sweep(plan.name)
    freeze_plan(plan, found)
    return found


@pytest.fixture
def specs(plan):
    return [cell.spec for cell in plan.cells]


@pytest.fixture
def status(plan, workspace, folder):
    """Status by number of the cell."""
    return lambda: sweep_status(workspace, plan.name)


@pytest.fixture
def log_steps(workspace):
    """Claim a run in this process and log points; the first was `ago_s` after its begin."""

    def log_steps(spec, *steps, took_s=10.0):
        attempt = lease.claim(workspace.runs, spec.run_id)
        rows = [
            {**dict.fromkeys(CURVE_COLUMNS), "step": s, "loss_nats": 3 - s / 1e4} for s in steps
        ]
        records.append_points(attempt, rows)
        logged = os.stat(attempt.directory / "curve.jsonl").st_mtime
        os.utime(attempt.directory / "holder.json", (logged - took_s, logged - took_s))
        return attempt

    return log_steps


def test_every_state(specs, workspace, status, commit, log_steps, tmp_path):
    commit(specs[0], loss_nats=1.25, seconds=61.0, n_steps=specs[0].n_steps)
    commit(specs[1], status="diverged", loss_nats=None, diverged_step=70, seconds=5.0)
    log_steps(specs[2], 1, 50)
    lease.end(log_steps(specs[3], 30))
    log = tmp_path / "worker.log"
    log.write_text("\n".join(["first", *("x" * 3000,) * 4, "", "Traceback", "MemoryError"]) + "\n")
    lease.halt(workspace.runs, specs[4].run_id, Halt("failed", "out of memory", "node7", str(log)))
    lease.halt(workspace.runs, specs[5].run_id, Halt("cancelled", "by hand"))
    found = status()
    runs = found.runs
    assert [run.state for run in runs[:7]] == [
        "finished", "diverged", "running", "interrupted", "failed", "cancelled", "waiting",
    ]  # fmt: skip
    assert (runs[0].step, runs[0].loss_nats, runs[0].seconds) == (specs[0].n_steps, 1.25, 61.0)
    assert runs[1].reason == "diverged at step 70" and runs[1].loss_nats is None
    assert (runs[2].step, runs[2].loss_nats, runs[2].attempt) == (50, 2.995, 1)
    assert runs[2].pid == os.getpid() and runs[2].seconds == pytest.approx(10, abs=0.01)
    assert runs[2].eta_seconds == pytest.approx((specs[2].n_steps - 50) * 10 / 50, rel=1e-3)
    assert runs[3].eta_seconds is None and runs[3].step == 30
    assert (runs[4].host, runs[4].reason) == ("node7", "out of memory")
    assert runs[4].log_tail[-2:] == ("Traceback", "MemoryError")
    assert found.counts["waiting"] == len(specs) - 6 and not found.is_over
    share = [1.0, 1.0, 50 / specs[2].n_steps, 30 / specs[3].n_steps]
    flops = [run.cell.train_flops_charged for run in runs]
    done = sum(a * b for a, b in zip(share, flops, strict=False))
    assert found.train_flops_done == pytest.approx(done)
    assert found.eta_seconds is not None and found.eta_seconds > (runs[2].eta_seconds or 0)


def test_a_torn_curve_and_one_without_a_point_are_no_error(specs, status, log_steps):
    attempt = log_steps(specs[0], 10)
    with open(attempt.directory / "curve.jsonl", "a") as file:
        file.write('{"step":11,"loss')
    assert status().runs[0].step == 10
    (attempt.directory / "curve.jsonl").write_text('{"step":')
    assert (status().runs[0].step, status().runs[0].loss_nats) == (0, None)


def test_running_is_only_what_a_living_process_holds(specs, workspace, status):
    run_id = specs[0].run_id
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workspace.runs), run_id], cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        assert child.stdout and child.stdin and child.stdout.readline() == "held\n"
        alive = status().runs[0]
        assert (alive.state, alive.pid) == ("running", child.pid)
        child.kill()
        child.wait()
        assert status().runs[0].state == "interrupted"


def elsewhere(attempt, age_s):
    """As if the holder were another machine, and last counted so long ago."""
    path = attempt.directory / "holder.json"
    holder = json.loads(path.read_text())
    path.write_text(json.dumps({**holder, "machine": "another", "host": "node9", "pid": 1}))
    beat = attempt.directory / "heartbeat"
    when = os.stat(beat).st_mtime - age_s
    os.utime(beat, (when, when))


@pytest.mark.parametrize(
    "age_s,counts_on,state",
    [(0, False, "running"), (1e6, False, "interrupted"), (1e6, True, "running"),
     (-1e6, True, "running"), (-1e6, False, "interrupted")],
)  # fmt: skip
def test_a_holder_on_another_host_is_told_by_its_heartbeat(
    specs, status, log_steps, monkeypatch, age_s, counts_on, state
):
    attempt = log_steps(specs[0], 10)
    elsewhere(attempt, age_s)

    def wait(seconds):
        if counts_on:
            (attempt.directory / "heartbeat").write_text("7")

    monkeypatch.setattr(looking.time, "sleep", wait)
    found = status().runs[0]
    assert (found.state, found.host) == (state, "node9")
    assert (found.reason == "no sign of life from node9") == (state == "interrupted")


def test_estimates_stand_beside_what_it_took(specs, status, folder, commit, capsys):
    assert status().runs[0].estimated_seconds is None and status().eta_seconds is None
    commit(specs[0], seconds=50.0)
    seconds = {spec.run_id: 40.0 for spec in specs}
    folder.estimates.write_text(
        json.dumps({"seconds": seconds, "total_seconds": 1.0, "n_workers": 2})
    )
    found = status()
    assert found.runs[0].estimated_seconds == 40.0
    assert found.eta_seconds == pytest.approx(40.0 * (len(specs) - 1) / 2)
    flags = StatusFlags(sweep=folder.path.name, out=folder.path.parents[1])
    assert status_view.show(flags) == 0
    assert "took 50 s of work, estimated 40 s (+25%)" in capsys.readouterr().out


def test_committed_runs_come_from_the_table_where_it_is_up_to_date(
    plan, specs, workspace, folder, status, commit, monkeypatch
):
    for spec in specs[:3]:
        commit(spec, loss_nats=1.5)
    compact(plan, workspace.runs, folder)
    commit(specs[3], loss_nats=1.75)
    seen = []
    read_run = records.read_run
    monkeypatch.setattr(
        looking, "read_run", lambda store, run_id: (seen.append(run_id), read_run(store, run_id))[1]
    )
    found = status()
    assert [run.loss_nats for run in found.runs[:4]] == [1.5, 1.5, 1.5, 1.75]
    assert seen == [specs[3].run_id]
    folder.runs_table.write_bytes(b"damaged")
    assert status().runs == found.runs
    assert seen[1:] == [spec.run_id for spec in specs[:4]]


def test_cells_are_those_of_the_plan_with_or_without_their_table(
    plan, workspace, folder, monkeypatch
):
    kept = read_cells(folder, workspace.runs)
    assert kept.cells == cell_rows(plan) and kept.plan_hash == plan.hash
    monkeypatch.setattr(cell_table, "frozen_plan", lambda folder: pytest.fail("not needed"))
    assert read_cells(folder, workspace.runs) == kept
    monkeypatch.undo()
    folder.cells_table.write_bytes(b"damaged")
    assert read_cells(folder, workspace.runs) == kept
    folder.cells_table.unlink()
    assert read_cells(folder, workspace.runs) == kept
    with pytest.raises(SpecError, match="sweep nothing has no plan"):
        read_cells(workspace.sweep("nothing"), workspace.runs)


def test_json_to_a_file_and_to_standard_output(specs, folder, commit, capsys, tmp_path):
    commit(specs[0])
    arguments = ["status", folder.path.name, "--out", str(folder.path.parents[1]), "--json"]
    assert launch.main([*arguments, "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert launch.main([*arguments, str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text()) == printed
    assert printed["counts"] == {"waiting": len(specs) - 1, "finished": 1}
    assert printed["n_runs"] == len(printed["runs"]) == len(specs)
    first = printed["runs"][0]
    assert (first["run_id"], first["state"]) == (specs[0].run_id, "finished")
    assert first["n_steps"] == specs[0].n_steps and first["estimated_seconds"] is None


def test_watch_ends_with_the_sweep_and_with_ctrl_c(
    specs, folder, commit, capsys, monkeypatch, workspace
):
    looks = []

    def finish(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            for spec in specs:
                commit(spec)

    monkeypatch.setattr(status_view.time, "sleep", finish)
    flags = StatusFlags(sweep=folder.path.name, out=workspace.root, watch=True, every=0.5)
    assert status_view.show(flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert looks == [0.5, 0.5] and len(lines) == 2, "a line whenever something has changed"
    assert f"{len(specs)} waiting" in lines[0] and f"{len(specs)} finished" in lines[1]

    def interrupt(workspace, name):
        raise KeyboardInterrupt

    monkeypatch.setattr(status_view, "sweep_status", interrupt)
    assert status_view.show(flags) == 0


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits_the_terminal(specs, status, workspace, commit, log_steps, width):
    commit(specs[0], status="diverged", loss_nats=None, diverged_step=7)
    log_steps(specs[1], 400)
    lease.halt(workspace.runs, specs[2].run_id, Halt("failed", "it broke " * 30, "node7"))
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(status_view._table(status(), status().runs, width))
    lines = console.export_text().splitlines()
    assert len(lines) == len(specs) + 2, "a line a run"
    assert all(len(line) <= width for line in lines)
    running = next(line for line in lines if "running" in line)
    assert specs[1].run_id[:8] in running and f"400/{specs[1].n_steps:,}" in running
    assert all("waiting" in line for line in lines[5:])
    for text in (f"{specs[1].n_tokens:,}", "diverged at step 7", "it broke it broke"):
        assert any(text in line for line in lines) == (width == 200)


def test_of_many_runs_those_are_shown_that_ask_for_attention(specs, status, workspace, commit):
    for spec in specs[:-1]:
        commit(spec)
    lease.halt(workspace.runs, specs[-1].run_id, Halt("failed", "it broke"))
    shown = most_wanted(status().runs, 3)
    assert [run.state for run in shown] == ["finished", "finished", "failed"]
    assert f"{len(specs)} runs: 1 failed" in totals(status())


def test_spans_are_said_as_clocks_do():
    assert [clock(s) for s in (None, 0.4, 59, 61, 3600, 90061)] == [
        "?", "0 s", "59 s", "1:01", "1:00:00", "25:01:01",
    ]  # fmt: skip
