"""Tuning and batch sweeps from plan to recipe, on records that nobody trained for."""

import dataclasses
import math

import numpy as np
import pytest
from rich.console import Console

from experiments import critical_batch, ending, ladder, recipes, stages, tune
from experiments.catalog import EXPERIMENTS
from experiments.critical_report import late_loss
from experiments.recipe import Recipe
from experiments.stages import Stage, freeze_plan
from experiments.workspace import read_json
from model.accounting import count_params
from model.ladders import LADDERS
from train import records
from train.columns import CURVE_COLUMNS
from train.config import SpecError
from train.records import read_run


@pytest.fixture
def stage(workspace):
    return Stage(workspace, Console(quiet=True))


@pytest.fixture(scope="module")
def tuning(corpus):
    return tune.plan(tune.Options(scale="smoke"), corpus)


def best_rate(spec):
    """Best in the grid's middle for the middle size, an octave lower per octave of width."""
    return 0.02 * 16 / spec.model.d_model * (spec.n_tokens / 16_384) ** -0.5


def loss_of(spec):
    floor = 1.2 + 20 / count_params(spec.model).total ** 0.4 + 60 / spec.n_tokens**0.5
    seed = 1 + 0.001 * (spec.seed_init - 0.5) if spec.seed_init else 1.0
    return floor * seed * (1 + 0.02 * math.log(spec.optimizer.lr / best_rate(spec)) ** 2)


def columns_of(spec):
    counts = count_params(spec.model)
    return {
        "n_params_non_embedding": counts.non_embedding, "n_params_total": counts.total,
        "n_tokens": spec.n_tokens, "batch_tokens": spec.batch_tokens, "lr": spec.optimizer.lr,
        "seed_init": spec.seed_init,
    }  # fmt: skip


def finish(plan, commit, loss=loss_of):
    for cell in plan.cells:
        commit(cell.spec, loss_nats=loss(cell.spec), **columns_of(cell.spec))


def test_every_search_is_the_same_but_for_its_rate(tuning):
    searched = tune.searches(tuning)
    assert len(searched) == 9 and all(len(specs) == 3 for specs in searched.values())
    for specs in searched.values():
        rates = [spec.optimizer.lr for spec in specs]
        assert np.diff(np.log2(rates)) == pytest.approx([1.0, 1.0])
        same = {dataclasses.replace(s, optimizer=specs[0].optimizer).run_id for s in specs}
        assert len(same) == 1
    assert len(tuning.of_role("seed")) == 3


def test_a_search_goes_on_until_its_best_rate_is_inside(tuning, workspace, commit):
    finish(tuning, commit)
    plan, n_rounds = tuning, 0
    while True:
        grown = ending.extended(tune, plan, workspace.runs)
        more = grown.cells[len(plan.cells) :]
        if not more:
            break
        n_rounds += 1
        for cell in more:
            commit(cell.spec, loss_nats=loss_of(cell.spec), **columns_of(cell.spec))
        plan = grown
    assert 1 <= n_rounds <= tune.MAX_RATES
    for specs in tune.searches(plan).values():
        ordered = sorted(specs, key=lambda spec: spec.optimizer.lr)
        best = min(ordered, key=loss_of)
        assert best not in (ordered[0], ordered[-1])
    assert ending.extended(tune, tuning, workspace.runs).hash == plan.hash, "records decide alone"


def test_an_endless_search_is_given_up(tuning, workspace, commit):
    falling = dict.fromkeys(tuning.cells)  # no rate is too high here
    finish(tuning, commit, loss=lambda spec: 3 - 0.1 * math.log2(spec.optimizer.lr))
    plan = tuning
    for _ in range(2 * tune.MAX_RATES):
        grown = ending.extended(tune, plan, workspace.runs)
        for cell in grown.cells[len(plan.cells) :]:
            commit(cell.spec, loss_nats=3 - 0.1 * math.log2(cell.spec.optimizer.lr))
        plan = grown
    assert len(plan.cells) > len(falling)
    assert max(map(len, tune.searches(plan).values())) == tune.MAX_RATES


def test_more_batches_are_tried_where_the_best_is_at_an_edge(corpus):
    plan = tune.plan(tune.Options(), corpus)
    rows = {
        cell.spec.run_id: {
            "loss_nats": 2
            + abs(math.log2(cell.spec.optimizer.lr / 0.02))
            + abs(math.log2(cell.spec.batch_size / 4))
        }
        for cell in plan.cells
    }
    more = tune.extend(plan, rows)
    # Batches of 4 are inside of (2, 4, 8), and at the edge of (4, 8, 16).
    assert {cell.spec.batch_size for cell in more} == {2}
    assert {cell.spec.n_tokens for cell in more} == {819_200}
    assert len(more) == 3 * 3
    assert more[0].spec.schedule.warmup_steps == round(0.05 * more[0].spec.n_steps)


def test_a_tuning_sweep_ends_in_a_recipe_that_gives_its_optima(tuning, stage, workspace, commit):
    freeze_plan(tuning, workspace.sweep(tuning.name))
    finish(tuning, commit)
    plan = tuning
    while left := stages.missing(plan := ending.extended(tune, plan, workspace.runs), workspace):
        for cell in left:
            commit(cell.spec, loss_nats=loss_of(cell.spec), **columns_of(cell.spec))
    assert stages.has_ending(tuning.name, stage)
    found = stages.redraw(tuning.name, stage)
    named = recipes.load(workspace, "tuned")
    assert named.plan_hash == tuning.hash
    assert set(named.run_ids) == {cell.spec.run_id for cell in plan.cells}
    assert named.laws["batch"]["ok"] is False, "one batch was tried"
    for specs in tune.searches(plan).values():
        rate = named.recipe.peak_lr(specs[0].model, specs[0].n_tokens, specs[0].batch_size)
        assert rate == pytest.approx(best_rate(specs[0]), rel=0.05)
    assert read_json(found.fits)["plan_hash"] == tuning.hash
    assert (found.figures / "tuning.png").stat().st_size > 10_000
    page = found.report.read_text()
    assert "data:image/png;base64" in page and "Exponents by way of tuning" in page


def test_runs_outside_of_the_tuned_range_are_told_by_their_factor(plan):
    sizes = [count_params(cell.spec.model).non_embedding for cell in plan.cells]
    tokens = [cell.spec.n_tokens for cell in plan.cells]
    inside = recipes.NamedRecipe(
        "x", Recipe(), (min(sizes), max(sizes)), (min(tokens), max(tokens)), "", (), {}
    )
    assert inside.warnings(plan) == ()
    narrow = dataclasses.replace(inside, n_params_range=(min(sizes), max(sizes) / 4))
    (said,) = narrow.warnings(plan)
    assert "4 times above the range that recipe x was tuned on" in said
    low = dataclasses.replace(inside, n_tokens_range=(3 * min(tokens), max(tokens)))
    assert "3 times below" in low.warnings(plan)[0]


def test_a_recipe_comes_back_from_its_file_or_the_fault_is_named(workspace):
    named = recipes.NamedRecipe(
        "mine", Recipe(lr=0.01, lr_n_exponent=-0.2), (1e3, 1e5), (1e5, 1e6), "abc", ("r1",), {}
    )
    named.save(workspace)
    assert recipes.load(workspace, "mine") == named
    with pytest.raises(SpecError, match="no recipe 'other'.*there are: mine"):
        recipes.load(workspace, "other")
    with pytest.raises(SpecError, match="is no file name"):
        recipes.load(workspace, "../mine")
    path = recipes.path_of(workspace, "mine")
    path.write_text(path.read_text().replace('"lr": 0.01', '"lr": "fast"'))
    with pytest.raises(SpecError, match=r"is damaged \(recipe.lr='fast'"):
        recipes.load(workspace, "mine")


def curve_rows(spec, slow):
    """Loss 4 (S / (1 + 512/B))^-0.1: B_crit is 512 tokens at every loss."""
    steps = np.unique(np.ceil(1.03 ** np.arange(200)).astype(int))
    steps = steps[steps <= spec.n_steps]
    losses = 4 * (steps / slow / (1 + 512 / spec.batch_tokens)) ** -0.1
    blank = dict.fromkeys(CURVE_COLUMNS)
    return [
        {**blank, "run_id": spec.run_id, "step": int(s), "loss_nats": float(x)}
        for s, x in zip(steps, losses, strict=True)
    ]


def test_a_batch_sweep_ends_with_its_critical_batch(corpus, stage, workspace, commit):
    plan = critical_batch.plan(critical_batch.Options(), corpus)
    freeze_plan(plan, workspace.sweep(plan.name))
    for k, cell in enumerate(plan.cells):
        spec, slow = cell.spec, (1.5, 1.0, 1.5)[k % 3]
        noise = (400.0, 50.0) if spec.batch_size >= 16 else (None, None)
        attempt = commit(
            spec, loss_nats=2 + slow, noise_scale_tokens=noise[0], noise_scale_se=noise[1],
            **columns_of(spec),
        )  # fmt: skip
        records.append_points(attempt, curve_rows(spec, slow))
    found = stages.conclude(plan.name, stage)
    rows = found.tables["1x16: critical batch by loss (90% intervals)"]
    for row in rows:
        assert float(row["B_crit"].split()[0]) == pytest.approx(512, rel=0.1)
    beside = found.tables["1x16: gradient noise scale beside it"]
    assert [row["batch"] for row in beside] == ["1,024", "2,048", "4,096"]
    assert (workspace.sweep(plan.name).figures / "critical_batch.png").exists()


def test_the_loss_of_the_noise_scale_is_that_of_the_last_half():
    assert late_loss(np.array([1, 5, 10]), np.array([9.0, 7.0, 2.0])) == 2.0


def test_a_ladder_keeps_its_shapes_and_counts(corpus):
    options = ladder.Options(ladder="kaplan", max_params=2e6)
    plan = ladder.plan(options, corpus)
    family = [r.model for r in LADDERS["kaplan"]][: len(plan.cells)]
    for cell, published in zip(plan.cells, family, strict=True):
        shape = cell.spec.model
        assert (shape.n_layers, shape.d_model) == (published.n_layers, published.d_model)
        total = count_params(shape).total
        assert cell.spec.n_tokens == pytest.approx(20 * total, abs=cell.spec.batch_tokens)
    budgets = ladder.plan(dataclasses.replace(options, flops=(1e12, 2e12)), corpus)
    assert [c.isoflop_budget for c in budgets.cells] == [1e12, 2e12] * len(plan.cells)
    large = ladder.notes(ladder.Options(ladder="chinchilla", max_params=60e6))
    assert len(large) == 2 and "57,000,000 printed by its source" in large[1]
    with pytest.raises(SpecError, match="leaves no rung of gpt2; the smallest is gpt2-124m"):
        ladder.plan(ladder.Options(ladder="gpt2"), corpus)


def test_studies_have_no_ending_of_their_own(plan, stage, workspace):
    assert ending.of_plan(plan) is None
    assert {name for name, e in EXPERIMENTS.items() if hasattr(e, "conclude")} == {
        "tune", "critical_batch", "n_ladder", "d_ladder", "sweep",
        "hoffmann_2022", "wsd_2024", "kaplan_2020", "porian_2024",
    }  # fmt: skip
    freeze_plan(plan, workspace.sweep(plan.name))
    with pytest.raises(SpecError, match="is a study of quickstart"):
        stages.conclude(plan.name, stage)
    assert read_run(workspace.runs, plan.cells[0].spec.run_id) is None
