"""Causal attention by the accelerators' own fused kernels, which never hold all scores at once.

Each equals the plain form by test: where no accelerator is there, XLA's form of the same function
and Pallas's interpreter stand in. What a kernel cannot take (shape, type) is computed plainly.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from model.arrangement import BATCH_AXES

Attention = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
HEADS_SPEC = jax.P(BATCH_AXES, None, "tensor", None)

CUDNN_D_HEAD_MULTIPLE, CUDNN_D_HEAD_MAX = 8, 128
"""Head widths of cuDNN's fused attention (JAX's check of its arguments)."""

SPLASH_BLOCK, SPLASH_D_HEAD_MULTIPLE = 512, 64
"""Largest block of queries and of keys, and head widths that the TPU's compiler takes."""

SPLASH_LANES = 128


def attention_in_float32(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array) -> jax.Array:
    """The plain form with scores and softmax in float32, whatever the type of its inputs."""
    seq_len, d_head = q_BTHK.shape[1], q_BTHK.shape[-1]
    wide = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    scores_BHTS = wide("BTHK,BSHK->BHTS", q_BTHK, k_BTHK) * d_head**-0.5
    is_past_TS = jnp.tril(jnp.ones((seq_len, seq_len), bool))
    weights_BHTS = jax.nn.softmax(jnp.where(is_past_TS[None, None], scores_BHTS, -jnp.inf))
    y_BTHK = wide("BHTS,BSHK->BTHK", weights_BHTS.astype(v_BTHK.dtype), v_BTHK)
    return y_BTHK.astype(q_BTHK.dtype)


def fused_on_gpu(implementation: Any, plain: Attention) -> Attention:
    """jax.nn.dot_product_attention by `cudnn` (or, for a test elsewhere, `xla`)."""

    def attention(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array) -> jax.Array:
        d_head, is_half = q_BTHK.shape[-1], q_BTHK.dtype in (jnp.bfloat16, jnp.float16)
        if not is_half or d_head % CUDNN_D_HEAD_MULTIPLE or d_head > CUDNN_D_HEAD_MAX:
            return plain(q_BTHK, k_BTHK, v_BTHK)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return jax.nn.dot_product_attention(
                q_BTHK, k_BTHK, v_BTHK, is_causal=True, implementation=implementation
            )

    return attention


def fused_on_tpu(plain: Attention, mesh: Any = None, *, interpret: bool = False) -> Attention:
    """JAX's splash attention; on a mesh each device takes its own sequences and heads.

    Source: Dao et al. 2022 (FlashAttention), arXiv:2205.14135; the kernel is
        jax.experimental.pallas.ops.tpu.splash_attention.
    """

    def attention(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array) -> jax.Array:
        _, T, _, d_head = q_BTHK.shape
        if T % SPLASH_LANES or d_head % SPLASH_D_HEAD_MULTIPLE:
            return plain(q_BTHK, k_BTHK, v_BTHK)
        here = functools.partial(_splash, interpret=interpret)
        if mesh is not None:
            # The compiler cannot cut a Pallas kernel by itself.
            specs = (HEADS_SPEC,) * 3
            here = jax.shard_map(
                here, mesh=mesh, in_specs=specs, out_specs=HEADS_SPEC, check_vma=False
            )
        return here(q_BTHK, k_BTHK, v_BTHK)

    return attention


def _splash(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, interpret: bool) -> jax.Array:
    _, T, H, d_head = q_BTHK.shape
    kernel = _splash_kernel(T, H, interpret)
    q_BHTK, k_BHTK, v_BHTK = (x.transpose(0, 2, 1, 3) for x in (q_BTHK, k_BTHK, v_BTHK))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        y_BHTK = jax.vmap(kernel)(q_BHTK * d_head**-0.5, k_BHTK, v_BHTK)
    return y_BHTK.transpose(0, 2, 1, 3).astype(q_BTHK.dtype)


def _splash_kernel(seq_len: int, n_heads: int, interpret: bool) -> Any:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    block = next(b for b in (SPLASH_BLOCK, 256, SPLASH_LANES) if seq_len % b == 0)
    sizes = splash.BlockSizes(
        block_q=block, block_kv=block, block_kv_compute=block,
        block_q_dkv=block, block_kv_dkv=block, block_kv_dkv_compute=block,
        block_q_dq=block, block_kv_dq=block,
    )  # fmt: skip
    mask = splash.MultiHeadMask([splash.CausalMask((seq_len, seq_len))] * n_heads)
    return splash.make_splash_mha_single_device(mask, block_sizes=sizes, interpret=interpret)
