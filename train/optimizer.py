"""The optimizer as an optax transformation whose every hyperparameter is a traced value."""

from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from model.config import ModelConfig
from model.functional import Params, flatten, unflatten
from model.parametrization import lr_multiplier, weight_decay_mask
from train.config import OptimizerConfig


class Hyperparameters(NamedTuple):
    """Float32 scalars: arguments of the compiled step, so that a sweep over them compiles once."""

    beta1: Any
    beta2: Any
    eps: Any
    weight_decay: Any
    clip_norm: Any


def hyperparameters(config: OptimizerConfig) -> Hyperparameters:
    """The traced part of an optimizer config."""
    return Hyperparameters(*(np.float32(getattr(config, k)) for k in Hyperparameters._fields))


def adamw(hyper: Hyperparameters) -> optax.GradientTransformation:
    """Clip by global norm, Adam, decoupled decay on matrices; the step applies the rate."""
    return optax.chain(
        optax.clip_by_global_norm(hyper.clip_norm),
        optax.scale_by_adam(hyper.beta1, hyper.beta2, hyper.eps),
        optax.add_decayed_weights(hyper.weight_decay, _decays),
    )


def init_moments(params: Params, hyper: Hyperparameters) -> optax.OptState:
    """The optimizer's first state, made by numpy: everything in it starts at zero."""
    shapes = jax.eval_shape(adamw(hyper).init, params)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def apply_updates(
    cfg: ModelConfig, params: Params, updates: Any, lr: jax.Array, parametrization: str
) -> Params:
    """params - lr * multiplier * updates, the multiplier by parameter group."""
    rates = {name: lr * lr_multiplier(cfg, name, parametrization) for name in flatten(params)}
    return jax.tree.map(lambda p, u, rate: p - rate * u, params, updates, unflatten(rates))


def _decays(params: Params) -> dict[str, Any]:
    return unflatten({name: weight_decay_mask(name) for name in flatten(params)})
