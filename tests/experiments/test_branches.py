"""Trunk and branch as a plan: which runs, in what order, at what cost, and what is left."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import same_run
from rich.console import Console

from analysis.load import points_from_runs
from experiments import footprint, planning
from experiments.branches import make_jobs, remove_spent_points, waves
from experiments.compact import compact
from experiments.estimates import Calibration, estimate, shape_of
from experiments.executors.local import execute
from experiments.grid import trunk_and_branch_cells
from experiments.plan import Cell, Plan, plan_from_json
from experiments.recipe import Recipe, Size
from model.accounting import train_flops
from train.config import DataConfig, ScheduleConfig, SpecError
from train.jobs import Job

STEPS = (64, 128, 256)
TOKENS = tuple(n * 8 * 16 for n in STEPS)  # in batches of 8 windows of 16 tokens
SIZES = (Size(1, 8), Size(1, 16))


@pytest.fixture(scope="module")
def language(prepared):
    return prepared[1]


@pytest.fixture(scope="module")
def branching_plan(language):
    data = DataConfig(
        language.name, language.content_hash, language.tokenizer, language.tokenizer_hash,
        language.split_rule,
    )  # fmt: skip
    cells = trunk_and_branch_cells(
        SIZES, TOKENS, Recipe(seq_len=16), data, vocab_size=256, seed=0, cooldown_fraction=0.25
    )
    return Plan("branches", "none", {}, {}, cells)


KNOWN = Calibration(1e10, {}, 1.0, "planted")


def guess(plan):
    return estimate(plan, KNOWN, 1, 100)


def own_flops(job):
    tokens = job.n_steps_own * job.spec.batch_tokens
    return train_flops(job.spec.model, tokens, "matmul_full")


def test_each_size_has_a_trunk_that_serves_every_length(branching_plan):
    trunks = branching_plan.of_role("trunk")
    assert [cell.spec.model.d_model for cell in trunks] == [8, 16]
    assert len(branching_plan.of_role("grid")) == len(SIZES) * len(TOKENS)
    for tokens, cell in zip(2 * TOKENS, branching_plan.of_role("grid"), strict=True):
        spec, job = cell.spec, branching_plan.jobs[cell.spec.run_id]
        assert spec.n_tokens == tokens
        assert spec.schedule.kind == "wsd" and spec.schedule.final_lr_fraction == 0
        assert spec.schedule.decay_steps == spec.n_steps // 4
        assert job.trunk is not None and job.trunk.model == spec.model
        assert job.n_steps_own == spec.schedule.decay_steps - 1
    for cell in trunks:
        job = branching_plan.jobs[cell.spec.run_id]
        assert job.branch_steps == tuple(3 * n // 4 + 1 for n in STEPS)
        assert job.branch_steps[-1] == job.spec.n_steps, "no step that nobody needs"
        assert job.spec.schedule == ScheduleConfig("constant", warmup_steps=3)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_cooldown_of_nothing_or_everything_is_refused(fraction, language):
    data = DataConfig("x", "x", "x", "x", "x")
    with pytest.raises(SpecError, match=r"cooldown_fraction=.* must be between 0 and 1"):
        trunk_and_branch_cells(
            SIZES, TOKENS, Recipe(), data, vocab_size=256, seed=0, cooldown_fraction=fraction
        )


def test_without_a_trunk_every_run_is_alone(plan):
    assert [job.spec for job in plan.jobs.values()] == [cell.spec for cell in plan.cells]
    assert all(job == Job(job.spec) for job in plan.jobs.values())
    assert waves(list(plan.jobs.values())) == [tuple(plan.jobs.values())]


def test_the_trunk_that_shares_most_is_the_parent(branching_plan):
    trunk, *others = (c.spec for c in branching_plan.cells if c.spec.model.d_model == 8)
    short = dataclasses.replace(trunk, budget=dataclasses.replace(trunk.budget, steps=80))
    jobs = {job.spec.run_id: job for job in make_jobs([short, trunk], others)}
    parents = [jobs[spec.run_id].trunk for spec in others]
    assert [parent.n_steps for parent in parents] == [80, trunk.n_steps, trunk.n_steps]
    assert jobs[short.run_id].branch_steps == (49,)


def test_trunks_come_before_their_branches_and_others_at_once(branching_plan, plan):
    jobs = [*branching_plan.jobs.values(), *list(plan.jobs.values())[:2]]
    first, then = waves(jobs)
    assert {job.trunk for job in first} == {None} and len(first) == 4
    assert {job.trunk for job in then} == {job.spec for job in first[:2]}
    assert waves(list(then)) == [then], "their trunks are done"
    assert waves([]) == []


def test_a_plan_charges_shared_steps_once(branching_plan, language):
    rows = planning.plan_table(branching_plan, guess(branching_plan), language)
    charged = {row["run_id"]: row["train_flops_charged"] for row in rows}
    for job in branching_plan.jobs.values():
        assert charged[job.spec.run_id] == own_flops(job)
    alone = sum(r["train_flops_standalone"] for r in rows if r["role"] == "grid")
    # Three lengths of 1, 2 and 4 with a quarter cooled down: 3.01 + 0.25 (1 + 2 + 4) of 7.
    assert sum(charged.values()) / alone == pytest.approx((3 + 1.75) / 7, rel=0.01)
    sums = planning.totals(branching_plan, rows, guess(branching_plan), 1, None)
    assert sums["train_flops_charged"] == sum(charged.values())
    assert sums["train_flops_standalone"] == alone
    assert sums["disk_bytes_under_way"] > sum(
        len(job.branch_steps) * footprint.state_bytes(job.spec)
        for job in branching_plan.jobs.values()
    )


def test_estimated_time_waits_for_the_trunks(branching_plan):
    """At a rate of 1 FLOP/s, on one worker the sum, on many the longest chains."""
    ones = {shape_of(cell.spec): 1.0 for cell in branching_plan.cells}
    calibration = Calibration(1.0, ones, 1.0, "planted")
    jobs = branching_plan.jobs
    one = estimate(branching_plan, calibration, 1, 0).wall_seconds
    assert one == pytest.approx(sum(own_flops(job) for job in jobs.values()), rel=1e-6)
    many = estimate(branching_plan, calibration, 99, 0).wall_seconds
    chains = [
        own_flops(trunk) + max(own_flops(j) for j in jobs.values() if j.trunk == trunk.spec)
        for trunk in jobs.values()
        if trunk.branch_steps
    ]
    assert many == pytest.approx(max(chains), rel=1e-6)
    done = frozenset(c.spec.run_id for c in branching_plan.of_role("trunk"))
    left = estimate(branching_plan, calibration, 1, 0, done).wall_seconds
    branches = branching_plan.of_role("grid")
    assert left == pytest.approx(sum(own_flops(jobs[c.spec.run_id]) for c in branches), rel=1e-6)


def test_trunks_survive_json_and_derive_no_field(branching_plan):
    values = json.loads(json.dumps(branching_plan.to_json()))
    assert plan_from_json(values) == branching_plan
    assert set(values["cells"][0]) == {"run_id", "role", "isoflop_budget", "spec"}


def test_a_plan_of_branches_from_training_to_points(
    branching_plan, language, shared_workspace, share, tmp_path
):
    """Executed as one plan: equal to runs alone, cheaper, and the trunk is no point of a law."""
    small = Plan("small", "none", {}, {}, branching_plan.cells[:4])
    jobs = list(small.jobs.values())
    console = Console(quiet=True)
    execute(jobs[:3], language, shared_workspace, n_workers=1, console=console)
    remove_spent_points(jobs, shared_workspace.runs)
    assert len(list(shared_workspace.runs.glob("*/branch/step-*"))) == 3, (
        "a branch still needs them"
    )
    execute(jobs, language, shared_workspace, n_workers=1, console=console)
    remove_spent_points(jobs, shared_workspace.runs)
    assert not list(shared_workspace.runs.glob("*/branch"))

    alone = share(tmp_path / "alone")
    execute([Job(jobs[-1].spec)], language, alone, n_workers=1, console=console)
    found = [
        (w.runs, json.loads((w.runs / jobs[-1].spec.run_id / "run.json").read_text()))
        for w in (shared_workspace, alone)
    ]
    same_run.assert_same_run(*found[0], *found[1], same_run.ABOUT_ITS_PARENT)

    folder = shared_workspace.sweep("small")
    folder.path.mkdir(parents=True)
    assert compact(small, shared_workspace.runs, folder) == 4
    runs = pd.read_parquet(folder.runs_table)
    assert runs["role"].tolist() == ["trunk", "grid", "grid", "grid"]
    trunk_id = jobs[0].spec.run_id
    for column in ("parent_run_id", "trunk_run_id"):
        assert pd.isna(runs[column][0]) and runs[column].tolist()[1:] == [trunk_id] * 3
    rows = planning.plan_table(small, guess(small), language)
    assert runs["train_flops_charged"].tolist() == [row["train_flops_charged"] for row in rows]
    points = points_from_runs(runs)
    assert list(points.run_id) == [job.spec.run_id for job in jobs[1:]]
    assert len(np.unique(points.cluster)) == 1
    ((rejected, reason),) = points.rejected
    assert rejected == trunk_id and reason.startswith("trunk: ")


def test_cells_of_a_trunk_have_no_place_in_a_second_role(branching_plan):
    trunk = branching_plan.of_role("trunk")[0]
    with pytest.raises(SpecError, match="same run twice"):
        Plan("twice", "none", {}, {}, (trunk, Cell(trunk.spec, "grid")))
