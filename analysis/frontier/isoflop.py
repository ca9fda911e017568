"""IsoFLOP minima and the allocation exponents through them: approach 2 of Hoffmann et al. 2022.

Within each nominal budget a curve is drawn through loss against log N (replicates of a size are
averaged first) and its minimum taken, if it lies inside of what was measured. A budget that cannot
give a minimum is refused with its reason and never enters the exponents.

Methods (frontier.vertices): "parabola", by default through all sizes, or through those whose loss
is within a window of the lowest; "akima", "spline". On the points of Porian et al. 2024 the choice
alone moves a by up to 0.03.

Trap: the parabola is biased even without noise. Loss along a budget is not a parabola: the width
of the grid, its centring and alpha != beta all move N* (arXiv:2603.22339: 6-13% in tokens on
surfaces like Chinchilla's, about 50% on lopsided ones); analysis.frontier.approaches measures it.

Source: Hoffmann et al. 2022, arXiv:2203.15556, sec. 3.2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from analysis.frontier import vertices
from analysis.frontier.allocation import AllocationExponents, power_lines
from analysis.intervals.uncertainty import INTERVAL_LEVEL, percentile_interval
from analysis.load import Points

Method = Literal["parabola", "akima", "spline"]
Interval = tuple[float, float]

MIN_SIZES = 4
MIN_IN_WINDOW = 3
MIN_MINIMA = 3
CONSTANT_C = 0.01  # relative spread of C within a budget that still counts as one C
POOR_FIT = 0.2  # RMS residual as a share of the basin's depth
WEAK_T = 2.0  # t of the curvature below which a basin is hardly seen
OFF_CENTRE = 0.2  # share of the grid's span, in log N
NO_INTERVAL: Interval = (math.nan, math.nan)


@dataclass(frozen=True)
class IsoflopMinimum:
    """One budget: what was measured, its curve, and its minimum or the reason why it has none.

    `size_n_params`, `size_loss_nats` and so on hold one entry a distinct size, increasing in N;
    `used` is False for sizes outside of the window. `coefficients` (c2, c1, c0) are those of the
    parabola of loss in log N, for drawing; None for other methods and where too few sizes.
    `curvature_t` is c2 over its standard error and `rms_share` the parabola's RMS residual over the
    basin's depth (the lower arm above the vertex); NaN for other methods and without residual
    degrees of freedom. When `ok` is False the numbers of the minimum are NaN.
    """

    budget: float
    ok: bool
    status: str
    n_params: float
    n_tokens: float
    train_flops: float
    loss_nats: float
    coefficients: tuple[float, float, float] | None
    size_n_params: np.ndarray = field(repr=False)
    size_n_tokens: np.ndarray = field(repr=False)
    size_train_flops: np.ndarray = field(repr=False)
    size_loss_nats: np.ndarray = field(repr=False)
    used: np.ndarray = field(repr=False)
    method: Method = "parabola"
    curvature_t: float = math.nan
    rms_share: float = math.nan


@dataclass(frozen=True)
class IsoflopExponents(AllocationExponents):
    """a, b of N* ~ C^a, D* ~ C^b by least squares in log-log over the accepted minima.

    `minima_draws` (S, n_minima, 4) are bootstrap log (N*, D*, C, loss) of the accepted minima, NaN
    where a draw lost its minimum.
    """

    n_minima: int
    minima_draws: np.ndarray = field(repr=False)


def minima(
    points: Points, method: Method = "parabola", window: float | None = None
) -> list[IsoflopMinimum]:
    """The minimum of every isoFLOP budget, in increasing order; points of no budget are left out.

    A parabola through all sizes is refused where the lowest loss is at an end of the grid. The
    local methods (window, akima, spline) may have a minimum between that end and the next size;
    it is accepted, and its status calls it one-sided. Where C is not constant within a nominal
    budget, the compute and tokens of the minimum are interpolated in log-log at N*; the status
    says so.

    Args:
        points: rows of one `budget` value are one curve.
        method: one of analysis.frontier.vertices.
        window: parabola only: use the sizes whose loss is at most (1 + window) times the lowest;
            three are enough there.

    Raises: ValueError: unknown method, or a window that is not positive or not for the parabola.
    """
    if method not in get_args(Method):
        raise ValueError(f"method={method!r}; use one of {', '.join(get_args(Method))}")
    if window is not None and (method != "parabola" or not window > 0):
        raise ValueError(
            f"window={window} with method={method!r}; it is positive, for the parabola"
        )
    budgets = np.unique(points.budget[np.isfinite(points.budget)])
    return [_minimum(_curve(points, float(budget), method, window)) for budget in budgets]


def exponents(
    found: Sequence[IsoflopMinimum], n_bootstrap: int = 1000, seed: int = 0
) -> IsoflopExponents:
    """Allocation exponents through the accepted minima, with a residual bootstrap.

    Each resample gives every budget's sizes new losses and finds the minima anew. (With five or six
    sizes a budget, resampling runs would leave too few for a curve.) For the parabola, these are
    its values plus residuals drawn from the pool of all accepted budgets, inflated by
    sqrt(n / (n - 3 per budget)). The other methods leave no residuals of their own; there, measured
    losses are multiplied by noise drawn from how far each size lies off the cubic through its
    neighbours. Draws in which fewer than three minima remain interior are counted as failed.
    """
    accepted = [m for m in found if m.ok]
    if len(accepted) < MIN_MINIMA:
        return _no_exponents(found, len(accepted))
    stars = np.log([(m.n_params, m.n_tokens, m.train_flops, m.loss_nats) for m in accepted])
    draws = _redraw_minima(accepted, n_bootstrap, seed)
    line = power_lines(stars[:, 2], stars[:, :2])
    line_draws = power_lines(draws[..., 2], draws[..., :2])
    n_failed = int(np.isnan(line_draws[:, 0, 0]).sum())
    return IsoflopExponents(
        ok=True,
        status=f"converged: {len(accepted)} of {len(found)} budgets have an interior minimum",
        a=float(line[0, 0]),
        b=float(line[1, 0]),
        n_coefficient=float(np.exp(line[0, 1])),
        d_coefficient=float(np.exp(line[1, 1])),
        intervals={k: percentile_interval(line_draws[:, i, 0]) for i, k in enumerate("ab")},
        interval_level=INTERVAL_LEVEL,
        interval_method=f"residual bootstrap, {n_bootstrap} resamples, {n_failed} failed",
        line_draws=line_draws,
        n_minima=len(accepted),
        minima_draws=draws,
    )


def _no_exponents(found: Sequence[IsoflopMinimum], n_accepted: int) -> IsoflopExponents:
    refused = "; ".join(f"{m.budget:.3g}: {m.status}" for m in found if not m.ok)
    status = f"too few minima: {n_accepted} of {len(found)} budgets, {MIN_MINIMA} needed"
    return IsoflopExponents(
        ok=False,
        status=f"{status} ({refused})" if refused else status,
        a=math.nan,
        b=math.nan,
        n_coefficient=math.nan,
        d_coefficient=math.nan,
        intervals={"a": NO_INTERVAL, "b": NO_INTERVAL},
        interval_level=INTERVAL_LEVEL,
        interval_method="none: no exponents",
        line_draws=np.empty((0, 2, 2)),
        n_minima=n_accepted,
        minima_draws=np.empty((0, n_accepted, 4)),
    )


def _curve(points: Points, budget: float, method: Method, window: float | None) -> IsoflopMinimum:
    """The measured curve of a budget, its minimum still unknown."""
    inside = points.budget == budget
    sizes, inverse = np.unique(points.n_params[inside], return_inverse=True)
    count = np.bincount(inverse)
    n_tokens, train_flops, loss = (
        np.bincount(inverse, values[inside]) / count
        for values in (points.n_tokens, points.train_flops, points.loss_nats)
    )
    used = loss <= loss.min() * (1 + (math.inf if window is None else window))
    measured = (sizes, n_tokens, train_flops, loss, used)
    unknown = (math.nan, math.nan, math.nan, math.nan)
    return IsoflopMinimum(budget, False, "", *unknown, None, *measured, method)


def _minimum(curve: IsoflopMinimum) -> IsoflopMinimum:
    sizes, n_used = curve.size_n_params, int(curve.used.sum())
    if len(sizes) < MIN_SIZES:
        return replace(curve, status=f"too few points: {len(sizes)} sizes, {MIN_SIZES} needed")
    if n_used < MIN_IN_WINDOW:
        status = f"too few points: {n_used} sizes in the window, {MIN_IN_WINDOW} needed"
        return replace(curve, status=status)
    log_n, loss = np.log(sizes[curve.used]), curve.size_loss_nats[curve.used]
    if curve.method == "parabola":
        curve = _with_parabola(curve, log_n, loss)
        if (curvature := 2 * curve.coefficients[0]) <= 0:  # type: ignore[index]
            return replace(curve, status=f"concave: curvature {curvature:.3g} nats is not positive")
    if curve.method == "parabola" and curve.used.all() and (end := _lowest_end(curve)):
        status = f"minimum at the edge: {end} has the lowest loss"
        return replace(curve, status=status)
    (star,), (loss_star,) = getattr(vertices, curve.method)(log_n, loss[None])
    if not np.isfinite(star):
        span = f"{np.exp(log_n[0]):.4g} to {np.exp(log_n[-1]):.4g}"
        return replace(curve, status=f"minimum outside of the sizes measured, {span}")
    curve = replace(curve, ok=True, n_params=math.exp(star), loss_nats=float(loss_star))
    n_tokens, train_flops = np.exp(_along(curve, np.array([star])))[0]
    curve = replace(curve, n_tokens=float(n_tokens), train_flops=float(train_flops))
    return replace(curve, status=_status(curve))


def _lowest_end(curve: IsoflopMinimum) -> str:
    """The size at an end of the grid that has the lowest loss, in words; empty if none."""
    lowest = int(curve.size_loss_nats.argmin())
    if lowest not in (0, len(curve.size_n_params) - 1):
        return ""
    return f"the {'largest' if lowest else 'smallest'} size, N={curve.size_n_params[lowest]:.4g},"


def _with_parabola(curve: IsoflopMinimum, log_n: np.ndarray, loss: np.ndarray) -> IsoflopMinimum:
    """The least-squares parabola and how well it fits."""
    x = log_n - log_n.mean()  # for a well-conditioned normal matrix
    design = np.vander(x, 3)
    residuals = loss - design @ np.linalg.lstsq(design, loss)[0]
    c2, c1, c0 = (float(c) for c in np.polyfit(log_n, loss, 2))
    curve = replace(curve, coefficients=(c2, c1, c0))
    if len(loss) == 3 or c2 <= 0:
        return curve
    variance = max(float((residuals**2).sum()) / (len(loss) - 3), 1e-300)
    error = math.sqrt(variance * np.linalg.inv(design.T @ design)[0, 0])
    depth = min(loss[0], loss[-1]) - (c0 - c1**2 / (4 * c2))
    rms_share = math.sqrt(float((residuals**2).mean())) / max(depth, 1e-300)
    return replace(curve, curvature_t=c2 / error, rms_share=rms_share)


def _status(curve: IsoflopMinimum) -> str:
    """Converged, with every doubt about this minimum."""
    parts = ["converged: interior" + (" and convex" if curve.method == "parabola" else "")]
    if curve.rms_share > POOR_FIT:
        share = f"{curve.rms_share:.0%} of" if curve.rms_share < 10 else "over 10 times"
        parts.append(f"fits badly: RMS residual is {share} the basin's depth")
    if abs(curve.curvature_t) < WEAK_T:
        parts.append(f"weak curvature: t={curve.curvature_t:.1f}")
    if end := _lowest_end(curve):
        parts.append(f"one-sided: {end} has the lowest loss")
    log_n = np.log(curve.size_n_params)
    place = (math.log(curve.n_params) - log_n[0]) / (log_n[-1] - log_n[0])
    if not OFF_CENTRE < place < 1 - OFF_CENTRE:
        parts.append(f"off centre: N* at {place:.0%} of the grid's span in log N")
    spread = float(curve.size_train_flops.max() / curve.size_train_flops.min())
    if spread > 1 + CONSTANT_C:
        parts.append(f"C varies x{spread:.2f} within the budget, interpolated at the minimum")
    return "; ".join(parts)


def _along(curve: IsoflopMinimum, log_n_star: np.ndarray) -> np.ndarray:
    """Log of tokens and compute at sizes of the budget, (S, 2), interpolated in log-log."""
    columns = (curve.size_n_tokens, curve.size_train_flops)
    log_n = np.log(curve.size_n_params)
    return np.stack([np.interp(log_n_star, log_n, np.log(column)) for column in columns], -1)


def _redraw_minima(accepted: Sequence[IsoflopMinimum], n_resamples: int, seed: int) -> np.ndarray:
    """Log (N*, D*, C, loss) of each budget's minimum in each resample, shape (S, n_minima, 4)."""
    draws = np.full((n_resamples, len(accepted), 4), np.nan)
    parabolic = accepted[0].method == "parabola"
    pool = (
        _parabola_residuals(accepted)
        if parabolic
        else np.concatenate(
            [
                vertices.neighbour_residuals(np.log(m.size_n_params), np.log(m.size_loss_nats))
                for m in accepted
            ]
        )
    )
    if not len(pool):
        return draws
    generator = np.random.default_rng(seed)
    for index, curve in enumerate(accepted):
        log_n = np.log(curve.size_n_params[curve.used])
        noise = generator.choice(pool, (n_resamples, len(log_n)))
        if parabolic:
            loss = np.polyval(curve.coefficients, log_n) + noise  # type: ignore[arg-type]
        else:
            loss = curve.size_loss_nats * np.exp(noise)
        star, loss_star = getattr(vertices, curve.method)(log_n, loss)
        draws[:, index, 0] = star
        draws[:, index, 1:3] = _along(curve, star)
        # An interpolant of much noise may dip below zero: such a draw has no loss.
        draws[:, index, 3] = np.log(np.where(loss_star > 0, loss_star, np.nan))
    return draws


def _parabola_residuals(accepted: Sequence[IsoflopMinimum]) -> np.ndarray:
    """Residuals in nats of all parabolas, inflated; none without degrees of freedom."""
    pooled = np.concatenate(
        [
            m.size_loss_nats[m.used] - np.polyval(m.coefficients, np.log(m.size_n_params[m.used]))  # type: ignore[arg-type]
            for m in accepted
        ]
    )
    freedom = len(pooled) - 3 * len(accepted)
    return pooled * np.sqrt(len(pooled) / freedom) if freedom > 0 else np.empty(0)
