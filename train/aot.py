"""The real training step compiled for devices that are not there.

Google's TPU compiler (package libtpu) compiles for any slice on any x86 Linux machine: memory a
chip, products and collectives are then those of the program that would run.
"""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp

from model.accounting import count_params
from model.arrangement import Arrangement, stack_layers
from model.functional import abstract_params
from model.kernels import kernels_for
from train.config import RunSpec, SpecError
from train.hlo import Collective, Program
from train.inputs import STEPS_PER_DISPATCH
from train.optimizer import direction, hyperparameters
from train.sharding import batch_sharding, shardings
from train.step import TrainState, train_steps


def tpu_devices(topology: str) -> Sequence[Any]:
    """The devices of a TPU slice such as v5e:4x4, good for compiling only.

    Raises: SpecError: libtpu is not installed, or knows no such slice.
    """
    from jax.experimental import topologies

    # Without these libtpu would ask the network what kind of TPU this machine is, and let no second
    # process compile. No chip is used, so there is nothing to lock.
    quiet = {
        "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }  # fmt: skip
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    if not find_spec("libtpu"):
        raise SpecError(
            f"topology={topology!r} needs the TPU's compiler; install it by make tpu-aot"
        )
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).split("\n")[0]
        raise SpecError(f"topology={topology!r} is no slice that libtpu knows: {reason}") from error


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


class DoesNotFit(SpecError):
    """The compiler found no way to keep the step in the memory of a chip."""


@dataclass(frozen=True)
class CompiledStep:
    """One optimizer step on one device, as compiled.

    Bytes of arguments (the state and 16 batches), of temporaries and of the program; FLOPs of the
    products, of which those of fused attention are counted by formula, as the compiler does not
    see into it; collectives. Of a program whose text jax cannot read (`is_read`), products are
    counted by formula as well, and collectives are not known.
    """

    argument_bytes: int
    temporary_bytes: int
    program_bytes: int
    product_flops: int
    attention_flops: int
    collectives: tuple[Collective, ...]
    seconds_to_compile: float
    is_read: bool = True

    @property
    def peak_bytes(self) -> int:
        """Memory at the worst moment; the state is updated in place."""
        return self.argument_bytes + self.temporary_bytes + self.program_bytes

    @property
    def flops(self) -> int:
        """All FLOPs, recomputed ones included."""
        return self.product_flops + self.attention_flops

    @property
    def sent_bytes(self) -> int:
        """What a device sends in a step."""
        return sum(c.n_times * c.sent_bytes for c in self.collectives)


def compiled_step(
    spec: RunSpec, arrangement: Arrangement, n_microbatches: int, platform: str
) -> CompiledStep:
    """Compile, and read off what a step takes.

    Raises: DoesNotFit: it needs more memory than a device has.
    """
    started = time.monotonic()
    try:
        compiled = compile_step(spec, arrangement, n_microbatches, platform)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFit(_what_is_missing(str(error))) from error
    sizes, program = compiled.memory_analysis(), _read(compiled)
    assert sizes is not None
    n_devices, attention = arrangement.mesh.size, _attention_flops(spec, arrangement)
    is_fused = program is None or program.n_custom_calls("tpu_custom_call") > 0
    products = _product_flops(spec, arrangement) // n_devices
    return CompiledStep(
        argument_bytes=sizes.argument_size_in_bytes,
        temporary_bytes=sizes.temp_size_in_bytes,
        program_bytes=sizes.generated_code_size_in_bytes,
        product_flops=products if program is None else program.product_flops(),
        attention_flops=attention // n_devices if is_fused else 0,
        collectives=() if program is None else tuple(program.collectives()),
        seconds_to_compile=time.monotonic() - started,
        is_read=program is not None,
    )


def _read(compiled: jax.stages.Compiled) -> Program | None:
    """The program's text; None where libtpu writes instructions that jax does not know yet."""
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError:
        return None
    return None if text is None else Program(text)


def _product_flops(spec: RunSpec, arrangement: Arrangement) -> int:
    """Of a step on all devices, by formula: all products but those of attention.

    A layer that is computed again for its backward pass is so but for its last product.
    """
    cfg = spec.model
    counts = count_params(cfg)
    again = counts.non_embedding - cfg.n_layers * cfg.d_ff * cfg.d_model
    a_token = 6 * (counts.non_embedding + cfg.d_model * cfg.vocab_size)
    return (a_token + 2 * again * (arrangement.remat == "full")) * spec.batch_tokens


def _attention_flops(spec: RunSpec, arrangement: Arrangement) -> int:
    """Of causal scores and weighted values in a step: forward, backward, and forward once more."""
    cfg = spec.model
    a_layer = 2 * cfg.d_attn * (cfg.seq_len + 1)
    n_forward = 3 + (arrangement.remat != "none")
    return n_forward * cfg.n_layers * a_layer * spec.batch_tokens


def _what_is_missing(complaint: str) -> str:
    found = re.search(r"Used ([\d.]+[KMGT]) of ([\d.]+[KMGT]) hbm", complaint)
    need = f"{found[1]} of {found[2]}" if found else complaint.split("\n")[0][:200]
    return (
        f"a step does not fit into the memory of a chip ({need}); take more chips, a smaller "
        "batch_size, more microbatches, or remat=full"
    )
