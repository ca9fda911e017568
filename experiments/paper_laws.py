"""What the experiments on the core papers fit and draw alike: surfaces, seeds, figures, words."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.fit import Fit, fit
from analysis.frontier.approaches import ApproachRow
from analysis.intervals.uncertainty import predict_run
from analysis.laws import Chinchilla, KaplanND, Law
from analysis.load import Points, Sweep, drop_flagged, points_from_runs
from analysis.study import LEFT_OUT, ConventionPrediction, study
from analysis.tables import Row, interval, number
from experiments.papers import Frame
from experiments.plan import Cell, Plan
from model.accounting import count_params

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.figures.inputs import FigureInputs, Step

OBJECTIVE = "ls_log"
"""As in experiments.stages: runs of one recipe have no outliers that survive quality control."""

N_BOOTSTRAP = 500
Interval = tuple[float, float]


def settled(runs: Frame, n_convention: Any = "total", c_convention: Any = "matmul_full") -> Points:
    """The points of runs without those that quality control calls too short for a law."""
    return drop_flagged(points_from_runs(runs, n_convention, c_convention), *LEFT_OUT)


def surface(points: Points, law: Law | None = None) -> Fit:
    """A law of N and D through points; Chinchilla's by default."""
    return fit(law or Chinchilla(), points, OBJECTIVE, n_bootstrap=N_BOOTSTRAP)


def surface_predictions(runs: Frame, cell: Cell) -> tuple[ConventionPrediction, ...]:
    """A run's loss by Chinchilla's law through the runs, under both counts of N."""
    return tuple(
        _prediction("chinchilla", surface(settled(runs, n)), n, cell)
        for n in ("total", "non_embedding")
    )


def kaplan_predictions(runs: Frame, cell: Cell) -> tuple[ConventionPrediction, ...]:
    """A run's loss by Kaplan's L(N, D), which has no floor, and by Chinchilla's."""
    points = settled(runs, "non_embedding")
    laws = (KaplanND(), Chinchilla())
    return tuple(_prediction(law.name, surface(points, law), "non_embedding", cell) for law in laws)


def _prediction(version: str, found: Fit, n_convention: str, cell: Cell) -> ConventionPrediction:
    n_params = getattr(count_params(cell.spec.model), n_convention)
    made = predict_run(found, n_params=n_params, n_tokens=cell.spec.n_tokens)
    return ConventionPrediction(version, n_convention, n_params, made)


def figure_inputs(
    plan: Plan, sweep: Sweep, runs: Frame, title: str, steps: "tuple[Step, ...]" = ()
) -> "FigureInputs":
    """What the catalogue's figures are drawn from, of some runs of a sweep."""
    from analysis.figures.inputs import FigureInputs
    from analysis.frontier.loss_of_compute import curve_envelope

    fitted = study(runs, OBJECTIVE, n_bootstrap=N_BOOTSTRAP)
    curves = curves_of(sweep, runs)
    return FigureInputs(
        title=f"{plan.name}, {title}",
        corpus=str(plan.options["corpus"]),
        runs=runs,
        curves=curves,
        points=fitted.points,
        conventions=fitted.settled,
        all_cells=fitted.all_cells,
        frontiers=fitted.frontiers,
        envelope=curve_envelope(curves),
        evaluations=sweep.evaluations,
        unit="nats/byte" if plan.options["tokenizer"] == "bytes" else "nats/token",
        steps=steps,
    )


def curves_of(sweep: Sweep, runs: Frame) -> Frame:
    """The training curves of some runs."""
    every: Frame = sweep.curves
    return every[every["run_id"].astype(str).isin(set(runs["run_id"]))]


def drawn(
    inputs: "FigureInputs", names: Sequence[str]
) -> "tuple[dict[str, tuple[Figure, str]], tuple[str, ...]]":
    """Figures of the catalogue with their captions, and a sentence for each that is not there."""
    from analysis.figures.draw import named, not_drawn

    drawings = named(names)
    lacking = not_drawn(inputs, drawings)
    made = {d.name: (d.draw(inputs), d.caption) for d in drawings if d.name not in lacking}
    return made, tuple(f"figure {name} is not drawn: {why}" for name, why in lacking.items())


def seed_noise(runs: Frame) -> tuple[float, int]:
    """Standard deviation of log loss between seeds of equal runs, and its degrees of freedom."""
    groups = defaultdict(list)
    names = ["n_layers", "d_model", "d_head", "n_tokens", "batch_tokens", "lr", "beta2", "schedule"]
    for row in runs[runs["status"] == "finished"].to_dict("records"):
        key = (*(row[name] for name in names), row["warmup_steps"])
        groups[key].append(math.log(row["loss_nats"]))
    squares = sum(float(np.var(logs) * len(logs)) for logs in groups.values())
    degrees = sum(len(logs) - 1 for logs in groups.values())
    return (math.sqrt(squares / degrees) if degrees else math.nan), degrees


def with_interval(value: float | None, bounds: Interval | None, digits: int = 3) -> str:
    """A number with its interval, to so many digits; "none" where there is none."""
    if value is None or not math.isfinite(value):
        return "none"
    span = interval(bounds, digits)
    return number(value, digits) if span == "-" else f"{number(value, digits)} {span}"


def parameter(found: Fit, name: str, digits: int = 3) -> str:
    """A parameter of a fit with its interval."""
    return with_interval(found.parameters[name], found.intervals[name], digits) if found.ok else (
        "none"
    )  # fmt: skip


def exponent(value: float | None, bounds: Interval | None) -> str:
    """An exponent with its interval, to two decimals."""
    from analysis.figures.text import with_interval

    bounds = bounds or (math.nan, math.nan)
    return "none" if value is None else with_interval(value, bounds)


def approach_rows(rows: Sequence[ApproachRow], n_convention: str, c_convention: str) -> list[Row]:
    """Table 2 of Hoffmann et al. under one convention: exponents with intervals, and the bias."""
    return [
        {
            "N": n_convention,
            "C": c_convention,
            "approach": str(row.approach),
            "method": row.method,
            "a": exponent(row.found.a, row.found.intervals.get("a")),
            "b": exponent(row.found.b, row.found.intervals.get("b")),
            "bias of a": f"{row.bias_a:+.2f}" if math.isfinite(row.bias_a) else "-",
            "status": row.found.status,
        }
        for row in rows
    ]


def minimum_rows(minima: Sequence[Any]) -> list[Row]:
    """The minimum of every isoFLOP budget."""
    return [
        {
            "budget": f"{m.budget:.3g}",
            "sizes": str(len(m.size_n_params)),
            "N*": number(m.n_params, 3),
            "D*": number(m.n_tokens, 3),
            "loss": number(m.loss_nats),
            "status": m.status,
        }
        for m in minima
    ]


def recipe_rows(runs: Frame) -> list[Row]:
    """What every size was trained with: peak rate, batch, schedule, as it was frozen."""
    columns = ["n_params_total", "n_layers", "d_model", "lr", "batch_tokens", "beta2", "schedule"]
    each = runs[columns].drop_duplicates().sort_values(["schedule", "n_params_total"])
    return [
        {
            "LxD": f"{row['n_layers']}x{row['d_model']}",
            "N total": f"{row['n_params_total']:,}",
            "peak rate": number(row["lr"], 3),
            "batch, tokens": str(row["batch_tokens"]),
            "beta2": number(row["beta2"], 3),
            "schedule": row["schedule"],
        }
        for row in each.to_dict("records")
    ]


def trained(sweep: Sweep) -> Frame:
    """All runs but the one that was held out."""
    runs: Frame = sweep.runs
    return runs[runs["role"] != "held_out"]


def spent(runs: Frame) -> dict[str, str]:
    """How many runs there are, what became of them, and their training FLOPs, for prose."""
    return {
        "n_runs": str(len(runs)),
        "n_diverged": str(int((runs["status"] == "diverged").sum())),
        "flops": number(float(runs["train_flops_charged"].sum()), 2),
        "n_params_low": f"{int(runs['n_params_total'].min()):,}",
        "n_params_high": f"{int(runs['n_params_total'].max()):,}",
    }


def told(
    named: Mapping[str, str],
    tables: Mapping[str, Sequence[Row]],
    summary: Sequence[tuple[str, str, str]],
) -> dict[str, Any]:
    """The numbers of an ending: those that prose may name, all tables, and (quantity, here, as
    printed) of what was reproduced."""
    return {"named": dict(named), "tables": dict(tables), "summary": [list(row) for row in summary]}
