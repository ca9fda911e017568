"""What the command line shows: tables of plans, runs, fits and predictions."""

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

from analysis.conventions import ConventionRow
from analysis.fit import Fit
from analysis.study import Study
from experiments.plan import Plan
from experiments.workspace import SweepFolder


def duration(seconds: float) -> str:
    """Seconds as a person says them; "unknown" for NaN."""
    if math.isnan(seconds):
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plan_line(plan: Plan, seconds: float) -> str:
    """One line: what will run and how long it may take."""
    return (
        f"{plan.name}: plan {plan.hash}, {len(plan.cells)} runs; "
        f"training left: about {duration(seconds)}"
    )


def status_table(plan: Plan, states: Sequence[tuple[str, str, str]]) -> Table:
    """Where each run of a plan stands; `states` hold (state, loss, seconds) in plan order."""
    table = _table(f"{plan.name}, plan {plan.hash}")
    for header in ("run", "role", "LxD", "D tokens", "state", "loss", "seconds"):
        table.add_column(header, justify="left" if header in ("run", "role", "state") else "right")
    for cell, state in zip(plan.cells, states, strict=True):
        spec = cell.spec
        size = f"{spec.model.n_layers}x{spec.model.d_model}"
        table.add_row(spec.run_id[:8], cell.role, size, f"{spec.n_tokens:,}", *state)
    return table


def fit_tables(fitted: Study) -> Group:
    """The study's fits: exponents by convention, parameters, minima, frontiers, statuses."""
    return Group(
        _allocation_table(fitted.settled, "Allocation N* ~ C^a, settled cells"),
        _allocation_table(fitted.all_cells, "Allocation N* ~ C^a, all cells"),
        _joint_table(fitted),
        _minima_table(fitted.settled[0]),
        _curve_table(fitted),
        _statuses(fitted),
    )


def _allocation_table(rows: Sequence[ConventionRow], title: str) -> Table:
    table = _table(f"{title} (90% intervals)")
    for header in ("N", "C", "a, joint fit", "a, exact FLOPs", "a, isoFLOP minima", "runs"):
        table.add_column(header)
    for row in rows:
        joint, iso = row.fit, row.isoflop
        table.add_row(
            row.n_convention,
            row.c_convention,
            interval(joint.allocation.get("a"), joint.allocation_intervals.get("a")),
            interval(
                joint.allocation.get("a_numeric"), joint.allocation_intervals.get("a_numeric")
            ),
            interval(iso.a, iso.intervals["a"]) if iso.ok else "refused",
            str(joint.n_rows),
        )
    return table


def _joint_table(fitted: Study) -> Table:
    table = _table("Joint fit L = E + A/N^alpha + B/D^beta, nats/token (90% intervals)")
    for header in ("cells", "N", "E", "A", "alpha", "B", "beta", "rmse log L"):
        table.add_column(header)
    for version, rows in fitted.versions().items():
        for fit in {row.n_convention: row.fit for row in rows}.values():
            names = ("E", "A", "alpha", "B", "beta")
            values = [parameter(fit, name) for name in names]
            rmse = math.sqrt(float((fit.residuals**2).mean())) if fit.ok else math.nan
            table.add_row(version, fit.n_convention, *values, f"{rmse:.4f}")
    return table


def _minima_table(row: ConventionRow) -> Table:
    table = _table(f"IsoFLOP minima, N {row.n_convention}, C {row.c_convention}")
    for header in ("budget", "N*", "D*", "loss", "status"):
        table.add_column(header)
    for m in row.minima:
        numbers = (m.n_params, m.n_tokens, m.loss_nats)
        shown = [f"{x:,.4g}" for x in numbers] if m.ok else ["-"] * 3
        table.add_row(f"{m.budget:.3g}", *shown, m.status if m.ok else f"refused: {m.status}")
    return table


def _curve_table(fitted: Study) -> Table:
    table = _table("Laws of one variable (90% intervals)")
    for header in ("law", "exponent", "coefficient", "floor E"):
        table.add_column(header)
    for frontier in fitted.frontiers:
        for label, fit in (("no floor", frontier.power), ("floor", frontier.power_floor)):
            exponent, coefficient = _exponent_and_coefficient(fit)
            floor = parameter(fit, "E") if "E" in fit.parameters else "none"
            name = f"L(C) along {frontier.source}, {label}"
            table.add_row(name, exponent, coefficient, floor)
    for limit in fitted.limits:
        values = [interval(limit.parameters[k], limit.intervals[k]) for k in limit.parameters]
        by_name = dict(zip(limit.parameters, values, strict=True))
        table.add_row(limit.label, by_name["alpha"], by_name["A"], by_name["E"])
    return table


def _exponent_and_coefficient(fit: Fit) -> tuple[str, str]:
    return parameter(fit, "alpha"), parameter(fit, "A")


def _statuses(fitted: Study) -> Table:
    table = _table("Status of every fit")
    for header in ("fit", "rows", "status"):
        table.add_column(header)
    for version, rows in fitted.versions().items():
        for row in {row.n_convention: row for row in rows}.values():
            label = f"joint, N {row.n_convention}, {version}"
            table.add_row(label, str(row.fit.n_rows), _fit_status(row.fit))
    for row in fitted.settled:
        label = f"isoFLOP exponents, N {row.n_convention}, C {row.c_convention}"
        table.add_row(label, str(row.isoflop.n_minima), row.isoflop.status)
    for frontier in fitted.frontiers:
        for label, fit in (("no floor", frontier.power), ("floor", frontier.power_floor)):
            name = f"L(C) along {frontier.source}, {label}"
            table.add_row(name, str(fit.n_rows), _fit_status(fit))
    return table


def _fit_status(fit: Fit) -> str:
    odd = {k: v for k, v in fit.parameter_status.items() if v not in ("", fit.status, "converged")}
    notes = "; ".join(f"{name}: {status}" for name, status in odd.items())
    return f"{fit.status}{' (' + notes + ')' if notes else ''}; {fit.interval_method}"


def prediction_table(prediction: dict[str, Any]) -> Table:
    """The written prediction of the held-out run."""
    when = "before it is trained" if prediction["is_blind"] else "AFTER it was trained elsewhere"
    title = f"Prediction of held-out run {prediction['run_id'][:8]}, written {when}"
    table = _table(title)
    for header in ("cells", "N", "predicted", "mean, 90%", "one new run, 90%"):
        table.add_column(header)
    for entry in prediction["predictions"]:
        table.add_row(entry["version"], entry["n_convention"], *_predicted(entry))
    return table


def score_table(score: dict[str, Any]) -> Table:
    """Predicted against measured, a miss said plainly."""
    measured, error = score["measured_loss_nats"], score["measured_loss_se_iid"]
    title = f"Held-out run {score['run_id'][:8]}: measured {measured:.4f} ± {error:.4f} nats/token"
    table = _table(title)
    for header in ("cells", "N", "predicted", "mean, 90%", "one new run, 90%", "error", "verdict"):
        table.add_column(header)
    for entry in score["predictions"]:
        off = "-" if entry["error_nats"] is None else f"{entry['error_nats']:+.4f}"
        verdict = {True: "hit", False: "MISS", None: "none"}[entry["hit"]]
        table.add_row(entry["version"], entry["n_convention"], *_predicted(entry), off, verdict)
    return table


def _predicted(entry: dict[str, Any]) -> tuple[str, str, str]:
    if not entry["ok"]:
        return f"no prediction: {entry['status']}", "-", "-"
    # Too few draws of the bootstrap give a prediction without intervals.
    mean, new_run = (
        "-" if None in (low, high) else f"[{low:.4f}, {high:.4f}]"
        for low, high in (entry["mean_interval"], entry["new_run_interval"])
    )
    return f"{entry['loss_nats']:.4f}", mean, new_run


def where(folder: SweepFolder) -> str:
    """Where the results of a sweep lie."""
    return (
        f"figures: {folder.figures}\nreport:  {folder.report}\n"
        f"tables:  {folder.runs_table}, {folder.curves_table}\n"
        f"fits:    {folder.fits}\n"
        "The laws hold over the range of the plan, if there: extrapolate with the interval in hand."
    )


def parameter(fit: Fit, name: str) -> str:
    """A parameter of a fit with its interval."""
    return interval(fit.parameters.get(name), fit.intervals.get(name)) if fit.ok else "failed"


def interval(value: float | None, bounds: tuple[float, float] | None) -> str:
    """A value with its interval, "-" if there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    if bounds is None or not all(math.isfinite(b) for b in bounds):
        return f"{value:.4g}"
    return f"{value:.4g} [{bounds[0]:.4g}, {bounds[1]:.4g}]"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
