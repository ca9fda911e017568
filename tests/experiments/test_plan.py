import copy
import dataclasses
import hashlib
import json

import pytest

from experiments import quickstart
from experiments.plan import Cell, Plan, plan_from_json
from experiments.recipe import Recipe, Size
from model.accounting import train_flops
from train.config import Budget, DataConfig, SpecError, canonical_json

DATA = DataConfig("x", "x", "x", "x", "x")
GOLDEN_RUN = "201fb9bba1572448"


def spec_of(size, *, steps=1000, seed=0, **rules):
    recipe = Recipe(**rules)
    return recipe.spec(recipe.model(size, 256), DATA, Budget(steps=steps), seed=seed)


def test_recipe_sets_rate_warmup_and_shape_by_rule():
    narrow, wide = spec_of(Size(1, 8)), spec_of(Size(4, 64))
    assert narrow.optimizer.lr == 0.03
    assert wide.optimizer.lr == pytest.approx(0.48 / 64)
    assert wide.schedule.kind == "linear" and wide.schedule.warmup_steps == 50
    assert spec_of(Size(1, 8), steps=7).schedule.warmup_steps == 0
    assert (wide.model.n_layers, wide.model.d_model) == (4, 64)
    assert (wide.model.n_heads, wide.model.d_head, wide.model.d_attn) == (8, 8, 64)
    assert wide.model.d_ff == 4 * 64
    assert wide.batch_tokens == 512
    assert (wide.seed_init, wide.seed_data) == (0, 0)
    assert spec_of(Size(1, 8), seed=3).seed_data == 3


def test_gated_models_have_the_parameters_of_plain_ones():
    plain, gated = (spec_of(Size(2, 48), activation=a).model for a in ("gelu", "swiglu"))
    assert gated.d_ff == 128
    assert 3 * gated.d_ff == 2 * plain.d_ff


def test_every_rule_of_a_recipe_reaches_the_run():
    base = spec_of(Size(2, 16))
    changes = {
        "position": "rotary", "norm": "rmsnorm", "activation": "swiglu", "tied_head": False,
        "queries_per_key": 2, "bias": True, "qk_norm": True, "logit_softcap": 30.0,
        "d_head": 4, "seq_len": 32, "batch_size": 4, "lr_max": 0.01, "lr_times_d_model": 0.1,
        "weight_decay": 0.0, "beta2": 0.9, "warmup_fraction": 0.1, "parametrization": "mup",
        "optimizer": "sgd", "clip_norm": 0.5, "lr": 0.02, "lr_n_exponent": -0.3,
        "lr_d_exponent": -0.1, "schedule": "cosine", "final_lr_fraction": 0.1, "z_loss": 1e-4,
        "ema_half_life": 0.05, "early_stopping_steps": 50,
    }  # fmt: skip
    # These act with another one, and say nothing alone.
    with_others = {
        "momentum": (0.8, {"optimizer": "muon"}),
        "cooldown_fraction": (0.1, {"schedule": "wsd"}),
        "patience": (5, {"early_stopping_steps": 50}),
        "at_n_params": (2e4, {"lr_n_exponent": -0.3}),
        "at_n_tokens": (2e6, {"lr_d_exponent": -0.1}),
        "batch_exponent": (1.0, {"at_n_tokens": 1e5}),
        "lr_b_exponent": (0.5, {"batch_exponent": 1.0, "at_n_tokens": 1e5}),
    }
    assert {*changes, *with_others} == {f.name for f in dataclasses.fields(Recipe)}
    ids = {spec_of(Size(2, 16), **{name: value}).run_id for name, value in changes.items()}
    assert len(ids | {base.run_id}) == len(changes) + 1
    for name, (value, others) in with_others.items():
        budget = Budget(tokens=400_000)
        pair = [
            Recipe(**others, **more).spec(base.model, DATA, budget, seed=0)
            for more in ({}, {name: value})
        ]
        assert pair[0].run_id != pair[1].run_id, name


def test_defaults_give_the_runs_of_before(plan):
    """The plan's hash covers every field of every run; this one is of before the later fields."""
    assert spec_of(Size(2, 24)).run_id == GOLDEN_RUN


def test_rates_under_mup_do_not_follow_the_width():
    rates = {spec_of(Size(1, d), parametrization="mup").optimizer.lr for d in (16, 32, 256)}
    assert rates == {0.48 / 32}
    assert spec_of(Size(1, 32)).optimizer.lr == 0.48 / 32
    assert {spec_of(Size(1, d), lr=0.003).optimizer.lr for d in (16, 256)} == {0.003}


def test_schedule_and_average_are_shares_of_the_steps():
    wsd = spec_of(Size(1, 8), schedule="wsd", cooldown_fraction=0.1, ema_half_life=0.02)
    assert (wsd.schedule.kind, wsd.schedule.decay_steps) == ("wsd", 100)
    assert wsd.ema_decay ** (0.02 * 1000) == pytest.approx(0.5)
    longer = spec_of(Size(1, 8), steps=4000, schedule="wsd", ema_half_life=0.02)
    assert longer.schedule.decay_steps == 800
    assert longer.ema_decay**80 == pytest.approx(0.5)


def test_rate_and_batch_follow_their_powers():
    recipe = Recipe(
        lr=0.01, lr_n_exponent=-0.5, lr_d_exponent=-0.25, lr_b_exponent=0.5, at_n_params=13_824,
        at_n_tokens=1e6, batch_size=8, batch_exponent=0.5,
    )  # fmt: skip
    model = recipe.model(Size(2, 24), 256)  # 12 * 2 * 24^2 = 13,824
    runs = {n: recipe.spec(model, DATA, Budget(tokens=round(n)), seed=0) for n in (1e6, 4e6, 16e6)}
    assert [run.batch_size for run in runs.values()] == [8, 16, 32]
    assert runs[1e6].optimizer.lr == pytest.approx(0.01, rel=1e-3)
    # D x 4 takes 4^-0.25 off, the batch x 2 gives 2^0.5: nothing is left.
    assert runs[16e6].optimizer.lr == pytest.approx(0.01, rel=1e-3)
    wide = recipe.spec(recipe.model(Size(2, 48), 256), DATA, Budget(tokens=10**6), seed=0)
    assert wide.optimizer.lr == pytest.approx(0.005, rel=1e-3)
    steps = recipe.spec(model, DATA, Budget(steps=50), seed=0)
    assert (steps.batch_size, steps.n_steps) == (8, 50)


def test_a_width_of_no_whole_number_of_heads_is_refused():
    with pytest.raises(SpecError, match=r"d_model=20 is not divisible by recipe\.d_head=8"):
        spec_of(Size(1, 20))


def test_keys_are_shared_by_the_same_number_of_queries_at_every_width():
    models = [spec_of(Size(1, d), queries_per_key=2).model for d in (16, 32, 64)]
    assert [(m.n_heads, m.n_kv_heads) for m in models] == [(2, 1), (4, 2), (8, 4)]
    assert spec_of(Size(1, 16)).model.n_kv_heads is None
    for queries in (0, 2):
        with pytest.raises(SpecError, match=rf"queries_per_key={queries} .* 3 heads of d_model=24"):
            spec_of(Size(1, 24), queries_per_key=queries)


def test_quickstart_plans_what_it_says(plan):
    budgets = {cell.isoflop_budget for cell in plan.of_role("grid")}
    assert len(budgets) >= 4
    assert len(plan.cells) >= 22
    assert len(plan.of_role("seed")) == 2
    (held_out,) = plan.of_role("held_out")
    for cell in plan.cells:
        spent = train_flops(cell.spec.model, cell.spec.n_tokens, "matmul_full")
        if cell.isoflop_budget is not None:
            assert spent == pytest.approx(cell.isoflop_budget, rel=0.01)
            assert spent < train_flops(held_out.spec.model, held_out.spec.n_tokens, "matmul_full")
    for budget in budgets:
        assert len({c.spec.model for c in plan.cells if c.isoflop_budget == budget}) >= 4
    assert len({cell.spec.run_id for cell in plan.cells}) == len(plan.cells)
    replicated = {c.spec.model for c in plan.of_role("seed")}
    assert len(replicated) == 1
    assert plan.overrides == {} and plan.name == "quickstart"


def test_overrides_are_recorded_and_name_the_sweep(corpus, plan):
    smoke = quickstart.plan(quickstart.Options(scale="smoke"), corpus)
    assert (smoke.name, smoke.overrides) == ("quickstart-smoke", {"scale": "smoke"})
    changed = quickstart.Options(seed=7, recipe=Recipe(lr_max=0.01))
    other = quickstart.plan(changed, corpus)
    assert other.overrides == {"seed": 7, "recipe.lr_max": 0.01}
    assert other.name.startswith("quickstart-") and other.name != smoke.name
    assert other.hash != plan.hash
    again = quickstart.plan(quickstart.Options(recipe=Recipe(lr_max=0.02)), corpus)
    assert again.name not in (other.name, smoke.name)


def test_plan_survives_json(plan):
    text = canonical_json(plan.to_json())
    again = plan_from_json(json.loads(text))
    assert again == plan
    assert again.hash == plan.hash
    assert json.loads(text)["cells"][3]["run_id"] == plan.cells[3].spec.run_id


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v["cells"][0].update(role="seed"), "it was edited"),
        (lambda v: v["cells"].pop(), "it was edited"),
        (lambda v: v["cells"][0]["spec"]["optimizer"].update(lr=0.5), "it was edited"),
        (lambda v: v["cells"][0]["spec"].update(batch=8), r"spec has unknown fields \['batch'\]"),
        (lambda v: v.pop("cells"), "cells"),
        (lambda v: v.pop("hash"), "hash"),
    ],
)
def test_an_edited_plan_is_detected(plan, edit, message):
    values = copy.deepcopy(json.loads(canonical_json(plan.to_json())))
    edit(values)
    with pytest.raises(SpecError, match=message):
        plan_from_json(values)


def test_the_same_run_twice_is_refused(plan):
    with pytest.raises(SpecError, match=f"same run twice.*{plan.cells[0].spec.run_id}"):
        Plan("twice", "quickstart", {}, {}, (*plan.cells, plan.cells[0]))


def test_a_run_off_its_budget_is_refused():
    cell = Cell(spec_of(Size(1, 8)), "grid", 1e12)
    with pytest.raises(SpecError, match=r"off its budget of 1e\+12 FLOPs"):
        Plan("off", "quickstart", {}, {}, (cell,))


def test_a_plan_keeps_its_hash_when_specs_have_new_fields(plan):
    """One frozen before a field came, or by the hash over all fields, is read as the same plan."""
    written = json.loads(json.dumps(plan.to_json()))
    older = copy.deepcopy(written)
    for cell in older["cells"]:
        del cell["spec"]["z_loss"], cell["spec"]["model"]["bias"]
    assert plan_from_json(older).hash == plan_from_json(written).hash == plan.hash
    whole = [{k: v for k, v in c.items() if k != "run_id"} for c in written["cells"]]
    identity = canonical_json({"experiment": plan.experiment, "cells": whole})
    old_hash = hashlib.sha256(identity.encode()).hexdigest()[:16]
    assert old_hash != plan.hash
    assert plan_from_json({**written, "hash": old_hash}).hash == plan.hash


def test_a_budget_in_another_convention_is_carried_and_hashed(plan):
    cells = [Cell(c.spec, c.role, c.isoflop_budget) for c in plan.cells if c.isoflop_budget]
    assert "isoflop_convention" not in plan.to_json()["cells"][0]
    spec = cells[0].spec
    spent = train_flops(spec.model, spec.n_tokens, "6n_total")
    other = Plan("other", "none", {}, {}, (Cell(spec, "grid", spent, "6n_total"),))
    again = plan_from_json(json.loads(json.dumps(other.to_json())))
    assert again == other and again.cells[0].isoflop_convention == "6n_total"
    plain = Plan("other", "none", {}, {}, (cells[0],))
    assert plain.hash != other.hash
    with pytest.raises(SpecError, match="matmul_full.* are no isoFLOP curve"):
        Plan("mixed", "none", {}, {}, (*other.cells, cells[1]))
    with pytest.raises(SpecError, match="off its budget"):
        Plan("off", "none", {}, {}, (Cell(spec, "grid", 1.3e11, "6n_total"),))
    values = json.loads(json.dumps(other.to_json()))
    values["cells"][0]["isoflop_convention"] = "6n"
    with pytest.raises(SpecError, match="isoflop_convention='6n' is unknown; use one of"):
        plan_from_json(values)
