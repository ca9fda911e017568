import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.accounting import train_flops
from model.config import ModelConfig
from train.config import (
    ADDED,
    Budget,
    DataConfig,
    EarlyStopping,
    OptimizerConfig,
    RunSpec,
    ScheduleConfig,
    SpecError,
    canonical_json,
    from_json,
    to_json,
)

MODEL = ModelConfig(n_layers=2, d_model=16, n_heads=2, d_head=8, d_ff=64, vocab_size=17, seq_len=12)
DATA = DataConfig("sotu", "c0ffee", "bytes", "7ea", "by key")
SPEC = RunSpec(MODEL, DATA, OptimizerConfig(lr=0.01), Budget(steps=100))

GOLDEN_RUN_ID = "5a906c956207044c"
IF_THE_ID_CHANGED = (
    "run_id of a fixed spec changed, so every stored run would be trained again. Undo the change "
    "of the identity; a new field needs a default that is left out of old identities, or a new "
    "SCHEMA_VERSION with a migration."
)

FRACTIONS = st.floats(0, 0.999)
POSITIVE = st.floats(1e-9, 1e3)


@st.composite
def schedules(draw):
    kind = draw(st.sampled_from(["constant", "cosine", "linear", "wsd", "inverse_sqrt"]))
    decay = draw(st.integers(1, 50)) if kind == "wsd" else None
    warmup = draw(st.integers(kind == "inverse_sqrt", 50))
    return ScheduleConfig(kind, warmup, decay, draw(st.floats(0, 1)))


BUDGETS = st.one_of(
    st.builds(Budget, steps=st.integers(100, 10**6)),
    st.builds(Budget, tokens=st.integers(10**6, 10**9)),
    st.builds(Budget, flops=st.floats(1e11, 1e15), flops_convention=st.just("6n_total")),
)
SPECS = st.builds(
    RunSpec,
    model=st.just(MODEL),
    data=st.builds(
        DataConfig, st.text(), st.text(), st.text(), st.text(), st.text(),
        st.none() | st.integers(1, 10**9),
    ),
    optimizer=st.builds(
        OptimizerConfig, lr=POSITIVE, beta1=FRACTIONS, beta2=FRACTIONS, eps=POSITIVE,
        weight_decay=st.floats(0, 10), clip_norm=POSITIVE,
        kind=st.sampled_from(["adamw", "sgd", "muon"]), momentum=FRACTIONS,
    ),
    budget=BUDGETS,
    schedule=schedules(),
    batch_size=st.integers(1, 64),
    seed_init=st.integers(0, 2**32 - 1),
    seed_data=st.integers(0, 2**32 - 1),
    ema_decay=st.none() | st.floats(0.1, 0.9999),
    z_loss=st.floats(0, 1),
)  # fmt: skip


def changed(spec=SPEC, **changes):
    """A spec with fields replaced, by dotted path with __ for the dot."""
    for path, value in changes.items():
        group, _, name = path.partition("__")
        if name:
            value = dataclasses.replace(getattr(spec, group), **{name: value})
        spec = dataclasses.replace(spec, **{group: value})
    return spec


@given(SPECS)
def test_spec_survives_json(spec):
    text = canonical_json(to_json(spec))
    again = from_json(RunSpec, json.loads(text))
    assert again == spec
    assert again.run_id == spec.run_id


@given(SPECS)
def test_identity_is_itself_a_spec_of_the_same_run(spec):
    identity = json.loads(canonical_json(spec.identity()))
    del identity["schema_version"]
    again = from_json(RunSpec, identity)
    assert (again.run_id, again.n_steps) == (spec.run_id, spec.n_steps)


def test_run_id_is_what_it_always_was():
    assert SPEC.run_id == GOLDEN_RUN_ID, IF_THE_ID_CHANGED
    other = changed(
        model__position="rotary", model__norm="rmsnorm", model__activation="swiglu",
        model__tied_head=False, schedule=ScheduleConfig("wsd", 10, 20, 0.1), optimizer__beta2=0.95,
        batch_size=16, seed_init=3, data__n_tokens_unique=5000,
    )  # fmt: skip
    assert other.run_id == "1a0f97856f35d9fe", IF_THE_ID_CHANGED


OLD_SPEC = """{"batch_size": 8, "budget": {"steps": 100}, "data": {"corpus": "sotu", "corpus_hash":
"c0ffee", "n_tokens_unique": null, "split_rule": "by key", "tokenizer": "bytes", "tokenizer_hash":
"7ea"}, "dtype": "float32", "model": {"activation": "gelu", "d_ff": 64, "d_head": 8, "d_model": 16,
"n_heads": 2, "n_layers": 2, "norm": "layernorm", "position": "learned", "seq_len": 12,
"tied_head": true, "vocab_size": 17}, "optimizer": {"beta1": 0.9, "beta2": 0.98, "clip_norm": 1.0,
"eps": 1e-08, "kind": "adamw", "lr": 0.01, "weight_decay": 0.1}, "parametrization": "standard",
"schedule": {"decay_steps": null, "final_lr_fraction": 0.0, "kind": "linear", "warmup_steps": 0},
"seed_data": 0, "seed_init": 0}"""


def test_a_spec_written_before_the_added_fields_is_the_same_run():
    again = from_json(RunSpec, json.loads(OLD_SPEC))
    assert again == SPEC and again.run_id == GOLDEN_RUN_ID
    assert again.identity() == {"schema_version": 1, **json.loads(OLD_SPEC)}


def test_what_a_missing_added_field_means_is_its_default():
    values = to_json(SPEC)
    for path, old in ADDED.items():
        *groups, name = path.split(".")
        inner = values
        for group in groups:
            inner = inner[group]
        assert inner[name] == old, path


def test_fields_that_the_optimizer_does_not_read_leave_no_trace_in_the_id():
    assert changed(optimizer__momentum=0.5).run_id == SPEC.run_id
    sgd = changed(optimizer__kind="sgd")
    assert changed(sgd, optimizer__beta1=0.5, optimizer__eps=0.1).run_id == sgd.run_id
    for kind in ("sgd", "muon"):
        ids = {
            changed(optimizer__kind=kind, optimizer__momentum=m).run_id for m in (0.9, 0.8, 0.95)
        }
        assert len(ids) == 3 and SPEC.run_id not in ids
    muon = changed(optimizer__kind="muon")
    assert changed(muon, optimizer__beta1=0.5).run_id != muon.run_id


def test_budget_form_leaves_no_trace_in_the_id():
    per_step = SPEC.batch_tokens
    in_tokens = changed(budget=Budget(tokens=100 * per_step))
    in_flops = changed(budget=Budget(flops=train_flops(MODEL, 100 * per_step, "matmul_full")))
    off_by_rounding = changed(budget=Budget(tokens=100 * per_step + per_step // 3))
    assert {s.run_id for s in (SPEC, in_tokens, in_flops, off_by_rounding)} == {SPEC.run_id}
    assert in_flops.n_tokens == 100 * per_step


def test_int_and_float_of_one_value_are_one_run(request):
    if request.config.getoption("--typecheck"):
        pytest.skip("the type checker refuses an int for a float")
    assert changed(optimizer__lr=1).run_id == changed(optimizer__lr=1.0).run_id


CHANGES = {
    "model__n_layers": 3,
    "model__d_model": 8,
    "model__n_heads": 1,
    "model__d_head": 4,
    "model__d_ff": 32,
    "model__vocab_size": 18,
    "model__seq_len": 13,
    "model__position": "rotary",
    "model__norm": "rmsnorm",
    "model__activation": "swiglu",
    "model__tied_head": False,
    "model__bias": True,
    "model__n_kv_heads": 1,
    "model__qk_norm": True,
    "model__logit_softcap": 30.0,
    "model__block": f"my_idea.py:Block@{'0' * 64}",
    "model__attention": f"my_idea.py:Attention@{'0' * 64}",
    "model__mlp": f"my_idea.py:MLP@{'0' * 64}",
    "data__corpus": "other",
    "data__corpus_hash": "decade",
    "data__tokenizer": "other",
    "data__tokenizer_hash": "0",
    "data__split_rule": "other",
    "data__n_tokens_unique": 1000,
    "optimizer__lr": 0.02,
    "optimizer__beta1": 0.8,
    "optimizer__beta2": 0.9,
    "optimizer__eps": 1e-7,
    "optimizer__weight_decay": 0.0,
    "optimizer__clip_norm": 2.0,
    "optimizer__kind": "sgd",
    "budget__steps": 101,
    "schedule__kind": "cosine",
    "schedule__warmup_steps": 1,
    "schedule__final_lr_fraction": 0.1,
    "batch_size": 9,
    "seed_init": 1,
    "seed_data": 1,
    "parametrization": "mup",
    "ema_decay": 0.99,
    "z_loss": 1e-4,
    "early_stopping": EarlyStopping(every_steps=10, patience=2),
    "loss": f"my_idea.py:loss@{'0' * 64}",
}


def test_every_identity_field_changes_the_id():
    ids = [changed(**{path: value}).run_id for path, value in CHANGES.items()]
    wsd = [changed(schedule=ScheduleConfig("wsd", decay_steps=n)).run_id for n in (5, 6)]
    assert len({SPEC.run_id, *ids, *wsd}) == 1 + len(CHANGES) + 2


def test_no_field_is_left_out_of_the_list_above():
    def paths(spec, prefix=""):
        for f in dataclasses.fields(spec):
            value = getattr(spec, f.name)
            if dataclasses.is_dataclass(value):
                yield from paths(value, f"{f.name}__")
            else:
                yield prefix + f.name

    # One value today; what other kinds read, tested beside; the other forms of a budget.
    constant = {"dtype"}
    of_other_kinds = {"schedule__decay_steps", "optimizer__momentum", "optimizer__custom"}
    other_forms = {"budget__tokens", "budget__flops", "budget__flops_convention"}
    assert set(paths(SPEC)) == {*CHANGES, *constant, *of_other_kinds, *other_forms}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.n_layers", "2"),
        ("model.n_layers", 2.0),
        ("model.n_layers", True),
        ("model.tied_head", 1),
        ("model.position", "sine"),
        ("data.corpus", None),
        ("optimizer.lr", "fast"),
        ("optimizer.lr", None),
        ("budget.steps", [1]),
        ("budget.flops", "1e9"),
        ("schedule.kind", "step"),
        ("schedule", 3),
        ("seed_init", False),
        ("dtype", "float64"),
    ],
)
def test_wrong_type_names_path_and_value(path, value):
    values = to_json(SPEC)
    *groups, name = path.split(".")
    inner = values
    for group in groups:
        inner = inner[group]
    inner[name] = value
    with pytest.raises(SpecError) as error:
        from_json(RunSpec, values)
    assert f"spec.{path}={value!r}" in str(error.value)


def test_unknown_and_missing_fields_name_their_path():
    values = to_json(SPEC)
    values["optimizer"]["learning_rate"] = 0.1
    with pytest.raises(SpecError, match=r"spec\.optimizer has unknown fields \['learning_rate'\]"):
        from_json(RunSpec, values)
    values = to_json(SPEC)
    del values["optimizer"]["lr"]
    with pytest.raises(SpecError, match=r"spec\.optimizer lacks the fields \['lr'\]"):
        from_json(RunSpec, values)
    with pytest.raises(SpecError, match="spec lacks the fields .*'model'"):
        from_json(RunSpec, {})


def test_fields_with_a_default_may_be_left_out():
    values = to_json(SPEC)
    for name in ("schedule", "batch_size", "seed_init", "dtype"):
        del values[name]
    assert from_json(RunSpec, values) == SPEC


@pytest.mark.parametrize("given", [{}, {"steps": 5, "tokens": 960}, {"tokens": 9, "flops": 1.0}])
def test_budget_takes_exactly_one_form(given):
    with pytest.raises(SpecError, match="give one of steps, tokens, flops"):
        Budget(**given)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Budget(steps=0), r"budget\.steps=0"),
        (lambda: Budget(flops=-1.0), r"budget\.flops=-1\.0"),
        (lambda: changed(batch_size=0), "batch_size=0"),
        (lambda: changed(seed_data=-1), "seed_data=-1"),
        (lambda: changed(seed_init=2**32), "seed_init=4294967296"),
        (lambda: changed(data__n_tokens_unique=0), r"data\.n_tokens_unique=0"),
        (lambda: changed(optimizer__lr=0.0), r"optimizer\.lr=0\.0"),
        (lambda: changed(optimizer__lr=float("nan")), r"optimizer\.lr=nan"),
        (lambda: changed(optimizer__lr=float("inf")), r"optimizer\.lr=inf"),
        (lambda: changed(optimizer__beta2=1.0), r"optimizer\.beta2=1\.0"),
        (lambda: changed(optimizer__eps=0.0), r"optimizer\.eps=0\.0"),
        (lambda: changed(optimizer__weight_decay=-0.1), r"optimizer\.weight_decay=-0\.1"),
        (lambda: changed(optimizer__weight_decay=float("inf")), r"optimizer\.weight_decay=inf"),
        (lambda: Budget(flops=float("inf")), r"budget\.flops=inf"),
        (lambda: ScheduleConfig(warmup_steps=-1), r"schedule\.warmup_steps=-1"),
        (lambda: ScheduleConfig("wsd"), r"schedule\.decay_steps=None"),
        (lambda: ScheduleConfig("wsd", decay_steps=0), r"schedule\.decay_steps=0"),
        (lambda: ScheduleConfig("linear", decay_steps=5), "and for no other kind"),
        (lambda: ScheduleConfig(final_lr_fraction=1.5), r"schedule\.final_lr_fraction=1\.5"),
        (lambda: ScheduleConfig("inverse_sqrt"), "warm-ups; give at least 1"),
        (lambda: changed(optimizer__momentum=1.0), r"optimizer\.momentum=1\.0"),
        (lambda: changed(ema_decay=1.0), r"ema_decay=1\.0"),
        (lambda: changed(ema_decay=0.0), r"ema_decay=0\.0"),
        (lambda: changed(z_loss=-1e-4), "z_loss=-0.0001"),
        (lambda: changed(z_loss=float("inf")), "z_loss=inf"),
        (
            lambda: changed(optimizer__kind="muon", parametrization="mup"),
            "parametrization=mup with optimizer.kind=muon",
        ),
        (lambda: changed(schedule__warmup_steps=101), "take 101 steps but the budget has 100"),
        (
            lambda: changed(schedule=ScheduleConfig("wsd", 60, 41)),
            "take 101 steps but the budget has 100",
        ),
    ],
)
def test_values_out_of_range_are_refused_by_name(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_a_budget_below_half_a_step_still_trains_one():
    assert changed(budget=Budget(tokens=1)).n_steps == 1


def test_compile_key_sees_shapes_only():
    same = changed(
        optimizer__lr=0.5, optimizer__weight_decay=0.0, budget__steps=7, seed_init=4,
        schedule=ScheduleConfig("wsd", decay_steps=3),
    )  # fmt: skip
    assert same.compile_key == SPEC.compile_key
    assert changed(batch_size=4).compile_key != SPEC.compile_key
    assert changed(model__d_ff=32).compile_key != SPEC.compile_key


def test_compile_key_sees_which_parts_a_step_has():
    forms = [
        SPEC, changed(optimizer__kind="sgd"), changed(optimizer__kind="muon"),
        changed(parametrization="mup"), changed(ema_decay=0.9), changed(z_loss=1e-4),
        changed(model__qk_norm=True),
    ]  # fmt: skip
    assert len({spec.compile_key for spec in forms}) == len(forms)
    assert changed(ema_decay=0.9).compile_key == changed(ema_decay=0.5).compile_key
    assert changed(z_loss=1e-4).compile_key == changed(z_loss=1e-3).compile_key
