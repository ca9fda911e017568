"""The endings of `n_ladder` and `d_ladder`: the law of one variable that each is about."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.fit import Fit, fit
from analysis.laws import DataConstrained, Law, PowerLaw, PowerLawFloor
from analysis.load import Points, Sweep, points_from_runs, select
from analysis.tables import Row, fit_rows, number
from experiments.ending import Ending
from experiments.plan import Plan

OBJECTIVE = "ls_log"
MIN_SIZES_OF_REPETITION = 3
"""Sizes below which A and alpha of N in Muennighoff's law are not told apart from its floor."""
ONE_EPOCH = 1.0


def conclude_n(plan: Plan, sweep: Sweep) -> Ending:
    """L(N) under both counts of N, with and without a floor."""
    from analysis.figures.one_variable import draw_one_variable

    tables: dict[str, Sequence[Row]] = {"Runs": run_rows(sweep)}
    fits: dict[str, Fit] = {}
    points = {n: points_from_runs(sweep.runs, n) for n in ("total", "non_embedding")}
    for convention, of_convention in points.items():
        for law in (PowerLawFloor("N"), PowerLaw("N")):
            fits[f"{law.equation.replace('x', 'N')}, N {convention}"] = _fit(law, of_convention)
    tables |= {name: fit_rows(found) for name, found in fits.items() if found.ok}
    drawn = points["total"]
    figures = {}
    if len(drawn):
        laws = [(name, "n_params", f) for name, f in fits.items() if name.endswith("total")]
        series = [("runs", drawn.n_params, drawn.loss_nats)]
        figure = draw_one_variable(plan.name, "parameters N, all counted", series, laws)
        figures = {"n_ladder": (figure, "Loss against size, and the laws fitted to it.")}
    return Ending(tables, _said(fits, sweep), _values(fits), figures)


def conclude_d(plan: Plan, sweep: Sweep) -> Ending:
    """L(D) of each size from its runs of one epoch; what repeated tokens are worth beside them."""
    from analysis.figures.one_variable import draw_one_variable

    every = points_from_runs(sweep.runs)
    epochs = every.extra["n_epochs"]
    tables: dict[str, Sequence[Row]] = {"Runs": run_rows(sweep)}
    fits, series, laws = {}, [], []
    worth: list[dict[str, str]] = []
    for n_params in np.unique(every.n_params):
        of_size = every.n_params == n_params
        fresh = _where(every, of_size & (epochs <= ONE_EPOCH))
        name = f"L(D) = E + A / D^alpha at N = {n_params:,.0f}"
        fits[name] = _fit(PowerLawFloor("D"), fresh)
        again = _where(every, of_size & (epochs > ONE_EPOCH))
        worth += _worth(n_params, fits[name], again)
        laws.append((name, "n_tokens", fits[name]))
        series.append((f"N = {n_params:,.0f}, one epoch", fresh.n_tokens, fresh.loss_nats))
        if len(again):
            label = f"N = {n_params:,.0f}, repeated"
            series.append((label, again.n_tokens, again.loss_nats))
    sentences = []
    if (epochs > ONE_EPOCH).any():
        if (n_sizes := len(laws)) >= MIN_SIZES_OF_REPETITION:
            fits["Muennighoff's law of repeated tokens"] = _fit(DataConstrained(), every)
        else:
            sentences.append(
                f"Muennighoff's law needs {MIN_SIZES_OF_REPETITION} sizes, here are {n_sizes}; "
                "the table of worth needs one."
            )
    tables |= {name: fit_rows(found) for name, found in fits.items() if found.ok}
    if worth:
        tables["Repeated tokens: the fresh ones of equal loss, by L(D)"] = worth
    figures = {}
    if series:
        figure = draw_one_variable(plan.name, "tokens D, repeats counted", series, laws)
        figures = {"d_ladder": (figure, "Loss against tokens, and the laws of one epoch.")}
    values = {**_values(fits), "worth": worth}
    return Ending(tables, (*_said(fits, sweep), *sentences), values, figures)


def _fit(law: Law, points: Points) -> Fit:
    return fit(law, points, OBJECTIVE)


def _where(points: Points, wanted: np.ndarray) -> Points:
    return select(points, [None if keep else "not of this law" for keep in wanted])


def _worth(n_params: float, law: Fit, again: Points) -> list[dict[str, str]]:
    """Of runs that repeat tokens, the D of one epoch that the law gives their loss."""
    rows = []
    order = np.lexsort([again.n_tokens, again.extra["n_tokens_unique"]])
    for k in order:
        fresh = _equal_tokens(law, float(again.loss_nats[k]))
        rows.append(
            {
                "N": f"{n_params:,.0f}",
                "unique tokens": f"{again.extra['n_tokens_unique'][k]:,.0f}",
                "D tokens": f"{again.n_tokens[k]:,.0f}",
                "epochs": number(float(again.extra["n_epochs"][k]), 3),
                "loss": f"{again.loss_nats[k]:.4f}",
                "worth fresh tokens": number(fresh, 3),
                "of D": "-" if not math.isfinite(fresh) else f"{fresh / again.n_tokens[k]:.0%}",
            }
        )
    return rows


def _equal_tokens(law: Fit, loss_nats: float) -> float:
    """D of L(D) = E + A / D^alpha at a loss; NaN where the law has none."""
    if not law.ok or loss_nats <= law.parameters["E"]:
        return math.nan
    found = law.parameters
    return (found["A"] / (loss_nats - found["E"])) ** (1 / found["alpha"])


def run_rows(sweep: Sweep) -> list[dict[str, str]]:
    """One row a run, by size, unique tokens and D."""
    ordered = sweep.runs.sort_values(["n_params_total", "n_tokens_unique", "n_tokens", "seed_init"])
    return [_run_row(row) for row in ordered.to_dict("records")]


def _run_row(row: Mapping[Any, Any]) -> dict[str, str]:
    return {
        "run": row["run_id"][:8],
        "LxD": f"{row['n_layers']}x{row['d_model']}",
        "N total": f"{row['n_params_total']:,}",
        "D tokens": f"{row['n_tokens']:,}",
        "unique": f"{row['n_tokens_unique']:,}",
        "epochs": number(row["n_epochs"], 3),
        "seed": str(row["seed_init"]),
        "loss": number(row["loss_nats"], 5) if row["status"] == "finished" else row["status"],
    }


def _said(fits: Mapping[str, Fit], sweep: Sweep) -> tuple[str, ...]:
    """The status of every fit, and how many runs diverged."""
    told = [f"{name}: {'' if f.ok else 'no fit: '}{f.status}" for name, f in fits.items()]
    n_lost = sum(status != "finished" for status in sweep.runs["status"])
    return (*told, *([f"{n_lost} runs diverged and are in no fit"] if n_lost else []))


def _values(fits: Mapping[str, Fit]) -> dict[str, Any]:
    return {"laws": {name: found.to_json() for name, found in fits.items()}}
