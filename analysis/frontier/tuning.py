"""Best learning rate and batch of each (N, D), their laws, and what tuning does to the exponents.

Losses of one search differ by seeds as much as by rate, so every loss gets draws: itself times
exp(sigma z), sigma the standard deviation of log loss between seeds with Student's t for its few
degrees of freedom. All that follows is done to every draw. Intervals of optima and exponents hold
this noise and nothing else; those of the laws come from the scatter of optima about them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.fit import Fit, fit
from analysis.fitting.draws import Resamples
from analysis.fitting.status import MIN_DISTINCT
from analysis.intervals.uncertainty import percentile_interval
from analysis.laws import Chinchilla, PowerProduct
from analysis.table.points import Points, points_from_columns

Interval = tuple[float, float]
N_DRAWS = 400


@dataclass(frozen=True)
class Search:
    """Losses (1 + S, K) of one (N, D, batch) at K increasing rates; row 0 is measured.

    A diverged run is infinite in every row. N in both conventions, D and batch in tokens.
    """

    n_params_non_embedding: float
    n_params_total: float
    n_tokens: float
    batch_tokens: float
    lr: np.ndarray
    loss_nats: np.ndarray


@dataclass(frozen=True)
class Optimum:
    """Where a curve of losses over a positive quantity is lowest: rows as in Search.

    `at` and `loss_nats` are (1 + S,); not `ok` where the lowest one measured is at an edge, which
    is then what they hold.
    """

    at: np.ndarray
    loss_nats: np.ndarray
    ok: bool
    status: str

    @property
    def interval(self) -> Interval:
        """Of `at`, over the draws."""
        return percentile_interval(self.at[1:]) if self.ok else (math.nan, math.nan)


def noise_draws(loss_nats: float, sd: float, n_degrees: int, generator) -> np.ndarray:
    """The loss, then its draws, (1 + S,); all equal where no seeds tell sd."""
    if not (math.isfinite(loss_nats) and n_degrees and sd > 0):
        return np.full(1 + N_DRAWS, loss_nats)
    wide = np.sqrt(n_degrees / generator.chisquare(n_degrees, N_DRAWS))
    noise = sd * wide * generator.standard_normal(N_DRAWS)
    return loss_nats * np.exp(np.concatenate([[0.0], noise]))


def lowest(at: np.ndarray, loss_SK: np.ndarray) -> Optimum:
    """Vertex of the parabola in log through the lowest measured point and its two neighbours.

    The same three points serve every draw; a vertex outside of them is set to their end.
    """
    best = int(loss_SK[0].argmin())
    edge = {0: "lower", len(at) - 1: "upper"}.get(best)
    if edge is not None:
        rows = np.full(len(loss_SK), at[best])
        return Optimum(rows, loss_SK[:, best], False, f"lowest at the {edge} edge of those tried")
    window = slice(best - 1, best + 2)
    x, y = np.log(at[window]), loss_SK[:, window]
    if not np.isfinite(y).all():
        return Optimum(
            np.full(len(y), at[best]), loss_SK[:, best], False, "a neighbour diverged"
        )  # fmt: skip
    left = (y[:, 1] - y[:, 0]) / (x[1] - x[0])
    right = (y[:, 2] - y[:, 1]) / (x[2] - x[1])
    curvature = (right - left) / (x[2] - x[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = 0.5 * (x[0] + x[1] - left / curvature)
    ends = np.where(y[:, 0] < y[:, 2], x[0], x[2])
    vertex = np.clip(np.where(curvature > 0, vertex, ends), x[0], x[2])
    return Optimum(np.exp(vertex), loss_at(at, loss_SK, np.exp(vertex)), True, "inside")


def loss_at(at: np.ndarray, loss_SK: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Loss at `where` (rows of loss_SK, or one for all), by the parabola of the three nearest.

    NaN if that is more than half a step beyond the points, or where a run diverged.
    """
    x, wanted = np.log(at), np.broadcast_to(np.log(where), len(loss_SK))
    if len(x) < 3:
        return np.full(len(loss_SK), math.nan)
    step = x[1] - x[0]
    first = int(np.clip(np.abs(x - wanted[0]).argmin() - 1, 0, len(x) - 3))
    nodes = x[first : first + 3]
    total = np.zeros(len(loss_SK))
    for i in range(3):
        others = np.delete(nodes, i)
        weight = np.prod((wanted[:, None] - others) / (nodes[i] - others), axis=1)
        total = total + weight * loss_SK[:, first + i]
    inside = (wanted[0] > x[0] - 0.51 * step) & (wanted[0] < x[-1] + 0.51 * step)
    return np.where(inside & np.isfinite(total), total, math.nan)


@dataclass(frozen=True)
class Cell:
    """One (N, D): its best batch, and the best rate there (geometric between batches)."""

    n_params_non_embedding: float
    n_tokens: float
    batch: Optimum
    lr: Optimum


def best_cell(searches: Sequence[Search]) -> Cell:
    """The optimum over batches of one (N, D), each batch at its own best rate."""
    ordered = sorted(searches, key=lambda search: search.batch_tokens)
    found = [lowest(search.lr, search.loss_nats) for search in ordered]
    at = np.array([search.batch_tokens for search in ordered])
    batch = lowest(at, np.stack([optimum.loss_nats for optimum in found], -1))
    log_lr = np.log(np.stack([optimum.at for optimum in found], -1))
    rates = np.array(
        [
            np.exp(np.interp(np.log(b), np.log(at), row))
            for b, row in zip(batch.at, log_lr, strict=True)
        ]
    )
    near = np.abs(np.log(at / batch.at[0])).argsort()[:2]
    faults = [found[i].status for i in near if not found[i].ok]
    status = faults[0] if faults else "inside"
    rate = Optimum(rates, batch.loss_nats, not faults, status)
    return Cell(ordered[0].n_params_non_embedding, ordered[0].n_tokens, batch, rate)


LR_OF_BATCH = PowerProduct("lr", ("N", "D", "B"), "lr_of_batch")
LR = PowerProduct("lr", ("N", "D"), "lr_optimum")
BATCH = PowerProduct("B", ("D",), "batch_optimum_of_data")


def rate_law(searches: Sequence[Search]) -> Fit:
    """lr* = A N^p_N D^p_D B^p_B over all searches with an optimum inside of their rates.

    Fewer than three batches determine no p_B, and the law is that of N and D.
    """
    found = [(s, lowest(s.lr, s.loss_nats)) for s in searches]
    kept = [(s, o) for s, o in found if o.ok]
    columns = {
        "N": [s.n_params_non_embedding for s, _ in kept],
        "D": [s.n_tokens for s, _ in kept],
        "B": [s.batch_tokens for s, _ in kept],
        "lr": [o.at[0] for _, o in kept],
    }
    if len(set(columns["B"])) < MIN_DISTINCT:
        return _law(LR, {k: v for k, v in columns.items() if k != "B"})
    return _law(LR_OF_BATCH, columns)


def rate_law_at_best(cells: Sequence[Cell]) -> Fit:
    """lr* = A N^p_N D^p_D over the cells whose best batch and rate are both inside.

    Source: the form of Li et al. 2025, arXiv:2503.04715.
    """
    kept = [cell for cell in cells if cell.batch.ok and cell.lr.ok]
    columns = {
        "N": [cell.n_params_non_embedding for cell in kept],
        "D": [cell.n_tokens for cell in kept],
        "lr": [cell.lr.at[0] for cell in kept],
    }
    return _law(LR, columns)


def batch_law(cells: Sequence[Cell]) -> Fit:
    """B* = A D^p_D over the cells whose best batch is inside of those tried."""
    kept = [cell for cell in cells if cell.batch.ok]
    columns = {
        "D": [cell.n_tokens for cell in kept],
        "B": [cell.batch.at[0] for cell in kept],
    }
    return _law(BATCH, columns)


def _law(law: PowerProduct, columns: dict[str, list[float]]) -> Fit:
    points = points_from_columns({k: np.array(v, np.float64) for k, v in columns.items()})
    return fit(law, points, "ls_log", interval_method="delta")


@dataclass(frozen=True)
class Exponents:
    """Exponents from one way of setting the rate; every array (1 + S,), NaN where not known.

    `slope_n`, `slope_d`: d log L / d log N and D, averaged over the grid, no floor assumed; alpha,
    beta and a = beta / (alpha + beta) with E held at `floor`.
    """

    name: str
    batch_tokens: float
    n_cells: int
    floor: float
    values: dict[str, np.ndarray]
    status: str


def exponents(name: str, searches: Sequence[Search], rates: Sequence, floor: float) -> Exponents:
    """Exponents of the losses that `searches` (one batch) have at `rates`, (1 + S,) or one each."""
    losses = np.stack(
        [loss_at(s.lr, s.loss_nats, np.asarray(r)) for s, r in zip(searches, rates, strict=True)],
        -1,
    )
    known = np.isfinite(losses[0])
    kept = [s for s, k in zip(searches, known, strict=True) if k]
    n = np.array([s.n_params_total for s in kept])
    d = np.array([s.n_tokens for s in kept])
    values = _joint(n, d, losses[:, known], floor) | _slopes(n, d, losses[:, known])
    missing = len(searches) - len(kept)
    status = (
        f"{missing} of {len(searches)} cells have no run near that rate" if missing else "all cells"
    )
    return Exponents(name, searches[0].batch_tokens, len(kept), floor, values, status)


def _joint(n, d, loss_SC, floor: float) -> dict[str, np.ndarray]:
    points: Points = points_from_columns({"N": n, "D": d, "L": loss_SC[0]})
    draws = np.where(np.isfinite(loss_SC[1:]), loss_SC[1:], 1.0)
    weights = np.isfinite(loss_SC[1:]).astype(np.float64)
    resamples = Resamples(
        points.columns(("N", "D"))[None], draws, weights, "noise of seeds"
    )  # fmt: skip
    found = fit(Chinchilla(), points, "ls_log", fixed={"E": floor}, resamples=resamples)
    if not found.ok:
        return dict.fromkeys(("alpha", "beta", "a"), np.full(len(loss_SC), math.nan))
    names = found.law.parameter_names
    rows = np.vstack([[found.parameters[k] for k in names], found.draws])
    alpha, beta = rows[:, names.index("alpha")], rows[:, names.index("beta")]
    return {"alpha": alpha, "beta": beta, "a": beta / (alpha + beta)}


def _slopes(n, d, loss_SC) -> dict[str, np.ndarray]:
    design = np.stack([np.ones(len(n)), np.log(n), np.log(d)], -1)
    if np.linalg.matrix_rank(design) < 3:
        return dict.fromkeys(("slope_n", "slope_d"), np.full(len(loss_SC), math.nan))
    found = np.linalg.pinv(design) @ np.log(loss_SC).T
    return {"slope_n": found[1], "slope_d": found[2]}


def ways_of_tuning(searches: Sequence[Search], floor: float) -> tuple[Exponents, ...]:
    """Exponents of one batch's searches at the optimum, half, twice, and at one rate for all.

    The one rate is the geometric mean of the optima, which is what a single sweep would find.
    """
    at = [lowest(s.lr, s.loss_nats).at for s in searches]
    one = np.exp(np.mean([np.log(a[0]) for a in at]))
    nearest = min(searches[0].lr, key=lambda rate: abs(math.log(rate / one)))
    ways = {
        "tuned": at,
        "half of tuned": [a / 2 for a in at],
        "twice tuned": [a * 2 for a in at],
        f"{nearest:.3g} for all": [nearest] * len(searches),
    }
    return tuple(exponents(name, searches, rates, floor) for name, rates in ways.items())


def difference(one: Exponents, base: Exponents, key: str) -> tuple[float, Interval]:
    """An exponent less that of another way, with the interval of noise that both share."""
    off = one.values[key] - base.values[key]
    return float(off[0]), percentile_interval(off[1:])
