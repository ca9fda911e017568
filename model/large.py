"""The forms of the operations for large models: bfloat16 where it saves, float32 where it counts.

Weights come in as float32 masters. Activations and the operands of products are of one type,
bfloat16 or float32; products add up in float32, and so do gradients of weights, which therefore are
summed over devices in float32. Norms, softmax and loss are float32. With float32 activations every
form equals the plain one.

Source: Micikevicius et al. 2018 (mixed precision), arXiv:1710.03740, sections 3.1 and 3.3.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from model.arrangement import BATCH_AXES
from model.attention import Attention
from model.kernels import PLAIN, Kernels, soft_cap

_CONTRACT_LAST, _CONTRACT_ROWS = (((1,), (0,)), ((), ())), (((0,), (0,)), ((), ()))
_CONTRACT_BOTH_LAST = (((1,), (1,)), ((), ()))


TABLE_AXES = ("tensor", "fsdp")
"""Axes of a mesh that the rows of the embedding and of the head are cut over, if they divide."""


@functools.cache
def large_kernels(platform: str, dtype: str, attention: Attention, mesh: Any = None) -> Kernels:
    """The bundle with activations of a type, float32 or bfloat16, on one device or on a mesh."""
    name = f"{platform}-large" + ("" if dtype == "float32" else f"-{dtype}")
    return Kernels(
        name=name,
        dense=_dense,
        layernorm=_in_float32(PLAIN.layernorm),
        rmsnorm=_in_float32(PLAIN.rmsnorm),
        attention=attention,
        embed=PLAIN.embed if mesh is None else functools.partial(_embed, mesh),
        token_losses=functools.partial(_token_losses, mesh),
        cross_entropy=functools.partial(_cross_entropy, mesh),
        dtype=dtype,
    )


def _in_float32(norm: Callable[[jax.Array, jax.Array], jax.Array]):
    def wide(x_BTD: jax.Array, gain: jax.Array) -> jax.Array:
        return norm(x_BTD.astype(jnp.float32), gain).astype(x_BTD.dtype)

    return wide


def _product(a: jax.Array, b: jax.Array, axes: object, out: object) -> jax.Array:
    # With a wider output a product's cotangent is of another type than its operands.
    return lax.dot_general(a, b, axes, preferred_element_type=out)  # pyright: ignore


@jax.custom_vjp
def _dense(x_ND: jax.Array, w_DF: jax.Array) -> jax.Array:
    return _product(x_ND, w_DF.astype(x_ND.dtype), _CONTRACT_LAST, x_ND.dtype)


def _dense_forward(x_ND, w_DF):
    return _dense(x_ND, w_DF), (x_ND, w_DF)


def _dense_backward(residuals, dy_NF):
    x_ND, w_DF = residuals
    dx_ND = _product(dy_NF, w_DF.astype(dy_NF.dtype), _CONTRACT_BOTH_LAST, dy_NF.dtype)
    return dx_ND, _product(x_ND, dy_NF, _CONTRACT_ROWS, jnp.float32)


_dense.defvjp(_dense_forward, _dense_backward)


@jax.custom_vjp
def _logits(x_ND: jax.Array, w_VD: jax.Array) -> jax.Array:
    return _product(x_ND, w_VD.astype(x_ND.dtype), _CONTRACT_BOTH_LAST, jnp.float32)


def _logits_forward(x_ND, w_VD):
    return _logits(x_ND, w_VD), (x_ND, w_VD)


def _logits_backward(residuals, dy_NV):
    x_ND, w_VD = residuals
    dy_NV = dy_NV.astype(x_ND.dtype)
    dx_ND = _product(dy_NV, w_VD.astype(x_ND.dtype), _CONTRACT_LAST, x_ND.dtype)
    return dx_ND, _product(dy_NV, x_ND, _CONTRACT_ROWS, jnp.float32)


_logits.defvjp(_logits_forward, _logits_backward)


def _embed(mesh: Any, w_VD: jax.Array, tokens_BT: jax.Array) -> jax.Array:
    """Gather the table, then look up: the compiler would gather the sequences of all devices."""
    n_parts = math.prod(mesh.shape[name] for name in TABLE_AXES)
    is_cut = w_VD.shape[0] % n_parts == 0

    def here(w_VD, tokens_BT):
        if is_cut:
            w_VD = lax.all_gather(w_VD, TABLE_AXES, axis=0, tiled=True)
        return PLAIN.embed(w_VD, tokens_BT)

    specs = (jax.P(TABLE_AXES if is_cut else None), jax.P(BATCH_AXES))
    embed = jax.shard_map(
        here, mesh=mesh, in_specs=specs, out_specs=jax.P(BATCH_AXES), check_vma=False
    )
    return embed(w_VD, tokens_BT)


def _losses_and_log_z(mesh, x_ND, w_VD, targets_N, softcap):
    logits_NV = _logits(x_ND, w_VD)
    if mesh is not None:
        # Else the compiler would gather the rows of all devices, and not the head.
        spec = jax.P(BATCH_AXES, "tensor" if w_VD.shape[0] % mesh.shape["tensor"] == 0 else None)
        logits_NV = lax.with_sharding_constraint(logits_NV, jax.NamedSharding(mesh, spec))
    logits_NV = soft_cap(logits_NV, softcap)
    # Picked by a sum, not an index: over a vocabulary that is spread over devices it stays local.
    is_target_NV = lax.broadcasted_iota(jnp.int32, logits_NV.shape, 1) == targets_N[:, None]
    target_logits_N = jnp.sum(jnp.where(is_target_NV, logits_NV, 0.0), axis=-1)
    log_z_N = jax.nn.logsumexp(logits_NV, axis=-1)
    return log_z_N - target_logits_N, log_z_N


def _token_losses(
    mesh: Any,
    x_ND: jax.Array,
    w_VD: jax.Array,
    targets_N: jax.Array,
    softcap: float | None = None,
) -> jax.Array:
    return _losses_and_log_z(mesh, x_ND, w_VD, targets_N, softcap)[0]


def _cross_entropy(
    mesh: Any,
    x_ND: jax.Array,
    w_VD: jax.Array,
    targets_N: jax.Array,
    softcap: float | None = None,
    z_loss: float | jax.Array = 0.0,
) -> jax.Array:
    losses_N, log_z_N = _losses_and_log_z(mesh, x_ND, w_VD, targets_N, softcap)
    if isinstance(z_loss, float) and z_loss == 0:
        return jnp.mean(losses_N)
    return jnp.mean(losses_N) + z_loss * jnp.mean(jnp.square(log_z_N))
