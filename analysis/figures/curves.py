"""Training curves of a sweep, thinned to what a figure can show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.figures.inputs import FigureInputs
from analysis.frontier.envelope import curve_lines

MOST_POINTS = 40_000
"""Of all curves together: more than a figure of 2,000 pixels can tell apart."""
LEAST_A_CURVE, MOST_A_CURVE = 12, 160
ABOVE_START, OTHER_START = 1.1, 3.0
"""A curve that rises so many times above the start of training leaves the axis; a first loss so
many times the median of them is no start, but part of a run that diverged at once."""


@dataclass(frozen=True)
class Line:
    """The curve of one run: x and loss in the columns of `xy` (K, 2), both positive."""

    run_id: str
    n_params: float
    xy: np.ndarray


def lines(inputs: FigureInputs, column: str, most_points: int = MOST_POINTS) -> list[Line]:
    """Every run's loss against a column of the curves, points even in the log of it.

    Curves of runs that are not in the table of runs are left out; `most_points` is of all together.
    """
    found = curve_lines(inputs.curves, column)
    name = f"n_params_{inputs.headline[0]}"
    size_of = dict(zip(inputs.runs["run_id"].astype(str), inputs.runs[name], strict=True))
    n_kept = int(np.clip(most_points / max(len(found.run_id), 1), LEAST_A_CURVE, MOST_A_CURVE))
    drawn = []
    for i, run_id in enumerate(found.run_id):
        points = slice(found.start[i], found.start[i + 1])
        x, loss = found.x[points], found.loss_nats[points]
        if run_id in size_of and len(x):
            kept = _even(x, n_kept)
            xy = np.stack([np.exp(x[kept]), loss[kept]], -1)
            drawn.append(Line(run_id, float(size_of[run_id]), xy))
    return drawn


def sight(drawn: Sequence[Line]) -> tuple[float, float, str]:
    """Lowest and highest loss of an axis for these curves, and a sentence on what is beyond it."""
    low = min(float(line.xy[:, 1].min()) for line in drawn)
    high, beyond = top(*np.array([(line.xy[0, 1], line.xy[:, 1].max()) for line in drawn]).T)
    return low, high, beyond


def top(starts: np.ndarray, peaks: np.ndarray) -> tuple[float, str]:
    """Where the axis of losses ends: at the highest peak, or at the start of training if a run that
    diverged went far beyond, which would press all others together.

    Args:
        starts: first loss of each curve.
        peaks: highest loss of each curve.
    """
    start = starts[starts <= OTHER_START * np.median(starts)].max()
    is_beyond = peaks > ABOVE_START * start
    if not is_beyond.any():
        return float(peaks.max()), ""
    n, peak = int(is_beyond.sum()), f"{peaks.max():.3g}"
    who = "1 run goes" if n == 1 else f"{n} runs go"
    return ABOVE_START * float(start), f"{who} beyond this axis, up to {peak}"


def _even(log_x: np.ndarray, n_kept: int) -> np.ndarray:
    """Rows of increasing log_x about evenly spaced in it, first and last among them."""
    if len(log_x) <= n_kept:
        return np.arange(len(log_x))
    wanted = np.linspace(log_x[0], log_x[-1], n_kept)
    return np.unique(np.append(np.searchsorted(log_x, wanted[:-1]), len(log_x) - 1))
