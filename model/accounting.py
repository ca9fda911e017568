"""Parameters by group, and FLOPs per token by named convention: functions of the config alone.

A model with a part from a user's file has no formula: its counts come from its parameter tree and
its jaxpr (model.counting, which imports jax only then).

Counts are kept apart by group so that an analysis may choose its N and its C afterwards; much of
the disagreement between published laws is a disagreement about which of these were counted.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from model.config import ModelConfig

FlopsConvention = Literal["6n_non_embedding", "6n_total", "matmul_causal", "matmul_full"]
FLOPS_CONVENTIONS: tuple[FlopsConvention, ...] = get_args(FlopsConvention)


@dataclass(frozen=True)
class ParamCounts:
    """Number of parameters in each group; the groups are disjoint and `total` is their sum.

    Args:
        embedding: the token embedding (also the head when tied) and the learned positions.
        non_embedding: weight matrices of the blocks, the N of Kaplan et al.; 12 n_layers d_model^2
            for the usual shape (d_attn = d_model, d_ff = 4 d_model, gelu).
        norm: gains and biases, every parameter that is a vector: gains of all norms, those of
            queries and keys included, and biases of norms and matrices.
        head: the untied head; 0 when tied.

    Source: Kaplan et al. 2020, arXiv:2001.08361, section 2.1, eq. 2.1: N = 2 d_model n_layers
        (2 d_attn + d_ff), embeddings and sub-leading terms left out.
    """

    embedding: int
    non_embedding: int
    norm: int
    head: int

    @property
    def total(self) -> int:
        """Every parameter once, the N of Hoffmann et al. 2022, arXiv:2203.15556."""
        return self.embedding + self.non_embedding + self.norm + self.head


def count_params(cfg: ModelConfig) -> ParamCounts:
    """Number of parameters of the model in each group."""
    if cfg.parts:
        from model.counting import counted_params

        return counted_params(cfg)
    n_mlp_matrices = 3 if cfg.activation == "swiglu" else 2
    d_qkv = cfg.d_attn + 2 * cfg.d_kv
    n_per_block = cfg.d_model * (d_qkv + cfg.d_attn + n_mlp_matrices * cfg.d_ff)
    n_norm_vectors = (2 if cfg.bias else 1) * (2 * cfg.n_layers + 1)
    n_dense_biases = d_qkv + (n_mlp_matrices - 1) * cfg.d_ff + 2 * cfg.d_model if cfg.bias else 0
    n_qk_gains = 2 * cfg.d_head if cfg.qk_norm else 0
    n_positions = cfg.seq_len if cfg.position == "learned" else 0
    return ParamCounts(
        embedding=(cfg.vocab_size + n_positions) * cfg.d_model,
        non_embedding=cfg.n_layers * n_per_block,
        norm=n_norm_vectors * cfg.d_model + cfg.n_layers * (n_dense_biases + n_qk_gains),
        head=0 if cfg.tied_head else cfg.vocab_size * cfg.d_model,
    )


def forward_flops_per_token(cfg: ModelConfig, convention: FlopsConvention) -> int:
    """FLOPs of one forward pass per token, at 2 per multiply-add.

    - `6n_non_embedding`: 2N, N the block matrices. No head, no attention scores.
    - `6n_total`: 2N, N all parameters, so a tied embedding stands for the head.
    - `matmul_full`: 2N of the block matrices, plus the head 2 d_model vocab_size, plus scores and
      weighted values 4 n_layers seq_len d_attn: every query sees all seq_len keys, as dense
      matrix products compute it. Shared keys save none of it: each query head has its scores.
    - `matmul_causal`: the same, but the query at position t (from 1) sees t keys, so
      (seq_len + 1) / 2 on average.

    Ignores, in the matmul conventions: the embedding lookup (a gather), norms, biases, softmax,
    activations, rotary turns, the soft cap.

    With a part of the user's, the matmul conventions count its jaxpr (model.counting); of products
    outside `kernels.attention` nothing is known to be causal, so `matmul_causal` has them in full.

    Returns: FLOPs per token (neither per sequence nor multiply-adds).
    Raises: ValueError: the convention is unknown.
    Source: Kaplan et al. 2020, arXiv:2001.08361, section 2.1, table 1 and eq. 2.2 for 2N; its
        attention term 2 n_layers seq_len d_attn is the causal one to within 1 / seq_len.
        Hoffmann et al. 2022, arXiv:2203.15556, appendix F for the full form, which also counts
        the softmax and the embedding as a matrix product; both are left out here.
    """
    params = count_params(cfg)
    if convention == "6n_non_embedding":
        return 2 * params.non_embedding
    if convention == "6n_total":
        return 2 * params.total
    if cfg.parts and convention in ("matmul_full", "matmul_causal"):
        return _counted(cfg, convention, is_training=False)
    if convention == "matmul_full":
        attention = 4 * cfg.n_layers * cfg.d_attn * cfg.seq_len
    elif convention == "matmul_causal":
        attention = 2 * cfg.n_layers * cfg.d_attn * (cfg.seq_len + 1)
    else:
        known = ", ".join(FLOPS_CONVENTIONS)
        raise ValueError(f"convention={convention!r} is unknown; use one of {known}")
    return 2 * params.non_embedding + 2 * cfg.d_model * cfg.vocab_size + attention


def train_flops_per_token(cfg: ModelConfig, convention: FlopsConvention) -> int:
    """FLOPs of forward and backward per token: three times the forward pass.

    Each product of the forward pass gives two of its size in the backward pass, one for each
    operand's gradient; there is no exception, since even the first block's input gradient is
    needed (by the embedding). With a part of the user's it is what its own gradient takes.

    Returns: FLOPs per token; the optimizer's own work is left out.
    Raises: ValueError: the convention is unknown.
    Source: Kaplan et al. 2020, arXiv:2001.08361, section 2.1 (C = 6N); Hoffmann et al. 2022,
        arXiv:2203.15556, appendix F (backward twice the forward).
    """
    if cfg.parts and convention in ("matmul_full", "matmul_causal"):
        return _counted(cfg, convention, is_training=True)
    return 3 * forward_flops_per_token(cfg, convention)


def _counted(cfg: ModelConfig, convention: FlopsConvention, *, is_training: bool) -> int:
    from model.counting import counted_flops_per_token

    is_causal = convention == "matmul_causal"
    return counted_flops_per_token(cfg, is_training=is_training, is_causal=is_causal)


def train_flops(cfg: ModelConfig, n_tokens: int, convention: FlopsConvention) -> int:
    """FLOPs of training on `n_tokens` tokens, each counted as often as it is seen.

    Raises: ValueError: the convention is unknown.
    """
    return n_tokens * train_flops_per_token(cfg, convention)
