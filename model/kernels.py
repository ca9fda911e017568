"""The operations whose fastest form depends on the device, as bundles of equal functions.

Every bundle computes the same values and gradients (by test); only the arrangement differs.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_NORM_EPSILON = 1e-5


class Kernels(NamedTuple):
    """One form of every device-specific operation; all are differentiable in their float inputs.

    - `dense(x_BTD, w_DF) -> y_BTF`
    - `layernorm(x_BTD, gain) -> y_BTD`, `rmsnorm` likewise; epsilon 1e-5 inside the root
    - `attention(q_BTHK, k_BTHK, v_BTHK) -> y_BTHK`: causal, scores scaled by 1 / sqrt(d_head)
    - `embed(w_VD, tokens_BT) -> x_BTD`
    - `token_losses(x_ND, w_VD, targets_N, softcap=None) -> loss_N`: cross-entropy in nats of the
      logits x w^T, bent by `soft_cap`
    - `cross_entropy(x_ND, w_VD, targets_N, softcap=None, z_loss=0.0) -> loss`: their mean, plus
      z_loss times the mean square of log Z, Z the softmax's denominator. The float 0.0 takes the
      term out of the computation; a traced value keeps it in.

    Source: Chowdhery et al. 2022 (PaLM), arXiv:2204.02311, section 5, for the z-loss.
    """

    name: str
    dense: Callable[[jax.Array, jax.Array], jax.Array]
    layernorm: Callable[[jax.Array, jax.Array], jax.Array]
    rmsnorm: Callable[[jax.Array, jax.Array], jax.Array]
    attention: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    embed: Callable[[jax.Array, jax.Array], jax.Array]
    token_losses: Callable[..., jax.Array]
    cross_entropy: Callable[..., jax.Array]
    dtype: str | None = None
    """Type of the activations; None for that of the parameters."""


def soft_cap(logits: jax.Array, cap: float | None) -> jax.Array:
    """Cap * tanh(logits / cap): near zero the logits themselves, never beyond the cap.

    Source: Gemma Team 2024, arXiv:2408.00118, section 2.
    """
    return logits if cap is None else cap * jnp.tanh(logits / cap)


def _dense(x_BTD: jax.Array, w_DF: jax.Array) -> jax.Array:
    return x_BTD @ w_DF


def _rmsnorm(x_BTD: jax.Array, gain: jax.Array) -> jax.Array:
    mean_square = jnp.mean(jnp.square(x_BTD), axis=-1, keepdims=True)
    return x_BTD * lax.rsqrt(mean_square + _NORM_EPSILON) * gain[None, None]


def _layernorm(x_BTD: jax.Array, gain: jax.Array) -> jax.Array:
    return _rmsnorm(x_BTD - jnp.mean(x_BTD, axis=-1, keepdims=True), gain)


def _attention(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array) -> jax.Array:
    seq_len, d_head = q_BTHK.shape[1], q_BTHK.shape[-1]
    scores_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BTHK) * d_head**-0.5
    is_past_TS = jnp.tril(jnp.ones((seq_len, seq_len), bool))
    weights_BHTS = jax.nn.softmax(jnp.where(is_past_TS[None, None], scores_BHTS, -jnp.inf))
    return jnp.einsum("BHTS,BSHK->BTHK", weights_BHTS, v_BTHK)


def _embed(w_VD: jax.Array, tokens_BT: jax.Array) -> jax.Array:
    return w_VD[tokens_BT]


def _losses_and_log_z(x_ND, w_VD, targets_N, softcap):
    logits_NV = soft_cap(x_ND @ w_VD.T, softcap)
    target_logits_N = jnp.take_along_axis(logits_NV, targets_N[:, None], axis=-1)[:, 0]
    log_z_N = jax.nn.logsumexp(logits_NV, axis=-1)
    return log_z_N - target_logits_N, log_z_N


def _token_losses(
    x_ND: jax.Array, w_VD: jax.Array, targets_N: jax.Array, softcap: float | None = None
) -> jax.Array:
    return _losses_and_log_z(x_ND, w_VD, targets_N, softcap)[0]


def _cross_entropy(
    x_ND: jax.Array,
    w_VD: jax.Array,
    targets_N: jax.Array,
    softcap: float | None = None,
    z_loss: float | jax.Array = 0.0,
) -> jax.Array:
    losses_N, log_z_N = _losses_and_log_z(x_ND, w_VD, targets_N, softcap)
    if isinstance(z_loss, float) and z_loss == 0:
        return jnp.mean(losses_N)
    return jnp.mean(losses_N) + z_loss * jnp.mean(jnp.square(log_z_N))


PLAIN = Kernels(
    name="plain",
    dense=_dense,
    layernorm=_layernorm,
    rmsnorm=_rmsnorm,
    attention=_attention,
    embed=_embed,
    token_losses=_token_losses,
    cross_entropy=_cross_entropy,
)

# XLA's CPU backend, from here on: backward passes by hand, where autodiff's arrangement is slow.


def _weight_gradient(x_ND: jax.Array, dy_NF: jax.Array) -> jax.Array:
    # The transposed operand runs several times slower when XLA folds it into the product. A
    # contraction over the leading axes avoids that; for wide inputs, a real transpose, which the
    # barrier keeps out of the product, is faster still.
    if x_ND.shape[1] >= 64:
        return lax.optimization_barrier(x_ND.T) @ dy_NF
    return lax.dot_general(x_ND, dy_NF, (((0,), (0,)), ((), ())))


@jax.custom_vjp
def _dense_cpu(x_BTD: jax.Array, w_DF: jax.Array) -> jax.Array:
    return x_BTD @ w_DF


def _dense_cpu_forward(x_BTD, w_DF):
    return x_BTD @ w_DF, (x_BTD, w_DF)


def _dense_cpu_backward(residuals, dy_BTF):
    x_BTD, w_DF = residuals
    x_ND, dy_NF = (a.reshape(-1, a.shape[-1]) for a in (x_BTD, dy_BTF))
    return (dy_NF @ w_DF.T).reshape(x_BTD.shape), _weight_gradient(x_ND, dy_NF)


_dense_cpu.defvjp(_dense_cpu_forward, _dense_cpu_backward)


def _row_mean(x_ND: jax.Array) -> jax.Array:
    # A product with a constant vector measured faster than a reduction along the row.
    d_model = x_ND.shape[-1]
    return x_ND @ jnp.full((d_model, 1), 1 / d_model, x_ND.dtype)


def _norm_cpu(*, is_centered: bool) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """LayerNorm when centred, RMSNorm when not.

    With x^ the normalized row, r the inverse root and a = gain * dy, the input gradient is
    r (a - mean(a x^) x^), less r mean(a) when centred.
    """

    def forward(x_BTD, gain):
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
        if is_centered:
            x_ND = x_ND - _row_mean(x_ND)
        inverse_N1 = lax.rsqrt(_row_mean(jnp.square(x_ND)) + _NORM_EPSILON)
        normal_ND = x_ND * inverse_N1
        y_BTD = (normal_ND * gain[None]).reshape(x_BTD.shape)
        return y_BTD, (normal_ND, inverse_N1, gain)

    def backward(residuals, dy_BTD):
        normal_ND, inverse_N1, gain = residuals
        dy_ND = dy_BTD.reshape(normal_ND.shape)
        ones_1N = jnp.ones((1, len(dy_ND)), dy_ND.dtype)
        dgain = (ones_1N @ (dy_ND * normal_ND))[0]
        a_ND = dy_ND * gain[None]
        dx_ND = a_ND - normal_ND * _row_mean(a_ND * normal_ND)
        if is_centered:
            dx_ND = dx_ND - _row_mean(a_ND)
        return (inverse_N1 * dx_ND).reshape(dy_BTD.shape), dgain

    norm = jax.custom_vjp(lambda x_BTD, gain: forward(x_BTD, gain)[0])
    norm.defvjp(forward, backward)
    return norm


def _batched(a: jax.Array, b: jax.Array, a_axis: int, b_axis: int) -> jax.Array:
    return lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((0,), (0,))))


def _heads_forward(q_NTK, k_NSK, v_NSK):
    """Attention of N = batch * heads independent heads.

    The residuals keep the exponentials and their inverse sums, so that the backward pass forms
    no score and no exponential again.
    """
    seq_len, d_head = q_NTK.shape[1:]
    is_past_TS = jnp.tril(jnp.ones((seq_len, seq_len), bool))
    scores_NTS = _batched(q_NTK, k_NSK, 2, 2) * d_head**-0.5
    scores_NTS = jnp.where(is_past_TS[None], scores_NTS, -jnp.inf)
    exp_NTS = jnp.exp(scores_NTS - jnp.max(scores_NTS, axis=-1, keepdims=True))
    inverse_NT1 = 1 / jnp.sum(exp_NTS, axis=-1, keepdims=True)
    y_NTK = _batched(exp_NTS, v_NSK, 2, 1) * inverse_NT1
    return y_NTK, (q_NTK, k_NSK, v_NSK, exp_NTS, inverse_NT1, y_NTK)


def _heads_backward(residuals, dy_NTK):
    """The score gradient is p (dy v^T - <dy, y>), p the softmax, as in FlashAttention.

    Source: Dao et al. 2022, arXiv:2205.14135, appendix B.2.
    """
    q_NTK, k_NSK, v_NSK, exp_NTS, inverse_NT1, y_NTK = residuals
    scale = q_NTK.shape[-1] ** -0.5
    dy_NTK = dy_NTK * inverse_NT1
    shift_NT1 = jnp.sum(dy_NTK * y_NTK, axis=-1, keepdims=True)
    dscores_NTS = exp_NTS * (_batched(dy_NTK, v_NSK, 2, 2) - shift_NT1)
    dq_NTK = _batched(dscores_NTS, k_NSK, 2, 1) * scale
    dk_NSK = _batched(dscores_NTS, q_NTK, 1, 1) * scale
    return dq_NTK, dk_NSK, _batched(exp_NTS, dy_NTK, 1, 1)


@jax.custom_vjp
def _heads(q_NTK: jax.Array, k_NSK: jax.Array, v_NSK: jax.Array) -> jax.Array:
    return _heads_forward(q_NTK, k_NSK, v_NSK)[0]


_heads.defvjp(_heads_forward, _heads_backward)


def _attention_cpu(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array) -> jax.Array:
    B, T, H, K = q_BTHK.shape
    q, k, v = (x.transpose(0, 2, 1, 3).reshape(B * H, T, K) for x in (q_BTHK, k_BTHK, v_BTHK))
    return _heads(q, k, v).reshape(B, H, T, K).transpose(0, 2, 1, 3)


CPU = Kernels(
    name="cpu",
    dense=_dense_cpu,
    layernorm=_norm_cpu(is_centered=True),
    rmsnorm=_norm_cpu(is_centered=False),
    attention=_attention_cpu,
    # By hand these three measured no faster: the plain forms stay.
    embed=_embed,
    token_losses=_token_losses,
    cross_entropy=_cross_entropy,
)


def kernels_for(platform: str, dtype: str = "float32", mesh: Any = None) -> Kernels:
    """The fastest form for a jax platform name such as "cpu" or "gpu".

    Args:
        dtype: of the activations; the parameters are float32.
        mesh: a jax.sharding.Mesh that the model is spread over; None for one device.
    """
    if platform == "cpu" and dtype == "float32" and mesh is None:
        return CPU
    return _accelerated(platform, dtype, mesh)


@functools.cache
def _accelerated(platform: str, dtype: str, mesh: Any) -> Kernels:
    from model.attention import attention_in_float32, fused_on_gpu, fused_on_tpu
    from model.large import large_kernels

    is_small = dtype == "float32" and mesh is None
    attention = PLAIN.attention if is_small else attention_in_float32
    if platform == "tpu":
        attention = fused_on_tpu(attention, mesh)
    elif platform in ("gpu", "cuda") and dtype != "float32":
        attention = fused_on_gpu("cudnn", attention)
    if not is_small:
        return large_kernels(platform, dtype, attention, mesh)
    if attention is PLAIN.attention:
        return PLAIN
    return PLAIN._replace(name=platform, attention=attention)
