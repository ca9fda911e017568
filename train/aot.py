"""The real training step compiled for devices that are not there.

Google's TPU compiler (package libtpu) compiles for any slice on any x86 Linux machine: memory a
chip, products and collectives are then those of the program that would run.
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from model.arrangement import Arrangement, stack_layers
from model.functional import abstract_params
from model.kernels import kernels_for
from train.config import RunSpec, SpecError
from train.inputs import STEPS_PER_DISPATCH
from train.optimizer import direction, hyperparameters
from train.sharding import batch_sharding, shardings
from train.step import TrainState, train_steps


def tpu_devices(topology: str) -> Sequence[Any]:
    """The devices of a TPU slice such as v5e:4x4, good for compiling only.

    Raises: SpecError: libtpu is not installed, or knows no such slice.
    """
    from jax.experimental import topologies

    # Without these libtpu would ask the network what kind of TPU this machine is.
    for name, value in {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}.items():
        os.environ.setdefault(name, value)
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except ImportError as error:
        raise SpecError(
            "compiling for a TPU needs its compiler; install it by make tpu-aot"
        ) from error
    except Exception as error:
        reason = str(error).split("\n")[0]
        if "libtpu" in reason and "load" in reason.lower():
            reason = "compiling for a TPU needs its compiler; install it by make tpu-aot"
        raise SpecError(f"topology={topology!r}: {reason}") from error


def abstract_state(spec: RunSpec, arrangement: Arrangement) -> TrainState:
    """Shapes, types and, on a mesh, places of a run's state; no array is made."""

    def made() -> TrainState:
        params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract)
        moments = direction(hyperparameters(spec.optimizer)).init(params)
        state = TrainState(params, moments, None if spec.ema_decay is None else params)
        return stack_layers(state) if arrangement.scan_layers else state

    abstract = abstract_params(spec.model)
    state = jax.eval_shape(made)
    if arrangement.mesh is None:
        return state
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state,
        shardings(arrangement.mesh, state),
    )


def compile_step(
    spec: RunSpec, arrangement: Arrangement, n_microbatches: int, platform: str
) -> jax.stages.Compiled:
    """train.step.train_steps as a run of this spec on this mesh would call it, compiled."""
    mesh = arrangement.mesh
    whole = jax.NamedSharding(mesh, jax.P())

    def array(dtype: Any, *shape: int, place: Any = whole) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    K = STEPS_PER_DISPATCH
    windows = array(
        jnp.int32, K, spec.batch_size, spec.model.seq_len + 1, place=batch_sharding(mesh, 1)
    )
    hyper = jax.tree.map(lambda _: array(jnp.float32), hyperparameters(spec.optimizer))
    return train_steps.lower(
        spec.model, kernels_for(platform, spec.dtype, mesh), spec.parametrization, n_microbatches,
        abstract_state(spec, arrangement), windows, array(jnp.float32, K), array(jnp.int32), hyper,
        None if spec.ema_decay is None else array(jnp.float32, K),
        array(jnp.float32) if spec.z_loss else None,
        spec.loss, arrangement,
    ).compile()  # fmt: skip
