"""The ending of `kaplan_2020`: every law of the paper beside what it printed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.fit import Fit, fit
from analysis.intervals.uncertainty import percentile_interval
from analysis.laws import KaplanND, KaplanNS, PowerLaw
from analysis.load import Points, Sweep, points_from_columns
from analysis.tables import Row
from experiments import critical_batch, critical_report, kaplan_tables, paper_laws
from experiments.ending import Ending
from experiments.kaplan_2020 import BATCH
from experiments.kaplan_reading import along_trunks, loss_at, smooth_curve
from experiments.kaplan_tables import COUNTS
from experiments.paper_laws import exponent
from experiments.papers import Frame, part_of
from experiments.plan import Plan

if TYPE_CHECKING:
    from analysis.figures.critical_batch import SizeFound
    from analysis.figures.inputs import FigureInputs
    from analysis.figures.shapes import Shape

FIGURES = (
    "kaplan_panels", "learning_curves", "data_and_steps", "embeddings", "min_compute",
    "off_optimal", "position",
)  # fmt: skip
AFTER_WARMUP = 3.0
"""Times the warm-up from which a curve counts for L(D)."""
SHAPES_CAPTION = (
    "Excess loss of models of nearly one N. Left: by width over depth. Right: by the width of a "
    "head, at one depth and width. Dashes are single seeds."
)


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """L(N), L(D), L(C), L(N, D), L(N, S), B_crit, C_min, allocation, shape, counts, position."""
    from analysis.figures.critical_batch import critical_figure
    from analysis.figures.shapes import shapes_figure

    runs = along_trunks(plan, sweep)
    batches = by_batch(plan, sweep)
    inputs = paper_laws.figure_inputs(plan, sweep, runs, "constant rate")
    if batches and len(inputs.main_points):
        inputs = replace(inputs, critical=batches[-1].law)
    laws = single_laws(plan, sweep, runs)
    both = {
        "L(N, D)": paper_laws.surface(paper_laws.settled(runs, "non_embedding"), KaplanND()),
        "L(N, S)": fit(
            KaplanNS(), _curve_points(inputs), paper_laws.OBJECTIVE,
            n_bootstrap=paper_laws.N_BOOTSTRAP,
        ),
    }  # fmt: skip
    found_shapes = shapes(part_of(plan, sweep, "shapes"), laws["L(N), without embeddings"])
    powers = allocation(inputs)
    tables: dict[str, Sequence[Row]] = {
        "Laws of one variable (90% intervals)": kaplan_tables.single_rows(laws, inputs),
        "L(N, D) and L(N, S), N without embeddings": kaplan_tables.joint_rows(both),
        **critical_report.tables_of(batches),
        "Optimal allocation at a constant rate": powers["rows"],
        "Shape at nearly one N": kaplan_tables.shape_rows(found_shapes),
        "N with and without embeddings": kaplan_tables.count_rows(inputs, laws),
        "Loss by position, L(t) = E + A / t^alpha": kaplan_tables.position_rows(inputs),
        "The recipe, tuned and frozen before": paper_laws.recipe_rows(runs),
    }
    figures, absent = paper_laws.drawn(inputs, FIGURES)
    if batches:
        figure = critical_figure(
            plan.name, batches,
            corpus=str(plan.options["corpus"]), n_runs=len(batch_runs(plan, sweep)),
        )  # fmt: skip
        figures["critical_batch"] = figure, critical_report.CAPTION
    d_head = int(runs["d_head"].iloc[0])
    figures["shapes"] = (shapes_figure(plan.name, found_shapes, d_head), SHAPES_CAPTION)
    named = {
        **paper_laws.spent(paper_laws.trained(sweep)),
        **kaplan_tables.named(laws, both, batches, powers, found_shapes, inputs),
    }
    summary = [
        ("alpha_N of L(N), no embeddings", named["alpha_n"], "0.076"),
        ("alpha_D of L(N, D)", named["alpha_d_joint"], "0.103"),
        ("alpha_C of L(C), naive", named["alpha_c"], "0.057"),
        ("a of N\\* ~ C^a, 6ND without embeddings, constant rate", named["a_minima"], "0.73"),
        ("1/alpha_B of B_crit", named["inverse_alpha_b"], "4.8"),
        ("spread of loss over shapes of one N", named["shape_spread"], "a few %"),
    ]
    sentences = (
        f"{plan.name}: plan {plan.hash}, {named['n_runs']} runs, {named['n_diverged']} diverged",
        *absent,
    )
    return Ending(tables, sentences, paper_laws.told(named, tables, summary), figures)


def batch_runs(plan: Plan, sweep: Sweep) -> Frame:
    """The batch sweep, with the rates that it asked for: all runs that are of no other part."""
    others = [i for part, ids in plan.options["parts"].items() if part != BATCH for i in ids]
    return sweep.runs[~sweep.runs["run_id"].isin(others)]


def by_batch(plan: Plan, sweep: Sweep) -> "list[SizeFound]":
    """B_crit of each size of the batch sweep."""
    rows = batch_runs(plan, sweep).to_dict("records")
    points = critical_report.points_of(sweep.curves)
    return critical_report.by_size(rows, points, critical_batch.Options().n_targets)


def single_laws(plan: Plan, sweep: Sweep, runs: Frame) -> dict[str, Fit]:
    """L(N) at one D under both counts, and L(D) of the largest model, from the trunks' curves.

    D is what the trunk of fewest tokens saw. One run has no interval.
    """
    trunks = part_of(plan, sweep, "trunks").sort_values("n_params_total")
    trunks = trunks[trunks["status"] == "finished"]
    curves = critical_report.points_of(paper_laws.curves_of(sweep, trunks))
    rows = trunks.to_dict("records")
    least = min(float(row["n_tokens"]) for row in rows)
    losses = np.array([loss_at(row, curves[row["run_id"]], least) for row in rows])
    found = {}
    for count, name in COUNTS.items():
        sizes = trunks[f"n_params_{count}"].to_numpy(float)
        found[f"L(N), {name}"] = _fit(PowerLaw("N"), {"N": sizes, "L": losses})
    last = rows[-1]
    steps, loss = smooth_curve(last, curves[last["run_id"]])
    late = steps > AFTER_WARMUP * float(last["warmup_steps"])
    tokens = steps[late] * float(last["batch_tokens"])
    found["L(D), largest model"] = _fit(PowerLaw("D"), {"D": tokens, "L": loss[late]}, draws=0)
    return found


def _fit(law: Any, columns: dict[str, np.ndarray], draws: int | None = None) -> Fit:
    n_bootstrap = paper_laws.N_BOOTSTRAP if draws is None else draws
    return fit(law, points_from_columns(columns), paper_laws.OBJECTIVE, n_bootstrap=n_bootstrap)


def _curve_points(inputs: "FigureInputs") -> Points:
    """Points (N, S, L) along the curves, N without embeddings."""
    from analysis.figures.learning import curve_points

    return curve_points(replace(inputs, headline=("non_embedding", "matmul_full")))


def allocation(inputs: "FigureInputs") -> dict[str, Any]:
    """Exponents of N* at a constant rate: minima, envelope of curves, and in C_min."""
    from analysis.figures.min_compute import power_of, winners

    rows: list[Row] = []
    values = {}
    for row in inputs.conventions:
        found = exponent(row.isoflop.a, row.isoflop.intervals["a"]) if row.isoflop.ok else "none"
        joint = exponent(row.fit.allocation.get("a"), row.fit.allocation_intervals.get("a"))
        values[row.n_convention, row.c_convention] = (found, joint)
        way = f"N {row.n_convention}, C {row.c_convention}"
        rows.append({"quantity": "a, isoFLOP minima", "counted": way, "value": found})
        if row.c_convention.startswith("6n"):
            rows.append({"quantity": "a, L(N, D) with a floor", "counted": way, "value": joint})
    critical = inputs.critical
    ways: dict[str, Any] = {"C": None}
    if critical is not None and np.isfinite(critical.b_star[0]):
        ways["C_min"] = critical
    for name, law in ways.items():
        best = winners(inputs, law)
        for letter, column in (("N", best.n_params), ("S_min" if law else "S", best.n_steps)):
            slope, _ = power_of(best.flops, column)
            text = exponent(float(slope[0]), percentile_interval(slope[1:]))
            counted = f"envelope of curves, N {inputs.headline[0]}"
            rows.append({"quantity": f"{letter} ~ {name}^x, x", "counted": counted, "value": text})
            values[name, letter] = (text, "")
    return {"rows": rows, "values": values}


def shapes(runs: Frame, law: Fit) -> "list[Shape]":
    """Of each shape the loss over the lowest, corrected to the median N by the slope of L(N)."""
    from analysis.figures.shapes import Shape

    done = runs[runs["status"] == "finished"]
    alpha = law.parameters["alpha"] if law.ok else 0.0
    sizes = done["n_params_non_embedding"].to_numpy(float)
    loss = done["loss_nats"].to_numpy(float) * (sizes / np.median(sizes)) ** alpha
    keys = ["n_layers", "d_model", "d_head"]
    grouped = done.assign(loss=loss).groupby(keys)["loss"].apply(list).to_dict()
    lowest = min((float(np.mean(values)) for values in grouped.values()), default=1.0)
    return [
        Shape(
            int(layers),
            int(width),
            int(d_head),
            float(np.mean(values)) / lowest - 1,
            tuple(v / lowest - 1 for v in values),
        )
        for (layers, width, d_head), values in grouped.items()
    ]
