"""Accelerators by their published figures, and the least time that a program needs on them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from experiments import footprint
from model.accounting import train_flops
from train.config import RunSpec, SpecError


@dataclass(frozen=True)
class Chip:
    """Published peaks of one chip: FLOP/s in bfloat16, bytes, bytes/s of memory and of all links.

    `link_bytes_per_s` is one way: what a chip can send while it receives as much.
    """

    name: str
    flops_per_s: float
    memory_bytes: float
    memory_bytes_per_s: float
    link_bytes_per_s: float
    source: str


_CLOUD = "Google Cloud, docs.cloud.google.com/tpu/docs"
CHIPS = {
    chip.name: chip
    for chip in (
        # Jouppi et al. 2023, table 4; six links of 50 GB/s.
        Chip("v4", 275e12, 32 * 2**30, 1200e9, 300e9, "Jouppi et al. 2023, arXiv:2304.01433"),
        # Links: 1600 Gbps, also given as 400 GB/s for both directions.
        Chip("v5e", 197e12, 16e9, 819e9, 200e9, f"{_CLOUD}/v5e"),
        Chip("v5p", 459e12, 95e9, 2765e9, 600e9, f"{_CLOUD}/v5p"),
        # Links: 800 GB/s for both directions.
        Chip("v6e", 918e12, 32e9, 1638e9, 400e9, f"{_CLOUD}/v6e"),
    )
}


def chip_of(topology: str) -> Chip:
    """The chip of a slice such as v5e:4x4.

    Raises: SpecError: it is none of CHIPS.
    """
    name = topology.split(":")[0]
    if name not in CHIPS:
        raise SpecError(
            f"topology={topology!r} is of none of {', '.join(CHIPS)}; write it like v5e:4x4"
        )
    return CHIPS[name]


@dataclass(frozen=True)
class Bound:
    """The least seconds of a step by what it must compute, move to and from memory, and send."""

    compute_s: float
    memory_s: float
    links_s: float

    @property
    def seconds(self) -> float:
        """The roofline: no step is faster than its slowest part.

        Source: Williams et al. 2009, Communications of the ACM 52(4), 65-76.
        """
        return max(self.compute_s, self.memory_s, self.links_s)

    @property
    def limit(self) -> str:
        """What binds: compute, memory or links."""
        parts = {"compute": self.compute_s, "memory": self.memory_s, "links": self.links_s}
        return max(parts, key=lambda name: parts[name])


@dataclass(frozen=True)
class Slice:
    """What runs take on a slice at the very least: no program reaches its chips' peak.

    Each run is on the fewest chips that hold it, runs side by side. `price` is at a price an hour
    of the whole slice.
    """

    topology: str
    n_chips: int
    chip_hours: float
    hours: float
    n_chips_of_largest: int
    price: float | None


def n_chips_of(topology: str) -> int:
    """Chips of a slice such as v5p:4x4x4.

    Raises: SpecError: it cannot be read.
    """
    _, _, shape = topology.partition(":")
    sizes = shape.split("x")
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise SpecError(f"topology={topology!r} has no shape in chips; write it like v5e:4x4")
    return math.prod(int(size) for size in sizes)


def of_slice(specs: Sequence[RunSpec], topology: str, price_per_hour: float | None) -> Slice:
    """The least that runs take on a slice, in bfloat16 at the chips' peak.

    Memory by formula (experiments.footprint); `launch.py aot` asks the compiler.

    Raises: SpecError: a run does not fit into all its chips together.
    """
    chip, n_chips = chip_of(topology), n_chips_of(topology)
    needed = {spec.run_id: _chips_for(spec, chip, n_chips, topology) for spec in specs}
    seconds = {
        spec.run_id: train_flops(spec.model, spec.n_tokens, "matmul_full") / chip.flops_per_s
        for spec in specs
    }
    chip_seconds = sum(seconds.values())
    longest = max(seconds[run_id] / needed[run_id] for run_id in needed)
    hours = max(chip_seconds / n_chips, longest) / 3600
    return Slice(
        topology, n_chips, chip_seconds / 3600, hours, max(needed.values()),
        None if price_per_hour is None else hours * price_per_hour,
    )  # fmt: skip


def _chips_for(spec: RunSpec, chip: Chip, n_chips: int, topology: str) -> int:
    n_bytes = footprint.device_bytes(spec, "tpu")
    needed = math.ceil(n_bytes / chip.memory_bytes)
    if needed > n_chips:
        raise SpecError(
            f"run {spec.run_id} takes about {n_bytes / 1e9:.3g} GB and the {n_chips} chips of "
            f"topology={topology} have {n_chips * chip.memory_bytes / 1e9:.3g} GB; take a larger "
            "slice, or a smaller batch_size (launch.py aot says what remat would save)"
        )
    return needed
