"""The ending of `porian_2024`: the exponent at every rung, and what counting alone explains."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis import published
from analysis.fit import Fit, fit
from analysis.frontier import vertices
from analysis.frontier.allocation import ladder_from_points
from analysis.frontier.critical_batch import Curve, smoothed
from analysis.frontier.isoflop import IsoflopMinimum, Method, exponents, minima
from analysis.intervals.uncertainty import percentile_interval
from analysis.laws import Chinchilla
from analysis.laws.counting import optimal_flops
from analysis.load import Points, Sweep, points_from_columns, points_from_runs
from analysis.tables import Row, number
from experiments import critical_report, paper_laws
from experiments.ending import Ending
from experiments.paper_laws import exponent
from experiments.papers import Frame, part_of
from experiments.plan import Plan

METHODS: tuple[Method, ...] = ("parabola", "akima")
N_BUDGETS = 9
BUDGET_SPAN = 12.0
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


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """The ladder, the tuned choices' neighbours, and Pearce and Song's explanation."""
    rungs = ladder_of(plan, sweep)
    tuned = part_of(plan, sweep, "tuned", "tuned_seeds")
    printed = published.PORIAN_2024_LADDER[: len(rungs)]
    steps = tuple(_step(rung, at) for rung, at in zip(rungs, printed, strict=True))
    inputs = paper_laws.figure_inputs(plan, sweep, tuned, "the ladder", steps)
    counting = counted_alone(tuned)
    near = neighbour_rows(plan, sweep)
    tables: dict[str, Sequence[Row]] = {
        "The exponent a of N* ~ C^a at each rung (90% intervals)": _rung_rows(rungs),
        "IsoFLOP minima at each rung, by parabola": [
            {"rung": rung.name, **row}
            for rung in rungs
            for row in paper_laws.minimum_rows(rung.minima)
        ],
        "Counting alone (Pearce and Song): a without embeddings, from the law with them": counting[
            "rows"
        ],
        "Around the tuned choices: loss less that of the tuned run": near,
    }
    figures, absent = paper_laws.drawn(inputs, ("ladder",))
    sd = paper_laws.seed_noise(sweep.runs)
    named = {
        **paper_laws.spent(paper_laws.trained(sweep)),
        **{
            f"a_{k}_{method}": exponent(*rung.found[method])
            for k, rung in enumerate(rungs, 1)
            for method in rung.found
        },
        **counting["named"],
        "seed_sd": f"{sd[0]:.4f}",
        "best_neighbour": min(
            (row["difference"] for row in near), key=lambda text: float(text.rstrip("%")),
            default="none",
        ),
    }  # fmt: skip
    summary = [
        (
            f"a by isoFLOP minima, rung {k}: {rung.name}",
            named[f"a_{k}_parabola"],
            f"{published.PORIAN_2024_LADDER[k - 1][2]}",
        )
        for k, rung in enumerate(rungs, 1)
    ] + [("a without embeddings: measured, by counting alone", named["counting"], "0.73-0.78")]
    sentences = (
        f"{plan.name}: plan {plan.hash}, {named['n_runs']} runs, {named['n_diverged']} diverged",
        "intervals move all points of a run together: residuals about the curves are drawn a run",
        *absent,
    )
    return Ending(tables, sentences, paper_laws.told(named, tables, summary), figures)


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


def counted_alone(runs: Frame) -> dict[str, Any]:
    """What a is without embeddings, measured on the runs, and if only the count were changed.

    The law of the runs in all parameters is taken as true; N_total = N + omega N^(1/3) with the
    omega of these models turns its optimum into one without embeddings.

    Source: Pearce & Song 2024, arXiv:2406.12907, sec. 3.
    """
    total = paper_laws.surface(paper_laws.settled(runs, "total"))
    body = paper_laws.surface(paper_laws.settled(runs, "non_embedding"))
    sizes = runs.drop_duplicates("n_params_total")
    n = sizes["n_params_non_embedding"].to_numpy(float)
    factors = (sizes["n_params_total"].to_numpy(float) - n) / np.cbrt(n)
    omega = float(np.exp(np.log(factors).mean()))
    measured = exponent(body.allocation.get("a"), body.allocation_intervals.get("a"))
    with_all = exponent(total.allocation.get("a"), total.allocation_intervals.get("a"))
    slope, span = math.nan, (math.nan, math.nan)
    if total.ok:
        names = total.law.parameter_names
        vectors = np.vstack([[total.parameters[k] for k in names], total.draws])
        slopes = [_slope(dict(zip(names, v, strict=True)), n, omega) for v in vectors]
        slope, span = slopes[0], percentile_interval(np.array(slopes[1:]))
    alone = exponent(slope, span)
    rows: list[Row] = [
        {"a": "of all parameters, measured (joint fit, C = 6ND)", "value": with_all},
        {"a": "without embeddings, from that law by counting alone", "value": alone},
        {"a": "without embeddings, measured on the same runs", "value": measured},
        {
            "a": "omega of N_total = N + omega N^(1/3), and its range over the sizes",
            "value": f"{number(omega, 3)} [{number(factors.min(), 3)}, {number(factors.max(), 3)}]",
        },
    ]
    named = {
        "a_all": with_all, "a_counted": alone, "a_body": measured, "omega": number(omega, 3),
        "counting": f"{measured}; {alone}",
    }  # fmt: skip
    return {"rows": rows, "named": named}


def _slope(law: dict[str, float], n: np.ndarray, omega: float) -> float:
    """d log N* / d log C over the sizes, by least squares."""
    if not all(math.isfinite(v) for v in law.values()):
        return math.nan
    flops, _ = optimal_flops(np.geomspace(n.min(), n.max(), 33), law, omega)
    x = np.log(flops)
    return float(np.polyfit(x, np.log(np.geomspace(n.min(), n.max(), 33)), 1)[0])


def neighbour_rows(plan: Plan, sweep: Sweep) -> list[Row]:
    """Loss of every neighbour of the tuned choices against the tuned run of its size."""
    keys = ["n_layers", "d_model", "isoflop_budget"]
    columns = [*keys, "lr", "batch_tokens", "beta2", "loss_nats"]
    near = part_of(plan, sweep, "neighbours")[columns]
    tuned = part_of(plan, sweep, "tuned")[columns]
    both = near.merge(tuned, on=keys, suffixes=("", "_tuned"))
    return [
        {
            "LxD": f"{row['n_layers']}x{row['d_model']}",
            "budget": f"{row['isoflop_budget']:.3g}",
            "lr": number(row["lr"], 3),
            "batch": str(row["batch_tokens"]),
            "beta2": number(row["beta2"], 3),
            "loss": number(row["loss_nats"], 5),
            "difference": f"{row['loss_nats'] / row['loss_nats_tuned'] - 1:+.2%}",
        }
        for row in both.sort_values(["n_layers", "d_model"]).to_dict("records")
        if math.isfinite(row["loss_nats"])
    ]


def _step(rung: Rung, printed: tuple) -> Any:
    from analysis.figures.inputs import Step

    named = {"parabola": "isoFLOP minima, parabola", "akima": "isoFLOP minima, Akima",
             "joint": "joint fit, optimum under C"}  # fmt: skip
    found = tuple((named[k], a, span) for k, (a, span) in rung.found.items())
    _, _, a, span, _ = printed
    return Step(rung.name, found, (a, span))


def _rung_rows(rungs: Sequence[Rung]) -> list[Row]:
    return [
        {
            "rung": rung.name,
            "N": rung.points.n_convention,
            "C": rung.points.c_convention,
            "runs": str(rung.n_runs),
            **{
                name: exponent(*rung.found[key])
                for name, key in (
                    ("minima, parabola", "parabola"), ("minima, Akima", "akima"),
                    ("joint fit", "joint"),
                )
            },
            "printed": f"{printed[2]} {list(printed[3] or ())}",
        }
        for rung, printed in zip(rungs, published.PORIAN_2024_LADDER, strict=False)
    ]  # fmt: skip
