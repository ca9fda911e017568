"""fit(law, points, objective) -> Fit: multi-start, bootstrap, and a status with every number.

Objectives, each the plain sum over rows (times the row's bootstrap count):
- "huber_log": Huber's function of the log-loss residual, delta 1e-3 unless given; Hoffmann et al.
  2022, eq. 3. At that delta nearly every residual is in its linear part: it is close to least
  absolute deviations, and coefficients move much more with delta than exponents do.
- "ls_log": half the sum of squared log-loss residuals.
- "ls": the sum of squared residuals in loss (nats^2).

Starts: the law's own grid (81 for Chinchilla's form), stated as shares of the loss in the middle
of the data, so that they do not depend on the units of N and D. Bootstrap resamples start from the
fit's optimum, which reached the best of all starts on 118 of 120 resamples of planted sweeps, and
within 0.2% of its objective on the others. A parameter whose interval spans a factor 2 (100 for the
coefficients A and B, which move with their exponents) is called weakly determined.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np

from analysis.allocation import Ladder, exponents
from analysis.laws import LAWS, Law, LossRange, predict
from analysis.load import Points, points_from_csv
from analysis.solver import NO_DELTA, Objective, Problems, solve
from analysis.uncertainty import INTERVAL_LEVEL, cluster_weights, percentile_interval

ObjectiveName = Literal["huber_log", "ls_log", "ls"]
Interval = tuple[float, float]

DEFAULT_DELTA = 1e-3
DEFAULT_BOOTSTRAP = 500
AGREEMENT = 1e-6  # of the objective: starts this close found the same optimum
RIDGE_SPREAD = 1.0  # standard deviation (nats, exponents) beyond which a direction is flat
WEAK_FACTOR = 2.0  # an exponent or floor known to less than a factor of two is said to be so
WEAK_COEFFICIENT_FACTOR = 100.0
EXACT = 1e-24  # objective of a noise-free fit
FLOOR_AT_ZERO = "floor at zero"
MIN_DISTINCT = 3  # of each variable: fewer cannot tell an exponent from a floor


@dataclass(frozen=True)
class Fit:
    """A fitted law, or the reason why there is none (`ok` False: all numbers are NaN).

    `residuals` are log losses, measured minus predicted, in the order of the points; `draws` are
    the bootstrap's parameters (n_bootstrap, P), NaN rows for resamples that failed; `allocation`
    holds a and b of N* ~ C^a, D* ~ C^b in closed form (C = 6ND) and, given a ladder, a_numeric and
    b_numeric under the FLOPs of `c_convention`.
    """

    law: Law
    objective: ObjectiveName
    delta: float | None
    objective_value: float
    n_rows: int
    parameters: dict[str, float]
    intervals: dict[str, Interval]
    interval_level: float
    interval_method: str
    parameter_status: dict[str, str]
    status: str
    ok: bool
    allocation: dict[str, float]
    allocation_intervals: dict[str, Interval]
    n_convention: str
    c_convention: str
    table_hash: str
    rows_excluded: tuple[tuple[str, str], ...]
    residuals: np.ndarray = field(repr=False)
    draws: np.ndarray = field(repr=False)
    n_draws_failed: int = 0
    n_draws_at_bound: int = 0

    def predict(self, **variables: Any) -> np.ndarray:
        """Predicted loss, nats, at n_params=, n_tokens=, train_flops= (those the law has)."""
        return predict(self.law, self.parameters, **variables)

    def to_json(self) -> dict[str, Any]:
        """A dict that json.dumps writes as standard JSON: NaN and infinity become null."""
        return _without_nan(
            {
                "law": self.law.name,
                "equation": self.law.equation,
                "objective": self.objective,
                "delta": self.delta,
                "objective_value": self.objective_value,
                "n_rows": self.n_rows,
                "parameters": self.parameters,
                "intervals": self.intervals,
                "interval_level": self.interval_level,
                "interval_method": self.interval_method,
                "parameter_status": self.parameter_status,
                "allocation": self.allocation,
                "allocation_intervals": self.allocation_intervals,
                "status": self.status,
                "ok": self.ok,
                "n_convention": self.n_convention,
                "c_convention": self.c_convention,
                "table_hash": self.table_hash,
                "rows_excluded": self.rows_excluded,
                "n_draws": len(self.draws),
                "n_draws_failed": self.n_draws_failed,
                "n_draws_at_bound": self.n_draws_at_bound,
            }
        )


@dataclass(frozen=True)
class Resamples:
    """Other versions of the same table, for a bootstrap that is not by run.

    `columns` (S, R, K) of the law's variables, `loss_nats` (S, R), `weights` (S, R); `method` says
    in words how they were made.
    """

    columns: np.ndarray
    loss_nats: np.ndarray
    weights: np.ndarray
    method: str


def resample_clusters(law: Law, points: Points, n_resamples: int, seed: int) -> Resamples:
    """Pair bootstrap of whole clusters: rows stay, weights count how often each was drawn."""
    columns = points.columns(law.variables)
    return Resamples(
        np.broadcast_to(columns, (n_resamples, *columns.shape)),
        np.broadcast_to(points.loss_nats, (n_resamples, len(points))),
        cluster_weights(points.cluster, n_resamples, seed),
        "pair bootstrap by run",
    )


def fit(
    law: Law,
    points: Points,
    objective: ObjectiveName = "huber_log",
    *,
    delta: float = DEFAULT_DELTA,
    n_bootstrap: int = DEFAULT_BOOTSTRAP,
    seed: int = 0,
    ladder: Ladder | None = None,
    resamples: Resamples | None = None,
) -> Fit:
    """Fit a law to points, with percentile intervals from a bootstrap by run.

    Args:
        law: one of analysis.laws.
        points: the table; what quality control is to leave out is dropped before.
        objective: see the module; `delta` is Huber's and only used by "huber_log".
        n_bootstrap: resamples of whole clusters; 0 for none.
        seed: of the resampling; equal seeds give equal intervals.
        ladder: sizes with FLOPs per token in the conventions of the points: adds numeric
            allocation exponents over the range of compute of the points.
        resamples: used instead of n_bootstrap resamples by run.

    Raises: ValueError: unknown objective, or delta not positive.
    """
    terms = _objective(objective, delta)
    identity = {
        "law": law,
        "objective": objective,
        "delta": delta if objective == "huber_log" else None,
        "n_rows": len(points),
        "interval_level": INTERVAL_LEVEL,
        "n_convention": points.n_convention,
        "c_convention": points.c_convention,
        "table_hash": points.table_hash,
        "rows_excluded": points.rejected,
    }
    if (reason := _too_few(law, points)) is not None:
        return _failed(identity, f"too few points: {reason}")
    best = _best_of_starts(law, points, terms)
    if isinstance(best, str):
        return _failed(identity, best)
    if resamples is None:
        resamples = resample_clusters(law, points, n_bootstrap, seed)
    draws, n_failed, n_at_bound = _draws(law, best, resamples, terms)
    vector = law.unpack(best.theta, best.centre)
    method = (
        f"{resamples.method}, {len(draws)} resamples, {n_failed} failed, {n_at_bound} at a bound"
    )
    intervals = _intervals(law.parameter_names, draws)
    weak = _weakly_determined(intervals)
    status = f"weakly determined {', '.join(weak)}; {best.status}" if weak else best.status
    central, spread = _allocations(law, points, np.vstack([vector, draws]), ladder)
    return Fit(
        **identity,
        objective_value=best.value,
        parameters=_named(law.parameter_names, vector),
        intervals=intervals,
        interval_method=method,
        parameter_status=best.parameter_status | weak,
        status=status,
        ok=True,
        allocation=central,
        allocation_intervals=spread,
        residuals=best.residuals,
        draws=draws,
        n_draws_failed=n_failed,
        n_draws_at_bound=n_at_bound,
    )


def fit_csv(
    path: Path | str,
    law: str = "chinchilla",
    objective: ObjectiveName = "huber_log",
    *,
    delta: float = DEFAULT_DELTA,
    n_bootstrap: int = DEFAULT_BOOTSTRAP,
    seed: int = 0,
) -> Fit:
    """Fit a law, by name, to any CSV that analysis.load.points_from_csv reads.

    Raises: ValueError: unknown law or objective, or a file that cannot be read as points.
    """
    if law not in LAWS:
        raise ValueError(f"unknown law {law!r}; use one of {', '.join(LAWS)}")
    points = points_from_csv(path)
    return fit(LAWS[law], points, objective, delta=delta, n_bootstrap=n_bootstrap, seed=seed)


def write_json(result: Fit, path: Path | str) -> None:
    """Write Fit.to_json as a file."""
    Path(path).write_text(json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n")


@dataclass(frozen=True)
class _Best:
    """The best of all starts, in centred coordinates."""

    theta: np.ndarray
    centre: np.ndarray
    bounds: tuple[np.ndarray, np.ndarray]
    value: float
    residuals: np.ndarray
    parameter_status: dict[str, str]
    status: str


def _objective(name: str, delta: float) -> Objective:
    if name not in get_args(ObjectiveName):
        raise ValueError(f"objective={name!r}; use one of {', '.join(get_args(ObjectiveName))}")
    if not 0 < delta < math.inf:
        raise ValueError(f"delta={delta} must be positive and finite; the usual value is 1e-3")
    if name == "huber_log":
        return Objective(in_log=True, delta=delta, scale=1.0)
    in_log = name == "ls_log"
    return Objective(in_log=in_log, delta=NO_DELTA, scale=1.0 if in_log else 2.0)


def _too_few(law: Law, points: Points) -> str | None:
    n_parameters, columns = len(law.parameter_names), points.columns(law.variables)
    n_distinct = len(np.unique(columns, axis=0))
    if n_distinct <= n_parameters:
        names = ", ".join(law.variables)
        return f"{n_distinct} distinct ({names}) for {n_parameters} parameters; more are needed"
    for variable, column in zip(law.variables, columns.T, strict=True):
        if (count := len(np.unique(column))) < MIN_DISTINCT:
            return f"{count} distinct {variable}; at least {MIN_DISTINCT} are needed"
    return None


def _best_of_starts(law: Law, points: Points, terms: Objective) -> _Best | str:
    """The best converged start, or the sentence that says why there is none."""
    log_x, log_loss = np.log(points.columns(law.variables)), np.log(points.loss_nats)
    centre = log_x.mean(0)
    loss = LossRange(points.loss_nats.min(), np.exp(log_loss.mean()), points.loss_nats.max())
    bounds, starts = law.bounds(loss), law.starts(loss)
    ones = np.ones((len(starts), len(points)))
    problems = Problems((log_x - centre) * ones[..., None], log_loss * ones, ones, starts)
    found = solve(law, problems, terms, bounds)
    values = np.where(found.converged, found.value, np.inf)
    best = int(values.argmin())
    value, theta = float(values[best]), found.theta_BP[best]
    if not math.isfinite(value):
        return f"not converged: none of {len(starts)} starts settled"
    parameter_status = _bound_status(law, theta, bounds)
    if faults := [f"{k} {v}" for k, v in parameter_status.items() if v.startswith("at its")]:
        return f"at a bound: {'; '.join(faults)}"
    slopes = _log_slopes(law, theta, log_x - centre)
    residuals = log_loss - np.log(predict(law, law.unpack(theta, centre), **points.variables))
    flat = _flat_directions(law, slopes, residuals)
    parameter_status |= flat
    n_agree = int((values <= value * (1 + AGREEMENT) + EXACT).sum())
    head = f"ridge along {', '.join(flat)}: these are not determined" if flat else "converged"
    if FLOOR_AT_ZERO in parameter_status.values():
        head += "; floor at zero"
    status = f"{head}; {n_agree} of {len(starts)} starts agree"
    return _Best(theta, centre, bounds, value, residuals, parameter_status, status)


def _bound_status(
    law: Law, theta: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]
) -> dict[str, str]:
    status = {}
    for name, value, low, high in zip(law.parameter_names, theta, *bounds, strict=True):
        at_low, at_high = value <= low, value >= high
        if name == "E" and at_low:
            status[name] = FLOOR_AT_ZERO
        elif at_low or at_high:
            status[name] = f"at its {'lower' if at_low else 'upper'} bound"
        else:
            status[name] = "converged"
    return status


def _log_slopes(law: Law, theta: np.ndarray, x_RK: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(jax.jacfwd(law.log_loss)(jax.numpy.asarray(theta), x_RK))


def _flat_directions(law: Law, slopes_RP: np.ndarray, residuals: np.ndarray) -> dict[str, str]:
    """Parameters that carry a direction in which the data do not hold the fit.

    The covariance is s^2 (J^T J)^-1 of the log residuals in centred coordinates; its largest
    standard deviation is compared with 1 (a nat in a term, or 1 in an exponent).
    """
    n_rows, n_parameters = slopes_RP.shape
    variance = float((residuals**2).sum()) / (n_rows - n_parameters)
    eigenvalues, vectors = np.linalg.eigh(slopes_RP.T @ slopes_RP)
    spread = math.sqrt(variance / max(float(eigenvalues[0]), 1e-300))
    if spread < RIDGE_SPREAD:
        return {}
    share = np.abs(vectors[:, 0])
    sentence = f"ridge: standard deviation {spread:.2g} along a flat direction"
    return {n: sentence for n, s in zip(law.parameter_names, share, strict=True) if s > 0.3}


def _weakly_determined(intervals: dict[str, Interval]) -> dict[str, str]:
    """Parameters whose interval spans too large a factor, N_c and D_c excepted: they always do."""
    weak = {}
    for name, (low, high) in intervals.items():
        factor = WEAK_COEFFICIENT_FACTOR if name in ("A", "B") else WEAK_FACTOR
        if name not in ("N_c", "D_c") and high > factor * low:
            weak[name] = f"weakly determined: interval {low:.3g} to {high:.3g}"
    return weak


def _draws(
    law: Law, best: _Best, resamples: Resamples, terms: Objective
) -> tuple[np.ndarray, int, int]:
    """Parameters of every resample (NaN where it failed), and how many failed or hit a bound."""
    n_resamples, n_parameters = len(resamples.weights), len(law.parameter_names)
    if n_resamples == 0:
        return np.empty((0, n_parameters)), 0, 0
    log_x = np.log(resamples.columns) - best.centre
    starts = np.tile(best.theta, (n_resamples, 1))
    problems = Problems(log_x, np.log(resamples.loss_nats), resamples.weights, starts)
    found = solve(law, problems, terms, best.bounds)
    low, high = best.bounds
    at_bound = ((found.theta_BP <= low) | (found.theta_BP >= high)).any(-1)
    n_rows = (resamples.weights > 0).sum(-1)
    good = found.converged & (n_rows > n_parameters)
    draws = np.where(good[:, None], law.unpack(found.theta_BP, best.centre), np.nan)
    return draws, int((~good).sum()), int((at_bound & good).sum())


def _allocations(
    law: Law, points: Points, vectors: np.ndarray, ladder: Ladder | None
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Allocation exponents of the fit (row 0 of vectors) and their intervals over the draws."""
    closed = law.allocation(vectors)
    if closed is None:
        return {}, {}
    names, columns = ["a", "b"], [closed[:, 0], closed[:, 1]]
    if ladder is not None:
        span = (float(points.train_flops.min()), float(points.train_flops.max()))
        names += ["a_numeric", "b_numeric"]
        columns += exponents(law, vectors, ladder, span)
    table = np.stack(columns, -1)
    return _named(names, table[0]), _intervals(names, table[1:])


def _intervals(names: Sequence[str], draws: np.ndarray) -> dict[str, Interval]:
    return {name: percentile_interval(draws[:, i]) for i, name in enumerate(names)}


def _named(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(names, map(float, values), strict=True))


def _failed(identity: dict[str, Any], status: str) -> Fit:
    names = identity["law"].parameter_names
    return Fit(
        **identity,
        objective_value=math.nan,
        parameters=dict.fromkeys(names, math.nan),
        intervals=dict.fromkeys(names, (math.nan, math.nan)),
        interval_method="none: the fit failed",
        parameter_status=dict.fromkeys(names, status.split(":")[0]),
        status=status,
        ok=False,
        allocation={},
        allocation_intervals={},
        residuals=np.full(identity["n_rows"], np.nan),
        draws=np.empty((0, len(names))),
    )


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
