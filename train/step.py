"""The compiled training step: several optimizer steps in one dispatch.

The compile key is model shape, batch shape, kernels, parametrization and what is a user's own.
Learning rates, the other hyperparameters and the number of steps to take are traced, so runs that
differ in them, and the short last dispatch of a run, share one executable.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from model.arrangement import UNROLLED, Arrangement, over_batch
from model.config import ModelConfig
from model.functional import Params
from model.kernels import Kernels
from train.loss import mean_loss
from train.optimizer import Hyperparameters, apply_updates, direction
from train.sharding import kept_in_place, whole_everywhere


class TrainState(NamedTuple):
    """All that training carries from step to step."""

    params: Params
    moments: optax.OptState
    ema: Params | None = None
    """Moving average of params, if the spec asks for one; what is then evaluated and saved."""

    @property
    def result(self) -> Params:
        """The weights that a run is judged by."""
        return self.params if self.ema is None else self.ema


class StepMetrics(NamedTuple):
    """One value a step, float32 [K]; gradients are those before clipping.

    Training loss in nats/token, with the z-loss if there is one; norm of the batch's gradient; mean
    over microbatches of the squared norms of their gradients (train.noise).
    """

    loss_nats: jax.Array
    grad_norm: jax.Array
    microbatch_square: jax.Array


@functools.partial(
    jax.jit,
    static_argnames=(
        "cfg",
        "kernels",
        "parametrization",
        "n_microbatches",
        "loss",
        "arrangement",
    ),
    donate_argnames="state",
)
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
    ema_rate_K: jax.Array | None = None,
    z_loss: jax.Array | None = None,
    loss: str | None = None,
    arrangement: Arrangement = UNROLLED,
) -> tuple[TrainState, StepMetrics]:
    """Take the first `n_valid` of K optimizer steps; metrics past `n_valid` stay zero.

    Args:
        n_microbatches: equal parts of a batch whose gradients are averaged one after another.
        state: donated; use the returned one.
        windows_KBT1: int32 [K, batch, seq_len + 1], one batch of windows a step.
        lr_K: float32 learning rates.
        n_valid: int32 scalar in [0, K].
        ema_rate_K: float32, share of the new weights in the average, if the state has one.
        z_loss: float32 coefficient of mean_loss; None for no such term.
        loss: reference of a user's own loss, for mean_loss.
        arrangement: how layers are computed and on which mesh the state lies; with scan_layers, the
            state is one of model.arrangement.stack_layers.
    """
    mesh = arrangement.mesh
    zeros = jnp.zeros(lr_K.shape, jnp.float32)
    z = 0.0 if z_loss is None else z_loss

    def body(k: jax.Array, carry: tuple[TrainState, StepMetrics]):
        state, metrics = carry
        value, grads, square = _gradients(
            lambda params, part: mean_loss(
                cfg, params, part, kernels, z, parametrization, loss, arrangement
            ),
            n_microbatches, state.params, windows_KBT1[k], mesh,
        )  # fmt: skip
        # optax raises a traced decay to an integer count, which strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            updates, moments = direction(hyper).update(grads, state.moments, state.params)
        params = apply_updates(
            cfg, state.params, updates, lr_K[k], hyper.weight_decay, parametrization
        )
        ema = state.ema
        if ema is not None:
            assert ema_rate_K is not None
            rate = ema_rate_K[k]
            ema = jax.tree.map(lambda e, p: e + rate * (p - e), ema, params)
        values = StepMetrics(value, optax.tree.norm(grads), square)
        metrics = jax.tree.map(lambda column, value: column.at[k].set(value), metrics, values)
        return kept_in_place(TrainState(params, moments, ema), mesh), metrics

    state, metrics = jax.lax.fori_loop(0, n_valid, body, (state, StepMetrics(zeros, zeros, zeros)))
    return state, jax.tree.map(lambda column: whole_everywhere(column, mesh), metrics)


def _gradients(loss_of, n_microbatches, params, windows_BT1, mesh):
    """Mean loss and gradients over microbatches, and the mean of their squared norms."""
    value_and_grad = jax.value_and_grad(loss_of)
    if n_microbatches == 1:
        loss, grads = value_and_grad(params, windows_BT1)
        grads = kept_in_place(grads, mesh)
        return loss, grads, optax.tree.norm(grads, squared=True)
    parts = windows_BT1.reshape(n_microbatches, -1, windows_BT1.shape[-1])
    parts = over_batch(parts, mesh, axis=1)

    def accumulate(carry, part):
        total, square = carry
        value, grads = value_and_grad(params, part)
        grads = kept_in_place(grads, mesh)
        square = square + optax.tree.norm(grads, squared=True)
        return (jax.tree.map(jnp.add, total, (value, grads)), square), None

    zeros = jax.tree.map(jnp.zeros_like, (jnp.float32(0), params))
    (total, square), _ = jax.lax.scan(accumulate, (zeros, jnp.float32(0)), parts)
    loss, grads = jax.tree.map(lambda x: x / n_microbatches, total)
    return loss, grads, square / n_microbatches
