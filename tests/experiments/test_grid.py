"""Builders of cells, and the experiments that are put together on the command line."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.frontier.isoflop import minima
from analysis.load import load_sweep, points_from_runs
from experiments import choices, d_ladder, grid, isoflop, n_ladder, surface, sweep, trunks
from experiments.catalog import EXPERIMENTS
from experiments.compact import compact
from experiments.plan import Plan
from experiments.recipe import Recipe, Size
from model.accounting import FLOPS_CONVENTIONS, count_params, train_flops, train_flops_per_token
from model.ladders import LADDERS
from train.config import DataConfig, SpecError

AT = grid.Setting(Recipe(), DataConfig("x", "x", "x", "x", "x"), 256)
widths = st.integers(1, 24).map(lambda n: 8 * n)


def plan_of(*cells):
    return Plan("made", "none", {}, {}, cells)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), widths), min_size=1, max_size=4, unique=True),
    budget=st.floats(1e9, 1e15),
    convention=st.sampled_from(FLOPS_CONVENTIONS),
    batch=st.sampled_from((1, 3, 8, 64)),
)
def test_tokens_of_a_budget_are_exact_to_half_a_step(sizes, budget, convention, batch):
    at = dataclasses.replace(AT, recipe=Recipe(batch_size=batch))
    for cell in grid.isoflop(at, (budget,), [Size(*s) for s in sizes], convention):
        per_step = cell.spec.batch_tokens * train_flops_per_token(cell.spec.model, convention)
        spent = train_flops(cell.spec.model, cell.spec.n_tokens, convention)
        assert cell.budget_error == pytest.approx(spent / budget - 1, abs=1e-12)
        if cell.spec.n_steps > 1:
            assert abs(spent - budget) <= per_step / 2 * (1 + 1e-9)
        if cell.spec.n_steps >= 51:
            assert abs(cell.budget_error) < 0.01
            assert plan_of(cell).cells == (cell,)
        elif abs(cell.budget_error) > 0.01:
            with pytest.raises(SpecError, match="off its budget.*smaller batch_size or a larger"):
                plan_of(cell)


def test_tokens_follow_the_convention_that_a_budget_counts_in(corpus):
    def tokens(convention):
        options = isoflop.Options(sizes=("2x24",), budgets=(1e11,), convention=convention)
        return isoflop.plan(options, corpus).cells[0].spec.n_tokens

    model = AT.model(Size(2, 24))
    per_token = {c: train_flops_per_token(model, c) for c in FLOPS_CONVENTIONS}
    for convention, flops in per_token.items():
        assert tokens(convention) == pytest.approx(1e11 / flops, rel=0.01)
    assert len(set(map(tokens, FLOPS_CONVENTIONS))) == len(FLOPS_CONVENTIONS)


def test_curves_of_any_convention_are_grouped_by_their_budget(corpus, workspace, commit):
    options = isoflop.Options(convention="6n_non_embedding", budgets=(1e11, 3e11))
    plan = isoflop.plan(options, corpus)
    for cell in plan.cells:
        spec, counts = cell.spec, count_params(cell.spec.model)
        loss = 1 + 30 / counts.total**0.5 + 500 / spec.n_tokens**0.5
        flops = {f"train_flops_{c}": train_flops(spec.model, spec.n_tokens, c)
                 for c in FLOPS_CONVENTIONS}  # fmt: skip
        commit(
            spec, loss_nats=loss, n_params_total=counts.total, n_tokens=spec.n_tokens,
            n_params_non_embedding=counts.non_embedding, **flops,
        )  # fmt: skip
    folder = workspace.sweep(plan.name)
    folder.path.mkdir(parents=True)
    compact(plan, workspace.runs, folder)
    runs = load_sweep(folder.path).runs
    own = minima(points_from_runs(runs, "total", "6n_non_embedding"))
    assert [m.budget for m in own] == [1e11, 3e11]
    assert all(len(m.size_n_params) == 5 for m in own)
    for m in own:
        assert m.size_train_flops == pytest.approx(m.budget, rel=0.01)
    exact = minima(points_from_runs(runs, "total", "matmul_full"))
    assert all("C varies" in m.status for m in exact if m.ok), "equal C in one convention alone"


def test_n_ladder_gives_every_size_its_tokens():
    shapes = [Size(1, 8), Size(2, 16), Size(2, 64)]
    for cell, shape in zip(grid.n_ladder(AT, shapes, tokens_per_param=20), shapes, strict=True):
        n_params = count_params(AT.model(shape)).total
        assert cell.spec.n_tokens == pytest.approx(20 * n_params, abs=cell.spec.batch_tokens)
    fixed = grid.n_ladder(AT, shapes, tokens=512_000)
    assert {cell.spec.n_tokens for cell in fixed} == {512_000}
    for both in ({}, {"tokens": 5, "tokens_per_param": 2.0}):
        with pytest.raises(SpecError, match="give exactly one"):
            grid.n_ladder(AT, shapes, **both)


def test_d_ladder_repeats_only_what_is_seen_twice():
    cells = grid.d_ladder(AT, [Size(1, 8)], [51_200, 102_400], unique=(None, 51_200))
    found = [(c.spec.n_tokens, c.spec.data.n_tokens_unique) for c in cells]
    assert found == [(51_200, None), (102_400, None), (102_400, 51_200)]
    with pytest.raises(SpecError, match="unique=200000 tokens are not seen twice"):
        grid.d_ladder(AT, [Size(1, 8)], [51_200], unique=(200_000,))


def test_sweeps_multiply_the_rate_of_the_recipe_at_every_batch():
    at = dataclasses.replace(AT, recipe=Recipe(lr_b_exponent=0.5))
    cells = grid.batch_and_rate(
        at, [Size(1, 16)], [102_400], batches=(4, 16), rate_factors=(0.5, 1.0)
    )
    found = [(c.spec.batch_size, c.spec.optimizer.lr, c.spec.n_tokens) for c in cells]
    assert found == [(4, 0.015, 102_400), (4, 0.03, 102_400), (16, 0.015, 102_400),
                     (16, 0.03, 102_400)]  # fmt: skip


def test_seeds_and_held_out_runs_are_the_same_run_otherwise():
    cells = grid.grid(AT, [Size(1, 8)], [51_200])
    more = grid.with_seeds(cells, 2)
    assert [(c.role, c.spec.seed_init, c.spec.seed_data) for c in more] == [
        ("seed", 1, 1), ("seed", 2, 2),
    ]  # fmt: skip
    back = dataclasses.replace(more[0].spec, seed_init=0, seed_data=0)
    assert back == cells[0].spec
    (held,) = grid.as_held_out(grid.isoflop(AT, (1e10,), [Size(1, 8)]))
    assert (held.role, held.isoflop_budget) == ("held_out", None)
    assert plan_of(*cells, *more, held).of_role("seed") == more


def test_sizes_are_read_from_words():
    assert choices.shapes_of(["2x24", "12x768"]) == (Size(2, 24), Size(12, 768))
    assert choices.shapes_of(["small"]) == tuple(rung.model for rung in LADDERS["small"])
    small = choices.shapes_of(["kaplan:1e6"])
    assert small and all(count_params(shape).total <= 1e6 for shape in small)
    assert AT.model(small[0]).vocab_size == 256 and AT.model(small[0]).seq_len == 64


@pytest.mark.parametrize(
    ("experiment", "values", "message"),
    [
        (surface, {"sizes": ("2by24",)}, "sizes='2by24' is no size; write layers x width"),
        (surface, {"sizes": ("0x8",)}, "sizes='0x8' is no size"),
        (surface, {"sizes": ()}, "sizes names no size; give some"),
        (surface, {"sizes": ("1x8", "1x8")}, "sizes names 1x8 twice; name every size once"),
        (surface, {"sizes": ("gpt2:1e3",)}, "the smallest of gpt2 has N = 124,439,808"),
        (surface, {"sizes": ("1x12",)}, "d_model=12 is not divisible by recipe.d_head=8"),
        (surface, {"tokens": ()}, "tokens is empty; give values"),
        (surface, {"tokens": (-1.0,)}, "tokens='-1.0' is no positive number"),
        (surface, {"tokens": (1e6, 1e6)}, "has a value twice"),
        (surface, {"seeds": 0}, "seeds=0: a run needs one at least"),
        (surface, {"held_out": "4x80"}, "held_out='4x80' is no size with tokens"),
        (isoflop, {"held_out": "big:1e12"}, "held_out='big:1e12' is no size with FLOPs"),
        (isoflop, {"budgets": (1e8,)}, "off its budget of 1e.08 FLOPs"),
        (n_ladder, {"tokens": 0.0}, "tokens='0.0' is no positive number"),
        (n_ladder, {"tokens_per_param": math.inf}, "tokens-per-param='inf' is no positive number"),
        (d_ladder, {"unique": (1e9,)}, "unique=1000000000 tokens are not seen twice"),
        (sweep, {"batches": (0,)}, "batches='0' is no positive number"),
        (trunks, {"recipe": Recipe(cooldown_fraction=1.5)}, "cooldown_fraction=1.5 must be"),
    ],
)
def test_options_that_cannot_be_say_field_and_remedy(corpus, experiment, values, message):
    with pytest.raises(SpecError, match=message):
        experiment.plan(experiment.Options(**values), corpus)


@pytest.mark.parametrize("name", ["grid", "isoflop", "n_ladder", "d_ladder", "sweep", "trunks"])
def test_defaults_make_a_plan_that_its_header_describes(corpus, name):
    experiment = EXPERIMENTS[name]
    plan = experiment.plan(experiment.Options(), corpus)
    assert (plan.name, plan.experiment, plan.overrides) == (name, name, {})
    head = experiment.__doc__
    for part in ("Question: ", "Source: ", "Command: ", "Cost: ", "Result: "):
        assert part in head
    assert f" in {len(plan.cells)} runs" in head
    assert json.loads(json.dumps(plan.to_json()))["hash"] == plan.hash
    other = experiment.plan(experiment.Options(seed=1), corpus)
    assert other.hash != plan.hash and other.name != plan.name
