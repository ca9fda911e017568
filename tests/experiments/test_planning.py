"""What a plan says before a step: table, budget and trimming, differences, footprints."""

import dataclasses
import io
import json
import math

import pytest
from rich.console import Console

from experiments import config_diff, footprint, grid, planning, quickstart, sweep, trimming, trunks
from experiments.estimates import Calibration, estimate
from experiments.plan import Cell, Plan, plan_from_json
from experiments.plan_report import plan_tables
from experiments.recipe import Recipe, Size
from model.accounting import FLOPS_CONVENTIONS, train_flops
from train.config import DataConfig, SpecError, from_json, to_json

KNOWN = Calibration(1e11, {}, 1.0, "planted")


@pytest.fixture
def calibrated(monkeypatch):
    """A machine that is known, so that no probe is run."""
    monkeypatch.setattr(planning, "calibration_of", lambda workspace, n: KNOWN)


def planned(experiment, corpus, workspace, options=None, limits=planning.NO_LIMITS, **flags):
    plan = experiment.plan(options or experiment.Options(), corpus)
    flags = {"n_workers": 2, "price_per_hour": None, **flags}
    return planning.planned(experiment, plan, corpus, workspace, limits, **flags)


def printed(found, width):
    console = Console(width=width, file=io.StringIO())
    console.print(plan_tables(found, width))
    return console.file.getvalue()


def test_table_has_every_cost_of_every_run(plan, corpus):
    rows = planning.plan_table(plan, estimate(plan, KNOWN, 2, 100), corpus)
    assert [row["run_id"] for row in rows] == [cell.spec.run_id for cell in plan.cells]
    for row, cell in zip(rows, plan.cells, strict=True):
        for convention in FLOPS_CONVENTIONS:
            expected = train_flops(cell.spec.model, cell.spec.n_tokens, convention)
            assert row[f"train_flops_{convention}"] == expected
        groups = ("embedding", "non_embedding", "norm", "head")
        assert row["n_params_total"] == sum(row[f"n_params_{group}"] for group in groups)
        assert row["budget_error"] == cell.budget_error
        assert row["seconds"] > 0


def test_more_unique_tokens_than_there_are_is_refused_before_training(plan, corpus):
    n = len(corpus.train_tokens)
    spec = plan.cells[0].spec
    data = dataclasses.replace(spec.data, n_tokens_unique=2 * n)
    greedy = Plan("greedy", "none", {}, {}, (Cell(dataclasses.replace(spec, data=data), "grid"),))
    with pytest.raises(SpecError, match=rf"n_tokens_unique={2 * n} of run .*; use fewer"):
        planning.plan_table(greedy, estimate(greedy, KNOWN, 1, 10), corpus)


@pytest.mark.parametrize("width", [80, 200])
def test_a_plan_is_readable_at_any_width(corpus, workspace, calibrated, width):
    found = planned(quickstart, corpus, workspace, price_per_hour=0.5)
    text = printed(found, width)
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    for cell in found.plan.cells:
        assert text.count(f"\n{cell.spec.run_id[:8]} ") == 2, "once as a run, once as a cost"
    assert "…" not in text
    money = found.totals["hours"] * 0.5
    assert f"{money:.2g} at the price given" in " ".join(text.split())
    assert json.loads(json.dumps(found.to_json()))["totals"]["price"] == pytest.approx(money)


def test_shapes_are_what_is_compiled(corpus, workspace, calibrated):
    found = planned(sweep, corpus, workspace, sweep.Options(sizes=("1x8", "1x16"), seeds=2))
    assert [(s["d_model"], s["batch_size"], s["n_runs"]) for s in found.shapes] == [
        (8, 4, 6), (8, 8, 6), (8, 16, 6), (16, 4, 6), (16, 8, 6), (16, 16, 6),
    ]  # fmt: skip
    assert sum(s["seconds"] for s in found.shapes) == pytest.approx(
        found.totals["worker_hours"] * 3600
    )


@pytest.mark.parametrize("text", ["", "soon", "-1e9", "0", "inf", "2 weeks", "1e", "h"])
def test_a_budget_that_is_none_is_refused(text):
    with pytest.raises(SpecError, match=r"is no budget; give training FLOPs such as 1e15, or time"):
        trimming.parse_budget(text)


def test_budgets_are_flops_or_time():
    found = [trimming.parse_budget(text) for text in ("1e15", "2h", "90 min", "600s")]
    assert [(b.amount, b.unit) for b in found] == [
        (1e15, "FLOPs"), (7200, "seconds"), (5400, "seconds"), (600, "seconds"),
    ]  # fmt: skip


def test_a_plan_beyond_its_budget_is_refused_with_the_reason(corpus, workspace, calibrated):
    with pytest.raises(SpecError, match=r"needs 1.24e\+13 FLOPs, 12.41 times as much; use --trim"):
        planned(quickstart, corpus, workspace, limits=planning.Limits("1e12"))
    with pytest.raises(SpecError, match="budget=1min but plan quickstart needs .* min"):
        planned(quickstart, corpus, workspace, limits=planning.Limits("1min"))
    with pytest.raises(SpecError, match="leaves no run of plan quickstart: its cheapest needs"):
        planned(quickstart, corpus, workspace, limits=planning.Limits("1e10", trim=True))
    with pytest.raises(SpecError, match="trim without a budget; give one"):
        planning.Limits(trim=True)
    assert planned(quickstart, corpus, workspace, limits=planning.Limits("2e13")).dropped == ()


def test_time_that_is_not_known_is_no_budget(plan):
    with pytest.raises(SpecError, match="not known before one has finished; give FLOPs"):
        trimming.within(plan, trimming.parse_budget("2h"), lambda plan: math.nan, trim=True)


@pytest.mark.parametrize("budget", ["1e13", "3e12", "2e11", "2min"])
def test_a_trimmed_plan_fits_and_is_a_plan(corpus, workspace, calibrated, budget):
    limits = planning.Limits(budget, trim=True)
    found = planned(quickstart, corpus, workspace, limits=limits)
    given = trimming.parse_budget(budget)
    is_flops = given.unit == "FLOPs"
    spent = trimming.total_flops(found.plan) if is_flops else found.totals["hours"] * 3600
    assert spent <= given.amount
    whole = quickstart.plan(quickstart.Options(), corpus)
    kept = set(found.plan.cells)
    assert kept | set(found.dropped) == set(whole.cells) and not kept & set(found.dropped)
    assert [c for c in whole.cells if c in kept] == list(found.plan.cells), "in order"
    assert found.plan.name == f"quickstart-within-{budget}"
    assert plan_from_json(json.loads(json.dumps(found.plan.to_json()))) == found.plan
    if is_flops:  # one run fewer dropped would not do
        back = dataclasses.replace(whole, cells=(*found.plan.cells, found.dropped[-1]))
        assert trimming.total_flops(back) > given.amount
    assert found.dropped[0].role == "held_out", "the costliest of all shares one"
    told = " ".join(printed(found, 200).split())
    assert f"dropped to fit the budget: held_out {found.dropped[0].spec.run_id[:8]}" in told


def test_a_trunk_ends_where_its_branches_do(corpus):
    plan = trunks.plan(trunks.Options(sizes=("1x8", "1x16")), corpus)
    total = trimming.total_flops(plan)
    for share in (0.9, 0.6, 0.3, 0.1):
        budget = trimming.parse_budget(str(share * total))
        left, dropped = trimming.within(plan, budget, lambda p: 0.0, trim=True)
        assert trimming.total_flops(left) <= share * total and dropped
        for cell in left.of_role("trunk"):
            assert max(left.jobs[cell.spec.run_id].branch_steps) == cell.spec.n_steps
        assert all(left.jobs[c.spec.run_id].trunk is not None for c in left.of_role("grid"))


def test_a_sweep_that_was_trimmed_and_begun_stays_as_it_is(corpus, workspace, monkeypatch):
    from experiments.stages import freeze_plan

    limits = planning.Limits("2min", trim=True)
    monkeypatch.setattr(planning, "calibration_of", lambda workspace, n: KNOWN)
    first = planned(quickstart, corpus, workspace, limits=limits)
    freeze_plan(first.plan, workspace.sweep(first.plan.name))
    slow = dataclasses.replace(KNOWN, speed=KNOWN.speed / 4)
    monkeypatch.setattr(planning, "calibration_of", lambda workspace, n: slow)
    again = planned(quickstart, corpus, workspace, limits=limits)
    assert again.plan == first.plan and set(again.dropped) == set(first.dropped)


def test_what_a_recipe_rules_is_told_in_a_line_and_nothing_is_a_difference(plan):
    found = config_diff.differences(plan)
    assert [d.sentence for d in found] == [
        "model.d_ff follows the width",
        "model.n_heads follows the width",
        "optimizer.lr follows the width: min(a cap, a constant / width)",
        "schedule.warmup_steps follows the steps: one share of them",
    ]


def planted(plan, index, **changes):
    cells = list(plan.cells)
    cells[index] = dataclasses.replace(
        cells[index], spec=dataclasses.replace(cells[index].spec, **changes)
    )
    return dataclasses.replace(plan, cells=tuple(cells))


def test_a_planted_difference_is_found(plan):
    spec = plan.cells[5].spec
    changes = {
        "optimizer.beta2": {"optimizer": dataclasses.replace(spec.optimizer, beta2=0.9)},
        "optimizer.lr": {"optimizer": dataclasses.replace(spec.optimizer, lr=0.0299)},
        "schedule.warmup_steps": {"schedule": dataclasses.replace(spec.schedule, warmup_steps=9)},
        "z_loss": {"z_loss": 1e-4},
        "model.norm": {"model": dataclasses.replace(spec.model, norm="rmsnorm")},
    }  # fmt: skip
    for field, change in changes.items():
        other = planted(plan, 5, **change)
        unasked = [d for d in config_diff.differences(other) if d.rule is None]
        assert [d.field for d in unasked] == [field], field
        assert f"run {other.cells[5].spec.run_id[:8]}" in unasked[0].sentence
        asked = config_diff.differences(other, (field,))
        assert all(d.rule is not None for d in asked)


def test_rules_of_tuned_recipes_are_rules(corpus):
    rules = {
        "batch_exponent": 0.5, "lr": 0.01, "lr_n_exponent": -0.3, "lr_d_exponent": -0.1,
        "lr_b_exponent": 0.4, "ema_half_life": 0.05, "schedule": "wsd",
    }  # fmt: skip
    tuned = quickstart.plan(quickstart.Options(recipe=Recipe(**rules)), corpus)
    found = config_diff.differences(tuned)
    assert {"batch_size", "optimizer.lr", "ema_decay", "schedule.decay_steps"} <= {
        d.field for d in found
    }
    assert all(d.rule is not None for d in found), [d.sentence for d in found]
    branches = trunks.plan(trunks.Options(seeds=2), corpus)
    assert all(d.rule is not None for d in config_diff.differences(branches))


def test_specs_of_every_kind_can_be_told_apart(plan):
    """Every field of a spec is compared: none is left out of the flattened JSON."""
    spec = plan.cells[0].spec
    assert from_json(type(spec), to_json(spec)) == spec
    assert len(config_diff._flat(to_json(spec))) > 30


@pytest.mark.parametrize(("size", "rules"), [((1, 16), {}), ((2, 32), {"seq_len": 128})])
def test_memory_is_that_of_the_compiled_programs(size, rules, as_users_compile):
    """Against XLA's own count for the step as it is trained, and for the evaluation."""
    import numpy as np

    from model.functional import init_params
    from model.kernels import kernels_for
    from train import evaluate
    from train.inputs import STEPS_PER_DISPATCH
    from train.optimizer import hyperparameters, init_moments
    from train.parts import EVALUATION_TOKENS, microbatches
    from train.step import TrainState, train_steps

    at = grid.Setting(Recipe(**rules), DataConfig("x", "x", "x", "x", "x"), 256)
    spec = grid.grid(at, [Size(*size)], [10**6])[0].spec
    cfg, kernels = spec.model, kernels_for("cpu")
    params, hyper = init_params(cfg, 0), hyperparameters(spec.optimizer)
    windows = np.zeros((STEPS_PER_DISPATCH, spec.batch_size, cfg.seq_len + 1), np.int32)
    rates = np.zeros(STEPS_PER_DISPATCH, np.float32)
    state = TrainState(params, init_moments(params, hyper))
    parts = microbatches(cfg.seq_len, spec.batch_size, "cpu")
    lowered = train_steps.lower(
        cfg, kernels, "standard", parts, state, windows, rates, np.int32(1), hyper
    )
    step = lowered.compile(as_users_compile).memory_analysis()
    assert footprint.state_bytes(spec) == pytest.approx(step.alias_size_in_bytes, rel=0.01)
    trained = step.alias_size_in_bytes + step.temp_size_in_bytes
    assert footprint.training_bytes(spec, "cpu") == pytest.approx(trained, rel=0.2)
    scored = np.zeros((EVALUATION_TOKENS // cfg.seq_len, cfg.seq_len + 1), np.int32)
    lowered = evaluate.losses_of_windows.lower(cfg, kernels, "standard", params, scored)
    temporary = lowered.compile(as_users_compile).memory_analysis().temp_size_in_bytes
    told = footprint.evaluation_bytes(spec) - footprint.state_bytes(spec)
    assert told == pytest.approx(temporary, rel=0.2)
    assert footprint.device_bytes(spec, "cpu") >= told


def test_a_probe_starts_no_more_processes_than_cores(workspace, monkeypatch):
    """A SLURM of 16 tasks, say, is not this machine."""
    asked = []
    monkeypatch.setattr(planning, "n_cores", lambda: 2)
    monkeypatch.setattr(planning, "probe", lambda n: asked.append(n) or 1e10)
    for n in (1, 16):
        planning.calibration_of(workspace, n)
    assert asked == [1, 2]
