"""Modules from a user's file: in place of ours, with values and counts by stated rules."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model import custom
from model.accounting import count_params, forward_flops_per_token, train_flops_per_token
from model.functional import abstract_params, apply, flatten, init_params
from model.kernels import CPU

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "my_idea.py"
HEAD = """
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from model.transformer import MLP, Attention, Norm
"""
OURS = (
    HEAD
    + """
class Block(nnx.Module):
    def __init__(self, cfg, kernels):
        self.attention_norm, self.attention = Norm(cfg, kernels), Attention(cfg, kernels)
        self.mlp_norm, self.mlp = Norm(cfg, kernels), MLP(cfg, kernels)

    def __call__(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))
"""
)
DEEP = (
    HEAD
    + """
class Deep(nnx.Module):
    initial = {"last": 0.0, "mix_gain": 0.25, "first": lambda rng, shape: 2 * rng.random(shape)}

    def __init__(self, cfg, kernels):
        self.layers = nnx.List([nnx.Param(jnp.zeros((cfg.d_model, cfg.d_model)))
                                for _ in range(11)])
        self.first = nnx.Param(jnp.zeros((3, cfg.d_model)))
        self.last = nnx.Param(jnp.zeros((cfg.d_model, cfg.d_model)))
        self.mix_gain = nnx.Param(jnp.zeros(()))

    def __call__(self, x):
        for i, layer in enumerate(self.layers):
            x = x @ layer[...] if i else jnp.tanh(x @ layer[...])
        return self.mix_gain[...] * x @ self.last[...] + self.first[...].sum(0)[None, None]
"""
)


@pytest.fixture
def tokens(tiny):
    return np.random.default_rng(0).integers(0, tiny.vocab_size, (2, tiny.seq_len), np.int32)


def with_part(tiny, **parts):
    return dataclasses.replace(tiny, **parts)


def module(body="return x", init="pass"):
    return (
        HEAD
        + f"""
class Part(nnx.Module):
    def __init__(self, cfg, kernels):
        {init}
    def __call__(self, x):
        {body}
"""
    )


def test_our_block_in_a_users_file_is_our_model(tiny, tokens, own):
    """Same names, hence the same initial values, logits, parameters and FLOPs."""
    cfg = with_part(tiny, block=own(OURS, "Block"))
    params, ours = init_params(cfg, 3), init_params(tiny, 3)
    assert flatten(params).keys() == flatten(ours).keys()
    for name, leaf in flatten(ours).items():
        np.testing.assert_array_equal(flatten(params)[name], leaf)
    for kernels in ({}, {"kernels": CPU}):
        np.testing.assert_array_equal(
            apply(cfg, params, tokens, **kernels), apply(tiny, ours, tokens, **kernels)
        )
    assert count_params(cfg) == count_params(tiny)
    for convention in ("6n_non_embedding", "6n_total", "matmul_causal", "matmul_full"):
        assert train_flops_per_token(cfg, convention) == train_flops_per_token(tiny, convention)
        assert forward_flops_per_token(cfg, convention) == forward_flops_per_token(tiny, convention)


def test_counts_of_a_users_mlp(tiny, own):
    """One matrix more than ours has 2: by hand."""
    text = (
        HEAD
        + """
class Wide(MLP):
    def __init__(self, cfg, kernels):
        super().__init__(cfg, kernels)
        self.extra = nnx.Param(jnp.zeros((cfg.d_model, cfg.d_model)))

    def __call__(self, x):
        return super().__call__(x @ self.extra[...])
"""
    )
    cfg = with_part(tiny, mlp=own(text, "Wide"))
    n_more = tiny.n_layers * tiny.d_model**2
    assert count_params(cfg).non_embedding == count_params(tiny).non_embedding + n_more
    assert count_params(cfg).total == count_params(tiny).total + n_more
    for convention in ("6n_non_embedding", "matmul_causal", "matmul_full"):
        more = train_flops_per_token(cfg, convention) - train_flops_per_token(tiny, convention)
        assert more == 6 * n_more


def test_attention_by_products_of_ones_own_is_counted_in_full(tiny, own):
    text = (
        HEAD
        + """
class Own(nnx.Module):
    def __init__(self, cfg, kernels):
        self.key = nnx.Param(jnp.zeros((cfg.d_model, cfg.d_model)))

    def __call__(self, x):
        scores = jnp.einsum("BTD,BSD->BTS", x @ self.key[...], x)
        past = jnp.tril(jnp.ones(scores.shape[1:], bool))
        return jnp.einsum("BTS,BSD->BTD", jnp.where(past[None], scores, 0.0), x)
"""
    )
    cfg = with_part(tiny, attention=own(text, "Own"))
    full = train_flops_per_token(cfg, "matmul_full")
    assert full == train_flops_per_token(cfg, "matmul_causal")
    mlps = 6 * tiny.n_layers * 2 * tiny.d_model * tiny.d_ff
    head = 6 * tiny.d_model * tiny.vocab_size
    each = 6 * (tiny.d_model**2 + 2 * tiny.seq_len * tiny.d_model)
    assert full == mlps + head + tiny.n_layers * each


def test_initial_values_are_by_rule_or_as_the_class_says(tiny, own):
    cfg = with_part(tiny, mlp=own(DEEP, "Deep"))
    params = flatten(init_params(cfg, 5))
    assert params["blocks.1.mlp.mix_gain"].shape == ()
    assert params["blocks.1.mlp.mix_gain"] == np.float32(0.25)
    assert not params["blocks.1.mlp.last"].any()
    first = params["blocks.1.mlp.first"]
    assert first.shape == (3, 16) and first.min() >= 0 and first.max() > 1
    assert not np.array_equal(first, params["blocks.0.mlp.first"])
    np.testing.assert_array_equal(first, flatten(init_params(cfg, 5))["blocks.1.mlp.first"])
    drawn = np.concatenate([params[f"blocks.0.mlp.layers.{i}"].ravel() for i in range(11)])
    assert drawn.std() == pytest.approx(0.5 / 4, rel=0.05)
    assert params["blocks.0.attention.qkv"].tolist() == (
        init_params(tiny, 5)["blocks"]["0"]["attention"]["qkv"].tolist()
    )


def test_more_than_ten_parameters_of_a_list_keep_their_order(tiny, tokens, own):
    """flax sorts "10" before "2": a permutation would change the product."""
    cfg = with_part(tiny, mlp=own(DEEP, "Deep"), n_layers=1, position="none")
    params = init_params(cfg, 0)
    mlp = params["blocks"]["0"]["mlp"]
    mlp["last"] = np.eye(16, dtype=np.float32)
    params["blocks"]["0"]["attention"]["out"] *= np.float32(0)
    x = params["token_embedding"][tokens]
    centred = x - x.mean(-1, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    for i in range(11):
        y = y @ mlp["layers"][str(i)] if i else np.tanh(y @ mlp["layers"]["0"])
    y = x + 0.25 * y + mlp["first"].sum(0)
    centred = y - y.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(
        apply(cfg, params, tokens), normal @ params["token_embedding"].T, atol=2e-4
    )


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (module(), "Blok", "defines no 'Blok'; it defines Part"),
        ("def broken(:\n", "Block", r"cannot be executed \(line 1\): SyntaxError"),
        ("import nothing_of_this_name\n", "B", r"\(line 1\): ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "B", "cannot be executed .*SystemExit: 3"),
        ("class Part:\n    pass\n", "Part", r"cannot be built from \(cfg, kernels\): TypeError"),
        ("def Part(cfg, kernels):\n    return 3\n", "Part", "gives a int, not an nnx.Module"),
        (module("return x[:, :-1]"), "Part", r"maps x_BTD of shape .*to \(1, 11, 16\)"),
        (module("return x.astype(jnp.float16)"), "Part", "float16; return its like"),
        (module("return x @ jnp.ones((3, 3))"), "Part", r"fails on x_BTD .*\(line 10\): TypeError"),
        (module(init="self.scale = nnx.Param(jnp.ones(4))"), "Part", "scale .* is no matrix: end"),
        (module(init="self.a = nnx.BatchStat(jnp.ones(4))"), "Part", "a is of type BatchStat"),
        (module(init="self.a = nnx.Param(jnp.ones((4, 4), int))"), "Part", "dtype int32"),
        (module() + "    initial = {'a': 1.0}\n", "Part", "initial names 'a', but there is no"),
    ],
)
def test_faults_of_a_part_are_one_line(tiny, own, text, name, words):
    with pytest.raises(ValueError, match=words) as caught:
        cfg = with_part(tiny, mlp=own(text, name))
        init_params(cfg, 0)
        train_flops_per_token(cfg, "matmul_full")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("lambda rng, shape: rng.random(3)", r"gives shape \(3,\)"),
        ("float('nan')", "1 NaN"),
        ("lambda rng: 1.0", "TypeError"),
    ],
)
def test_initial_values_that_cannot_be(tiny, own, value, words):
    text = module(init="self.a_bias = nnx.Param(jnp.zeros(4))")
    cfg = with_part(tiny, mlp=own(f"{text}    initial = {{'a_bias': {value}}}\n", "Part"))
    with pytest.raises(ValueError, match=f"initial of blocks.0.mlp.a_bias.*{words}"):
        init_params(cfg, 0)


@pytest.mark.parametrize("text", ["my_idea.py:Block", "Block", "a/b.py:C@" + "0" * 64, 3])
def test_what_is_no_reference_is_refused(tiny, text):
    with pytest.raises(ValueError, match="model.block=.* is no reference"):
        with_part(tiny, block=text)


def test_long_names_and_two_owners_are_refused(tiny):
    digest = "0" * 64
    with pytest.raises(ValueError, match="has 65 characters; use 64 at most"):
        with_part(tiny, block=f"my_idea.py:{'B' * 65}@{digest}")
    with pytest.raises(ValueError, match="model.block is given beside mlp"):
        with_part(tiny, block=f"a.py:B@{digest}", mlp=f"a.py:C@{digest}")


def test_a_changed_or_missing_file_is_not_executed(tiny, own):
    reference = own("x = 1  # of this test\n", "x")
    path = own.folder / f"{custom.parse('loss', reference).digest}.py"
    path.write_text("raise RuntimeError('executed')\n")
    with pytest.raises(ValueError, match="was changed: its SHA-256 is"):
        custom.load("loss", reference)
    path.unlink()
    with pytest.raises(ValueError, match="no .*\\.py in .*must move with it"):
        custom.load("loss", reference)


def test_the_example_is_short_and_costs_no_flops(tiny, own):
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) < 60
    cfg = with_part(tiny, block=own(text, "Block"))
    assert train_flops_per_token(cfg, "matmul_full") == train_flops_per_token(tiny, "matmul_full")
    n_gains = 2 * tiny.n_layers * tiny.d_model
    assert count_params(cfg).norm == count_params(tiny).norm + n_gains
    assert abstract_params(cfg)["blocks"]["0"]["mlp_shift"]["mix_gain"].shape == (tiny.d_model,)


def test_references_are_read_without_jax():
    code = "import sys, model.custom; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
