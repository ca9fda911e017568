"""The ending of `tune`: tables of optima, laws and exponents, a figure, and the named recipe."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.fit import Fit
from analysis.frontier.tuning import (
    Cell,
    Search,
    batch_law,
    best_cell,
    difference,
    lowest,
    noise_draws,
    rate_law,
    rate_law_at_best,
    ways_of_tuning,
)
from analysis.intervals.uncertainty import percentile_interval
from analysis.load import Sweep
from analysis.tables import fit_rows, interval, number
from experiments.ending import Ending
from experiments.plan import Plan
from experiments.recipe import Recipe
from experiments.recipes import NamedRecipe
from train.config import SpecError, from_json

Row = Mapping[Any, Any]
CELL_COLUMNS = ["n_params_non_embedding", "n_params_total", "n_tokens", "batch_tokens"]


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """Everything that the records of a tuning sweep say."""
    from analysis.figures.tuning import tuning_figure

    rows = sweep.runs.to_dict("records")
    sd, n_degrees = noise_of_seeds(rows)
    searches = searches_of(rows, sd, n_degrees)
    cells = cells_of(searches)
    laws = {
        "rate": rate_law(searches),
        "rate at the best batch": rate_law_at_best(cells),
        "batch": batch_law(cells),
    }
    tables = {
        "Best batch and rate of each N and D (90% intervals, noise of seeds)": _optima(cells),
        "Best rate of each batch": _searched(searches),
        **{f"Law of the {name}: {fit.law.equation}": _law_rows(fit) for name, fit in laws.items()},
        **_sensitivity(searches, float(plan.options["floor"])),
    }
    recipe = named_recipe(
        plan, searches, laws["rate"], laws["batch"], tuple(row["run_id"] for row in rows)
    )
    caption = (
        "Left: loss against learning rate of each (N, D) at its best batch, the vertex starred. "
        "Middle: best rate of every batch against the law's value. Right: best batch against D, "
        "with the law; hollow where the lowest loss is at the edge of the batches tried."
    )
    figure = tuning_figure(plan.name, searches, cells, laws["rate"], laws["batch"])
    return Ending(
        tables,
        _sentences(plan, rows, sd, n_degrees, searches, cells, laws, recipe),
        {"laws": {k: fit.to_json() for k, fit in laws.items()}, "tables": tables, "seed_sd": sd},
        {"tuning": (figure, caption)},
        recipe,
    )


def noise_of_seeds(rows: Sequence[Row]) -> tuple[float, int]:
    """Standard deviation of log loss between seeds of equal runs, and its degrees of freedom."""
    groups = defaultdict(list)
    for row in rows:
        if math.isfinite(row["loss_nats"]):
            groups[(*_key(row), row["lr"])].append(math.log(row["loss_nats"]))
    squares = sum(float(np.var(logs) * len(logs)) for logs in groups.values())
    n_degrees = sum(len(logs) - 1 for logs in groups.values())
    return (math.sqrt(squares / n_degrees) if n_degrees else math.nan), n_degrees


def searches_of(rows: Sequence[Row], sd: float, n_degrees: int) -> tuple[Search, ...]:
    """The grid's runs as searches over the rate, with draws of their noise.

    Raises: SpecError: no search has finished.
    """
    rng = np.random.default_rng(0)
    groups = defaultdict(dict)
    for row in rows:
        if row["role"] == "grid":
            groups[_key(row)][row["lr"]] = row["loss_nats"]
    if not groups:
        raise SpecError("the sweep has no finished run of its grid; run tune again")
    return tuple(
        Search(n, total, tokens, batch, np.array(sorted(found)), _draws(found, sd, n_degrees, rng))
        for (n, total, tokens, batch), found in sorted(groups.items())
    )


def _key(row: Row) -> tuple[float, float, float, float]:
    n, total, tokens, batch = (float(row[name]) for name in CELL_COLUMNS)
    return n, total, tokens, batch


def _draws(found: dict[float, float], sd: float, n_degrees: int, generator) -> np.ndarray:
    """Losses by increasing rate, (1 + S, K); a diverged run, which has none, is infinite."""
    losses = (found[rate] for rate in sorted(found))
    finite = (loss if math.isfinite(loss) else math.inf for loss in losses)
    return np.stack([noise_draws(loss, sd, n_degrees, generator) for loss in finite], -1)


def cells_of(searches: Sequence[Search]) -> tuple[Cell, ...]:
    """One optimum a (N, D)."""
    groups = defaultdict(list)
    for search in searches:
        groups[search.n_params_non_embedding, search.n_tokens].append(search)
    return tuple(best_cell(group) for group in groups.values())


def named_recipe(
    plan: Plan, searches: Sequence[Search], rate: Fit, batch: Fit, run_ids: tuple[str, ...]
) -> NamedRecipe | None:
    """The sweep's recipe with rate and batch by the laws; None where the rate has no law.

    Without a law of the batch, the batch stays the middle one of those that were tried.
    """
    if not rate.ok:
        return None
    base = from_json(Recipe, plan.options["recipe"], "recipe")
    sizes, tokens, batches = (
        np.array([getattr(search, name) for search in searches])
        for name in ("n_params_non_embedding", "n_tokens", "batch_tokens")
    )
    at_n, at_d = (float(np.exp(np.log(values).mean())) for values in (sizes, tokens))
    middle = float(np.exp(np.log(batches).mean()))
    wanted = float(batch.predict(n_tokens=at_d)) if batch.ok else middle
    batch_size = max(1, round(wanted / base.seq_len))
    lr = rate.predict(n_params=at_n, n_tokens=at_d, batch_tokens=batch_size * base.seq_len)
    recipe = dataclasses.replace(
        base,
        lr=float(lr),
        at_n_params=at_n,
        at_n_tokens=at_d,
        batch_size=batch_size,
        batch_exponent=batch.parameters["p_D"] if batch.ok else 0.0,
        lr_n_exponent=rate.parameters["p_N"],
        lr_d_exponent=rate.parameters["p_D"],
        lr_b_exponent=rate.parameters.get("p_B", 0.0),
    )
    return NamedRecipe(
        name=str(plan.options["save_as"]),
        recipe=recipe,
        n_params_range=(float(sizes.min()), float(sizes.max())),
        n_tokens_range=(float(tokens.min()), float(tokens.max())),
        plan_hash=plan.hash,
        run_ids=run_ids,
        laws={"lr": rate.to_json(), "batch": batch.to_json()},
    )


def _optima(cells: Sequence[Cell]) -> list[dict[str, str]]:
    return [
        {
            "N non-emb.": f"{cell.n_params_non_embedding:,.0f}",
            "D": f"{cell.n_tokens:,.0f}",
            "batch, tokens": f"{number(cell.batch.at[0], 3)} {interval(cell.batch.interval, 3)}",
            "batch is": cell.batch.status,
            "lr": f"{number(cell.lr.at[0], 3)} {interval(cell.lr.interval, 3)}",
            "loss": number(cell.batch.loss_nats[0]),
            "lr is": cell.lr.status,
        }
        for cell in cells
    ]


def _searched(searches: Sequence[Search]) -> list[dict[str, str]]:
    rows = []
    for search in searches:
        found = lowest(search.lr, search.loss_nats)
        measured = zip(search.lr, search.loss_nats[0], strict=True)
        losses = ", ".join(f"{rate:.3g}: {loss:.4f}" for rate, loss in measured)
        rows.append(
            {
                "N non-emb.": f"{search.n_params_non_embedding:,.0f}",
                "D": f"{search.n_tokens:,.0f}",
                "batch": f"{search.batch_tokens:,.0f}",
                "lr*": f"{number(found.at[0], 3)} {interval(found.interval, 3)}",
                "status": found.status,
                "loss by rate": losses,
            }
        )
    return rows


def _law_rows(fit: Fit) -> list[dict[str, str]]:
    return fit_rows(fit) if fit.ok else [{"parameter": "none", "status": fit.status}]


def _sensitivity(searches: Sequence[Search], floor: float) -> dict[str, list[dict[str, str]]]:
    """A table a batch that every (N, D) was trained with."""
    groups = defaultdict(list)
    for search in searches:
        groups[search.batch_tokens].append(search)
    n_cells = len({(s.n_params_total, s.n_tokens) for s in searches})
    shared = {b: group for b, group in groups.items() if len(group) == n_cells}
    title = "Exponents by way of tuning, batch {:,.0f} tokens, E held at {:g} (90%, noise of seeds)"
    return {title.format(b, floor): _ways(group, floor) for b, group in shared.items()}


def _ways(searches: Sequence[Search], floor: float) -> list[dict[str, str]]:
    ways = ways_of_tuning(searches, floor)
    rows = []
    for way in ways:
        cells = {"learning rate": way.name}
        for label, key in (
            ("dlogL/dlogN", "slope_n"), ("dlogL/dlogD", "slope_d"),
            ("alpha", "alpha"), ("beta", "beta"), ("a", "a"),
        ):  # fmt: skip
            found = way.values[key]
            cells[label] = f"{number(found[0], 3)} {interval(percentile_interval(found[1:]), 3)}"
        off, spread = difference(way, ways[0], "a")
        cells["a less tuned"] = "-" if way is ways[0] else f"{number(off, 2)} {interval(spread, 2)}"
        rows.append(cells | {"cells": way.status})
    return rows


def _sentences(
    plan: Plan, rows: Sequence[Row], sd: float, n_degrees: int, searches, cells, laws, recipe
) -> tuple[str, ...]:
    edges = sum(not lowest(s.lr, s.loss_nats).ok for s in searches)
    flat = sum(not cell.batch.ok for cell in cells)
    noise = (
        f"seeds: SD {sd:.4f} of log loss, {n_degrees} degrees of freedom"
        if n_degrees
        else "seeds: no cell has two runs, so optima and exponents have no intervals"
    )
    n_data = len({search.n_tokens for search in searches})
    said = [
        f"{plan.name}: plan {plan.hash}, {len(rows)} runs, "
        f"{sum(row['status'] == 'diverged' for row in rows)} diverged; {noise}",
        f"{edges} of {len(searches)} searches over the rate have their lowest loss at an edge, "
        f"{flat} of {len(cells)} searches over the batch; none of these enters a law",
        f"laws stand on {len(cells)} cells of N and D, {n_data} data sizes: their intervals come "
        "from the scatter of optima about them; whether they bend beyond is not known",
        "E is held in the table of exponents: with so few cells it cannot be told from alpha and "
        "beta; the local slopes dlogL/dlogN and dlogL/dlogD assume no floor, but give no a",
        *(f"no law of the {name}: {fit.status}" for name, fit in laws.items() if not fit.ok),
    ]
    if recipe is None:
        return (*said, "no recipe was written, for want of a law of the rate")
    return (
        *said,
        f"recipe {recipe.name}: use it with --recipe-from {recipe.name}; tuned on "
        f"{recipe.n_params_range[0]:,.0f} to {recipe.n_params_range[1]:,.0f} non-embedding "
        f"parameters and {recipe.n_tokens_range[0]:,.0f} to {recipe.n_tokens_range[1]:,.0f} tokens",
    )
