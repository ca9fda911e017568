"""What the page's scripts draw and compute from: one JSON document, made without a browser."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.conventions import ConventionRow
from analysis.figures import curves
from analysis.figures.allocation import estimates
from analysis.figures.inputs import C_MEANING, N_MEANING, Convention, FigureInputs, HeldOut
from analysis.figures.text import equation, law_text
from analysis.fit import Fit
from analysis.frontier.allocation import AllocationExponents, Ladder, ladder_from_points
from analysis.frontier.envelope import envelope_exponents
from analysis.frontier.isoflop import IsoflopMinimum
from analysis.intervals.uncertainty import RUNS_PER_DRAW, loss_draws
from analysis.load import Points
from analysis.published import ALLOCATION_EXPONENTS, PublishedExponent

N_DRAWS = 200
"""Bootstrap draws that go into the page, of a fit's several hundred."""
N_APPROACH_DRAWS = 120
MOST_CURVE_POINTS = 20_000
"""Of all curves together: what a chart of vectors in a browser redraws without a pause."""

COLUMNS = {  # column of a record -> heading in the table of runs
    "run_id": "run",
    "role": "role",
    "status": "status",
    "state": "in the fit",
    "reason": "flag or reason",
    "n_layers": "layers",
    "d_model": "d_model",
    "n_params_total": "N total",
    "n_params_non_embedding": "N non-embedding",
    "n_tokens": "tokens D",
    "train_flops_matmul_full": "C matmul_full",
    "train_flops_6n_total": "C 6n_total",
    "train_flops_6n_non_embedding": "C 6n_non_embedding",
    "isoflop_budget": "budget",
    "n_steps": "steps",
    "batch_tokens": "batch tokens",
    "lr": "lr",
    "schedule": "schedule",
    "seed_init": "seed",
    "idea": "idea",
    "loss_nats": "validation loss",
    "loss_se_document": "its standard error",
    "train_loss_nats_final": "training loss",
    "bits_per_byte": "bits per byte",
    "seconds": "seconds",
}


def study_payload(inputs: FigureInputs) -> dict[str, Any]:
    """Runs, curves, fits with draws, approaches and minima of one study."""
    rows = run_rows(inputs)
    place = {row["run_id"]: i for i, row in enumerate(rows)}
    return {
        "title": inputs.title,
        "corpus": inputs.corpus,
        "unit": inputs.unit,
        "headline": list(inputs.headline),
        "columns": [
            {"name": k, "label": v} for k, v in COLUMNS.items() if any(k in r for r in rows)
        ],
        "runs": rows,
        "curves": curve_rows(inputs, place),
        "fits": fit_entries(inputs),
        "conventions": [convention_entry(inputs, row, place) for row in inputs.conventions],
        "published": [exponent_entry(p) for p in ALLOCATION_EXPONENTS],
        "references": _references(inputs),
    }


def _references(inputs: FigureInputs) -> list[tuple[str, float]]:
    """Losses that need no network: n-grams of the corpus, and the floor where it is known."""
    ngrams = [(f"{n}-gram", x) for n, x in sorted((inputs.ngram_entropies or {}).items())]
    floor = inputs.entropy_floor_nats
    return ngrams if floor is None else [*ngrams, ("entropy of the language", floor)]


def run_rows(inputs: FigureInputs) -> list[dict[str, Any]]:
    """A row a run: its record's columns, whether it is fitted, and what is against it."""
    points = inputs.main_points
    flags = dict(zip(points.run_id, points.flags, strict=True))
    reasons = dict(inputs.main.fit.rows_excluded)
    present = [name for name in COLUMNS if name in inputs.runs.columns]
    rows = []
    for record in inputs.runs.loc[:, present].to_dict("records"):
        run_id = str(record["run_id"])
        state = "fitted" if run_id in flags else "not fitted"
        reason = "; ".join(flags.get(run_id, ())) or reasons.get(run_id, "")
        values = {str(name): _value(value) for name, value in record.items()}
        rows.append(values | {"run_id": run_id, "state": state, "reason": reason})
    return rows


def curve_rows(inputs: FigureInputs, place: dict[str, int]) -> list[dict[str, Any]]:
    """Tokens and smoothed training loss of every run, thinned evenly in log tokens."""
    if not len(inputs.curves):
        return []
    return [
        {"run": place[line.run_id], "d": _short(line.xy[:, 0]), "l": _short(line.xy[:, 1])}
        for line in curves.lines(inputs, "n_tokens", MOST_CURVE_POINTS)
    ]


def fit_entries(inputs: FigureInputs) -> dict[str, dict[str, Any]]:
    """The joint fit under each convention of N, with the draws behind its intervals."""
    by_n = {row.n_convention: row.fit for row in reversed(inputs.conventions)}
    return {n: fit_entry(fit) for n, fit in reversed(by_n.items())}


def thinned(fit: Fit) -> Fit:
    """The fit with at most N_DRAWS of its draws, which are exchangeable: those that the page has"""
    sound = fit.draws[np.isfinite(fit.draws).all(-1)] if fit.ok else fit.draws
    return replace(fit, draws=sound[:N_DRAWS])


def fit_entry(fit: Fit) -> dict[str, Any]:
    """A joint fit; `noise` are the log residuals that make a new run of each draw, by draw."""
    few = thinned(fit)
    noise: list[Any] = []
    if fit.ok and len(few.draws):
        mean, run, _ = loss_draws(few, n_params=1e6, n_tokens=1e9)  # the same at any size
        noise = np.log(run.reshape(RUNS_PER_DRAW, -1) / mean).round(12).tolist()
    return {
        "ok": fit.ok,
        "status": fit.status,
        "equation": equation(fit),
        "text": law_text(fit),
        "objective": fit.objective,
        "n_rows": fit.n_rows,
        "n_draws_made": len(fit.draws),
        "method": fit.interval_method,
        "level": fit.interval_level,
        "names": list(fit.law.parameter_names),
        "parameters": list(fit.parameters.values()),
        "intervals": [list(pair) for pair in fit.intervals.values()],
        "draws": few.draws.tolist(),
        "noise": noise,
    }


def convention_entry(
    inputs: FigureInputs, row: ConventionRow, place: dict[str, int]
) -> dict[str, Any]:
    """What depends on the count of compute, too: minima, approaches, ladder, range, prediction."""
    key: Convention = (row.n_convention, row.c_convention)
    points = inputs.points[key]
    ladder = _ladder(points, row.c_convention)
    held_out = next((h for h in inputs.held_out if h.n_convention == row.n_convention), None)
    return {
        "n": row.n_convention,
        "c": row.c_convention,
        "n_meaning": N_MEANING[row.n_convention],
        "c_meaning": C_MEANING[row.c_convention],
        "fitted": [place[run_id] for run_id in points.run_id],
        "range": _range(points),
        "ladder": None if ladder is None else ladder_entry(ladder),
        "minima": [minimum_entry(minimum) for minimum in row.minima],
        "approaches": approach_entries(inputs, row, points),
        "exponents": [
            {"method": method, "a": a, "interval": list(bounds), "status": status}
            for method, a, bounds, status in estimates(row)
        ],
        "held_out": None if held_out is None else held_out_entry(held_out),
    }


def approach_entries(
    inputs: FigureInputs, row: ConventionRow, points: Points
) -> list[dict[str, Any]]:
    """Approaches 1 and 2 as power laws of compute with their draws; 3 follows from the fit."""
    few = envelope_exponents(
        points, inputs.curves if len(inputs.curves) else None, n_bootstrap=N_APPROACH_DRAWS
    )
    return [
        _approach(1, f"envelope of {few.source}", few),
        _approach(2, "isoFLOP minima (parabola)", row.isoflop),
    ]


def _approach(approach: int, method: str, found: AllocationExponents) -> dict[str, Any]:
    lines = found.line_draws[np.isfinite(found.line_draws).all((1, 2))]
    return {
        "approach": approach,
        "method": method,
        "ok": found.ok,
        "status": found.status,
        "a": found.a,
        "b": found.b,
        "n_coefficient": found.n_coefficient,
        "d_coefficient": found.d_coefficient,
        "intervals": {k: list(v) for k, v in found.intervals.items()},
        "draws": lines[:N_DRAWS].reshape(-1, 4).tolist(),
    }


def ladder_entry(ladder: Ladder) -> dict[str, Any]:
    """Knots of log FLOPs per token over log size, and the slopes of the monotone cubic there."""
    from scipy.interpolate import PchipInterpolator

    log_n, log_flops = np.log(ladder.n_params), np.log(ladder.flops_per_token)
    slopes = PchipInterpolator(log_n, log_flops).derivative()(log_n)
    names = ("log_n", "log_flops", "slopes")
    return dict(zip(names, (v.tolist() for v in (log_n, log_flops, slopes)), strict=True))


def minimum_entry(minimum: IsoflopMinimum) -> dict[str, Any]:
    """One budget with its parabola in log N."""
    names = ("budget", "ok", "status", "n_params", "n_tokens", "train_flops", "loss_nats")
    return {
        **{name: getattr(minimum, name) for name in names},
        "coefficients": minimum.coefficients,
        "sizes": minimum.size_n_params.tolist(),
        "losses": minimum.size_loss_nats.tolist(),
    }


def held_out_entry(held_out: HeldOut) -> dict[str, Any]:
    """A prediction beside its measurement."""
    found = held_out.prediction
    return {
        "run_id": held_out.run_id,
        "n_params": held_out.n_params,
        "n_tokens": held_out.n_tokens,
        "train_flops": held_out.train_flops,
        "c": held_out.c_convention,
        "ok": found.ok,
        "status": found.status,
        "loss_nats": found.loss_nats,
        "mean_interval": list(found.mean_interval),
        "new_run_interval": list(found.new_run_interval),
        "measured": held_out.measured_loss_nats,
        "is_hit": held_out.is_hit if held_out.is_scored else None,
    }


def exponent_entry(published: PublishedExponent) -> dict[str, Any]:
    """A printed exponent with its citation."""
    return {"label": published.label, "a": published.a, "citation": published.citation}


def _ladder(points: Points, c_convention: str) -> Ladder | None:
    """Sizes with exact FLOPs per token; none where C = 6ND, nor with a single size."""
    if c_convention.startswith("6n") or len(set(points.n_params)) < 2:
        return None
    return ladder_from_points(points)


def _range(points: Points) -> dict[str, list[float]]:
    columns = {"n": points.n_params, "d": points.n_tokens, "c": points.train_flops}
    return {name: [float(v.min()), float(v.max())] if len(v) else [] for name, v in columns.items()}


def _short(values: np.ndarray) -> list[float]:
    """Five digits, which is more than a chart shows."""
    return [float(f"{v:.5g}") for v in values.tolist()]


def _value(value: Any) -> Any:
    """A cell of a record as a JSON value; a name of a run stays a text."""
    if hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if value != value else str(value)
