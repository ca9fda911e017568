"""Runs of constant rate, read along their way: a run of S steps is every shorter one as well."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.frontier.critical_batch import Curve, smoothed
from analysis.load import Sweep
from experiments import critical_report, paper_laws
from experiments.papers import Frame, part_of
from experiments.plan import Plan

EARLIER = (0.25, 0.5)
"""Budgets below the smallest of the plan at which trunks are read too, as shares of it."""

Points = tuple[np.ndarray, np.ndarray]


def along_trunks(plan: Plan, sweep: Sweep) -> Frame:
    """A row for every trunk at every budget that it passes: as if it had ended there.

    Losses are smoothed training losses of one pass, times the one ratio of final validation loss to
    them over all trunks, so that they stand for validation losses. Rows of a trunk are one cluster.
    """
    import pandas as pd

    trunks = part_of(plan, sweep, "trunks", "more_seeds")
    done = trunks[trunks["status"] == "finished"]
    curves = critical_report.points_of(paper_laws.curves_of(sweep, done))
    ends = np.unique(done["isoflop_budget"].to_numpy(float))
    budgets = staircase(plan, float(ends.max(initial=0.0)))
    budgets = np.concatenate([budgets[:1] * np.array(EARLIER), budgets])
    rows = done.to_dict("records")
    last = [loss_at(row, curves[row["run_id"]], float(row["n_tokens"])) for row in rows]
    ratio = float(np.mean([row["loss_nats"] / loss for row, loss in zip(rows, last, strict=True)]))
    made = [
        _ended(row, budget / row["isoflop_budget"], budget, curves[row["run_id"]], ratio)
        for row in rows
        for budget in budgets
        if budget <= row["isoflop_budget"] * 1.001
    ]
    return pd.DataFrame(made, columns=trunks.columns)


def staircase(plan: Plan, largest: float) -> np.ndarray:
    """Budgets of the plan's scale up to the largest that a trunk reaches, in rising order."""
    from experiments.papers import SCALES

    budgets = np.sort([c for c, _ in SCALES[plan.options["scale"]].stairs.budgets])
    return budgets[budgets <= largest * 1.001]


def _ended(
    row: Mapping[Any, Any], share: float, budget: float, points: Points, ratio: float
) -> dict[Any, Any]:
    """The trunk's row as if it had ended at a share of its steps."""
    scaled = {
        name: row[name] * share
        for name in row
        if name.startswith("train_flops_") or name in ("n_tokens_unique", "n_epochs")
    }
    n_steps = round(row["n_steps"] * share)
    n_tokens = n_steps * int(row["batch_tokens"])
    is_end = share > 0.999
    return {
        **row,
        **scaled,
        "run_id": row["run_id"] if is_end else f"{row['run_id']} at {budget:.3g}",
        "trunk_run_id": row["run_id"],
        "isoflop_budget": budget,
        "n_steps": n_steps,
        "n_tokens": n_tokens,
        "loss_nats": ratio * loss_at(row, points, float(n_tokens)),
    }


def smooth_curve(row: Mapping[Any, Any], points: Points) -> Points:
    """Steps and training losses of a run, smoothed."""
    return smoothed(Curve(float(row["batch_tokens"]), float(row["lr"]), *points))


def loss_at(row: Mapping[Any, Any], points: Points, n_tokens: float) -> float:
    """The smoothed training loss of a run after so many tokens."""
    steps, loss = smooth_curve(row, points)
    return float(np.interp(math.log(n_tokens / row["batch_tokens"]), np.log(steps), loss))
