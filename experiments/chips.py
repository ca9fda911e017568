"""Accelerators by their published figures, and the least time that a program needs on them."""

from dataclasses import dataclass

from train.config import SpecError


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
