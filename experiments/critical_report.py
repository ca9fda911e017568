"""The ending of `critical_batch`: tables of B_crit and B_simple, their ratio, and a figure."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.frontier.critical_batch import (
    Compared,
    Critical,
    CriticalLaw,
    Curve,
    compare,
    critical_batches,
    critical_law,
    targets,
)
from analysis.intervals.uncertainty import percentile_interval
from analysis.load import Sweep
from analysis.tables import interval, number
from experiments.ending import Ending
from experiments.plan import Plan

if TYPE_CHECKING:
    import pandas as pd

    from analysis.figures.critical_batch import SizeFound

Row = Mapping[Any, Any]
Points = tuple[np.ndarray, np.ndarray]

CAPTION = (
    "Left: steps and tokens to each loss, the least over learning rates, one point a batch, with "
    "the hyperbola (S/S_min - 1)(E/E_min - 1) = 1. Right: B_crit of those fits and its law, with "
    "the gradient noise scale B_simple of the same runs at the loss where it was averaged; hollow "
    "where that loss lies outside of the losses of the sweep."
)


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """Everything that the records of a batch sweep say, size by size."""
    from analysis.figures.critical_batch import critical_figure

    rows = sweep.runs.to_dict("records")
    found = by_size(rows, points_of(sweep.curves), int(plan.options["n_targets"]))
    tables = tables_of(found)
    diverged = sum(row["status"] == "diverged" for row in rows)
    sentences = (
        f"{plan.name}: plan {plan.hash}, {len(rows)} runs, {diverged} diverged; B_crit and "
        "B_simple in tokens, losses are training losses in nats/token",
        "intervals of B_crit resample the residuals of whole batches about S = S_min + E_min / B; "
        "that the fewest steps were found at three or more rates a batch is taken for granted",
        "the ratio is B_crit by the law over B_simple, at the loss where B_simple was averaged",
        *_edges(found),
    )
    figure = critical_figure(plan.name, found, corpus=str(plan.options["corpus"]), n_runs=len(rows))
    return Ending(
        tables, sentences, {"tables": tables}, {"critical_batch": (figure, CAPTION)}
    )  # fmt: skip


def by_size(rows: Sequence[Row], points: Mapping[str, Points], n_targets: int) -> "list[SizeFound]":
    """B_crit at `n_targets` losses, its law, and the noise scale beside it, of every size."""
    from analysis.figures.critical_batch import SizeFound

    found = []
    for size in sorted({(row["n_layers"], row["d_model"]) for row in rows}):
        mine = [row for row in rows if (row["n_layers"], row["d_model"]) == size]
        curves = curves_of(mine, points)
        losses = targets(curves, n_targets)
        critical = critical_batches(curves, losses)
        law = critical_law(critical)
        compared = compare(law, best_noise(mine, points))
        found.append(SizeFound(f"{size[0]}x{size[1]}", tuple(critical), law, tuple(compared)))
    return found


def tables_of(found: "Sequence[SizeFound]") -> dict[str, list[dict[str, str]]]:
    """What was found of every size, as rows by title."""
    tables = {}
    for size in found:
        tables[f"{size.name}: critical batch by loss (90% intervals)"] = _critical(size.critical)
        tables[f"{size.name}: gradient noise scale beside it"] = _compared(size.compared)
    laws = {size.name: _law(size.law) for size in found}
    tables["B_crit = B* / L^(1/alpha_B)"] = [{"size": k} | v for k, v in laws.items()]
    return tables


def curves_of(rows: Sequence[Row], points: Mapping[str, Points]) -> list[Curve]:
    """Training curves of the finished runs."""
    return [
        Curve(float(row["batch_tokens"]), float(row["lr"]), *points[row["run_id"]])
        for row in rows
        if row["status"] == "finished"
    ]


def best_noise(rows: Sequence[Row], points: Mapping[str, Points]) -> list[dict[str, float]]:
    """Of every batch whose noise scale is known, the run of lowest final loss."""
    best: dict[float, Row] = {}
    for row in rows:
        known = math.isfinite(row["noise_scale_se"] or math.nan) and row["status"] == "finished"
        batch = row["batch_tokens"]
        if known and row["loss_nats"] < best.get(batch, {"loss_nats": math.inf})["loss_nats"]:
            best[batch] = row
    names = ("batch_tokens", "lr", "noise_scale_tokens", "noise_scale_se")
    return [
        {name: float(row[name]) for name in names}
        | {"loss_nats": late_loss(*points[row["run_id"]])}
        for _, row in sorted(best.items())
    ]


def late_loss(steps: np.ndarray, losses: np.ndarray) -> float:
    """Mean training loss of the last half of the steps, over which the noise scale is averaged."""
    weight = np.diff(steps, prepend=0.0) * (steps > steps[-1] / 2)
    return float(np.average(losses, weights=weight))


def points_of(curves: "pd.DataFrame") -> dict[str, Points]:
    """Steps and losses of every run's curve."""
    order = np.lexsort((curves["step"], np.asarray(curves["run_id"], str)))
    ids, steps, losses = (
        np.asarray(curves[name])[order] for name in ("run_id", "step", "loss_nats")
    )
    names, first = np.unique(ids.astype(str), return_index=True)
    parts = zip(np.split(steps, first[1:]), np.split(losses, first[1:]), strict=True)
    return {str(name): pair for name, pair in zip(names, parts, strict=True)}


def _critical(found: Sequence[Critical]) -> list[dict[str, str]]:
    return [
        {
            "loss": number(c.loss_nats),
            "S_min": spread(c.s_min),
            "E_min": spread(c.e_min),
            "B_crit": spread(c.b_crit),
            "steps by batch": ", ".join(
                f"{b:.0f}: {number(s, 3)}" for b, s in zip(c.batch_tokens, c.n_steps, strict=True)
            ),
            "status": c.status,
        }
        for c in found
    ]


def _compared(found: Sequence[Compared]) -> list[dict[str, str]]:
    return [
        {
            "batch": f"{c.batch_tokens:,.0f}",
            "lr": number(c.lr, 3),
            "loss": number(c.loss_nats),
            "B_simple": f"{number(c.b_simple, 3)} {interval(c.interval, 3)}",
            "B_crit / B_simple": spread(c.ratio),
            "at a loss of the sweep": "no, by the law beyond it" if c.is_extrapolated else "yes",
        }
        for c in found
    ]


def _law(law: CriticalLaw) -> dict[str, str]:
    return {
        "B*": spread(law.b_star),
        "1/alpha_B": spread(1 / law.alpha_b),
        "losses": interval(law.loss_range),
        "status": law.status,
    }


def _edges(found) -> list[str]:
    said = []
    for size in found:
        counts = {c.loss_nats: len(c.at_edge) for c in size.critical}
        total = sum(len(c.batch_tokens) for c in size.critical)
        said.append(
            f"{size.name}: in {sum(counts.values())} of {total} pairs of loss and batch the fewest "
            "steps are at the lowest or highest rate tried, so they may be fewer"
        )
    return said


def spread(values: np.ndarray) -> str:
    """The measured value (row 0) with the interval of its draws."""
    return f"{number(float(values[0]), 3)} {interval(percentile_interval(values[1:]), 3)}"
