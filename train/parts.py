"""In what parts a batch is computed. No jax in this module: plans ask, too."""

import math

CPU_MICROBATCH_TOKENS = 512
"""On a CPU, gradients are formed for at most this many tokens at once: attention stays in cache."""

EVALUATION_TOKENS = 4096
"""Tokens that are scored at once."""


def microbatches(seq_len: int, batch_size: int, platform: str) -> int:
    """The fewest equal parts of a batch that each fit the cache of a CPU; 1 elsewhere."""
    if platform != "cpu":
        return 1
    at_most = max(1, CPU_MICROBATCH_TOKENS // seq_len)
    parts = range(math.ceil(batch_size / at_most), batch_size + 1)
    return next(n for n in parts if batch_size % n == 0)
