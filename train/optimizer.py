"""The optimizers by kind, through optax; every hyperparameter is a traced value."""

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from model import custom
from model.config import ModelConfig
from model.functional import Params, flatten, unflatten
from model.parametrization import lr_multiplier, weight_decay_multiplier
from train.config import OptimizerConfig

MUON_RMS = 0.2
"""Root mean square of Muon's update to a matrix, about that of AdamW's, so that one learning rate
and one decay serve both groups (Liu et al. 2025, arXiv:2502.16982, eq. 4)."""

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of Muon's quintic iteration (Jordan et al. 2024)."""


class AdamW(NamedTuple):
    """Float32 scalars of adamw (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    beta1: Any
    beta2: Any
    eps: Any
    weight_decay: Any
    clip_norm: Any


class Sgd(NamedTuple):
    """Float32 scalars of sgd with momentum, m <- momentum m + g, and decay outside of it.

    Source: Sutskever et al. 2013, ICML, eq. 1, with the rate outside m; Loshchilov & Hutter 2019,
        algorithm 1 (SGDW).
    """

    momentum: Any
    weight_decay: Any
    clip_norm: Any


class Muon(NamedTuple):
    """Float32 scalars of muon: momentum for the matrices of the blocks, Adam's for the rest.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon, with Nesterov momentum;
        Liu et al. 2025, arXiv:2502.16982, for the scale of the update and the decay.
    """

    momentum: Any
    beta1: Any
    beta2: Any
    eps: Any
    weight_decay: Any
    clip_norm: Any


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["momentum", "beta1", "beta2", "eps", "weight_decay", "clip_norm"],
    meta_fields=["reference"],
)
@dataclass(frozen=True)
class Custom:
    """Float32 scalars that a user's `optimizer(hyper)` may read, and where that function is."""

    momentum: Any
    beta1: Any
    beta2: Any
    eps: Any
    weight_decay: Any
    clip_norm: Any
    reference: str


Hyperparameters = AdamW | Sgd | Muon | Custom
"""Arguments of the compiled step, so that a sweep over them compiles once; the type is the kind."""

_KINDS = {"adamw": AdamW, "sgd": Sgd, "muon": Muon}


def hyperparameters(config: OptimizerConfig) -> Hyperparameters:
    """The traced part of an optimizer config."""
    if config.custom is not None:
        scalars = Muon(*(np.float32(getattr(config, k)) for k in Muon._fields))
        return Custom(**scalars._asdict(), reference=config.custom)
    kind = _KINDS[config.kind]
    return kind(*(np.float32(getattr(config, k)) for k in kind._fields))


def direction(hyper: Hyperparameters) -> optax.GradientTransformation:
    """Clip by global norm, then the kind's update; decay and rate are left to `apply_updates`."""
    clip = optax.clip_by_global_norm(hyper.clip_norm)
    match hyper:
        case AdamW():
            return optax.chain(clip, _adam(hyper))
        case Sgd():
            return optax.chain(clip, optax.trace(hyper.momentum))
        case Muon():
            return optax.chain(clip, _muon(hyper))
        case Custom():
            return optax.chain(clip, _custom(hyper))


def init_moments(params: Params, hyper: Hyperparameters) -> optax.OptState:
    """The optimizer's first state, made by numpy: zeros but for Muon's coefficients.

    A user's optimizer makes its own.
    """
    if isinstance(hyper, Custom):
        with jax.numpy_dtype_promotion("standard"):
            return jax.tree.map(np.asarray, direction(hyper).init(params))
    shapes = jax.eval_shape(direction(hyper).init, params)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    if isinstance(hyper, Muon):
        return optax.tree.set(zeros, ns_coeffs=np.asarray(NEWTON_SCHULZ, np.float32))
    return zeros


def apply_updates(
    cfg: ModelConfig,
    params: Params,
    updates: Any,
    lr: jax.Array,
    weight_decay: jax.Array,
    parametrization: str,
) -> Params:
    """params - rate * (updates + decay * params), rate and decay by parameter group.

    Decay is decoupled: it acts on the weights beside the update, multiplied by the rate.
    """

    def moved(name: str, p: jax.Array, u: jax.Array) -> jax.Array:
        rate = lr * lr_multiplier(cfg, name, parametrization)
        decay = weight_decay_multiplier(cfg, name, parametrization)
        return p - rate * (u + weight_decay * decay * p if decay else u)

    flat = flatten(updates)
    return unflatten({name: moved(name, p, flat[name]) for name, p in flatten(params).items()})


def _adam(hyper: AdamW | Muon) -> optax.GradientTransformation:
    return optax.scale_by_adam(hyper.beta1, hyper.beta2, hyper.eps)


def _custom(hyper: Custom) -> optax.GradientTransformation:
    slot = "optimizer"
    made = custom.load(slot, hyper.reference)
    try:
        found = made(hyper)
    except Exception as error:
        raise custom.complaint(slot, hyper.reference, "fails on (hyper)", error) from error
    if not isinstance(found, optax.GradientTransformation):
        raise ValueError(
            f"{slot}={custom.parse(slot, hyper.reference).short} gives a {type(found).__name__}; "
            "return an optax.GradientTransformation, without learning rate and decay"
        )
    return found


def _muon(hyper: Muon) -> optax.GradientTransformation:
    matrices = optax.chain(
        optax.contrib.scale_by_muon(
            NEWTON_SCHULZ, beta=hyper.momentum, weight_dimension_numbers=_dimensions
        ),
        optax.stateless_with_tree_map(_of_usual_size),
    )
    groups = optax.partition({"muon": matrices, "adam": _adam(hyper)}, _groups)

    def update(updates, state, params=None):
        del params  # Neither group reads them.
        updates, state = groups.update(_split(updates), state)
        return _joined(updates), state

    return optax.GradientTransformation(lambda params: groups.init(_split(params)), update)


def _groups(params: Params) -> Params:
    def group(name: str, leaf: Any) -> str:
        return "muon" if name.startswith("blocks.") and leaf.ndim == 2 else "adam"

    return unflatten({name: group(name, leaf) for name, leaf in flatten(params).items()})


def _dimensions(params: Any) -> Any:
    """Rows in, columns out, for every matrix; optax asks for it leaf by leaf."""
    return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(), params)


def _of_usual_size(update: Any, param: Any) -> Any:
    del param
    return MUON_RMS * math.sqrt(max(update.shape)) * update


def _split(params: Params) -> Params:
    """Each fused matrix of queries, keys and values as three: Muon is for single linear maps."""
    flat = flatten(params)
    split = {}
    for name, leaf in flat.items():
        if name.endswith(".qkv") and name.removesuffix("qkv") + "out" in flat:
            n_query = flat[name.removesuffix("qkv") + "out"].shape[0]
            n_key = (leaf.shape[1] - n_query) // 2
            parts = (leaf[:, :n_query], leaf[:, n_query:-n_key], leaf[:, -n_key:])
            split |= {f"{name}.{part}": x for part, x in zip("qkv", parts, strict=True)}
        else:
            split[name] = leaf
    return unflatten(split)


def _joined(updates: Any) -> Params:
    flat = flatten(updates)
    joined = {}
    for name, leaf in flat.items():
        fused = name[: -len(".q")]
        if not fused.endswith(".qkv"):
            joined[name] = leaf
        elif fused not in joined:
            # In this order, not in that of the names, which jax sorts.
            joined[fused] = jnp.concatenate([flat[f"{fused}.{part}"] for part in "qkv"], axis=1)
    return unflatten(joined)
