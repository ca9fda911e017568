"""How many workers a machine's memory holds, and whether the kernel has killed for want of it."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from model.accounting import count_params
from train.config import RunSpec

WORKER_BYTES = 500_000_000
"""A worker with jax, its programs and a small corpus, without the run."""

CGROUP = Path("/sys/fs/cgroup")


MICROBATCH_TOKENS = 512
"""Tokens that a CPU worker computes at a time (train.step), or one sequence if that is longer."""


def run_bytes(spec: RunSpec) -> int:
    """A rough upper estimate of what a run adds to a worker on a CPU, float32.

    Weights, gradients, two moments, their updates and copies on the host; of one microbatch the
    activations that the backward pass keeps (about 16 widths and all attention weights a token and
    layer), and the logits thrice.
    """
    model = spec.model
    n_tokens = max(MICROBATCH_TOKENS, model.seq_len)
    state = 10 * count_params(model).total
    a_layer = 16 * model.d_model + 2 * model.d_ff + 2 * model.n_heads * model.seq_len
    return 4 * (state + n_tokens * (model.n_layers * a_layer + 3 * model.vocab_size))


def workers_that_fit(specs: Iterable[RunSpec], available: int | None) -> int | None:
    """How many workers fit into so many bytes, at least one; None if it is not known."""
    if available is None:
        return None
    need = WORKER_BYTES + max((run_bytes(spec) for spec in specs), default=0)
    return max(1, available // need)


def available_bytes() -> int | None:
    """Memory that new processes may take: what is free, within this process's cgroup."""
    found = [_meminfo("MemAvailable"), *(_left_in(folder) for folder in _cgroups())]
    return min((n for n in found if n is not None), default=None)


def oom_kills() -> int:
    """Processes that the kernel has killed for want of memory, as far as it says."""
    counts = [_counter(folder / "memory.events", "oom_kill") for folder in _cgroups()]
    return max([_counter(Path("/proc/vmstat"), "oom_kill"), *counts])


def _cgroups() -> list[Path]:
    """Folders of this process's cgroup and those above it; none where there is no cgroup v2."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                own = CGROUP / line.removeprefix("0::").lstrip("/")
                return [p for p in (own, *own.parents) if p.is_relative_to(CGROUP) and p.is_dir()]
    return []


def _left_in(folder: Path) -> int | None:
    """Room below a cgroup's limit; None if it has none. Cached files give way, so do not count."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    cached = _counter(folder / "memory.stat", "inactive_file")
    return None if limit == "max" else max(0, int(limit) - used + cached)


def _meminfo(name: str) -> int | None:
    kilobytes = _counter(Path("/proc/meminfo"), f"{name}:")
    return kilobytes * 1024 or None


def _counter(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value.split()[0])
    return 0
