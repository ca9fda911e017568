"""The compiled training step: several optimizer steps in one dispatch.

The compile key is model shape, batch shape, kernels and parametrization. Learning rates, the other
hyperparameters and the number of steps to take are traced, so runs that differ in them, and the
short last dispatch of a run, share one executable.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from model.config import ModelConfig
from model.functional import Params
from model.kernels import Kernels
from train.loss import mean_loss
from train.optimizer import Hyperparameters, adamw, apply_updates


class TrainState(NamedTuple):
    """All that training carries from step to step."""

    params: Params
    moments: optax.OptState


class StepMetrics(NamedTuple):
    """One value a step, float32 [K]: training loss in nats/token, gradient norm before clipping."""

    loss_nats: jax.Array
    grad_norm: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=4)
def train_steps(
    cfg: ModelConfig,
    kernels: Kernels,
    parametrization: str,
    n_microbatches: int,
    state: TrainState,
    windows_KBT1: jax.Array,
    lr_K: jax.Array,
    n_valid: jax.Array,
    hyper: Hyperparameters,
) -> tuple[TrainState, StepMetrics]:
    """Take the first `n_valid` of K optimizer steps; metrics past `n_valid` stay zero.

    Args:
        n_microbatches: equal parts of a batch whose gradients are averaged one after another.
        state: donated; use the returned one.
        windows_KBT1: int32 [K, batch, seq_len + 1], one batch of windows a step.
        lr_K: float32 learning rates.
        n_valid: int32 scalar in [0, K].
    """
    zeros = jnp.zeros(lr_K.shape, jnp.float32)

    def body(k: jax.Array, carry: tuple[TrainState, StepMetrics]):
        state, metrics = carry
        loss, grads = _loss_and_grads(cfg, kernels, n_microbatches, state.params, windows_KBT1[k])
        # optax raises a traced decay to an integer count, which strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            updates, moments = adamw(hyper).update(grads, state.moments, state.params)
        params = apply_updates(cfg, state.params, updates, lr_K[k], parametrization)
        values = StepMetrics(loss, optax.tree.norm(grads))
        metrics = jax.tree.map(lambda column, value: column.at[k].set(value), metrics, values)
        return TrainState(params, moments), metrics

    return jax.lax.fori_loop(0, n_valid, body, (state, StepMetrics(zeros, zeros)))


def _loss_and_grads(cfg, kernels, n_microbatches, params, windows_BT1):
    value_and_grad = jax.value_and_grad(lambda p, w: mean_loss(cfg, p, w, kernels))
    if n_microbatches == 1:
        return value_and_grad(params, windows_BT1)
    parts = windows_BT1.reshape(n_microbatches, -1, windows_BT1.shape[-1])

    def accumulate(total, part):
        return jax.tree.map(jnp.add, total, value_and_grad(params, part)), None

    zeros = jax.tree.map(jnp.zeros_like, (jnp.float32(0), params))
    total, _ = jax.lax.scan(accumulate, zeros, parts)
    return jax.tree.map(lambda x: x / n_microbatches, total)
