"""Critical batch size from training curves: steps to a loss against the batch, and its law.

For each batch the fewest steps to a loss over the learning rates tried; S = S_min + E_min/B, which
is (S/S_min - 1)(E/E_min - 1) = 1 with E = B S; B_crit = E_min/S_min; B_crit = B* / L^(1/alpha_B)
over the losses. Draws resample the residuals of whole batches, since the same runs serve every
loss: one draw moves a batch's curve at all losses alike.

Source: McCandlish et al. 2018, arXiv:1812.06162, eq. 2.11; Kaplan et al. 2020, arXiv:2001.08361,
eqs. 5.1 to 5.4 and 1.4.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.fit import fit
from analysis.fitting.draws import Resamples
from analysis.intervals.uncertainty import percentile_interval
from analysis.laws import BatchTradeoff
from analysis.table.points import points_from_columns

Interval = tuple[float, float]
N_DRAWS = 400
BIN = 1.1
"""Ratio of the steps at the ends of one mean of the curve."""


@dataclass(frozen=True)
class Curve:
    """Training loss (nats/token, the mean since the point before) of one run at `steps`."""

    batch_tokens: float
    lr: float
    steps: np.ndarray
    loss_nats: np.ndarray


def smoothed(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses that fall: means over bins of log steps, then isotonic regression.

    Each bin stands at the middle of its steps. A curve of one-epoch losses falls but for noise; the
    first point under a target would pick out the luckiest one.

    Source: isotonic regression: Barlow et al. 1972.
    """
    from scipy.optimize import isotonic_regression

    begin = np.concatenate([[0], curve.steps[:-1]])
    weight = curve.steps - begin
    bins = np.floor(np.log(curve.steps) / math.log(BIN)).astype(int)
    codes = np.unique(bins, return_inverse=True)[1]
    total = np.bincount(codes, weight)
    loss = np.bincount(codes, weight * curve.loss_nats) / total
    middle = np.bincount(codes, weight * (curve.steps + begin + 1) / 2) / total
    return middle, isotonic_regression(loss, weights=total, increasing=False).x


def steps_to(curve: Curve, losses: np.ndarray) -> np.ndarray:
    """Steps at which the smoothed curve reaches each loss, interpolated in logs; NaN if never."""
    steps, fallen = smoothed(curve)
    first = np.concatenate([[True], np.diff(fallen) < 0])  # one point a level, its first
    log_steps, levels = np.log(steps[first]), fallen[first]
    found = np.exp(np.interp(-losses, -levels, log_steps))
    return np.where((losses >= levels[-1]) & (losses < levels[0]), found, math.nan)


def targets(curves: Sequence[Curve], n_targets: int) -> np.ndarray:
    """Losses, highest first, that every batch reached at some rate, after its first tenth.

    The lowest is the worst over batches of the best final loss; the highest, where the fastest
    batch has done a tenth of its steps. Even in loss.
    """
    lowest, early = [], []
    for batch in sorted({c.batch_tokens for c in curves}):
        fallen = [(c, *smoothed(c)) for c in curves if c.batch_tokens == batch]
        lowest.append(min(float(loss[-1]) for _, _, loss in fallen))
        early.append(
            min(float(np.interp(0.1 * c.steps[-1], s, loss)) for c, s, loss in fallen)
        )  # fmt: skip
    low, high = max(lowest), max(early)
    if not low < high:
        return np.array([low])
    return np.linspace(high, low, n_targets + 1)[1:]


@dataclass(frozen=True)
class Critical:
    """B_crit, S_min, E_min at one loss: values (1 + S,), row 0 measured, NaN where the fit failed.

    `n_steps` are the fewest steps at each batch; `at_edge` batches at whose fewest steps the rate
    was the lowest or highest tried.
    """

    loss_nats: float
    batch_tokens: np.ndarray
    n_steps: np.ndarray
    s_min: np.ndarray
    e_min: np.ndarray
    at_edge: tuple[float, ...]
    status: str

    @property
    def b_crit(self) -> np.ndarray:
        """E_min / S_min, tokens."""
        return self.e_min / self.s_min


def critical_batches(curves: Sequence[Curve], losses: np.ndarray, seed: int = 0) -> list[Critical]:
    """B_crit of one model at each loss, with draws in common."""
    batches = np.array(sorted({c.batch_tokens for c in curves}))
    steps, edges = _fewest(curves, batches, losses)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(batches), (N_DRAWS, len(batches)))
    degrees = max(len(batches) - 2, 1)
    wide = np.sqrt(degrees / generator.chisquare(degrees, (N_DRAWS, 1)))
    inflation = wide * math.sqrt(len(batches) / degrees)
    return [
        _critical(float(loss), batches, row, drawn, inflation, edge)
        for loss, row, edge in zip(losses, steps, edges, strict=True)
    ]


def _fewest(curves, batches, losses) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """Fewest steps over rates (T, B), and at each loss the batches whose best rate is an edge."""
    table = np.full((len(losses), len(batches)), math.nan)
    edges: list[list[float]] = [[] for _ in losses]
    for j, batch in enumerate(batches):
        mine = sorted((c for c in curves if c.batch_tokens == batch), key=lambda c: c.lr)
        found = np.stack([steps_to(c, losses) for c in mine])
        for i, column in enumerate(found.T):
            if np.isfinite(column).any():
                best = int(np.nanargmin(column))
                table[i, j] = column[best]
                if best in (0, len(mine) - 1):
                    edges[i].append(float(batch))
    return table, [tuple(e) for e in edges]


def _critical(loss, batches, steps, drawn, inflation, edge) -> Critical:
    good = np.isfinite(steps)
    points = points_from_columns({"B": batches[good], "S": steps[good]})
    plain = fit(BatchTradeoff(), points, "ls_log", n_bootstrap=0)
    if not plain.ok:
        nothing = np.full(1 + len(drawn), math.nan)
        return Critical(loss, batches, steps, nothing, nothing, edge, plain.status)
    residuals = plain.residuals - plain.residuals.mean()
    noise = residuals[drawn[:, : good.sum()] % good.sum()] * inflation
    target = np.exp(np.log(steps[good]) - plain.residuals + noise)
    resamples = Resamples(
        points.columns(("B",))[None], target, np.ones_like(target), "residuals by batch"
    )  # fmt: skip
    found = fit(BatchTradeoff(), points, "ls_log", resamples=resamples)
    rows = np.vstack([[found.parameters[k] for k in found.law.parameter_names], found.draws])
    b_crit = rows[0, 1] / rows[0, 0]
    inside = batches[good].min() < b_crit < batches[good].max()
    status = found.status if inside else f"outside of the batches tried; {found.status}"
    return Critical(loss, batches, steps, rows[:, 0], rows[:, 1], edge, status)


@dataclass(frozen=True)
class CriticalLaw:
    """B_crit = B* / L^(1/alpha_B), both (1 + S,): row 0 measured, the rest draws."""

    b_star: np.ndarray
    alpha_b: np.ndarray
    loss_range: Interval
    status: str

    def at(self, loss_nats: np.ndarray | float) -> np.ndarray:
        """B_crit in tokens at losses, (1 + S, ...)."""
        log_loss = np.log(np.asarray(loss_nats, np.float64))
        spread = (..., *(None,) * log_loss.ndim)
        return np.exp(np.log(self.b_star)[spread] - log_loss / self.alpha_b[spread])


def critical_law(found: Sequence[Critical]) -> CriticalLaw:
    """The law through B_crit at several losses, by least squares in logs, draw by draw."""
    kept = [c for c in found if np.isfinite(c.b_crit[0])]
    if len({c.loss_nats for c in kept}) < 3:
        nothing = np.full(1 + N_DRAWS, math.nan)
        said = f"B_crit is known at {len(kept)} losses; a law needs 3"
        return CriticalLaw(nothing, nothing, (math.nan, math.nan), said)
    losses = np.array([c.loss_nats for c in kept])
    design = np.stack([np.ones(len(losses)), -np.log(losses)], -1)
    with np.errstate(all="ignore"):
        values = np.log(np.stack([c.b_crit for c in kept], -1))
        intercept, slope = np.linalg.pinv(design) @ values.T
        alpha = 1 / slope
    low, high = percentile_interval(slope[1:])
    status = "as fitted"
    if not low > 0:
        status = (
            "the interval of 1/alpha_B holds 0: that B_crit grows as the loss falls is not seen"
        )
    return CriticalLaw(
        np.exp(intercept), alpha, (float(losses.min()), float(losses.max())), status
    )  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """B_simple of one run, its standard error, and the ratio B_crit / B_simple at its loss.

    `ratio` (1 + S,) holds the noise of both; `is_extrapolated` where the loss is outside of those
    that B_crit was read off at.
    """

    batch_tokens: float
    lr: float
    loss_nats: float
    b_simple: float
    se: float
    ratio: np.ndarray
    is_extrapolated: bool

    @property
    def interval(self) -> Interval:
        """90% of B_simple, normal in its log."""
        wide = 1.6449 * self.se / self.b_simple
        return self.b_simple * math.exp(-wide), self.b_simple * math.exp(wide)


def compare(law: CriticalLaw, runs: Sequence[Mapping[str, float]], seed: int = 0) -> list[Compared]:
    """Gradient noise scales against the law.

    Args:
        runs: of each batch_tokens, lr, noise_scale_tokens, noise_scale_se, and loss_nats, the mean
            training loss of the steps over which the noise scale was averaged.
    """
    generator = np.random.default_rng(seed)
    found = []
    for run in runs:
        scale, se = run["noise_scale_tokens"], run["noise_scale_se"]
        noise = np.concatenate([[0.0], generator.standard_normal(len(law.b_star) - 1)])
        ratio = law.at(run["loss_nats"]) / (scale * np.exp(noise * se / scale))
        low, high = law.loss_range
        outside = not low <= run["loss_nats"] <= high
        found.append(
            Compared(
                run["batch_tokens"], run["lr"], run["loss_nats"], scale, se, ratio, outside
            )
        )  # fmt: skip
    return found
