"""Compute-equivalent gain: how much more compute the baseline needs for the loss of a new recipe.

Along the frontier the losses are those of compute-optimal runs, L*(C) = E + K C^-gamma, read off a
joint fit of L(N, D) under C = 6ND or fitted to the lower envelope of the runs. At equal (N, D) the
baseline's joint fit says by how much N and D would both have to grow, their ratio kept. A gain may
differ along the way: where exponents or floors differ, one number for all compute does not exist.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from analysis.fit import Fit, ObjectiveName, fit
from analysis.frontier.loss_of_compute import envelope_mask
from analysis.intervals.uncertainty import INTERVAL_LEVEL, cluster_weights, percentile_interval
from analysis.laws import Chinchilla, PowerLawFloor
from analysis.table.points import Points, select

Interval = tuple[float, float]
Via = Literal["joint", "frontier"]
GROWTH = 40.0  # of log compute, beyond which no baseline reaches the loss
BISECTIONS = 60


@dataclass(frozen=True)
class Gain:
    """`ratio` = compute of the baseline over `train_flops`, at equal loss; NaN where `ok` is False.

    `extrapolation` is by what factor the baseline's compute lies beyond its largest run (1 inside).
    """

    train_flops: float
    loss_nats: float
    ratio: float
    interval: Interval
    interval_level: float
    extrapolation: float
    ok: bool
    status: str


@dataclass(frozen=True)
class PointGains:
    """Gains of the new recipe's runs over the baseline's surface, one a row of the new table.

    `ratio` (n_rows,) is NaN where the loss is below the baseline's floor; `mean` is the geometric
    mean of the others, with its interval.
    """

    ratio: np.ndarray
    mean: float
    interval: Interval
    interval_level: float
    ok: bool
    status: str


def compute_equivalent_gain(
    baseline: Points,
    new: Points,
    train_flops: np.ndarray | list[float],
    *,
    via: Via = "joint",
    objective: ObjectiveName = "ls_log",
    n_bootstrap: int = 500,
    seed: int = 0,
) -> tuple[Gain, ...]:
    """The gain at each compute, with intervals from a bootstrap by run of both tables.

    Args:
        baseline, new: tables in the same conventions of N and C.
        train_flops: compute of the new recipe; 6ND for "joint".
        via: "joint" fits Chinchilla's form to all runs, "frontier" a power law with a floor in C to
            the lower envelope of each table.
        objective, n_bootstrap, seed: of both fits. Where both tables have the same (N, D) cells in
            equal numbers, cells are drawn in pairs: noise common to both then cancels.

    Raises: ValueError: unknown `via`, or tables in different conventions.
    """
    if via not in ("joint", "frontier"):
        raise ValueError(f"via={via!r}; use joint or frontier")
    _same_conventions(baseline, new)
    largest = float(baseline.train_flops.max()) if len(baseline) else math.nan
    if via == "frontier":
        baseline, new = (_envelope(p) for p in (baseline, new))
    ranks = _ranks(baseline, new)
    if ranks is not None:
        baseline, new = (replace(p, cluster=r) for p, r in zip((baseline, new), ranks, strict=True))
    pairing = "tables resampled apart" if ranks is None else "cells resampled in pairs"
    law = Chinchilla() if via == "joint" else PowerLawFloor("C")
    fits = [
        fit(law, baseline, objective, n_bootstrap=n_bootstrap, seed=seed),
        fit(law, new, objective, n_bootstrap=n_bootstrap, seed=seed + (ranks is None)),
    ]
    for name, found in zip(("baseline", "new recipe"), fits, strict=True):
        if not found.ok:
            return tuple(_no_gain(c, f"{name}: {found.status}") for c in train_flops)
    base_curve, new_curve = (_frontier_curve(found) for found in fits)
    return tuple(_gain(float(c), base_curve, new_curve, largest, pairing) for c in train_flops)


def point_gains(
    baseline: Points,
    new: Points,
    *,
    objective: ObjectiveName = "ls_log",
    n_bootstrap: int = 500,
    seed: int = 0,
) -> PointGains:
    """Gain of every new run over the baseline's joint fit at its own (N, D), ratio D/N kept.

    The interval is of the geometric mean: draws of the baseline, each with a resample of the new
    clusters.

    Raises: ValueError: tables in different conventions.
    """
    _same_conventions(baseline, new)
    found = fit(Chinchilla(), baseline, objective, n_bootstrap=n_bootstrap, seed=seed)
    if not found.ok or not len(new):
        nothing = np.full(len(new), math.nan)
        status = f"baseline: {found.status}" if not found.ok else "no run of the new recipe"
        gap = (math.nan, math.nan)
        return PointGains(nothing, math.nan, gap, INTERVAL_LEVEL, False, status)
    log_ratio = log_growth(found, new)
    weights = cluster_weights(new.cluster, len(found.draws), seed + 1)
    weights = np.vstack([np.ones(len(new)), weights]) * np.isfinite(log_ratio[0])
    with np.errstate(invalid="ignore"):
        means = np.nansum(weights * log_ratio, 1) / (weights * np.isfinite(log_ratio)).sum(1)
    below = int((~np.isfinite(log_ratio[0])).sum())
    ok = below < len(new)
    status = f"{below} of {len(new)} runs below the baseline's floor, left out" if below else "ok"
    return PointGains(
        np.exp(log_ratio[0]),
        float(np.exp(means[0])),
        percentile_interval(np.exp(means[1:])),
        INTERVAL_LEVEL,
        ok,
        f"{status}; {found.interval_method}; baseline: {found.status}",
    )


def _gain(train_flops: float, base: np.ndarray, new: np.ndarray, largest, pairing: str) -> Gain:
    """Invert the baseline's curve at the new one's loss; curves (1 + S, 3): E, log K, gamma."""
    loss = new[:, 0] + np.exp(new[:, 1] - new[:, 2] * math.log(train_flops))
    n_draws = min(len(base), len(new))
    above = loss[:n_draws] - base[:n_draws, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        log_c = (base[:n_draws, 1] - np.log(above)) / base[:n_draws, 2]
    log_ratio = np.where(above > 0, log_c, math.inf) - math.log(train_flops)
    log_ratio = np.where(np.isfinite(loss[:n_draws] + base[:n_draws, 0]), log_ratio, math.nan)
    if not math.isfinite(log_ratio[0]):
        words = f"loss {loss[0]:.4g} is at or below the baseline's floor {base[0, 0]:.4g}"
        return replace(_no_gain(train_flops, words), loss_nats=float(loss[0]))
    ratio, draws = math.exp(log_ratio[0]), log_ratio[1:][~np.isnan(log_ratio[1:])]
    never = float(np.isinf(draws).mean()) if len(draws) else 0.0
    interval = _interval(draws)
    beyond = max(ratio * train_flops / largest, 1.0)
    status = f"extrapolated: x{beyond:.3g} beyond the baseline" if beyond > 1 else "inside"
    if never > 0:
        status += f"; below the baseline's floor in {never:.1%} of draws"
    return Gain(
        train_flops, float(loss[0]), ratio, interval, INTERVAL_LEVEL, beyond, True,
        f"{status}; {pairing}",
    )  # fmt: skip


def _interval(log_ratio: np.ndarray) -> Interval:
    """Percentiles; a draw that never gets there counts as infinite, so the upper end may be."""
    if len(log_ratio) < 20:
        return math.nan, math.nan
    tail = (1 - INTERVAL_LEVEL) / 2
    low, high = np.exp(np.quantile(log_ratio, [tail, 1 - tail], method="nearest"))
    return float(low), float(high)


def _frontier_curve(found: Fit) -> np.ndarray:
    """E, log K and gamma of L*(C) = E + K C^-gamma: of the fit and of every draw, (1 + S, 3)."""
    vectors = np.vstack([list(found.parameters.values()), found.draws])
    if isinstance(found.law, PowerLawFloor):
        return np.stack([vectors[:, 0], np.log(vectors[:, 1]), vectors[:, 2]], -1)
    a, _, coefficient = np.moveaxis(Chinchilla().allocation(vectors), -1, 0)
    floor, big_a, big_b, alpha, beta = vectors.T
    # At C = 6: N* = G and D* = 1/G, so the loss above the floor there is K 6^-gamma.
    above = big_a * coefficient**-alpha + big_b * coefficient**beta
    gamma = alpha * a
    return np.stack([floor, np.log(above) + gamma * math.log(6), gamma], -1)


def log_growth(found: Fit, new: Points) -> np.ndarray:
    """Log of the compute factor for the baseline to reach each new loss, (1 + S, n_rows); inf/NaN.

    N and D both grow by its root; the loss falls with it, so bisection finds it.
    """
    vectors = np.vstack([list(found.parameters.values()), found.draws])
    target = np.log(new.loss_nats)
    low = np.full((len(vectors), len(new)), -GROWTH)
    high = np.full_like(low, GROWTH)

    def above(log_growth: np.ndarray) -> np.ndarray:
        floor, big_a, big_b, alpha, beta = vectors.T[..., None]
        log_n, log_d = np.log(new.n_params), np.log(new.n_tokens)
        by_n = big_a * np.exp(-alpha * (log_n + log_growth / 2))
        return np.log(floor + by_n + big_b * np.exp(-beta * (log_d + log_growth / 2))) > target

    never = above(high)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        more = above(middle)
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    known = ~never & np.isfinite(vectors).all(-1, keepdims=True)
    return np.where(known, 0.5 * (low + high), math.nan)


def _ranks(baseline: Points, new: Points) -> list[np.ndarray] | None:
    """The rank of each row's (N, D) cell in both tables, if all cells match and none is clustered.

    Equal seeds then draw equal cells, since resampling goes by the sorted codes of clusters.
    """
    tables = baseline, new
    orders = [np.lexsort(p.columns(("D", "N")).T) for p in tables]
    cells = [p.columns(("N", "D"))[o] for p, o in zip(tables, orders, strict=True)]
    alone = all(len(np.unique(p.cluster)) == len(p) for p in tables)
    if not alone or cells[0].shape != cells[1].shape or not np.allclose(*cells, rtol=1e-6):
        return None
    return [order.argsort() for order in orders]


def _envelope(points: Points) -> Points:
    mask = envelope_mask(points.train_flops, points.loss_nats)
    return select(points, [None if kept else "not on the envelope" for kept in mask])


def _same_conventions(baseline: Points, new: Points) -> None:
    for name in ("n_convention", "c_convention"):
        one, other = getattr(baseline, name), getattr(new, name)
        if one != other:
            raise ValueError(f"{name}: baseline {one}, new {other}; load both in the same one")


def _no_gain(train_flops: float, status: str) -> Gain:
    gap = (math.nan, math.nan)
    return Gain(
        float(train_flops), math.nan, math.nan, gap, INTERVAL_LEVEL, math.nan, False, status
    )
