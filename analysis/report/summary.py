"""The first minute of the page: what was trained, the law, how sure, what is left out, verdict."""

import math
from typing import Any

from analysis.figures.allocation import CLOSED, NUMERIC, estimates
from analysis.figures.inputs import FigureInputs
from analysis.figures.prediction import NOTHING_YET
from analysis.figures.text import equation, short, with_interval
from analysis.fit import Fit
from analysis.published import ALLOCATION_EXPONENTS
from analysis.report.parts import html_list, interval, paragraph


def summary(inputs: FigureInputs) -> str:
    """The five answers, as a list of terms and sentences."""
    answers = (
        ("What was trained", trained(inputs)),
        ("The law", law(inputs.main.fit, inputs.unit)),
        ("How sure", certainty(inputs)),
        ("Left out", left_out(inputs)),
        ("Verdict", verdict(inputs)),
    )
    return html_list(answers) + allocation(inputs)


def trained(inputs: FigureInputs) -> str:
    """How many runs of which sizes on what."""
    runs, (n_convention, c_convention) = inputs.runs, inputs.headline
    return (
        f"{len(runs)} language models of {_span(runs[f'n_params_{n_convention}'])} "
        f"parameters on {_span(runs['n_tokens'])} tokens of the corpus {inputs.corpus} "
        f"({_span(runs[f'train_flops_{c_convention}'])} training FLOPs each)."
    )


def law(fit: Fit, unit: str) -> str:
    """The headline law with its numbers, or why there is none."""
    if not fit.ok:
        return f"No law of loss over size and data came out: {fit.status}."
    numbers = ", ".join(f"{k} = {short(v)}" for k, v in fit.parameters.items())
    return (
        f"{equation(fit)} with {numbers}: loss in {unit}, N parameters ({fit.n_convention}), "
        f"D training tokens."
    )


def certainty(inputs: FigureInputs) -> str:
    """Intervals of what matters, from how many runs, and the fit's status."""
    fit = inputs.main.fit
    if not fit.ok:
        return "Nothing is claimed, so nothing is sure."
    spans = ", ".join(
        f"{k} {short(fit.parameters[k])} [{short(low)}, {short(high)}]"
        for k, (low, high) in fit.intervals.items()
        if not k.isupper() or k == "E"
        if math.isfinite(low + high)
    )
    points = inputs.main_points
    reach = float(points.train_flops.max() / points.train_flops.min())
    return (
        f"{fit.interval_level:.0%} intervals from {fit.n_rows} runs over a factor {reach:.3g} in "
        f"compute: {spans or 'none, too few draws'}. Fit: {fit.status}. The intervals hold inside "
        f"of this range only."
    )


def left_out(inputs: FigureInputs) -> str:
    """Which runs are not behind the law, and why; how many of the others carry a flag."""
    excluded = inputs.main.fit.rows_excluded
    kinds = list(dict.fromkeys(reason.split(":")[0] for _, reason in excluded))
    groups = [[r for _, r in excluded if r.split(":")[0] == kind] for kind in kinds]
    parts = []
    for kind, group in zip(kinds, groups, strict=True):
        detail = group[0].partition(": ")[2]
        example = f"{', e.g.' if len(set(group)) > 1 else ':'} {detail}" if detail else ""
        parts.append(f"{len(group)} {kind.replace('_', '-')}{example}")
    flagged = sum(bool(flags) for flags in inputs.main_points.flags)
    head = f"{len(inputs.main_points)} of {len(inputs.runs)} runs entered the fit"
    text = f"{head}; left out: {'; '.join(parts)}." if parts else f"{head}; none is left out."
    if flagged:
        text += f" {flagged} of those carry a flag of quality control."
    return f"{text} All are listed under Data quality." if parts or flagged else text


def verdict(inputs: FigureInputs) -> str:
    """Whether the law predicted a run that it had not seen."""
    held_out = inputs.main_held_out
    if held_out is None:
        return f"{NOTHING_YET[0].upper()}{NOTHING_YET[1:]}."
    found, measured = held_out.prediction, held_out.measured_loss_nats
    points = inputs.main_points
    factor = held_out.train_flops / points.train_flops.max() if len(points) else math.nan
    run = f"a run of {short(held_out.n_params)} parameters and {short(held_out.n_tokens)} tokens"
    if math.isfinite(factor) and held_out.c_convention == points.c_convention:
        run += f" ({factor:.2g} times the compute of the largest fitted one)"
    if not found.ok:
        return f"No prediction of {run}: {found.status}."
    level = f"{found.interval_level:.0%} interval"
    text = (
        f"{run} was predicted at {found.loss_nats:.4f} {interval(found.new_run_interval, 4)} "
        f"{inputs.unit} ({level} of one new run)"
    )
    if measured is None:
        return f"Not scored yet: {text}; it is not trained yet."
    word = "Hit" if held_out.is_hit else "MISS"
    side = "inside" if held_out.is_hit else "outside"
    return f"{word}: {text} and measured {measured:.4f}, {side} of it."


def allocation(inputs: FigureInputs) -> str:
    """How the optimal size grows with compute: the headline's exponents beside published ones."""
    found = []
    for method, a, bounds, status in estimates(inputs.main):
        name = {CLOSED: "the law if C = 6ND", NUMERIC: "the law under exact FLOPs"}.get(
            method, "isoFLOP minima"
        )
        found.append((name, with_interval(a, bounds), status, math.isfinite(a)))
    published = ", ".join(
        f"{p.label} {p.a:g}"
        for p in ALLOCATION_EXPONENTS
        if p.label.startswith(("Kaplan", "Hoffmann"))
    )
    known = "; ".join(f"{value} by {name}" for name, value, _, is_known in found if is_known)
    lacking = "; ".join(
        f"by {name} ({status})" for name, _, status, is_known in found if not is_known
    )
    text = f"The compute-optimal size grows as N* ~ C^a with a = {known}." if known else ""
    text += f" No exponent {lacking}." if lacking else ""
    return paragraph(f"{text.strip()} Published, at other scales: {published}.")


def _span(values: Any) -> str:
    return f"{short(float(values.min()))} to {short(float(values.max()))}"
