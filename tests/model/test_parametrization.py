"""What a parametrization says of each parameter, and what it does: activations that keep scale."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from model.drawing import Draws
from model.functional import abstract_params, apply, features, flatten, init_params, stream
from model.kernels import PLAIN
from model.parametrization import (
    BASE_D_HEAD,
    BASE_DEPTH,
    BASE_WIDTH,
    lr_multiplier,
    multipliers,
    weight_decay_mask,
    weight_decay_multiplier,
)
from model.sampling import generate, next_token_table
from train.coordinates import activation_scales, check_config
from train.evaluate import evaluate
from train.loss import mean_loss

N_STEPS, LR = 4, 0.01


@pytest.fixture(scope="module")
def base(tiny):
    return dataclasses.replace(
        tiny, n_layers=BASE_DEPTH, d_model=BASE_WIDTH, n_heads=4, d_head=BASE_D_HEAD, d_ff=128
    )


@pytest.fixture(scope="module")
def wide(base):
    """Four times the base in width and in d_head, three times in depth."""
    return dataclasses.replace(base, n_layers=6, d_model=128, d_head=32, d_ff=512, tied_head=False)


def names(cfg):
    return list(flatten(abstract_params(cfg)))


def draw_tokens(cfg):
    return np.random.default_rng(0).integers(0, cfg.vocab_size, (2, cfg.seq_len), np.int32)


def test_matrices_decay_and_vectors_do_not(tiny):
    for name, leaf in flatten(abstract_params(dataclasses.replace(tiny, bias=True))).items():
        assert weight_decay_mask(name) == (len(leaf.shape) == 2), name


def test_standard_treats_all_alike(tiny):
    assert {lr_multiplier(tiny, name, "standard") for name in names(tiny)} == {1.0}
    assert set(multipliers(tiny, "standard")) == {1.0}
    for name in names(tiny):
        assert weight_decay_multiplier(tiny, name, "standard") == weight_decay_mask(name)


def test_an_unknown_parametrization_is_named(tiny):
    message = "parametrization='ntk' is unknown.*'standard', 'mup'"
    with pytest.raises(ValueError, match=message):
        lr_multiplier(tiny, "head", "ntk")
    with pytest.raises(ValueError, match=message):
        features(tiny, init_params(tiny, 0), draw_tokens(tiny), parametrization="ntk")


def test_both_are_one_at_the_base(base):
    """Initial values, forward pass, rates and decay, to the bit."""
    params, again = (flatten(init_params(base, 0, p)) for p in ("standard", "mup"))
    assert all(np.array_equal(params[name], again[name]) for name in params)
    logits, same = (
        apply(base, init_params(base, 0), draw_tokens(base), parametrization=p)
        for p in ("standard", "mup")
    )
    np.testing.assert_array_equal(logits, same)
    for rule in (lr_multiplier, weight_decay_multiplier):
        for name in params:
            assert rule(base, name, "mup") == rule(base, name, "standard")


def test_table_8(base, wide):
    """How variance, Adam's rate and the multipliers change with width, by kind of weight.

    Source: Yang et al. 2022, arXiv:2203.03466, table 8: input and output weights have a variance
        and a rate without width, the output a multiplier 1 / width; hidden weights have variance
        and rate 1 / width; attention is 1 / d_head.
    """
    width = wide.d_model / base.d_model
    small, large = (
        {n: float(np.std(x)) for n, x in flatten(init_params(c, 0, "mup")).items()}
        for c in (dataclasses.replace(base, tied_head=False), wide)
    )
    for name in small:
        kind_is_hidden = name.startswith("blocks.") and weight_decay_mask(name)
        variance = (large[name] / small[name]) ** 2 if small[name] else 1.0
        assert variance == pytest.approx(1 / width if kind_is_hidden else 1.0, rel=0.2), name
        expected = 1 / width if kind_is_hidden else 1.0
        assert lr_multiplier(wide, name, "mup") == expected, name
    factors = multipliers(wide, "mup")
    assert factors.output == 1 / width
    scale = {c.d_head: multipliers(c, "mup").query / math.sqrt(c.d_head) for c in (base, wide)}
    assert scale[wide.d_head] / scale[base.d_head] == pytest.approx(base.d_head / wide.d_head)


def test_rate_times_decay_has_no_width(wide):
    """Dey et al. 2025, arXiv:2505.01618, table 1: decay of hidden weights grows as the width."""
    for name in names(wide):
        product = lr_multiplier(wide, name, "mup") * weight_decay_multiplier(wide, name, "mup")
        assert product == weight_decay_mask(name), name
    assert weight_decay_multiplier(wide, "blocks.0.mlp.up", "mup") == 4


def test_forward_factors_are_those_of_rescaled_weights(wide):
    """The factors on queries and branches are the same as on the matrices that make these."""
    params, tokens = init_params(wide, 0, "mup"), draw_tokens(wide)
    factors = multipliers(wide, "mup")
    assert factors == (0.5, 1 / 3, 1 / 4)
    by_hand = jax.tree.map(np.array, params)
    for block in by_hand["blocks"].values():
        block["attention"]["qkv"][:, : wide.d_attn] *= factors.query
        block["attention"]["out"] *= factors.residual
        block["mlp"]["down"] *= factors.residual
    by_hand["head"] *= factors.output
    expected = apply(wide, by_hand, tokens)
    found = apply(wide, params, tokens, parametrization="mup")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_training_evaluation_and_sampling_see_the_same_model(base):
    """Each one's number is that of the softmax over the logits of `apply` under muP."""
    cfg = dataclasses.replace(base, n_layers=1, d_head=16)
    params = init_params(cfg, 0, "mup")
    tokens = np.random.default_rng(0).integers(0, cfg.vocab_size, cfg.seq_len + 1, np.int32)
    logits_TV = apply(cfg, params, tokens[None, :-1], parametrization="mup")[0]
    log_p_TV = np.asarray(jax.nn.log_softmax(logits_TV), np.float64)
    expected = -float(np.mean(log_p_TV[np.arange(cfg.seq_len), tokens[1:]]))
    plain = float(mean_loss(cfg, params, tokens[None], PLAIN))
    assert abs(plain - expected) > 1e-3
    trained_on = float(mean_loss(cfg, params, tokens[None], PLAIN, parametrization="mup"))
    scored = evaluate(cfg, params, tokens, np.zeros(1, np.int64), PLAIN, "mup").loss_nats
    assert trained_on == pytest.approx(expected, rel=1e-5)
    assert scored == pytest.approx(expected, rel=1e-5)
    ((token, probability),) = next_token_table(cfg, params, tokens[:-1], 1, "mup")
    assert probability == pytest.approx(np.exp(log_p_TV[-1].max()), rel=1e-5)
    (drawn,) = generate(
        cfg, params, [tokens[:-1]], n_tokens=1, draws=Draws(0.0), parametrization="mup"
    )
    assert drawn.tolist() == [token]


@pytest.fixture(scope="module")
def scales():
    """Activation scales by width and parametrization; at the base width they are the same."""
    base = activation_scales(check_config(32), "mup", lr=LR, n_steps=N_STEPS)
    found = {("standard", 32): base, ("mup", 32): base}
    for parametrization in ("standard", "mup"):
        cfg = check_config(256)
        at_256 = activation_scales(cfg, parametrization, lr=LR, n_steps=N_STEPS)
        found[parametrization, 256] = at_256
    return found


def growth(scales, parametrization, name):
    """Scale at width 256 over that at 32, after the last step."""
    return scales[parametrization, 256][name][-1] / scales[parametrization, 32][name][-1]


def test_blocks_keep_their_scale_under_mup_and_grow_under_standard(scales):
    for name in ("block 1", "block 2"):
        assert 0.7 < growth(scales, "mup", name) < 1.3
        assert growth(scales, "standard", name) > 4


def test_learning_moves_logits_alike_under_mup(scales):
    """From width to width; their random initial part falls as 1 / sqrt(width), as it should."""
    assert 0.5 < growth(scales, "mup", "logits, change") < 1.3
    assert scales["mup", 256]["logits"][0] < 0.6 * scales["mup", 32]["logits"][0]


def test_initial_streams_keep_their_scale_in_depth_under_mup():
    """After the last of eight blocks against the last of two; standard adds variances up."""
    last = {}
    for parametrization in ("standard", "mup"):
        for n_layers in (2, 8):
            cfg = check_config(32, n_layers)
            params = init_params(cfg, 0, parametrization)
            after = stream(cfg, params, draw_tokens(cfg), parametrization=parametrization)[-1]
            last[parametrization, n_layers] = np.sqrt(np.mean(np.square(after)))
    assert last["mup", 8] / last["mup", 2] < 1.1
    assert last["standard", 8] / last["standard", 2] > 1.5
