"""Two studies held against each other: compute-equivalent gain, laws side by side, what differs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from analysis.figures.allocation import estimates
from analysis.figures.inputs import Convention, FigureInputs
from analysis.figures.text import short, with_interval
from analysis.fit import Fit
from analysis.report.parts import html_list, interval, page, paragraph, table
from analysis.report.payload import study_payload
from analysis.report.sections import PROVENANCE, quality
from analysis.report.study_page import CONTROLS, RUNS, charts, frame
from analysis.report.summary import law, trained, verdict
from analysis.validity.gain import Gain, PointGains, compute_equivalent_gain, point_gains
from train.records import write_atomically

SCRIPTS = (
    "text.js", "maths.js", "view.js", "marks.js", "dom.js", "charts_loss.js", "charts_fit.js",
    "charts_optimum.js",
    "run_table.js", "wiring.js", "compare.js",
)  # fmt: skip
CHARTS = {
    "gain": "Compute-equivalent gain",
    "compute": "Losses and laws against compute",
    "allocation": "Optimal size against compute",
    "residuals": "Residuals of both laws",
}
JOINT: Convention = ("total", "6n_total")
"""The gain along joint fits takes C = 6ND."""
N_COMPUTES = 9


@dataclass(frozen=True)
class Compared:
    """A baseline and what is held against it; gains are of `new` over `baseline`."""

    baseline: FigureInputs
    new: FigureInputs

    @property
    def title(self) -> str:
        """Both names."""
        return f"{self.new.title} against {self.baseline.title}"

    @property
    def sides(self) -> tuple[FigureInputs, FigureInputs]:
        """Baseline and new."""
        return self.baseline, self.new

    @cached_property
    def obstacle(self) -> str:
        """Why losses of the two cannot be compared at all; empty if they can."""
        units = {side.unit for side in self.sides}
        if len(units) > 1:
            return f"losses are in {' and '.join(sorted(units))}"
        empty = [side.title for side in self.sides if not len(side.points[JOINT])]
        return f"no run of {empty[0]} is fitted" if empty else ""

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """What else differs, so that a gain is not of one change alone."""
        names = ("corpus", "corpus_hash", "tokenizer", "seq_len", "vocab_size", "schedule")
        pairs = {name: [_values(side, name) for side in self.sides] for name in names}
        return tuple(
            f"{name}: {one} against {other}" for name, (one, other) in pairs.items() if one != other
        )

    @cached_property
    def gains(self) -> tuple[Gain, ...]:
        """Along the joint fits, at computes over the range of the new runs; none if hindered."""
        if self.obstacle:
            return ()
        baseline, new = (side.points[JOINT] for side in self.sides)
        span = float(new.train_flops.min()), float(new.train_flops.max())
        return compute_equivalent_gain(baseline, new, np.geomspace(*span, N_COMPUTES).tolist())

    @cached_property
    def at_runs(self) -> PointGains | None:
        """Over the new runs at their own (N, D)."""
        if self.obstacle:
            return None
        baseline, new = (side.points[JOINT] for side in self.sides)
        return point_gains(baseline, new)


def comparison_page(compared: Compared) -> str:
    """The page as a string."""
    parts = (
        ("summary", "What came out", _summary(compared)),
        ("charts", "Charts", CONTROLS + charts(CHARTS)),
        ("gains", "Gain by compute", _gains(compared)),
        ("laws", "Laws side by side", _laws(compared)),
        ("exponents", "Allocation exponents side by side", _exponents(compared)),
        ("runs", "Runs of both", RUNS),
        ("quality", "Data quality: flagged and left out", _beside(compared, quality)),
        ("provenance", "Provenance side by side", _provenance(compared)),
    )
    return page(compared.title, frame(compared.title, parts), comparison_payload(compared), SCRIPTS)


def write_comparison(compared: Compared, path: Path) -> Path:
    """Write the page, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, comparison_page(compared))
    return path


def comparison_payload(compared: Compared) -> dict[str, Any]:
    """Both studies and the gain at each compute."""
    names = ("train_flops", "loss_nats", "ratio", "interval", "interval_level", "ok", "status")
    return {
        "title": compared.title,
        "studies": [study_payload(side) for side in compared.sides],
        "gains": [{name: getattr(gain, name) for name in names} for gain in compared.gains],
        "obstacle": compared.obstacle,
    }


def gain_sentence(compared: Compared) -> str:
    """The gain over all new runs with its interval, or why there is none."""
    found = compared.at_runs
    if found is None:
        return f"No gain can be stated: {compared.obstacle}."
    if not found.ok:
        return f"No gain can be stated: {found.status}."
    low, high = found.interval
    kind = "a gain" if low > 1 else "a loss" if high < 1 else "no gain shown, the interval holds 1"
    return (
        f"{kind[0].upper()}{kind[1:]}: for the losses of {compared.new.title}, "
        f"{compared.baseline.title} needs {with_interval(found.mean, found.interval)} times the "
        f"compute (geometric mean over the runs at their own N and D, {found.interval_level:.0%} "
        f"interval; {found.status})."
    )


def _summary(compared: Compared) -> str:
    answers = [("Gain", gain_sentence(compared))]
    answers += [(f"Trained, {side.title}", trained(side)) for side in compared.sides]
    answers += [(f"Law, {side.title}", law(side.main.fit, side.unit)) for side in compared.sides]
    answers += [(f"Verdict, {side.title}", verdict(side)) for side in compared.sides]
    doubts = "; ".join(compared.doubts)
    if doubts:
        answers.append(("Differs, too", f"{doubts}. The gain is of all of it together."))
    return html_list(answers)


def _gains(compared: Compared) -> str:
    if not compared.gains:
        return paragraph(f"None: {compared.obstacle}.")
    rows = [
        (
            short(g.train_flops),
            f"{g.loss_nats:.4f}",
            f"{g.ratio:.3g}",
            interval(g.interval),
            g.status,
        )
        for g in compared.gains
    ]
    heads = (f"C of {compared.new.title}, 6ND", "its loss", "gain", "interval", "status")
    text = (
        "Along the joint fits at their optima: how many times the compute the baseline needs for "
        "the loss that the new study has at C."
    )
    return paragraph(text) + table(heads, rows, "Compute-equivalent gain, 90% intervals")


def _laws(compared: Compared) -> str:
    rows = []
    for row in compared.baseline.conventions:
        other = _same(compared.new, (row.n_convention, row.c_convention))
        if other is None or row.n_convention in {seen[0] for seen in rows}:
            continue
        rows += [
            (row.n_convention, name, _parameter(row.fit, name), _parameter(other.fit, name))
            for name in row.fit.parameters
        ]
        rows.append((row.n_convention, "status", row.fit.status, other.fit.status))
    heads = ("N", "parameter", *(side.title for side in compared.sides))
    return table(heads, rows, "Parameters of the joint fits, 90% intervals")


def _exponents(compared: Compared) -> str:
    rows = []
    for row in compared.baseline.conventions:
        other = _same(compared.new, (row.n_convention, row.c_convention))
        found = {} if other is None else {e[0]: e for e in estimates(other)}
        for method, a, bounds, _ in estimates(row):
            theirs = found.get(method)
            rows.append(
                (f"N {row.n_convention}, C {row.c_convention}", method, with_interval(a, bounds, 3),
                 "–" if theirs is None else with_interval(theirs[1], theirs[2], 3))
            )  # fmt: skip
    heads = ("count", "method", *(side.title for side in compared.sides))
    return table(heads, rows, "Exponent a of N* ~ C^a, 90% intervals")


def _provenance(compared: Compared) -> str:
    rows = [
        (name, *(_values(side, name) for side in compared.sides))
        for name in PROVENANCE
        if any(name in side.runs.columns for side in compared.sides)
    ]
    return table(
        ("what", *(side.title for side in compared.sides)), rows, "Where the runs come from"
    )


def _beside(compared: Compared, part) -> str:
    sides = "".join(f"<div>{paragraph(side.title)}{part(side)}</div>" for side in compared.sides)
    return f'<div class="beside">{sides}</div>\n'


def _same(inputs: FigureInputs, convention: Convention):
    rows: Sequence = inputs.conventions
    return next((r for r in rows if (r.n_convention, r.c_convention) == convention), None)


def _parameter(fit: Fit, name: str) -> str:
    value = fit.parameters[name]
    return f"{value:.4g} {interval(fit.intervals[name])}" if math.isfinite(value) else "none"


def _values(inputs: FigureInputs, name: str) -> str:
    if name not in inputs.runs.columns:
        return "–"
    return ", ".join(map(str, inputs.runs[name].unique()))
