"""Forms for large models: scanned, recomputed, in bfloat16, with fused attention."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.arrangement import UNROLLED, Arrangement, stack_layers, unstack_layers
from model.attention import attention_in_float32, fused_on_gpu, fused_on_tpu
from model.functional import features, flatten, init_params
from model.kernels import PLAIN, kernels_for


def normal(*shape, seed=0, dtype=jnp.float32):
    values = np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)
    return jnp.asarray(values, dtype)


def heads(T, H, K, dtype=jnp.float32):
    return tuple(normal(2, T, H, K, seed=i, dtype=dtype) for i in range(3))


def values_and_gradients(attention, arguments):
    cotangent = normal(*arguments[0].shape, seed=9)

    def project(*arguments):
        y = attention(*arguments)
        return jnp.sum(y.astype(jnp.float32) * cotangent), y

    (_, y), grads = jax.jit(jax.value_and_grad(project, (0, 1, 2), has_aux=True))(*arguments)
    return y, *grads


def refused(*_):
    raise AssertionError("the plain form was taken")


def test_splash_attention_is_the_plain_one():
    """In Pallas's interpreter, forward and backward."""
    arguments = heads(128, 2, 64)
    fused = values_and_gradients(fused_on_tpu(refused, interpret=True), arguments)
    plain = values_and_gradients(PLAIN.attention, arguments)
    for a, b in zip(fused, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_the_gpus_function_is_the_plain_one():
    """XLA's form of the function stands in for cuDNN's, which computes in bfloat16 too."""
    arguments = heads(12, 2, 8, jnp.bfloat16)
    # The function's own backward pass mixes types.
    with jax.numpy_dtype_promotion("standard"):
        fused = values_and_gradients(fused_on_gpu("xla", refused), arguments)
    plain = values_and_gradients(attention_in_float32, arguments)
    for a, b in zip(fused, plain, strict=True):
        assert a.dtype == b.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            a.astype(jnp.float32), b.astype(jnp.float32), rtol=0.02, atol=0.02
        )


@pytest.mark.parametrize("T, K", [(96, 64), (128, 24)])
def test_shapes_that_splash_attention_cannot_take_are_computed_plainly(T, K):
    assert fused_on_tpu(lambda *_: "plain")(*heads(T, 1, K)) == "plain"


def test_float32_on_a_gpu_is_plain():
    assert fused_on_gpu("cudnn", lambda *_: "plain")(*heads(12, 1, 8)) == "plain"


def test_attention_in_float32_is_the_plain_one():
    arguments = heads(12, 2, 8)
    wide, plain = (jax.jit(form)(*arguments) for form in (attention_in_float32, PLAIN.attention))
    np.testing.assert_allclose(wide, plain, rtol=1e-6, atol=1e-6)


def test_stacked_layers_unstack_to_themselves(tiny):
    params = init_params(dataclasses.replace(tiny, n_layers=11), 0)
    stacked = stack_layers({"params": params, "count": np.int32(3)})
    assert stacked["params"]["blocks"]["mlp"]["up"].shape == (11, 16, 64)
    back = unstack_layers(stacked)
    assert back["count"] == 3
    for name, leaf in flatten(params).items():
        np.testing.assert_array_equal(flatten(back["params"])[name], leaf, err_msg=name)


def loss_and_gradients(cfg, arrangement, kernels=PLAIN):
    tokens = np.random.default_rng(0).integers(0, cfg.vocab_size, (2, cfg.seq_len + 1), np.int32)

    def loss(params):
        params = stack_layers(params) if arrangement.scan_layers else params
        x_BTD, w_VD = features(
            cfg, params, tokens[:, :-1], kernels=kernels, arrangement=arrangement
        )
        x_ND, targets_N = x_BTD.reshape(-1, cfg.d_model), jnp.asarray(tokens[:, 1:].reshape(-1))
        return kernels.cross_entropy(x_ND, w_VD, targets_N)

    params = jax.tree.map(jnp.asarray, init_params(cfg, 0))
    return jax.jit(jax.value_and_grad(loss))(params)


def test_scanned_recomputed_and_bfloat16_layers_are_the_unrolled_ones(tiny):
    cfg = dataclasses.replace(tiny, position="rotary", bias=True)
    value, grads = loss_and_gradients(cfg, UNROLLED)
    found, its_grads = loss_and_gradients(cfg, Arrangement(True, "full"))
    np.testing.assert_allclose(found, value, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(its_grads), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    half, half_grads = loss_and_gradients(cfg, Arrangement(True), kernels_for("cpu", "bfloat16"))
    np.testing.assert_allclose(half, value, rtol=2e-3)
    assert half != value
    norms = [jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(g))) for g in (half_grads, grads)]
    np.testing.assert_allclose(*norms, rtol=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(half_grads)} == {np.dtype("float32")}


def test_an_unknown_remat_is_refused():
    with pytest.raises(ValueError, match="remat='some'"):
        Arrangement(remat="some")
