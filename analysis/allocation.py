"""Compute-optimal allocation under exact FLOPs, along a ladder of model sizes.

Where C is not 6ND, beta/(alpha+beta) is not the exponent of N*(C): FLOPs per token then grow with N
by another power, and that power changes along the ladder. So the optimum is searched numerically.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from analysis.laws import Law, predict
from analysis.load import Points
from model.accounting import FlopsConvention, count_params, train_flops_per_token
from model.config import ModelConfig

GRID_SIZE = 512
FLOPS_STEPS = 9
MIN_OPTIMA = 3


@dataclass(frozen=True)
class Ladder:
    """Model sizes, increasing, with their training FLOPs per token in one convention of each."""

    n_params: np.ndarray
    flops_per_token: np.ndarray

    def __post_init__(self) -> None:
        if len(self.n_params) < 2 or np.any(np.diff(self.n_params) <= 0):
            raise ValueError(f"ladder sizes {self.n_params} must be two or more, and increasing")


def ladder_from_points(points: Points) -> Ladder:
    """The sizes of a table, each with C/D of its rows (their mean where they differ)."""
    sizes, inverse = np.unique(points.n_params, return_inverse=True)
    per_token = np.bincount(inverse, points.train_flops / points.n_tokens) / np.bincount(inverse)
    return Ladder(sizes, per_token)


def ladder_from_configs(
    configs: Sequence[ModelConfig], n_convention: str, c_convention: FlopsConvention
) -> Ladder:
    """The ladder of named model shapes, by model.accounting.

    Raises: ValueError: n_convention is neither total nor non_embedding, or two shapes share a size.
    """
    if n_convention not in ("total", "non_embedding"):
        raise ValueError(f"n_convention={n_convention!r}; use total or non_embedding")
    sizes = [float(getattr(count_params(cfg), n_convention)) for cfg in configs]
    per_token = [float(train_flops_per_token(cfg, c_convention)) for cfg in configs]
    order = np.argsort(sizes)
    return Ladder(np.array(sizes)[order], np.array(per_token)[order])


def optima(
    law: Law, parameters: np.ndarray, ladder: Ladder, train_flops: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and tokens of least predicted loss at each compute; NaN at an end of the ladder.

    FLOPs per token are interpolated in log-log by a monotone cubic; nothing is extrapolated.

    Args:
        law: a law of N and D.
        parameters: (P,) or draws (R, P).
        ladder: sizes in the convention of the fit.
        train_flops: compute (K,), in the ladder's convention.

    Returns: N*, D*, each (K,) or (R, K).
    """
    log_sizes = np.log(ladder.n_params)
    log_n = np.linspace(log_sizes[0], log_sizes[-1], GRID_SIZE)
    interpolator = PchipInterpolator(log_sizes, np.log(ladder.flops_per_token))
    log_d_KG = np.log(train_flops)[:, None] - interpolator(log_n)
    loss = predict(law, parameters, n_params=np.exp(log_n)[None], n_tokens=np.exp(log_d_KG))
    best = loss.argmin(-1)
    inside = (best > 0) & (best < GRID_SIZE - 1)
    middle = np.clip(best, 1, GRID_SIZE - 2)
    left, here, right = (
        np.take_along_axis(loss, (middle + shift)[..., None], -1)[..., 0] for shift in (-1, 0, 1)
    )
    curvature = np.maximum(left - 2 * here + right, np.finfo(np.float64).tiny)
    offset = np.clip(0.5 * (left - right) / curvature, -0.5, 0.5)
    log_n_star = np.where(inside, log_n[middle] + offset * (log_n[1] - log_n[0]), np.nan)
    return np.exp(log_n_star), train_flops / np.exp(interpolator(log_n_star))


def exponents(
    law: Law, parameters: np.ndarray, ladder: Ladder, train_flops_range: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Slopes a, b of log N*, log D* against log C over a range of compute, by least squares.

    NaN where fewer than three of nine budgets have an optimum inside of the ladder.
    """
    train_flops = np.geomspace(*train_flops_range, FLOPS_STEPS)
    return tuple(
        _slope(np.log(train_flops), np.log(star))
        for star in optima(law, parameters, ladder, train_flops)
    )  # type: ignore[return-value]


def _slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    weight = np.isfinite(y).astype(np.float64)
    count = np.maximum(weight.sum(-1, keepdims=True), 1.0)
    y = np.where(weight > 0, y, 0.0)
    dx = weight * (x - (weight * x).sum(-1, keepdims=True) / count)
    variance = np.maximum((dx**2).sum(-1), np.finfo(np.float64).tiny)
    return np.where(count[..., 0] >= MIN_OPTIMA, (dx * y).sum(-1) / variance, np.nan)
