"""Does a law extrapolate? Leave the largest runs out, fit the rest, predict what was left out.

Rollouts cut by N, D or C at several shares of the rows, ties together. Every law that the table
supports is tried, with a free floor and with one pinned to the value that all rows give (which is
not blind: it says how much of the error is the floor's), against naive forecasts: the loss of the
nearest run kept, a line in log N and log D, and power laws without a floor, which are among the
laws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.fit import Fit, ObjectiveName, fit
from analysis.fitting.estimate import require_columns
from analysis.intervals.uncertainty import INTERVAL_LEVEL, loss_draws
from analysis.laws import COLUMN_OF, LAWS, Law
from analysis.laws.base import FLOOR_BOUND
from analysis.table.points import Points, select

SHARES = (0.15, 0.3, 0.5)  # of the rows, left out
FREE, PINNED, NO_FLOOR = "free", "pinned to that of all rows", "none"
NEAREST, LOG_LINEAR = "nearest run", "line in log N, log D"


@dataclass(frozen=True)
class Rollout:
    """One forecast of the rows left out: errors are log predicted - log measured.

    `factor` is the largest value left out over the largest kept; `coverage` the share of rows
    inside of their 90% new-run interval and `interval_score` its mean score in log loss (width plus
    20 times the distance by which it misses; NaN for a forecast without intervals).
    """

    name: str
    floor: str
    by: str
    n_left_out: int
    factor: float
    mean_abs_error: float
    mean_error: float
    coverage: float
    interval_score: float
    ok: bool
    status: str


@dataclass(frozen=True)
class Score:
    """A forecaster over all of its rollouts: means of their figures, lower errors are better."""

    name: str
    floor: str
    mean_abs_error: float
    mean_error: float
    coverage: float
    interval_score: float
    n_rollouts: int
    n_failed: int


def rollouts(
    points: Points,
    laws: Sequence[Law] | None = None,
    objective: ObjectiveName = "ls_log",
    *,
    by: Sequence[str] = ("N", "D", "C"),
    shares: Sequence[float] = SHARES,
    n_bootstrap: int = 100,
    seed: int = 0,
) -> tuple[Rollout, ...]:
    """Every law and naive forecast on every cut.

    Args:
        points: the table; a variable of `by` that it lacks is passed over.
        laws: by default those of LAWS in closed form whose columns the table has.
        objective: of all fits.
        by: variables whose largest values are left out.
        shares: of the rows, left out.

    Source of the interval score: Gneiting & Raftery 2007, J. Am. Stat. Assoc. 102, eq. 43.
    """
    laws = supported_laws(points) if laws is None else laws
    pinned = {law.name: fit(law, points, objective, n_bootstrap=0) for law in laws if _floor(law)}
    found = []
    for letter in by:
        column = points.column(letter)
        if not np.isfinite(column).all():
            continue
        for mask in _cuts(column, shares):
            kept = select(points, ["left out" if out else None for out in mask])
            left = select(points, [None if out else "kept" for out in mask])
            where = (letter, len(left), float(column[mask].max() / column[~mask].max()))
            found += _naive(kept, left, where)
            for law in laws:
                free = fit(law, kept, objective, n_bootstrap=n_bootstrap, seed=seed)
                found.append(_scored(free, left, FREE if _floor(law) else NO_FLOOR, where, seed))
                if _floor(law) and pinned[law.name].ok:
                    # A floor at zero is at the bound, which is a share of the least loss kept.
                    least = 2 * FLOOR_BOUND * float(kept.column(law.target).min())
                    held = {"E": max(pinned[law.name].parameters["E"], least)}
                    one = fit(law, kept, objective, n_bootstrap=n_bootstrap, seed=seed, fixed=held)
                    found.append(_scored(one, left, PINNED, where, seed))
    return tuple(found)


def scores(found: Sequence[Rollout]) -> tuple[Score, ...]:
    """One row a forecaster, that of the least mean absolute log error first.

    Forecasters with failed rollouts come last: their errors are over easier cuts.
    """
    names = dict.fromkeys((r.name, r.floor) for r in found)
    rows = [_score(name, floor, found) for name, floor in names]
    return tuple(sorted(rows, key=lambda s: (s.n_failed, s.mean_abs_error)))


def supported_laws(points: Points) -> tuple[Law, ...]:
    """The laws of the loss in LAWS, in closed form, whose columns are in the table."""
    return tuple(
        law
        for law in LAWS.values()
        if law.target == "L" and law.has_closed_form and _has(points, law)
    )


def _has(points: Points, law: Law) -> bool:
    try:
        require_columns(law, points)
    except ValueError:
        return False
    return bool(np.isfinite(points.columns(law.variables)).all())


def _floor(law: Law) -> bool:
    return "E" in law.parameter_names


def _cuts(column: np.ndarray, shares: Sequence[float]) -> list[np.ndarray]:
    """Masks of the rows left out; equal values go together, so two shares may give one cut."""
    masks = []
    for share in shares:
        least = np.quantile(column, 1 - share)
        mask = column >= least * (1 - 1e-9)
        if not mask.all() and not any((mask == other).all() for other in masks):
            masks.append(mask)
    return masks


def _scored(found: Fit, left: Points, floor: str, where, seed: int) -> Rollout:
    by, n_left_out, factor = where
    if not found.ok:
        nan, status = math.nan, found.status
        return Rollout(
            found.law.name, floor, by, n_left_out, factor, nan, nan, nan, nan, False, status
        )
    variables = {COLUMN_OF[v]: left.column(v) for v in found.law.variables}
    measured = np.log(left.column(found.law.target))
    error = np.log(found.predict(**variables)) - measured
    coverage, score = _interval_score(found, variables, measured, seed)
    return Rollout(
        found.law.name,
        floor,
        by,
        n_left_out,
        factor,
        float(np.abs(error).mean()),
        float(error.mean()),
        coverage,
        score,
        True,
        found.status,
    )


def _interval_score(found: Fit, variables, measured, seed: int) -> tuple[float, float]:
    """Share of measured log losses inside of their intervals, and the mean score of these."""
    run = np.log(loss_draws(found, seed=seed, **variables)[1])
    if not len(run):
        return math.nan, math.nan
    tail = (1 - INTERVAL_LEVEL) / 2
    low, high = np.quantile(run, [tail, 1 - tail], axis=0)
    missed = np.maximum(low - measured, 0) + np.maximum(measured - high, 0)
    return float((missed == 0).mean()), float((high - low + missed / tail).mean())


def _naive(kept: Points, left: Points, where) -> list[Rollout]:
    """The nearest run kept, in log N and log D, and a plane through log loss."""
    by, n_left_out, factor = where
    if not (_has(kept, LAWS["chinchilla"]) and _has(left, LAWS["chinchilla"])):
        return []
    x, x_left = (np.log(p.columns(("N", "D"))) for p in (kept, left))
    y, measured = np.log(kept.loss_nats), np.log(left.loss_nats)
    nearest = ((x_left[:, None] - x) ** 2).sum(-1).argmin(1)
    ones = np.ones((len(x), 1))
    plane = np.linalg.lstsq(np.hstack([ones, x]), y, rcond=None)[0]
    found = []
    for name, predicted in ((NEAREST, y[nearest]), (LOG_LINEAR, plane[0] + x_left @ plane[1:])):
        error = predicted - measured
        size, bias = float(np.abs(error).mean()), float(error.mean())
        nan = math.nan
        found.append(
            Rollout(name, NO_FLOOR, by, n_left_out, factor, size, bias, nan, nan, True, "naive")
        )
    return found


def _score(name: str, floor: str, found: Sequence[Rollout]) -> Score:
    own = [r for r in found if (r.name, r.floor) == (name, floor)]
    good = [r for r in own if r.ok]
    figures = [
        float(np.mean([getattr(r, field) for r in good])) if good else math.nan
        for field in ("mean_abs_error", "mean_error", "coverage", "interval_score")
    ]
    return Score(name, floor, *figures, n_rollouts=len(own), n_failed=len(own) - len(good))
