"""One large training step, compiled for a TPU slice that is not there: memory, work, least time."""

import dataclasses
import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from experiments.analyse import OutputFlags, Shown
from experiments.chips import Bound, Chip, chip_of
from experiments.plan_report import size_of
from model.accounting import count_params, train_flops_per_token
from model.config import ModelConfig
from model.ladders import LADDERS, Rung
from train.config import Budget, DataConfig, OptimizerConfig, RunSpec, SpecError

SEQUENCES_A_CHIP = 4


@dataclass(frozen=True)
class AotFlags(OutputFlags):
    """Which slice, which model, and how the model is spread over it."""

    topology: str = "v5e:4x4"
    """Slice of TPUs: v4, v5e, v5p or v6e, and its shape in chips, such as v5p:4x4x4."""
    model: str = "chinchilla-1b"
    """Name of a published shape (gpt2-124m, chinchilla-1018m, ...), or family and size: the shape
    of the family nearest to it."""
    mesh: str = "fsdp=*"
    """How many devices for data, fsdp and tensor; * takes all that are left."""
    batch_size: int | None = None
    """Sequences of a step. Default: 4 a microbatch on every chip."""
    seq_len: int | None = None
    """Tokens of a sequence. Default: the published shape's."""
    microbatches: int = 1
    """Parts of a batch, one after another."""
    remat: Literal["none", "dots", "full"] = "full"
    """What the backward pass computes again: nothing, all but products with weights, every layer
    from its input."""
    scan_layers: bool = True
    """One compiled layer for all. Without, compiling takes as much longer as there are layers."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of activations and products; weights, moments, norms, softmax and loss are float32."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Kind of optimizer."""


def find_model(name: str) -> Rung:
    """A published shape by name, or the nearest of its family: chinchilla-1b.

    Raises: SpecError: there is no such family.
    """
    rungs = {rung.name: rung for family in LADDERS.values() for rung in family}
    if name in rungs:
        return rungs[name]
    sized = re.fullmatch(r"(\w+)-([\d.]+)([mb])", name.lower())
    if sized is None or sized[1] not in LADDERS:
        raise SpecError(
            f"model={name!r} is no published shape; use family and size, such as chinchilla-1b, "
            f"of {', '.join(LADDERS)}, or one of {', '.join(rungs)}"
        )
    wanted = float(sized[2]) * {"m": 1e6, "b": 1e9}[sized[3]]
    return min(LADDERS[sized[1]], key=lambda rung: abs(math.log(_size(rung) / wanted)))


def _size(rung: Rung) -> int:
    return rung.n_params_published or count_params(rung.model).total


def aot_spec(
    model: ModelConfig, batch_size: int, dtype: Literal["float32", "bfloat16"],
    optimizer: Literal["adamw", "sgd"] = "adamw",
) -> RunSpec:  # fmt: skip
    """A run of this shape, of which only the compiled step matters."""
    data = DataConfig("none", "0" * 64, "none", "0" * 64, "none")
    return RunSpec(
        model, data, OptimizerConfig(lr=1e-3, kind=optimizer), Budget(steps=1),
        batch_size=batch_size, dtype=dtype,
    )  # fmt: skip


def aot(flags: AotFlags) -> Shown:
    """Compile a training step for a TPU slice, without the slice."""
    rung, chip = find_model(flags.model), chip_of(flags.topology)
    model = rung.model
    if flags.seq_len is not None:
        model = dataclasses.replace(model, seq_len=flags.seq_len)
    # The machine itself computes nothing: jax need not look for what it has.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from train.aot import compiled_step, tpu_devices
    from train.placement import on_mesh
    from train.sharding import parse_mesh

    devices = tpu_devices(flags.topology)
    shape = parse_mesh(flags.mesh, len(devices))
    if flags.microbatches < 1:
        raise SpecError(f"microbatches={flags.microbatches} must be at least 1")
    least = shape.n_batch_parts * flags.microbatches
    batch_size = flags.batch_size or SEQUENCES_A_CHIP * least
    spec = aot_spec(model, batch_size, flags.dtype, flags.optimizer)
    placement = on_mesh(
        spec, shape, devices, scan_layers=flags.scan_layers, remat=flags.remat,
        n_microbatches=flags.microbatches,
    )  # fmt: skip
    step = compiled_step(spec, placement.arrangement, flags.microbatches, "tpu")
    n_chips = len({tuple(device.coords) for device in devices})
    return _shown(flags, rung, spec, chip, n_chips, len(devices), shape, step)


def bound_of(step, chip: Chip, devices_a_chip: int = 1) -> Bound:
    """The roofline of a compiled step.

    To and from memory go at least all arguments, read and written, and all temporaries likewise.
    """
    share = 1 / devices_a_chip
    moved = 2 * (step.argument_bytes + step.temporary_bytes)
    return Bound(
        compute_s=step.flops / (chip.flops_per_s * share),
        memory_s=moved / (chip.memory_bytes_per_s * share),
        links_s=step.sent_bytes / (chip.link_bytes_per_s * share),
    )


def _shown(flags, rung, spec, chip, n_chips, n_devices, shape, step) -> Shown:
    devices_a_chip = n_devices // n_chips
    bound = bound_of(step, chip, devices_a_chip)
    memory = chip.memory_bytes / devices_a_chip
    useful = {
        name: train_flops_per_token(spec.model, name) * spec.batch_tokens
        for name in ("matmul_causal", "matmul_full")
    }
    mfu = useful["matmul_causal"] / (bound.seconds * n_chips * chip.flops_per_s)
    values = {
        "topology": flags.topology, "model": rung.name, "mesh": str(shape), "n_chips": n_chips,
        "n_params_total": count_params(spec.model).total,
        "batch_tokens": spec.batch_tokens, "microbatches": flags.microbatches,
        "remat": flags.remat, "scan_layers": flags.scan_layers, "dtype": flags.dtype,
        "argument_bytes": step.argument_bytes, "temporary_bytes": step.temporary_bytes,
        "program_bytes": step.program_bytes, "peak_bytes": step.peak_bytes,
        "memory_bytes": memory, "product_flops": step.product_flops,
        "attention_flops": step.attention_flops,
        "model_flops_causal": useful["matmul_causal"] / n_devices,
        "model_flops_full": useful["matmul_full"] / n_devices,
        "sent_bytes": step.sent_bytes, "compute_s": bound.compute_s,
        "memory_s": bound.memory_s, "links_s": bound.links_s, "step_s": bound.seconds,
        "limit": bound.limit, "tokens_per_s": spec.batch_tokens / bound.seconds, "mfu": mfu,
        "seconds_to_compile": step.seconds_to_compile, "chip_source": chip.source,
    }  # fmt: skip
    tables = {
        f"{rung.name}, {values['n_params_total']:,} parameters, on {flags.topology} "
        f"({shape}), {spec.batch_tokens:,} tokens a step": [_memory_row(step, memory)],
        "FLOPs of a step on a device": [_flops_row(values)],
        "Collectives of a step": _collective_rows(step),
        f"Least time of a step by the published peaks of {chip.name}": [_bound_row(values)],
    }
    unread = (
        "jax cannot read this program's text: products are counted by formula, and collectives, "
        "hence the bound by links, are not known.",
    )
    return Shown(tables, (
        "Arguments are the state, updated in place, and 16 batches.",
        f"Model FLOPs are matmul_causal; MFU is at most {mfu:.0%}: no program reaches its bound.",
        f"Compiled in {step.seconds_to_compile:.0f} s; figures of the chip: {chip.source}.",
        *(() if step.is_read else unread),
    ), values)  # fmt: skip


def _memory_row(step, memory: float) -> dict[str, str]:
    return {
        "arguments": size_of(step.argument_bytes),
        "temporaries": size_of(step.temporary_bytes),
        "program": size_of(step.program_bytes),
        "peak": size_of(step.peak_bytes),
        "memory": size_of(memory),
        "used": f"{step.peak_bytes / memory:.0%}",
    }


def _flops_row(values) -> dict[str, str]:
    return {
        "compiled products": f"{values['product_flops']:.4g}",
        "fused attention": f"{values['attention_flops']:.4g}",
        "model (causal)": f"{values['model_flops_causal']:.4g}",
        "model (full)": f"{values['model_flops_full']:.4g}",
    }


def _collective_rows(step) -> list[dict[str, str]]:
    n_times, sent = Counter(), Counter()
    for c in step.collectives:
        n_times[c.kind] += c.n_times
        sent[c.kind] += c.n_times * c.sent_bytes
    return [
        {"kind": kind, "times": f"{n_times[kind]:,}", "sent by a device": size_of(sent[kind])}
        for kind in sorted(n_times)
    ]


def _bound_row(values) -> dict[str, str]:
    return {
        "compute": f"{values['compute_s'] * 1e3:.1f} ms",
        "memory": f"{values['memory_s'] * 1e3:.1f} ms",
        "links": f"{values['links_s'] * 1e3:.1f} ms",
        "bound by": values["limit"],
        "tokens/s": f"{values['tokens_per_s']:,.0f}",
        "MFU": f"{values['mfu']:.1%}",
    }
