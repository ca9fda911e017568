"""The ending of `wsd_2024`: branches against cosine runs, in pairs; what they save; both laws."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.fit import Fit
from analysis.frontier.isoflop import exponents, minima
from analysis.laws import predict
from analysis.load import Sweep, points_from_runs
from analysis.tables import Row, number
from analysis.validity.paired import Mean, mean_with_interval
from experiments import paper_laws
from experiments.ending import Ending
from experiments.paper_laws import exponent, parameter
from experiments.papers import Frame, part_of
from experiments.plan import Plan

KEY = ["n_layers", "d_model", "n_tokens", "seed_init"]
CAPTION = (
    "Left: loss of every branch less that of the cosine run of the same size, tokens and seed; the "
    "band is the mean with its 90% interval. Right: the runs of one size: trunk, branches that "
    "cool down from it, and separate cosine runs."
)


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """Differences of loss, FLOPs, and the law by either way."""
    from analysis.figures.cooldown import cooldown_figure

    cosine = part_of(plan, sweep, "cosine", "cosine_seeds")
    cooled = _of_kind(part_of(plan, sweep, "branches", "branch_seeds"), "wsd")
    constant = _of_kind(part_of(plan, sweep, "trunks", "branch_seeds"), "constant")
    pairs = paired(cosine, cooled)
    held = paired(constant, cooled)
    share = (pairs["loss_other"] / pairs["loss_nats"] - 1).to_numpy(float)
    by_cell = mean_with_interval(_by_cell(pairs, share))
    gained = mean_with_interval(
        _by_cell(held, (held["loss_other"] / held["loss_nats"] - 1).to_numpy(float))
    )
    common = cosine[cosine["run_id"].isin(pairs["run_id"])]
    branches = cooled[cooled["run_id"].isin(pairs["run_id_other"])]
    fits = {
        "cosine": paper_laws.surface(paper_laws.settled(common)),
        "cooldown": paper_laws.surface(paper_laws.settled(branches)),
    }
    cost = _cost(plan, common, branches)
    tables: dict[str, Sequence[Row]] = {
        "Branch against cosine run, cell by cell": _pair_rows(pairs),
        "What the cooldown gains, by size": _gain_rows(held),
        "FLOPs of both ways to the same cells": cost["rows"],
        "The same law from both, N total (90% intervals)": _law_rows(fits),
        "Exponents a of N* ~ C^a from both": _exponent_rows(common, branches, fits),
        "The recipe, tuned and frozen before": paper_laws.recipe_rows(cooled),
    }
    sd = paper_laws.seed_noise(sweep.runs)
    named = {
        **paper_laws.spent(paper_laws.trained(sweep)),
        "n_pairs": str(len(pairs)),
        "difference": _percent(by_cell),
        "n_cells": str(by_cell.n),
        "least": f"{share.min():+.1%}",
        "most": f"{share.max():+.1%}",
        "gained": _percent(gained),
        "saved": cost["saved"],
        "saved_tokens": cost["saved_largest"],
        "seed_sd": f"{sd[0]:.4f}",
        "seed_degrees": str(sd[1]),
        **{f"a_{k}": _closed(f) for k, f in fits.items()},
        **{f"E_{k}": parameter(f, "E") for k, f in fits.items()},
        "law_apart": _apart(fits, common),
    }
    figure = cooldown_figure(plan.name, pairs, by_cell, _curves(sweep, constant, cooled, cosine))
    sentences = (
        f"{plan.name}: plan {plan.hash}, {named['n_pairs']} pairs in {named['n_cells']} cells; a "
        f"branch's loss less its cosine run's is {named['difference']} (mean over cells, Student's "
        "t)",
    )
    summary = (
        ("loss of a cooldown less that of a cosine run", named["difference"], "about 0"),
        ("FLOPs saved by sharing trunks", named["saved"], "over half, with more lengths"),
        (
            "a, C = 6ND, cosine and cooldown",
            f"{named['a_cosine']} and {named['a_cooldown']}",
            "equal",
        ),
    )
    values = paper_laws.told(named, tables, summary)
    return Ending(tables, sentences, values, {"cooldown": (figure, CAPTION)})


def _of_kind(runs: Frame, schedule: str) -> Frame:
    return runs[(runs["schedule"] == schedule) & (runs["status"] == "finished")]


def paired(runs: Frame, others: Frame) -> Frame:
    """Runs with the other run of the same size, tokens and seed, whose columns end in _other."""
    names = [*KEY, "run_id", "loss_nats", "isoflop_budget", "n_params_total"]
    both = runs[names].merge(others[[*KEY, "run_id", "loss_nats"]], on=KEY, suffixes=("", "_other"))
    return both.dropna(subset=["loss_nats", "loss_nats_other"]).rename(
        columns={"loss_nats_other": "loss_other"}
    )


def _by_cell(pairs: Frame, values: np.ndarray) -> np.ndarray:
    """Means over the seeds of each cell."""
    cells = pairs.assign(value=values).groupby(["n_layers", "d_model", "n_tokens"])["value"]
    return cells.mean().to_numpy(float)


def _pair_rows(pairs: Frame) -> list[Row]:
    return [
        {
            "LxD": f"{row['n_layers']}x{row['d_model']}",
            "budget": f"{row['isoflop_budget']:.3g}",
            "D": f"{row['n_tokens']:,}",
            "seed": str(row["seed_init"]),
            "cosine": f"{row['loss_nats']:.4f}",
            "branch": f"{row['loss_other']:.4f}",
            "branch - cosine": f"{row['loss_other'] / row['loss_nats'] - 1:+.2%}",
        }
        for row in pairs.sort_values(["n_params_total", "n_tokens", "seed_init"]).to_dict("records")
    ]


def _gain_rows(held: Frame) -> list[Row]:
    share = held["loss_other"] / held["loss_nats"] - 1
    rows = []
    for (layers, width), group in held.assign(share=share).groupby(["n_layers", "d_model"]):  # type: ignore[misc]
        found = mean_with_interval(group["share"].to_numpy(float))
        rows.append(
            {
                "LxD": f"{layers}x{width}",
                "pairs": str(found.n),
                "cooled - constant": _percent(found),
            }
        )
    return rows


def _percent(found: Mean) -> str:
    low, high = found.interval
    span = "" if not math.isfinite(low) else f" [{low:+.2%}, {high:+.2%}]"
    return f"{found.value:+.2%}{span}" if math.isfinite(found.value) else "none"


def _cost(plan: Plan, cosine: Frame, branches: Frame) -> dict[str, Any]:
    """Training FLOPs of the cosine runs, and of trunks to where the last cooldown begins."""
    apart = float(cosine["train_flops_standalone"].sum())
    fraction = float(plan.options.get("cooldown_fraction", 0.2))
    keys = ["n_layers", "d_model", "seed_init"]
    of_size = branches.groupby(keys)["train_flops_standalone"]
    trunks = float((of_size.max() * (1 - fraction)).sum())
    cooled = float((branches["train_flops_standalone"] * fraction).sum())
    together = trunks + cooled
    ways = {
        "separate cosine runs": apart,
        "trunks": trunks,
        "cooldowns": cooled,
        "trunks and cooldowns": together,
    }
    rows: list[Row] = [
        {"way": way, "FLOPs": number(flops, 3), "of the separate": f"{flops / apart:.0%}"}
        for way, flops in ways.items()
    ]
    share = of_size.agg(lambda c: 1 - ((1 - fraction) * c.max() + fraction * c.sum()) / c.sum())
    return {
        "rows": rows,
        "saved": f"{1 - together / apart:.0%}",
        "saved_largest": f"{float(share.max()):.0%}",
    }


def _law_rows(fits: Mapping[str, Fit]) -> list[Row]:
    first = next(iter(fits.values()))
    return [
        {"parameter": name, **{k: parameter(f, name) for k, f in fits.items()}}
        for name in first.law.parameter_names
    ]


def _closed(found: Fit) -> str:
    return exponent(found.allocation.get("a"), found.allocation_intervals.get("a"))


def _exponent_rows(cosine, branches, fits: Mapping[str, Fit]) -> list[Row]:
    rows = {"joint fit, C = 6ND": {k: _closed(f) for k, f in fits.items()}}
    for method in ("parabola", "akima"):
        row = {}
        for name, runs in (("cosine", cosine), ("cooldown", branches)):
            found = exponents(minima(points_from_runs(runs), method))
            row[name] = exponent(found.a, found.intervals.get("a")) if found.ok else "none"
        rows[f"isoFLOP minima, {method}"] = row
    return [{"method": name, **row} for name, row in rows.items()]


def _apart(fits: Mapping[str, Fit], runs: Frame) -> str:
    """Largest relative difference of the two laws over the cells that both were fitted to."""
    if not all(f.ok for f in fits.values()):
        return "none"
    n, d = (runs[k].to_numpy(float) for k in ("n_params_total", "n_tokens"))
    one, two = (predict(f.law, f.parameters, n_params=n, n_tokens=d) for f in fits.values())
    return f"{float(np.abs(two / one - 1).max()):.1%}"


def _curves(sweep: Sweep, *kinds: Frame) -> dict[str, dict[str, np.ndarray]]:
    """Curves (tokens, loss) of the size with most runs and the first seed, by kind of schedule."""
    first = kinds[0]["seed_init"].min()
    of_seed = [runs[runs["seed_init"] == first] for runs in kinds]
    size = of_seed[1].groupby(["n_layers", "d_model"]).size()
    names = ("constant", "cooldown", "cosine")
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in names}
    if not len(size):
        return found
    layers, width = size.idxmax()  # type: ignore[misc]
    for name, runs in zip(names, of_seed, strict=True):
        own = runs[(runs["n_layers"] == layers) & (runs["d_model"] == width)]
        own = own.sort_values("n_tokens").tail(1) if name == "constant" else own
        for run_id, group in sweep.curves.groupby(sweep.curves["run_id"].astype(str)):
            if run_id in set(own["run_id"]):
                found[name][str(run_id)] = _whole(group[["n_tokens", "loss_nats"]].to_numpy(float))
    return found


def _whole(xy: np.ndarray) -> np.ndarray:
    """A curve without a last point that stands for fewer tokens than half of the one before."""
    gaps = np.diff(xy[:, 0])
    return xy[:-1] if len(gaps) > 1 and gaps[-1] < gaps[-2] / 2 else xy
