"""Diverged runs, repeated at a lower rate as runs of their own that name their parent."""

import dataclasses
import io

import jax
import pandas as pd
import pytest
from rich.console import Console

from analysis.load import points_from_runs
from experiments import diverged, quickstart, stages, tune
from experiments.cells import read_cells
from experiments.compact import compact
from experiments.plan import Cell, Plan, Role, frozen_plan
from experiments.stages import Stage, freeze_plan, repeat_diverged, train
from experiments.status import sweep_status
from experiments.status_view import _note
from train import loop
from train.config import Budget, DataConfig, OptimizerConfig, RunSpec, SpecError
from train.records import read_run


@pytest.fixture
def make_plan(prepared, tiny):
    """A plan of runs of 40 steps that differ in their learning rate."""
    corpus = prepared[1]
    data = DataConfig(
        corpus.name, corpus.content_hash, corpus.tokenizer, corpus.tokenizer_hash, corpus.split_rule
    )
    model = dataclasses.replace(tiny, vocab_size=256, n_layers=1)

    def make_plan(*rates: float, role: Role = "grid") -> Plan:
        specs = (
            RunSpec(
                model=model, data=data, optimizer=OptimizerConfig(lr=lr), budget=Budget(steps=40)
            )
            for lr in rates
        )
        return Plan("wild", "none", {}, {}, tuple(Cell(spec, role) for spec in specs))

    return make_plan


@pytest.fixture
def folder(workspace):
    return workspace.sweep("wild")


def rates(plan):
    return [cell.spec.optimizer.lr for cell in plan.cells]


def test_each_diverged_run_is_repeated_twice_at_most(make_plan, workspace, folder, commit):
    plan = make_plan(8.0, 0.25)
    freeze_plan(plan, folder)

    def add(whole, factor):
        return diverged.add_retries(whole, folder, workspace.runs, factor)

    commit(plan.cells[1].spec)
    assert add(plan, 0.5) == plan, "nothing diverged"
    commit(plan.cells[0].spec, status="diverged", loss_nats=None)
    whole = add(plan, 0.5)
    assert rates(whole) == [8.0, 0.25, 4.0]
    assert add(whole, 0.1) == whole, "it has its repeat, whatever the factor"
    commit(whole.cells[2].spec, status="diverged", loss_nats=None)
    whole = add(whole, 0.5)
    assert rates(whole) == [8.0, 0.25, 4.0, 2.0]
    commit(whole.cells[3].spec, status="diverged", loss_nats=None)
    assert add(whole, 0.5) == whole, "twice is enough"

    assert frozen_plan(folder) == plan
    assert diverged.with_retries(plan, folder) == whole
    ids = [cell.spec.run_id for cell in whole.cells]
    assert diverged.parents(folder) == {ids[2]: ids[0], ids[3]: ids[2]}
    cells = read_cells(folder, workspace.runs).cells
    assert [cell.run_id for cell in cells] == ids
    assert [cell.retry_of for cell in cells] == [None, None, ids[0], ids[2]]
    folder.cells_table.unlink()
    assert read_cells(folder, workspace.runs).cells == cells


def test_a_rate_that_is_in_the_plan_is_not_added(make_plan, workspace, folder, commit):
    plan = make_plan(8.0, 4.0)
    for cell in plan.cells:
        commit(cell.spec, status="diverged", loss_nats=None)
    whole = diverged.add_retries(plan, folder, workspace.runs, 0.5)
    assert rates(whole) == [8.0, 4.0, 2.0]
    assert diverged.parents(folder) == {whole.cells[2].spec.run_id: plan.cells[1].spec.run_id}


@pytest.mark.parametrize("role", ["trunk", "held_out"])
def test_trunks_and_held_out_runs_are_not_repeated(make_plan, workspace, folder, commit, role):
    plan = make_plan(8.0, role=role)
    commit(plan.cells[0].spec, status="diverged", loss_nats=None)
    assert diverged.add_retries(plan, folder, workspace.runs, 0.5) == plan


def test_wrong_factors_and_experiments_are_refused():
    for factor in (0.0, 1.0, 2.0, -1.0, float("nan")):
        with pytest.raises(SpecError, match="must lie between 0 and 1"):
            diverged.check(factor, quickstart)
    with pytest.raises(SpecError, match="tune looks for the best rates itself"):
        diverged.check(0.5, tune)
    diverged.check(0.5, quickstart)


def test_an_absurd_rate_is_repeated_until_the_run_finishes(
    make_plan, prepared, shared_workspace, monkeypatch
):
    """End to end: two repeats, of which the second finishes; both name whom they repeat."""

    def execute(jobs, corpus, workspace, **how):
        for job in jobs:
            loop.train(
                job.spec, corpus, workspace.runs, device=jax.devices()[0], retry_of=job.retry_of
            )
        return len(jobs)

    monkeypatch.setattr(stages, "execute", execute)
    stage = Stage(shared_workspace, Console(file=io.StringIO()), retry_diverged=3e-20)
    folder = shared_workspace.sweep("wild")
    plan = make_plan(1e38, 0.01)
    freeze_plan(plan, folder)
    train(plan, plan.cells, prepared[1], stage)
    repeat_diverged(plan, prepared[1], stage)
    whole = diverged.with_retries(plan, folder)
    ids = [cell.spec.run_id for cell in whole.cells]
    rows = [read_run(shared_workspace.runs, run_id) for run_id in ids]
    assert [row and row["status"] for row in rows] == [
        "diverged", "finished", "diverged", "finished",
    ]  # fmt: skip
    assert [row and row["retry_of"] for row in rows] == [None, None, ids[0], ids[2]]

    assert compact(plan, shared_workspace.runs, folder) == 4
    runs = pd.read_parquet(folder.runs_table)
    assert runs["run_id"].tolist() == ids
    points = points_from_runs(runs)
    assert list(points.run_id) == [ids[1], ids[3]]
    reasons = dict(points.rejected)
    assert reasons[ids[0]].endswith(f"; repeated as {ids[2]}")
    assert reasons[ids[2]].endswith(f"; repeated as {ids[3]}")

    found = sweep_status(shared_workspace, "wild").runs
    assert [run.state for run in found] == ["diverged", "finished", "diverged", "finished"]
    assert _note(found[3]) == f"repeats {ids[2][:8]}"
    assert _note(found[2]).startswith(f"repeats {ids[0][:8]}; diverged at step ")
    stage = dataclasses.replace(stage, retry_diverged=0.5)
    repeat_diverged(plan, prepared[1], stage)
    assert len(list(folder.retries.iterdir())) == 2, "done is done"


def test_another_sweep_may_have_trained_the_repeat(make_plan, workspace, folder, commit):
    """Its record does not know of a parent then; the sweep's table does."""
    plan = make_plan(8.0)
    freeze_plan(plan, folder)
    commit(plan.cells[0].spec, status="diverged", loss_nats=None)
    repeat = diverged.add_retries(plan, folder, workspace.runs, 0.5).cells[1].spec
    commit(repeat, retry_of=None)
    compact(plan, workspace.runs, folder)
    parents = pd.read_parquet(folder.runs_table)["retry_of"].tolist()
    assert parents[1] == plan.cells[0].spec.run_id and pd.isna(parents[0])
