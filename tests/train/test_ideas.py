"""A user's own loss and optimizer in training, and what is tried before anything is trained."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from model import custom
from model.config import ModelConfig
from model.functional import init_params
from train import records
from train.checkpoint import load_weights
from train.checks import check_ideas
from train.config import OptimizerConfig, RunSpec, SpecError, from_json, to_json
from train.optimizer import hyperparameters, init_moments

HEAD = """
import jax, jax.numpy as jnp, optax
from flax import nnx
"""
RULES = (
    HEAD
    + """
def adam(hyper):
    return optax.scale_by_adam(hyper.beta1, hyper.beta2, hyper.eps)

def ones(hyper):
    def init(params):
        return jax.tree.map(jnp.ones_like, params)
    def update(grads, state, params=None):
        return jax.tree.map(jnp.multiply, grads, state), state
    return optax.GradientTransformation(init, update)

def cross_entropy(logits_NV, targets_N):
    logs_NV = jax.nn.log_softmax(logits_NV)
    return -jnp.mean(jnp.take_along_axis(logs_NV, targets_N[:, None], axis=-1))

def doubled(logits_NV, targets_N):
    return 2 * cross_entropy(logits_NV, targets_N)
"""
)


def part(body, init="pass"):
    return (
        HEAD
        + f"""
class Part(nnx.Module):
    def __init__(self, cfg, kernels):
        {init}
    def __call__(self, x):
        return {body}
"""
    )


def own_optimizer(reference, **values):
    return OptimizerConfig(lr=0.01, kind="custom", custom=reference, **values)


@pytest.mark.slow
def test_adam_in_a_users_file_trains_as_ours(run, make_spec, own, tmp_path):
    ours = run(make_spec(), tmp_path / "a" / "runs")
    spec = make_spec(optimizer=own_optimizer(own(RULES, "adam")))
    theirs = run(spec, tmp_path / "b" / "runs")
    assert theirs["loss_nats"] == ours["loss_nats"]
    assert theirs["train_loss_nats_final"] == ours["train_loss_nats_final"]
    assert (theirs["optimizer"], ours["idea"]) == ("custom", None)
    assert theirs["idea"] == spec.idea == f"optimizer={spec.ideas['optimizer'][:-52]}"


def test_a_loss_is_trained_on_and_not_evaluated_by(run, make_spec, own, tmp_path):
    unclipped = OptimizerConfig(lr=0.01, clip_norm=1e6)
    plain, doubled = (
        run(make_spec(loss=loss, optimizer=unclipped), tmp_path / str(i) / "runs")
        for i, loss in enumerate((None, own(RULES, "doubled")))
    )
    # Adam does not see a factor of two, and the evaluation must not.
    assert doubled["loss_nats"] == pytest.approx(plain["loss_nats"], abs=0.01)
    assert doubled["train_loss_nats_final"] > 1.9 * plain["train_loss_nats_final"]
    assert plain["train_flops_matmul_full"] == doubled["train_flops_matmul_full"]


def test_a_run_is_resumed_and_read_from_its_json_and_the_folder_alone(
    corpus, make_spec, tiny, tmp_path, run, monkeypatch
):
    """As another process would: no folder is known but `ideas` beside the store."""
    text = part("x * self.a[...][None]", "self.a = nnx.Param(jnp.zeros((1, 1)))").encode()
    (tmp_path / "ideas").mkdir()
    (tmp_path / "ideas" / f"{custom.digest(text)}.py").write_bytes(text)
    model = dataclasses.replace(tiny, mlp=f"my_idea.py:Part@{custom.digest(text)}", n_layers=1)
    values = json.loads(json.dumps(to_json(make_spec(model=model))))
    monkeypatch.setattr(custom, "_folders", [])
    spec = from_json(RunSpec, values)
    assert spec.run_id == make_spec(model=model).run_id
    row = run(spec, tmp_path / "runs")
    assert row["idea"].startswith("mlp=my_idea.py:Part@")
    path = records.committed_attempt(tmp_path / "runs", row).weights
    assert load_weights(path, spec.model)["blocks"]["0"]["mlp"]["a"].shape == (1, 1)


def test_two_contents_are_two_runs(make_spec, own):
    specs = [
        make_spec(),
        make_spec(loss=own(RULES, "cross_entropy")),
        make_spec(loss=own(RULES + "\n", "cross_entropy")),
        make_spec(loss=own(RULES, "doubled")),
        make_spec(loss=own(RULES, "doubled", file="other.py")),
        make_spec(optimizer=own_optimizer(own(RULES, "adam"))),
    ]
    assert len({spec.run_id for spec in specs}) == len({spec.compile_key for spec in specs}) == 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parametrization": "mup"}, "parametrization=mup with loss=my_idea.py"),
        ({"z_loss": 1e-4}, "z_loss=0.0001 beside loss"),
        ({"loss": "my_idea.py:loss"}, "is no reference"),
    ],
)
def test_what_does_not_go_with_an_own_loss(make_spec, own, changes, words):
    with pytest.raises(ValueError, match=words):
        make_spec(**{"loss": own(RULES, "cross_entropy"), **changes})


def test_kind_and_reference_of_an_optimizer_belong_together():
    with pytest.raises(SpecError, match="custom=None with optimizer.kind=custom"):
        OptimizerConfig(lr=0.1, kind="custom")
    with pytest.raises(SpecError, match="optimizer.kind=adamw: give the reference"):
        OptimizerConfig(lr=0.1, custom=f"a.py:b@{'0' * 64}")


def test_mup_is_refused_for_own_modules(make_spec, tiny, own):
    model = dataclasses.replace(tiny, mlp=own(part("x"), "Part"))
    with pytest.raises(SpecError, match="parametrization=mup with mlp=my_idea.py:Part@"):
        make_spec(model=model, parametrization="mup")


def small(make_spec, own, text, slot="mlp"):
    sizes = {"n_layers": 1, "d_model": 8, "n_heads": 1, "d_head": 8, "d_ff": 8}
    model = ModelConfig(**sizes, vocab_size=17, seq_len=6, **{slot: own(text, "Part")})
    return make_spec(model=model)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("x - x.mean(axis=1, keepdims=True)", "is not causal: with other tokens from position 1"),
        ("jnp.roll(x, -1, axis=1)", "logits at position 0 move by"),
        ("x[:, ::-1]", "is not causal"),
        ("x - x.mean(axis=0, keepdims=True)", "mixes sequences"),
        ("x / 0.0", "NaN or infinity in the logits at its initial values"),
        ("jnp.sqrt(jnp.abs(x - x))", "NaN or infinity in the gradient at its initial values"),
    ],
)
def test_a_part_that_must_not_be_trained_is_refused(make_spec, own, body, words):
    with pytest.raises(SpecError, match=f"mlp=my_idea.py:Part@.*{words}"):
        check_ideas(small(make_spec, own, part(body)))


def test_a_leak_behind_a_gate_that_starts_closed_is_found(make_spec, own):
    text = part("self.gate_bias[...][None, None] * x[:, ::-1]",
                "self.gate_bias = nnx.Param(jnp.zeros(cfg.d_model))")  # fmt: skip
    with pytest.raises(SpecError, match="is not causal"):
        check_ideas(small(make_spec, own, text))


def test_a_sound_part_passes(make_spec, own):
    check_ideas(small(make_spec, own, part("jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]")))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return logits_NV", r"gives shape \(18, 17\), float32; return one float32"),
        ("return jnp.log(0 * logits_NV).sum()", "NaN or infinity in the training loss"),
        ("return (logits_NV @ logits_NV.T).mean()", "forms matrix products of its own"),
        ("return logits_NV[targets_N, :, 1].mean()", r"fails on \(logits_NV, targets_N\)"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(make_spec, own, body, words):
    text = f"{HEAD}\ndef loss(logits_NV, targets_N):\n    {body}\n"
    model = ModelConfig(1, 8, 1, 8, 8, 17, 6)
    with pytest.raises(ValueError, match=f"loss=my_idea.py:loss@.*{words}"):
        check_ideas(make_spec(model=model, loss=own(text, "loss")))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return 3", "gives a int; return an optax.GradientTransformation"),
        ("return optax.scale(hyper.rho)", "fails on .hyper. .*AttributeError.*rho"),
        ("return optax.scale(float('nan'))", "NaN or infinity in the first update"),
        (
            "return optax.stateless(lambda u, p: jax.tree.map(lambda x: x.ravel(), u))",
            "change shape or dtype",
        ),
    ],
)
def test_an_optimizer_that_cannot_be_is_refused(make_spec, own, body, words):
    text = f"{HEAD}\ndef rule(hyper):\n    {body}\n"
    spec = make_spec(
        model=ModelConfig(1, 8, 1, 8, 8, 17, 6), optimizer=own_optimizer(own(text, "rule"))
    )
    with pytest.raises(ValueError, match=f"optimizer=my_idea.py:rule@.*{words}"):
        check_ideas(spec)


def test_an_optimizers_first_state_is_its_own(make_spec, own):
    spec = make_spec(optimizer=own_optimizer(own(RULES, "ones")))
    moments = init_moments(init_params(spec.model, 0), hyperparameters(spec.optimizer))
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(moments)]
    assert leaves and all((leaf == 1).all() for leaf in leaves)
