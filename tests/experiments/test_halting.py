"""cancel and retry: what they write, what a sweep says then, and a run that is under way."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_study

import launch
from experiments import stages
from experiments.halting import Cancelled, refuse_cancelled, run_command
from experiments.plan import Cell, Plan
from experiments.stages import freeze_plan
from experiments.status import sweep_status
from train import lease
from train.config import Budget, DataConfig, OptimizerConfig, RunSpec
from train.jobs import Job
from train.lease import Halt
from train.records import read_run

ROOT = Path(__file__).resolve().parents[2]
TRAIN = """
import json, sys
from pathlib import Path
from rich.console import Console
from experiments.executors.local import execute
from experiments.workspace import Workspace
from train.data.corpora import load
from train.jobs import job_from_json
workspace = Workspace(Path(sys.argv[1]))
jobs = [job_from_json(values) for values in json.loads(sys.stdin.read())]
corpus = load("sotu", workspace.data, tokenizer="bytes")
execute(jobs, corpus, workspace, n_workers=1, console=Console())
"""


@pytest.fixture
def ids(plan, workspace):
    freeze_plan(plan, workspace.sweep(plan.name))
    return [cell.spec.run_id for cell in plan.cells]


@pytest.fixture
def told(plan, workspace, capsys, ids):
    """Run a command on the plan's sweep; give its exit code, output and complaints."""

    def told(command, *runs):
        capsys.readouterr()
        code = launch.main([command, plan.name, *runs, "--out", str(workspace.root)])
        found = capsys.readouterr()
        return code, found.out, found.err

    return told


def kinds(workspace, ids):
    halts = (lease.halt_of(workspace.runs, run_id) for run_id in ids)
    return [halt and halt.kind for halt in halts]


def test_cancel_and_retry_by_prefix_and_whole(plan, workspace, ids, told, commit):
    commit(plan.cells[0].spec)
    lease.halt(workspace.runs, ids[1], Halt("failed", "out of memory"))
    code, out, _ = told("cancel", ids[2][:10])
    assert code == 0 and "cancelled 1 run\n" in out and f"retry {plan.name}" in out
    assert kinds(workspace, ids[:4]) == [None, "failed", "cancelled", None]
    lease.claim(workspace.runs, ids[3])
    code, out, _ = told("cancel")
    n = len(ids) - 3
    assert f"cancelled {n} runs, of which 1 under way: each stops with a checkpoint" in out
    assert "2 had failed or were cancelled before; 1 have their record" in out
    assert kinds(workspace, ids) == [None, "failed", *["cancelled"] * (len(ids) - 2)]
    code, out, _ = told("retry", ids[1], ids[2])
    assert code == 0 and "2 runs can be trained again" in out
    assert out.splitlines()[-1].startswith("now: python launch.py run quickstart")
    assert kinds(workspace, ids[:4]) == [None, None, None, "cancelled"]
    told("retry")
    assert set(kinds(workspace, ids)) == {None}
    assert "none of" in told("retry")[1]


def test_a_prefix_of_none_or_several_is_refused(ids, told):
    assert len({run_id[0] for run_id in ids}) < len(ids)
    first = next(run_id[0] for run_id in ids if sum(i[0] == run_id[0] for i in ids) > 1)
    for command in ("cancel", "retry"):
        code, out, err = told(command, first)
        assert (code, out) == (2, "") and "is several: " in err
        assert told(command, "xyz")[0] == 2


def test_a_sweep_says_that_it_is_cancelled(workspace, ids, plan, commit):
    store = workspace.runs
    commit(plan.cells[0].spec)
    refuse_cancelled("s", ids, store)
    lease.halt(store, ids[1], Halt("cancelled", "by hand"))
    refuse_cancelled("s", ids, store, is_before=True)
    refuse_cancelled("s", ids[:1], store)
    with pytest.raises(Cancelled, match=r"1 of 2 runs of sweep s are cancelled.*retry s"):
        refuse_cancelled("s", ids[:2], store, is_before=True)
    with pytest.raises(Cancelled, match=r"^1 of 26 runs of sweep s are cancelled"):
        refuse_cancelled("s", ids, store)


def test_run_of_a_cancelled_sweep_ends_with_one_line(told, launched, capsys, tmp_path, monkeypatch):
    out = tmp_path / "tiny"
    monkeypatch.setattr(stages, "execute", lambda *a, **k: pytest.fail("nothing is to be trained"))
    arguments = ("quickstart", *tiny_study.FLAGS, "--out", out)
    with pytest.raises(pytest.fail.Exception):
        launched("run", *arguments)
    (name,) = (path.name for path in (out / "sweeps").iterdir())
    assert launched("cancel", name, "--out", out) == 0
    capsys.readouterr()
    assert launched("run", *arguments) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "10 of 10 runs of sweep" in err
    assert f"retry {name} lifts that" in err
    launched("retry", name, "--out", out)
    command = capsys.readouterr().out.splitlines()[-1]
    assert command == (
        "now: python launch.py run quickstart --scale smoke --seq-len 16 --batch-size 4 "
        f"--out {out}"
    )


def test_the_command_that_goes_on_repeats_what_was_given():
    plan = {
        "experiment": "ladder",
        "overrides": {"recipe.tie": False, "flops": [1e9, 2e9], "a": None},
    }
    found = run_command(plan, Path("out"))
    assert found == "python launch.py run ladder --no-tie --flops 1000000000.0 2000000000.0"


def test_a_run_under_way_is_cancelled_and_taken_up_again(prepared, shared_workspace, tiny):
    """The launcher is a child: told by files alone, it leaves the run and trains the other."""
    corpus = prepared[1]
    data = DataConfig(
        corpus.name, corpus.content_hash, corpus.tokenizer, corpus.tokenizer_hash, corpus.split_rule
    )
    model = dataclasses.replace(tiny, vocab_size=256, n_layers=1)
    long, short = (
        RunSpec(model=model, data=data, optimizer=OptimizerConfig(lr=0.01), budget=Budget(steps=n))
        for n in (200_000, 20)
    )
    plan = Plan("two", "none", {}, {}, (Cell(long, "grid"), Cell(short, "grid")))
    freeze_plan(plan, shared_workspace.sweep("two"))
    jobs = json.dumps([Job(spec).to_json() for spec in (long, short)])
    with subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(shared_workspace.root)], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as launcher:  # fmt: skip
        assert launcher.stdin and launcher.stdout
        launcher.stdin.write(jobs)
        launcher.stdin.close()
        until = time.monotonic() + 120
        while sweep_status(shared_workspace, "two").runs[0].step < 100:
            assert time.monotonic() < until and launcher.poll() is None
            time.sleep(0.1)
        assert sweep_status(shared_workspace, "two").runs[0].state == "running"
        arguments = ["two", long.run_id[:6], "--out", str(shared_workspace.root)]
        assert launch.main(["cancel", *arguments]) == 0
        assert launcher.wait(120) == 0, launcher.stdout.read()
    found = sweep_status(shared_workspace, "two")
    assert [run.state for run in found.runs] == ["cancelled", "finished"]
    assert read_run(shared_workspace.runs, short.run_id) is not None
    assert list((shared_workspace.runs / long.run_id).glob("attempt-1/checkpoint/*"))
    launch.main(["retry", *arguments])
    assert sweep_status(shared_workspace, "two").runs[0].state == "interrupted"
