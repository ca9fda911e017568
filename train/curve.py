"""The learning curve of a run, thinned to points evenly spaced in log steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

_GROWTH = 1.03
_TAIL = 0.05


@dataclass(frozen=True)
class Curve:
    """Progress of a curve: what is not yet in a logged point, and the tail mean so far.

    Part of every checkpoint, so that a resumed run logs the very points of an undisturbed one.
    """

    step: int = 0
    pending: tuple[float, ...] = ()
    tail_sum: float = 0.0
    tail_count: int = 0

    @property
    def tail_mean(self) -> float:
        """Mean training loss over the last twentieth of the run, nats/token."""
        return self.tail_sum / self.tail_count if self.tail_count else math.nan


@dataclass(frozen=True)
class Point:
    """Mean training loss (nats/token) over the steps since the point before, ending at `step`."""

    step: int
    loss_nats: float


def is_logged(step: int, n_steps: int) -> bool:
    """Whether a point ends at `step`: every step at first, then every 3%, and always the last.

    A function of the step alone, so curves of runs of different length share their points.
    """
    if step == n_steps:
        return True
    exponent = math.floor(math.log(step) / math.log(_GROWTH))
    return any(step == math.ceil(_GROWTH ** (exponent + i)) for i in (0, 1))


def n_points(n_steps: int) -> int:
    """How many points a curve of so many steps has."""
    n_growths = math.floor(math.log(n_steps) / math.log(_GROWTH))
    logged = {math.ceil(_GROWTH**i) for i in range(n_growths + 1)}
    return len({step for step in logged if step <= n_steps} | {n_steps})


def extend(curve: Curve, losses: list[float], n_steps: int) -> tuple[Curve, list[Point]]:
    """Add the losses of the next steps; returns the new progress and the points they completed."""
    points = []
    for loss in losses:
        step = curve.step + 1
        in_tail = step > n_steps * (1 - _TAIL)
        curve = replace(
            curve,
            step=step,
            pending=(*curve.pending, loss),
            tail_sum=curve.tail_sum + (loss if in_tail else 0.0),
            tail_count=curve.tail_count + in_tail,
        )
        if is_logged(step, n_steps):
            points.append(Point(step, math.fsum(curve.pending) / len(curve.pending)))
            curve = replace(curve, pending=())
    return curve, points


def mean_of_tail(points: Sequence[tuple[int, float]], n_steps: int) -> float:
    """Mean training loss over the last twentieth of `n_steps`, as far as points resolve it.

    Args: points: (step, mean loss since the point before), in order, up to n_steps.
    """
    starts = [0, *(step for step, _ in points)]
    tail = [
        (step - start, loss)
        for start, (step, loss) in zip(starts, points, strict=False)
        if step > n_steps * (1 - _TAIL)
    ]
    n_tail = sum(weight for weight, _ in tail)
    return sum(weight * loss for weight, loss in tail) / n_tail if n_tail else math.nan
