"""The rungs of `porian_2024`: from runs and curves to the exponent of every set of choices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis import published
from analysis.fit import Fit, fit
from analysis.frontier import vertices
from analysis.frontier.allocation import ladder_from_points
from analysis.frontier.critical_batch import Curve, smoothed
from analysis.frontier.isoflop import IsoflopMinimum, Method, exponents, minima
from analysis.intervals.uncertainty import percentile_interval
from analysis.laws import Chinchilla
from analysis.load import Points, Sweep, points_from_columns, points_from_runs
from experiments import critical_report, paper_laws
from experiments.papers import Frame, part_of
from experiments.plan import Plan

METHODS: tuple[Method, ...] = ("parabola", "akima")
N_BUDGETS = 9
BUDGET_SPAN = 4.0
"""Largest over smallest budget that a long run's curve is read at."""
N_DRAWS = 200


@dataclass(frozen=True)
class Rung:
    """One set of choices: its points, and a by parabolas, by Akima, and by the joint fit."""

    name: str
    points: Points
    found: dict[str, tuple[float, tuple[float, float]]]
    minima: tuple[IsoflopMinimum, ...]
    n_runs: int


def ladder_of(plan: Plan, sweep: Sweep) -> list[Rung]:
    """Every rung, from Kaplan's choices to tuned ones."""
    total, kaplan = ("total", "matmul_full"), ("non_embedding", "6n_non_embedding")
    long, short = (part_of(plan, sweep, f"{k}_warmup") for k in ("long", "short"))
    matched = part_of(plan, sweep, "matched", "matched_seeds")
    tuned = part_of(plan, sweep, "tuned", "tuned_seeds")
    names = [step[0] for step in published.PORIAN_2024_LADDER]
    tables = [
        curve_points(long, sweep, *kaplan),
        curve_points(long, sweep, *total),
        curve_points(short, sweep, *total),
        points_from_runs(matched, *total),  # type: ignore[arg-type]
        points_from_runs(tuned, *total),  # type: ignore[arg-type]
    ]
    n_runs = [len(long), len(long), len(short), len(matched), len(tuned)]
    return [rung(*parts) for parts in zip(names, tables, n_runs, strict=False)]


def curve_points(runs: Frame, sweep: Sweep, n_convention: str, c_convention: str) -> Points:
    """The smoothed training loss of every run at budgets of compute: rows of a run are one cluster.

    The budgets are evenly spaced in the log below the largest that most runs reach.
    """
    done = runs[runs["status"] == "finished"]
    curves = critical_report.points_of(paper_laws.curves_of(sweep, done))
    rows = done.to_dict("records")
    last = np.array([row[f"train_flops_{c_convention}"] for row in rows], float)
    top = float(np.median(last)) if len(last) else 1.0
    budgets = np.geomspace(top / BUDGET_SPAN, top * (1 - 1e-9), N_BUDGETS)
    columns: dict[str, list[float]] = {name: [] for name in ("N", "D", "C", "L")}
    cluster = []
    for k, row in enumerate(rows):
        steps, loss = smoothed(
            Curve(float(row["batch_tokens"]), float(row["lr"]), *curves[row["run_id"]])
        )
        flops_a_step = float(row[f"train_flops_{c_convention}"]) / float(row["n_steps"])
        wanted = budgets / flops_a_step
        inside = (wanted >= steps[0]) & (wanted <= float(row["n_steps"]))
        level = np.interp(np.log(wanted[inside]), np.log(steps), loss)
        columns["N"] += [float(row[f"n_params_{n_convention}"])] * int(inside.sum())
        columns["D"] += (wanted[inside] * float(row["batch_tokens"])).tolist()
        columns["C"] += budgets[inside].tolist()
        columns["L"] += level.tolist()
        cluster += [k] * int(inside.sum())
    made = points_from_columns({k: np.array(v) for k, v in columns.items()})
    return replace(
        made, budget=made.train_flops, cluster=np.array(cluster, np.int64),
        n_convention=n_convention, c_convention=c_convention,  # type: ignore[arg-type]
    )  # fmt: skip


def rung(name: str, points: Points, n_runs: int) -> Rung:
    """The exponent of one set of points by every method."""
    found: dict[str, tuple[float, tuple[float, float]]] = {
        method: by_minima(points, method) for method in METHODS
    }
    joint = _joint(points)
    key = "a" if points.c_convention.startswith("6n") else "a_numeric"
    found["joint"] = (
        joint.allocation.get(key, math.nan),
        joint.allocation_intervals.get(key, (math.nan, math.nan)),
    )
    return Rung(name, points, found, tuple(minima(points)), n_runs)


def _joint(points: Points) -> Fit:
    ladder = ladder_from_points(points) if len(set(points.n_params)) > 1 else None
    return fit(
        Chinchilla(), points, paper_laws.OBJECTIVE, n_bootstrap=paper_laws.N_BOOTSTRAP,
        ladder=ladder,
    )  # fmt: skip


def by_minima(points: Points, method: Method) -> tuple[float, tuple[float, float]]:
    """a of the isoFLOP minima, and its interval from residuals that a run has in common.

    Points of one run at several budgets rise and fall together; drawing their residuals apart would
    count each run several times.
    """
    found = minima(points, method)
    central = exponents(found, n_bootstrap=0)
    accepted = [m for m in found if m.ok]
    pool = _residuals(accepted, method)
    if not central.ok or not len(pool):
        return central.a, (math.nan, math.nan)
    generator = np.random.default_rng(0)
    codes = np.unique(points.cluster, return_inverse=True)[1]
    base = _fitted(points, found, method)
    draws = []
    for _ in range(N_DRAWS):
        noise = generator.choice(pool, codes.max() + 1)[codes]
        redrawn = replace(points, loss_nats=base * np.exp(noise))
        draws.append(exponents(minima(redrawn, method), n_bootstrap=0).a)
    return central.a, percentile_interval(np.array(draws))


def _residuals(accepted: Sequence[IsoflopMinimum], method: Method) -> np.ndarray:
    """Residuals of log loss about the curves of all accepted budgets, of the size of new ones."""
    if method != "parabola":
        parts = [
            vertices.neighbour_residuals(np.log(m.size_n_params), np.log(m.size_loss_nats))
            for m in accepted
        ]
        return np.concatenate(parts) if parts else np.empty(0)
    parts = [
        np.log(m.size_loss_nats / np.polyval(m.coefficients, np.log(m.size_n_params)))  # type: ignore[arg-type]
        for m in accepted
    ]
    n_rows = sum(map(len, parts))
    freedom = n_rows - 3 * len(parts)
    return np.concatenate(parts) * math.sqrt(n_rows / freedom) if freedom > 0 else np.empty(0)


def _fitted(points: Points, found: Sequence[IsoflopMinimum], method: Method) -> np.ndarray:
    """Losses on the parabola of their budget where one was accepted, else as measured."""
    base = points.loss_nats.copy()
    for m in found if method == "parabola" else ():
        if m.ok:
            own = points.budget == m.budget
            base[own] = np.polyval(m.coefficients, np.log(points.n_params[own]))  # type: ignore[arg-type]
    return base
