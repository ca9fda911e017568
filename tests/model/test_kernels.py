"""Every bundle of kernels computes the values and the gradients of the plain one."""

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.functional import features, init_params
from model.kernels import CPU, PLAIN, kernels_for

N, D, F, V, B, T, H, K = 24, 10, 14, 17, 2, 12, 3, 6


def normal(*shape, scale=1.0, seed=0):
    rng = np.random.default_rng([seed, *shape])
    return jnp.asarray(scale * rng.standard_normal(shape, np.float32))


def ids(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, V, shape, np.int32))


CASES = {
    "dense-narrow": ("dense", (normal(B, T, D), normal(D, F))),
    "dense-wide": ("dense", (normal(B, T, 72), normal(72, F))),
    "layernorm": ("layernorm", (3 + 2 * normal(B, T, D), normal(D))),
    "rmsnorm": ("rmsnorm", (3 + 2 * normal(B, T, D), normal(D))),
    "layernorm-of-zeros": ("layernorm", (0 * normal(B, T, D), normal(D))),
    "attention": ("attention", tuple(normal(B, T, H, K, seed=i) for i in range(3))),
    "attention-odd": ("attention", tuple(normal(B, 7, H, K, seed=i) for i in range(3))),
    "attention-of-one": ("attention", tuple(normal(B, 1, H, K, seed=i) for i in range(3))),
    "attention-sharp": ("attention", tuple(normal(B, T, H, K, scale=5, seed=i) for i in range(3))),
    "embed": ("embed", (normal(V, D), ids(B, T))),
    "token_losses": ("token_losses", (normal(N, D), normal(V, D), ids(N))),
    "token_losses-wide": ("token_losses", (normal(N, 72), normal(V, 72), ids(N))),
    "token_losses-sharp": ("token_losses", (normal(N, D, scale=40), normal(V, D), ids(N))),
    "token_losses-capped": ("token_losses", (normal(N, D), normal(V, D), ids(N)), {"softcap": 2.0}),
    "cross_entropy": ("cross_entropy", (normal(N, D), normal(V, D), ids(N))),
    "cross_entropy-with-z": (
        "cross_entropy",
        (normal(N, D), normal(V, D), ids(N)),
        {"softcap": 2.0, "z_loss": 0.1},
    ),
}


def value_and_gradients(kernel, arguments):
    """The value, and its gradient under a random cotangent by every float argument."""
    floats = [i for i, a in enumerate(arguments) if jnp.issubdtype(a.dtype, jnp.floating)]
    cotangent = normal(*jax.eval_shape(kernel, *arguments).shape, seed=1)

    def project(*arguments):
        value = kernel(*arguments)
        return jnp.sum(value * cotangent), value

    (_, value), gradients = jax.jit(jax.value_and_grad(project, floats, has_aux=True))(*arguments)
    return value, *gradients


def assert_close(actual, expected, tolerance=1e-5):
    """Equal to a tolerance relative to the largest entry, or to the inputs' scale of 1."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype == jnp.float32
        assert np.isfinite(a).all()
        scale = max(1.0, float(jnp.abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_the_plain_ones(case):
    name, arguments, *rest = CASES[case]
    options = rest[0] if rest else {}
    plain, cpu = (functools.partial(getattr(k, name), **options) for k in (PLAIN, CPU))
    assert_close(value_and_gradients(cpu, arguments), value_and_gradients(plain, arguments))


@pytest.mark.parametrize("kernels", [PLAIN, CPU], ids=lambda kernels: kernels.name)
def test_attention_sees_past_a_huge_future_score(kernels):
    """A masked score far above all others neither overflows nor washes out the visible ones."""
    q_BTHK, v_BTHK = jnp.ones((1, 4, 1, 2)), normal(1, 4, 1, 2)
    k_BTHK = jnp.zeros((1, 4, 1, 2)).at[0, 3].set(1e6)
    y_BTHK, *gradients = value_and_gradients(kernels.attention, (q_BTHK, k_BTHK, v_BTHK))
    np.testing.assert_allclose(y_BTHK[0, 2, 0], jnp.mean(v_BTHK[0, :3, 0], axis=0), rtol=1e-5)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("kernels", [PLAIN, CPU], ids=lambda kernels: kernels.name)
def test_cross_entropy_survives_huge_logits(kernels):
    x_ND, w_VD = jnp.array([[1e4]]), jnp.array([[1.0], [-1.0], [0.5]])
    losses = [float(kernels.cross_entropy(x_ND, w_VD, jnp.array([target]))) for target in range(3)]
    assert losses == [0.0, 2e4, 5e3]


@pytest.mark.parametrize("kernels", [PLAIN, CPU], ids=lambda kernels: kernels.name)
def test_cap_and_z_loss_are_what_numpy_says(kernels):
    x_ND, w_VD, targets_N = 3 * normal(N, D), normal(V, D), ids(N)
    logits = np.asarray(x_ND, np.float64) @ np.asarray(w_VD, np.float64).T
    for cap in (None, 5.0):
        capped = logits if cap is None else cap * np.tanh(logits / cap)
        log_z = np.log(np.exp(capped).sum(axis=1))
        losses = log_z - capped[np.arange(N), np.asarray(targets_N)]
        np.testing.assert_allclose(kernels.token_losses(x_ND, w_VD, targets_N, cap), losses, 1e-4)
        loss = kernels.cross_entropy(x_ND, w_VD, targets_N, cap, 0.25)
        np.testing.assert_allclose(loss, losses.mean() + 0.25 * np.mean(log_z**2), 1e-5)


def test_a_z_loss_of_zero_leaves_no_trace_and_a_traced_one_no_difference():
    arguments = (normal(N, D), normal(V, D), ids(N))

    def jaxpr(*extra):
        return str(jax.make_jaxpr(lambda *a: PLAIN.cross_entropy(*a, None, *extra))(*arguments))

    assert jaxpr() == jaxpr(0.0) != jaxpr(0.5)
    traced = jax.jit(lambda z: PLAIN.cross_entropy(*arguments, None, z))(jnp.float32(0))
    np.testing.assert_allclose(traced, PLAIN.cross_entropy(*arguments), rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"position": "rotary", "norm": "rmsnorm", "activation": "swiglu", "tied_head": False},
        {
            "position": "none",
            "activation": "relu2",
            "bias": True,
            "n_kv_heads": 1,
            "qk_norm": True,
            "logit_softcap": 2.0,
        },
    ],
)
def test_the_whole_model_is_equal_inside_jit_and_scan(tiny, options):
    cfg = dataclasses.replace(tiny, n_layers=1, **options)
    params = init_params(cfg, 0)
    tokens = np.random.default_rng(0).integers(0, cfg.vocab_size, (2, 3, cfg.seq_len + 1), np.int32)

    def losses_and_gradients(kernels):
        def loss(params, window_BT):
            x_BTD, w_VD = features(cfg, params, window_BT[:, :-1], kernels=kernels)
            x_ND = x_BTD.reshape(-1, cfg.d_model)
            targets_N = window_BT[:, 1:].reshape(-1)
            return kernels.cross_entropy(x_ND, w_VD, targets_N, cfg.logit_softcap)

        def step(carry, window_BT):
            return carry, jax.value_and_grad(loss)(params, window_BT)

        return jax.jit(lambda tokens: jax.lax.scan(step, None, tokens)[1])(tokens)

    assert_close(losses_and_gradients(CPU), losses_and_gradients(PLAIN), tolerance=2e-5)


def test_the_platform_decides():
    assert kernels_for("cpu") is CPU
    assert kernels_for("gpu") is PLAIN
    assert kernels_for("tpu")._replace(name="plain", attention=PLAIN.attention) == PLAIN
    assert kernels_for("gpu", "bfloat16").dtype == "bfloat16"
    # The same object again, or every dispatch of a run would compile.
    assert kernels_for("gpu", "bfloat16") is kernels_for("gpu", "bfloat16")


def test_no_float64_appears_even_where_it_is_allowed(tiny):
    """With x64 on, an untyped constant would silently double the precision of all behind it."""
    tokens = jax.ShapeDtypeStruct((2, tiny.seq_len), np.int32)
    rotary = dataclasses.replace(
        tiny, position="rotary", qk_norm=True, n_kv_heads=1, bias=True, logit_softcap=30.0
    )
    with jax.enable_x64(True):
        for cfg, kernels in itertools.product((tiny, rotary), (PLAIN, CPU)):

            def loss(params, tokens, cfg=cfg, kernels=kernels):
                x_BTD, w_VD = features(cfg, params, tokens, kernels=kernels)
                x_ND = x_BTD.reshape(-1, cfg.d_model)
                targets_N, z_loss = tokens.reshape(-1), jnp.float32(1e-4)
                return kernels.cross_entropy(x_ND, w_VD, targets_N, cfg.logit_softcap, z_loss)

            jaxpr = jax.make_jaxpr(jax.value_and_grad(loss))(init_params(cfg, 0), tokens)
            assert {a.dtype for a in jaxpr.out_avals} == {np.dtype("float32")}
            assert not re.search(r"f64\[\d", str(jaxpr))
