"""IsoFLOP minima and the allocation exponents through them: approach 2 of Hoffmann et al. 2022.

Within each nominal budget a parabola is fitted to loss against log N (replicates of a size are
averaged first) and its vertex taken, if it is a minimum inside of what was measured. A budget
that cannot give a minimum is refused with its reason and never enters the exponents.

Trap: the vertex is biased even without noise. Loss along a budget is not a parabola: the width
of the grid, its centring and alpha != beta all move N* (arXiv:2603.22339: 6-13% in tokens on
surfaces like Chinchilla's, about 50% on lopsided ones). Read it beside the joint fit's.

Source: Hoffmann et al. 2022, arXiv:2203.15556, sec. 3.2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from analysis.load import Points
from analysis.uncertainty import INTERVAL_LEVEL, percentile_interval

MIN_SIZES = 4
MIN_MINIMA = 3
CONSTANT_C = 0.01  # relative spread of C within a budget that still counts as one C

Interval = tuple[float, float]
NO_INTERVAL: Interval = (math.nan, math.nan)


@dataclass(frozen=True)
class IsoflopMinimum:
    """One budget: what was measured, its parabola, and its minimum or the reason why it has none.

    `size_n_params`, `size_loss_nats` and so on hold one entry a distinct size, increasing in N.
    `coefficients` (c2, c1, c0) are of loss in log N, for drawing; None where too few sizes. When
    `ok` is False n_params, n_tokens, train_flops and loss_nats of the minimum are NaN.
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


@dataclass(frozen=True)
class IsoflopExponents:
    """a, b of N* ~ C^a, D* ~ C^b by least squares in log-log over the accepted minima.

    `n_coefficient` and `d_coefficient` are the factors in front. `minima_draws` (S, n_minima, 4)
    are bootstrap log (N*, D*, C, loss) of the accepted minima, NaN where a draw lost its minimum.
    """

    ok: bool
    status: str
    a: float
    b: float
    n_coefficient: float
    d_coefficient: float
    intervals: dict[str, Interval]
    interval_level: float
    interval_method: str
    n_minima: int
    minima_draws: np.ndarray = field(repr=False)


def minima(points: Points) -> list[IsoflopMinimum]:
    """The minimum of every isoFLOP budget, in increasing order; points of no budget are left out.

    Where the FLOPs of `c_convention` are not constant within a nominal budget, the minimum is still
    the one along the budget, and its compute and tokens are interpolated in log-log at N*; the
    status says so.
    """
    budgets = np.unique(points.budget[np.isfinite(points.budget)])
    return [_minimum(points, float(budget)) for budget in budgets]


def exponents(
    found: Sequence[IsoflopMinimum], *, n_bootstrap: int = 1000, seed: int = 0
) -> IsoflopExponents:
    """Allocation exponents through the accepted minima, with a residual bootstrap.

    Each resample adds to every budget's parabola residuals drawn from the pool of all accepted
    budgets, inflated by sqrt(n / (n - 3 per budget)), and finds the minima anew. (With five
    or six sizes a budget, resampling runs would leave too few sizes for a parabola.) Draws in which
    fewer than three minima remain interior are counted as failed.
    """
    accepted = [m for m in found if m.ok]
    if len(accepted) < MIN_MINIMA:
        refused = "; ".join(f"{m.budget:.3g}: {m.status}" for m in found if not m.ok)
        status = f"too few minima: {len(accepted)} of {len(found)} budgets, {MIN_MINIMA} needed"
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
            n_minima=len(accepted),
            minima_draws=np.empty((0, len(accepted), 4)),
        )
    stars = np.log([(m.n_params, m.n_tokens, m.train_flops, m.loss_nats) for m in accepted])
    draws = _redraw_minima(accepted, n_bootstrap, seed)
    slopes, offsets = _slopes(stars[None])
    slope_draws, _ = _slopes(draws)
    n_failed = int(np.isnan(slope_draws[:, 0]).sum())
    return IsoflopExponents(
        ok=True,
        status=f"converged: {len(accepted)} of {len(found)} budgets have an interior minimum",
        a=float(slopes[0, 0]),
        b=float(slopes[0, 1]),
        n_coefficient=float(np.exp(offsets[0, 0])),
        d_coefficient=float(np.exp(offsets[0, 1])),
        intervals={k: percentile_interval(slope_draws[:, i]) for i, k in enumerate("ab")},
        interval_level=INTERVAL_LEVEL,
        interval_method=f"residual bootstrap, {n_bootstrap} resamples, {n_failed} failed",
        n_minima=len(accepted),
        minima_draws=draws,
    )


def _minimum(points: Points, budget: float) -> IsoflopMinimum:
    inside = points.budget == budget
    sizes, inverse = np.unique(points.n_params[inside], return_inverse=True)
    count = np.bincount(inverse)
    n_tokens, train_flops, loss = (
        np.bincount(inverse, values[inside]) / count
        for values in (points.n_tokens, points.train_flops, points.loss_nats)
    )
    nan = math.nan
    refused = IsoflopMinimum(
        budget, False, "", nan, nan, nan, nan, None, sizes, n_tokens, train_flops, loss
    )
    if len(sizes) < MIN_SIZES:
        return replace(refused, status=f"too few points: {len(sizes)} sizes, {MIN_SIZES} needed")
    log_n = np.log(sizes)
    c2, c1, c0 = (float(c) for c in np.polyfit(log_n, loss, 2))
    refused = replace(refused, coefficients=(c2, c1, c0))
    if c2 <= 0:
        return replace(refused, status=f"concave: curvature {2 * c2:.3g} nats is not positive")
    lowest = int(loss.argmin())
    if lowest in (0, len(sizes) - 1):
        end = "smallest" if lowest == 0 else "largest"
        status = f"minimum at the edge: the {end} size, N={sizes[lowest]:.4g}, has the lowest loss"
        return replace(refused, status=status)
    vertex = -c1 / (2 * c2)
    if not log_n[0] < vertex < log_n[-1]:
        span = f"{sizes[0]:.4g} to {sizes[-1]:.4g}"
        return replace(refused, status=f"minimum outside of the sizes measured, {span}")
    spread = float(train_flops.max() / train_flops.min())
    status = "converged: interior and convex"
    if spread > 1 + CONSTANT_C:
        status += f"; C varies x{spread:.2f} within the budget, interpolated at the minimum"
    return replace(
        refused,
        ok=True,
        status=status,
        n_params=math.exp(vertex),
        n_tokens=float(np.exp(np.interp(vertex, log_n, np.log(n_tokens)))),
        train_flops=float(np.exp(np.interp(vertex, log_n, np.log(train_flops)))),
        loss_nats=c0 - c1**2 / (4 * c2),
    )


def _redraw_minima(accepted: Sequence[IsoflopMinimum], n_resamples: int, seed: int) -> np.ndarray:
    """Log (N*, D*, C, loss) of each budget's minimum in each resample, shape (S, n_minima, 4)."""
    curves = [np.polyval(m.coefficients, np.log(m.size_n_params)) for m in accepted]  # type: ignore[arg-type]
    pooled = np.concatenate(
        [m.size_loss_nats - curve for m, curve in zip(accepted, curves, strict=True)]
    )
    pooled = pooled * np.sqrt(len(pooled) / (len(pooled) - 3 * len(accepted)))
    generator = np.random.default_rng(seed)
    draws = np.full((n_resamples, len(accepted), 4), np.nan)
    for index, (m, curve) in enumerate(zip(accepted, curves, strict=True)):
        log_n = np.log(m.size_n_params)
        loss = curve + generator.choice(pooled, (n_resamples, len(curve)))
        c2, c1, c0 = np.polyfit(log_n, loss.T, 2)
        vertex = -c1 / (2 * np.where(c2 > 0, c2, np.nan))
        vertex = np.where((vertex > log_n[0]) & (vertex < log_n[-1]), vertex, np.nan)
        draws[:, index, 0] = vertex
        draws[:, index, 1] = np.interp(vertex, log_n, np.log(m.size_n_tokens))
        draws[:, index, 2] = np.interp(vertex, log_n, np.log(m.size_train_flops))
        draws[:, index, 3] = np.log(c0 + vertex * c1 / 2)
    return draws


def _slopes(stars_SM4: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes and offsets (S, 2) of log N* and log D* against log C over the finite minima."""
    log_c, known = stars_SM4[..., 2], np.isfinite(stars_SM4[..., 0])
    count = np.maximum(known.sum(-1, keepdims=True), 1)
    mean_c = np.where(known, log_c, 0).sum(-1, keepdims=True) / count
    dx = np.where(known, log_c - mean_c, 0)
    y_SM2 = np.where(known[..., None], stars_SM4[..., :2], 0)
    slopes = (dx[..., None] * y_SM2).sum(1) / np.maximum((dx**2).sum(-1), 1e-300)[:, None]
    slopes = np.where(known.sum(-1)[:, None] >= MIN_MINIMA, slopes, np.nan)
    return slopes, y_SM2.sum(1) / count - slopes * mean_c
