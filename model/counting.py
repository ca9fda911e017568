"""Parameters and FLOPs counted on the model itself: from its parameter tree and its jaxpr.

What model.accounting says by formula of our own modules, this finds for any module; for ours the
two are equal by test. FLOPs are those of matrix products and convolutions, 2 per multiply-add.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from model.accounting import ParamCounts
from model.config import ModelConfig
from model.functional import abstract_params, features, flatten
from model.kernels import PLAIN
from model.parametrization import is_bias, is_gain

UNCOUNTED = (
    "ragged_dot", "ragged_dot_general", "fft", "cholesky", "eig", "eigh", "lu", "qr", "svd",
    "triangular_solve", "tridiagonal_solve", "pallas_call", "ffi_call", "pure_callback",
    "io_callback",
)  # fmt: skip
"""Primitives that do work which is not counted; a count refuses them rather than take it for 0."""

_CAUSAL = "causal_attention"


def _causal_attention(q_BTHK, k_BTHK, v_BTHK):
    return PLAIN.attention(q_BTHK, k_BTHK, v_BTHK)


# Under a name of its own, the causal products can be told from all others in a jaxpr.
_causal_attention.__name__ = _CAUSAL
_COUNTED = PLAIN._replace(attention=jax.jit(_causal_attention))


def counted_params(cfg: ModelConfig) -> ParamCounts:
    """Parameters by group, by name: embeddings, head, gains and biases, and all else in blocks."""
    sizes: dict[str, int] = {"embedding": 0, "non_embedding": 0, "norm": 0, "head": 0}
    for name, leaf in flatten(abstract_params(cfg)).items():
        sizes[_group(name)] += math.prod(leaf.shape)
    return ParamCounts(**sizes)


def _group(name: str) -> str:
    if name in ("token_embedding", "position_embedding"):
        return "embedding"
    if is_gain(name) or is_bias(name):
        return "norm"
    return "head" if name == "head" else "non_embedding"


@functools.cache
def counted_flops_per_token(cfg: ModelConfig, *, is_training: bool, is_causal: bool) -> int:
    """FLOPs per token of the mean cross-entropy over one full window, or of it and its gradient.

    Whatever is computed counts, a rematerialised forward pass as well. Rounded to a whole FLOP.

    Args:
        is_causal: in the products of `kernels.attention`, the query at position t (from 1) counts
            t keys of seq_len; what attends by products of its own is counted in full either way.
    Raises: ValueError: the model holds an operation whose FLOPs are not defined (`jaxpr_flops`).
    """

    def loss(params, tokens_BT):
        x_BTD, w_VD = features(cfg, params, tokens_BT, kernels=_COUNTED)
        x_ND, targets_N = x_BTD.reshape(-1, cfg.d_model), tokens_BT.reshape(-1)
        return PLAIN.cross_entropy(x_ND, w_VD, targets_N, cfg.logit_softcap)

    tokens = jax.ShapeDtypeStruct((1, cfg.seq_len), jnp.int32)
    counted = jax.value_and_grad(loss) if is_training else loss
    share = (cfg.seq_len + 1) / (2 * cfg.seq_len) if is_causal else 1.0
    jaxpr = jax.make_jaxpr(counted)(abstract_params(cfg), tokens).jaxpr
    return round(jaxpr_flops(jaxpr, causal_share=share) / cfg.seq_len)


def jaxpr_flops(jaxpr: Any, causal_share: float = 1.0) -> float:
    """FLOPs of every product and convolution in a jaxpr, inner jaxprs included, scans by length.

    `fori_loop` between Python ints is a scan. Convolutions are counted with the zeros that padding
    and dilation put in. Element-wise work, reductions and gathers are not counted, as in
    model.accounting.

    Args: causal_share: counted of the products within the plain causal attention.
    Raises: ValueError: a product within a while loop, whose number of turns the jaxpr does not
        hold; branches of different FLOPs; or a primitive of `UNCOUNTED`.
    """
    return sum(_flops(eqn, causal_share) for eqn in jaxpr.eqns)


def _flops(eqn: Any, causal_share: float) -> float:
    kind = eqn.primitive.name
    if kind == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        inner = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * inner * math.prod(eqn.outvars[0].aval.shape)
    if kind == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        n_out = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // n_out
    if kind in UNCOUNTED:
        raise ValueError(f"FLOPs of {kind!r} are not defined here; write it as matrix products")
    inner = [jaxpr_flops(j, causal_share) for j in _inner_jaxprs(eqn.params)]
    if kind == "while" and any(inner):
        raise ValueError(
            "a while loop holds matrix products, and how often it turns is not known; use "
            "jax.lax.scan, or fori_loop between Python ints"
        )
    if kind == "cond":
        if len(set(inner)) > 1:
            raise ValueError(f"branches of a cond have different FLOPs, {inner}; compute both")
        return inner[0]
    total = sum(inner) * (eqn.params["length"] if kind == "scan" else 1)
    return total * causal_share if eqn.params.get("name") == _CAUSAL else total


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            item = getattr(item, "jaxpr", item)
            if hasattr(item, "eqns"):
                yield item
