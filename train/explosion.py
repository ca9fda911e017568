"""When a finite loss counts as diverged: it blew up, and stayed so.

A run has exploded once every training loss of the last quarter of its budget (100 steps at least,
all of them after warm-up) lay more than a nat above that of a uniform guess, ln(vocab_size). An
untrained model starts at the uniform loss, and a healthy run falls from there; a spike that passes,
however high, is no explosion, since a single step below the line begins the count anew. Only where
the training loss is the cross-entropy alone can it be held against that line: a run with a z-loss,
or with a user's loss, is judged by whether its loss is finite.
"""

import math

import numpy as np

from train.config import RunSpec

MARGIN_NATS = 1.0
SHARE = 0.25
MIN_STEPS = 100


def exploded_at(spec: RunSpec, losses: np.ndarray, first: int, last: int) -> int | None:
    """The first step after `first` and up to `last` at which a run has exploded, None if none.

    Args: losses: training loss (nats/token) of steps 1, 2, ..., `last` at least.
    """
    if spec.loss is not None or spec.z_loss:
        return None
    line = math.log(spec.model.vocab_size) + MARGIN_NATS
    if not (losses[first:last] > line).any():
        return None
    window = max(MIN_STEPS, math.ceil(SHARE * spec.n_steps))
    is_low = losses[spec.schedule.warmup_steps : last] <= line
    steps = np.arange(spec.schedule.warmup_steps + 1, last + 1)
    # Of each step how many steps before it, itself included, have lain above the line in a row.
    newest_low = np.maximum.accumulate(np.where(is_low, steps, spec.schedule.warmup_steps))
    found = steps[(steps - newest_low >= window) & (steps > first)]
    return int(found[0]) if len(found) else None
