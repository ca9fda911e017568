"""Two sides trained in pairs: differences of loss, and what they are worth in compute.

A pair is one cell (size and compute) and one seed, trained twice: same data order, same initial
values where names and shapes are the same. What both sides share of the noise then cancels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.fit import ObjectiveName, fit
from analysis.intervals.uncertainty import INTERVAL_LEVEL
from analysis.laws import Chinchilla
from analysis.table.points import Points
from analysis.validity.gain import log_growth

Interval = tuple[float, float]


@dataclass(frozen=True)
class Mean:
    """Mean of `n` independent values with Student's interval; no interval (NaN) for one value."""

    value: float
    interval: Interval
    n: int


@dataclass(frozen=True)
class PairedGain:
    """Compute of the baseline over that of the new side at equal loss, over all cells.

    `ratio` is the geometric mean over cells of `cell_ratio` (NaN for a cell whose loss the
    baseline's law does not reach); `difference` is the mean over cells of new minus baseline, nats.
    """

    ratio: float
    interval: Interval
    cell_ratio: np.ndarray
    difference: Mean
    interval_level: float
    ok: bool
    status: str


def mean_with_interval(values: Sequence[float] | np.ndarray, extra_variance: float = 0.0) -> Mean:
    """Mean and Student's t interval of independent values.

    Args: extra_variance: of the mean, from elsewhere, added to that of the values.
    Source: Student 1908, "The probable error of a mean", Biometrika 6.
    """
    array = np.asarray(values, np.float64)
    mean = float(array.mean()) if len(array) else math.nan
    if len(array) < 2:
        return Mean(mean, (math.nan, math.nan), len(array))
    error = math.sqrt(array.var(ddof=1) / len(array) + extra_variance)
    half = float(stats.t.ppf((1 + INTERVAL_LEVEL) / 2, len(array) - 1)) * error
    return Mean(mean, (mean - half, mean + half), len(array))


def paired_gain(
    baseline: Points,
    new: Points,
    cell: Sequence[int],
    *,
    objective: ObjectiveName = "ls_log",
    n_bootstrap: int = 200,
    seed: int = 0,
) -> PairedGain:
    """The gain from pairs of runs, row i of one table with row i of the other.

    The baseline's joint fit L(N, D) is the yardstick: it says by what factor the baseline's compute
    must change (D/N kept) to go from the baseline's measured loss to the new one. Its error enters
    by the variance over its bootstrap draws; its misfit does not, since both losses of a pair are
    held against the same curve. Seeds of a cell are averaged, cells are the sample.

    Args:
        baseline, new: rows in pairs; C = 6ND in both.
        cell: of each pair, equal numbers for the seeds of one cell.
    Raises: ValueError: tables or cells of different lengths.
    """
    if not len(baseline) == len(new) == len(cell):
        raise ValueError(f"{len(baseline)} and {len(new)} runs in {len(cell)} cells are no pairs")
    difference = mean_with_interval(_by_cell(new.loss_nats - baseline.loss_nats, cell))
    found = fit(Chinchilla(), baseline, objective, n_bootstrap=n_bootstrap, seed=seed)
    if not found.ok:
        nothing = np.full(len(set(cell)), math.nan)
        status = f"baseline: {found.status}"
        return PairedGain(
            math.nan, (math.nan, math.nan), nothing, difference, INTERVAL_LEVEL, False, status
        )
    log_ratio = log_growth(found, new) - log_growth(found, baseline)
    cells = np.stack([_by_cell(row, cell) for row in log_ratio])
    is_known = np.isfinite(cells[0])
    with np.errstate(invalid="ignore"):
        draws = cells[1:, is_known].mean(1) if is_known.any() else np.array([])
    draws = draws[np.isfinite(draws)]
    spread = float(draws.var(ddof=1)) if len(draws) > 1 else 0.0
    mean = mean_with_interval(cells[0][is_known], spread)
    low, high = mean.interval
    status = _remarks(baseline, cells, is_known)
    return PairedGain(
        math.exp(mean.value),
        (math.exp(low), math.exp(high)),
        np.exp(cells[0]),
        difference,
        INTERVAL_LEVEL,
        bool(is_known.any()) and math.isfinite(low),
        f"{status}{mean.n} cells; baseline: {found.status}",
    )


def _remarks(baseline: Points, cells: np.ndarray, is_known: np.ndarray) -> str:
    """What to know of a gain: cells and draws that the baseline's law does not reach."""
    said = []
    if n_lost := int((~is_known).sum()):
        said.append(f"{n_lost} cells below the floor of the baseline's law, left out; ")
    known = cells[1:, is_known]
    share = float((~np.isfinite(known).all(1)).mean()) if known.size else 0.0
    if share:
        said.append(
            f"in {share:.0%} of draws some loss is below the floor, and they are left out; "
        )
    beyond = float(np.exp(cells[0][is_known]).max(initial=1.0))
    if beyond * baseline.train_flops.min() > baseline.train_flops.max():
        said.append(f"extrapolated: gains of up to x{beyond:.3g} leave the baseline's range of C; ")
    return "".join(said)


def _by_cell(values: np.ndarray, cell: Sequence[int]) -> np.ndarray:
    """Means over the pairs of each cell, cells in order of their numbers."""
    codes = np.unique(np.asarray(cell), return_inverse=True)[1]
    return np.bincount(codes, weights=values) / np.bincount(codes)
