"""The ending of `porian_2024`: the exponent at every rung, and what counting alone explains."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis import published
from analysis.intervals.uncertainty import percentile_interval
from analysis.laws.counting import optimal_flops
from analysis.load import Sweep
from analysis.tables import Row, number
from experiments import paper_laws
from experiments.ending import Ending
from experiments.paper_laws import exponent
from experiments.papers import Frame, part_of
from experiments.plan import Plan
from experiments.porian_ladder import Rung, ladder_of


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
        "The recipes: the rule by width, and the tuned one": paper_laws.recipe_rows(
            part_of(plan, sweep, "matched", "tuned")
        ),
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
    counted, span = math.nan, (math.nan, math.nan)
    if total.ok:
        names = total.law.parameter_names
        vectors = np.vstack([[total.parameters[k] for k in names], total.draws])
        slopes = [slope(dict(zip(names, v, strict=True)), n, omega) for v in vectors]
        counted, span = slopes[0], percentile_interval(np.array(slopes[1:]))
    alone = exponent(counted, span)
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


def slope(law: dict[str, float], n: np.ndarray, omega: float) -> float:
    """d log N* / d log C over the sizes, by least squares; NaN where it has no optimum."""
    sizes = np.geomspace(n.min(), n.max(), 33)
    with np.errstate(all="ignore"):
        log_c = np.log(optimal_flops(sizes, law, omega)[0])
    if not np.isfinite(log_c).all():
        return math.nan
    return float(np.polyfit(log_c, np.log(sizes), 1)[0])


def neighbour_rows(plan: Plan, sweep: Sweep) -> list[Row]:
    """Loss of every neighbour of the tuned choices against the tuned run of its size and budget."""
    keys = ["n_layers", "d_model"]
    columns = [*keys, "isoflop_budget", "lr", "batch_tokens", "beta2", "loss_nats"]
    near = part_of(plan, sweep, "neighbours")[columns].drop(columns="isoflop_budget")
    tuned = part_of(plan, sweep, "tuned")[columns].sort_values("isoflop_budget")
    both = near.merge(tuned.drop_duplicates(keys), on=keys, suffixes=("", "_tuned"))
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
    return Step(rung.name, found, (a, span), rung.n_runs)


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
