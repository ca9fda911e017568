"""The ending of `hoffmann_2022`: three approaches in one table, under three ways of counting."""

from collections.abc import Sequence
from typing import Any

from analysis import published
from analysis.frontier.approaches import ApproachRow, compare
from analysis.load import Sweep
from analysis.tables import Row, fit_rows, number
from experiments import paper_laws
from experiments.ending import Ending
from experiments.paper_laws import exponent, with_interval
from experiments.papers import part_of
from experiments.plan import Plan

FIGURES = ("isoflop", "approaches", "envelope", "surface", "regions", "residuals")
COUNTS = (
    ("total", "matmul_full"), ("total", "6n_total"), ("non_embedding", "6n_non_embedding"),
)  # fmt: skip
N_DRAWS = 200
CHOSEN = {
    1: ("envelope of training curves", "envelope of final losses"),
    2: ("parabola",),
    3: ("numeric, exact FLOPs", "closed form, C = 6ND"),
}
"""The method of each approach that the summary quotes: the first that gave an exponent."""


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """The three approaches, the law, the minima, and what seeds do."""
    runs = part_of(plan, sweep, "grid", "seeds")
    inputs = paper_laws.figure_inputs(plan, sweep, runs, "tuned, schedule matched to D")
    rows = {
        convention: compare(
            inputs.points[convention], inputs.curves, _fit(inputs, convention), n_bootstrap=N_DRAWS
        )
        for convention in COUNTS
    }
    head = rows[COUNTS[0]]
    joint, sd = inputs.main.fit, paper_laws.seed_noise(runs)
    tables: dict[str, Sequence[Row]] = {
        "Exponents by approach, N* ~ C^a and D* ~ C^b (90% intervals)": [
            row for (n, c), found in rows.items() for row in paper_laws.approach_rows(found, n, c)
        ],
        "The same as printed": _printed(),
        "Optimal size and tokens, N total, C matmul_full": _optima(head),
        "The law through the runs, N total": fit_rows(joint),
        "IsoFLOP minima, N total, C matmul_full": paper_laws.minimum_rows(inputs.main.minima),
        "The recipe, tuned and frozen before": paper_laws.recipe_rows(runs),
    }
    figures, absent = paper_laws.drawn(inputs, FIGURES)
    by_count = {convention: quoted(found) for convention, found in rows.items()}
    named = {
        **paper_laws.spent(runs),
        **{f"a_{k}": v for k, v in by_count[COUNTS[0]].items()},
        **{f"a_{k}_kaplan": v for k, v in by_count[COUNTS[2]].items()},
        **{name: paper_laws.parameter(joint, name) for name in ("E", "alpha", "beta")},
        "b_3": _quoted(head, 3, "b"),
        "a_2_all": exponent(inputs.main.isoflop.a, inputs.main.isoflop.intervals["a"]),
        "a_2_akima": _of_method(head, "akima"),
        "a_3_closed": exponent(joint.allocation.get("a"), joint.allocation_intervals.get("a")),
        "n_flagged": str(sum("pre_asymptotic" in why for _, why in joint.rows_excluded)),
        "bias_2": number(next(r.bias_a for r in head if r.method == "parabola"), 1),
        "seed_sd": f"{sd[0]:.4f}",
        "seed_degrees": str(sd[1]),
        "rms": f"{float((joint.residuals**2).mean() ** 0.5):.4f}" if joint.ok else "none",
    }
    sentences = (
        f"{plan.name}: plan {plan.hash}, {named['n_runs']} runs, {named['n_diverged']} diverged; "
        f"seeds of equal runs scatter by SD {named['seed_sd']} of log loss ({sd[1]} degrees of "
        "freedom)",
        *absent,
    )
    summary = [
        (f"a of N\\* ~ C^a, approach {k}", named[f"a_{k}"], printed)
        for k, printed in ((1, "0.50"), (2, "0.49"), (3, "0.46"))
    ]
    return Ending(tables, sentences, paper_laws.told(named, tables, summary), figures)


def quoted(rows: Sequence[ApproachRow]) -> dict[int, str]:
    """a of each approach with its interval."""
    return {approach: _quoted(rows, approach, "a") for approach in CHOSEN}


def _quoted(rows: Sequence[ApproachRow], approach: int, letter: str) -> str:
    by_method = {row.method: row.found for row in rows if row.found.ok}
    found = next((by_method[m] for m in CHOSEN[approach] if m in by_method), None)
    if found is None:
        return "none"
    return exponent(getattr(found, letter), found.intervals.get(letter))


def _of_method(rows: Sequence[ApproachRow], method: str) -> str:
    found = next(row.found for row in rows if row.method == method)
    return exponent(found.a, found.intervals.get("a"))


def _fit(inputs: Any, convention: tuple[str, str]):
    return next(
        row.fit for row in inputs.conventions if (row.n_convention, row.c_convention) == convention
    )


def _printed() -> list[Row]:
    rows = [p for p in published.ALLOCATION_EXPONENTS if p.label[:6] in ("Hoffma", "Besiro")]
    return [
        {"source": p.label, "a": with_interval(p.a, p.interval), "where": p.citation} for p in rows
    ]


def _optima(rows: Sequence[ApproachRow]) -> list[Row]:
    return [
        {
            "approach": f"{row.approach}, {row.method}",
            "C": number(at.train_flops, 3),
            "N*": with_interval(at.n_params, at.n_params_interval, 2),
            "D*": with_interval(at.n_tokens, at.n_tokens_interval, 2),
            "bias of D*": number(bias, 1),
        }
        for row in rows
        for at, bias in (
            (row.largest, row.bias_tokens_largest),
            (row.target, row.bias_tokens_target),
        )  # fmt: skip
    ]
