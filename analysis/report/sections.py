"""The written parts of the page: tables and sentences that need no script."""

from collections.abc import Sequence

import numpy as np

from analysis.conventions import ConventionRow
from analysis.figures.allocation import estimates
from analysis.figures.inputs import C_MEANING, N_MEANING, FigureInputs, HeldOut
from analysis.figures.prediction import NOTHING_YET, verdict
from analysis.figures.text import equation, short, with_interval
from analysis.report.parts import interval, number, paragraph, table
from analysis.table.quality import quality_control

PROVENANCE = (
    "corpus", "corpus_hash", "tokenizer", "seq_len", "vocab_size", "batch_tokens", "schedule",
    "beta2", "weight_decay", "dtype", "parametrization", "device", "mode", "jax_version",
    "git_commit", "record_version",
)  # fmt: skip


def predictions(inputs: FigureInputs) -> str:
    """What was predicted of the held-out run under each convention, and what it measured."""
    if not inputs.held_out:
        return paragraph(NOTHING_YET[0].upper() + NOTHING_YET[1:] + ".")
    rows = [
        (
            f"N {h.n_convention}, C {h.c_convention}",
            f"{short(h.n_params)}, {short(h.n_tokens)}, {short(h.train_flops)}",
            f"{h.prediction.loss_nats:.4f}" if h.prediction.ok else h.prediction.status,
            interval(h.prediction.mean_interval, 4),
            interval(h.prediction.new_run_interval, 4),
            number(h.measured_loss_nats),
            verdict(h),
        )
        for h in inputs.held_out
    ]
    level = f"{inputs.held_out[0].prediction.interval_level:.0%}"
    heads = ("convention", "N, D, C", "predicted", f"{level}, mean", f"{level}, one new run",
             "measured", "verdict")  # fmt: skip
    sentences = "".join(paragraph(verdict_sentence(h)) for h in inputs.held_out)
    return sentences + table(heads, rows, "The held-out run: predicted before it was trained")


def verdict_sentence(held_out: HeldOut) -> str:
    """A hit or a miss, with the numbers; or why there is neither."""
    where = f"Run {held_out.run_id} under N {held_out.n_convention}, C {held_out.c_convention}"
    found, loss = held_out.prediction, held_out.measured_loss_nats
    if not found.ok:
        return f"{where}: no prediction, as the fit failed ({found.status})."
    if loss is None:
        return f"{where}: predicted {found.loss_nats:.4f}; not trained yet."
    error = loss - found.loss_nats
    bounds = interval(found.new_run_interval, 4)
    text = (
        f"{error:+.4f} from the prediction {found.loss_nats:.4f} ({error / found.loss_nats:+.1%})"
    )
    if held_out.is_hit:
        return f"{where}: a hit. Measured {loss:.4f} lies inside of {bounds}, {text}."
    return f"{where}: a MISS. Measured {loss:.4f} lies outside of {bounds}, {text}."


def fitted_range(inputs: FigureInputs) -> str:
    """Between which numbers the runs lie, and what no interval knows."""
    points = inputs.main_points
    if not len(points):
        return paragraph("No run was fitted, so nothing is said at any scale.")
    n_convention, c_convention = inputs.headline
    spans = (
        (f"N ({n_convention})", points.n_params, "parameters"),
        ("D", points.n_tokens, "tokens"),
        (f"C ({c_convention})", points.train_flops, "FLOPs"),
    )
    rows = [
        (name, f"{short(v.min())} {unit}", f"{short(v.max())} {unit}", f"{v.max() / v.min():.3g}x")
        for name, v, unit in spans
    ]
    text = (
        "The fits know only what lies between these numbers. The intervals measure the scatter of "
        "the runs within this range and do not know whether the law goes on beyond it."
    )
    heads = ("fitted runs", "smallest", "largest", "ratio")
    return paragraph(text) + table(heads, rows, "Range of the fitted runs")


def exponents(inputs: FigureInputs) -> str:
    """The exponent of the optimal size by every method, with and without flagged runs."""
    rows = [
        (version, f"N {row.n_convention}", f"C {row.c_convention}", method,
         with_interval(a, bounds, 3), status)
        for version, fitted in _versions(inputs)
        for row in fitted
        for method, a, bounds, status in estimates(row)
    ]  # fmt: skip
    heads = ("runs", "N", "C", "method", "a [interval]", "status")
    return table(heads, rows, "Exponent a of N* ~ C^a by method and convention")


def fits(inputs: FigureInputs) -> str:
    """Every fitted law with intervals, objective and status sentence."""
    listed = [(f"joint, {version}", row.fit) for version, rows in _versions(inputs) for row in rows]
    for frontier in inputs.frontiers:
        listed += [
            (f"frontier, {frontier.source}", f) for f in (frontier.power, frontier.power_floor)
        ]
    rows = [
        (
            source,
            equation(fit),
            f"N {fit.n_convention}, C {fit.c_convention}",
            ", ".join(
                f"{k} = {v:.4g} {interval(fit.intervals[k])}" for k, v in fit.parameters.items()
            ) if fit.ok else "none",
            fit.status,
            f"{fit.objective}, delta {fit.delta:g}" if fit.delta else fit.objective,
            f"{fit.objective_value:.4g}" if fit.ok else "none",
            str(fit.n_rows),
            fit.interval_method,
        )
        for source, fit in listed
    ]  # fmt: skip
    heads = ("fit", "law", "convention", "parameters [90% interval]", "status", "objective",
             "its value", "rows", "intervals")  # fmt: skip
    return table(heads, rows, "Every fit, with its status")


def _versions(inputs: FigureInputs) -> list[tuple[str, Sequence[ConventionRow]]]:
    versions: list[tuple[str, Sequence[ConventionRow]]] = [("as fitted", inputs.conventions)]
    return versions + ([("no flagged run left out", inputs.all_cells)] if inputs.all_cells else [])


def minima(inputs: FigureInputs) -> str:
    """The minimum of every budget, or why it was refused."""
    rows = [
        (f"N {row.n_convention}, C {row.c_convention}", short(m.budget),
         "accepted" if m.ok else "refused", m.status, short(m.n_params), short(m.n_tokens),
         number(m.loss_nats), str(len(m.size_n_params)))
        for row in inputs.conventions
        for m in row.minima
    ]  # fmt: skip
    if not rows:
        return paragraph("No run belongs to an isoFLOP budget.")
    heads = ("convention", "budget", "minimum", "reason", "N*", "D*", "loss", "sizes")
    return table(heads, rows, "IsoFLOP minima, accepted and refused")


def quality(inputs: FigureInputs) -> str:
    """Runs that carry a flag or were left out, and doubts about the grid, each with its reason."""
    points = inputs.main_points
    rows = [
        (run_id, "fitted", "; ".join(flags))
        for run_id, flags in zip(points.run_id, points.flags, strict=True)
        if flags
    ]
    rows += [(run_id, "not fitted", reason) for run_id, reason in inputs.main.fit.rows_excluded]
    rows += [
        (finding.label, "doubt about the grid", f"{finding.name}: {finding.detail}")
        for finding in quality_control(points)
    ]
    if not rows:
        return paragraph("No run is flagged and none was left out.")
    return table(("run or budget", "state", "reason"), rows, "Flagged, left out, or doubtful")


def conventions(inputs: FigureInputs) -> str:
    """What N and C count."""
    used = {(f"N {row.n_convention}", N_MEANING[row.n_convention]) for row in inputs.conventions}
    used |= {(f"C {row.c_convention}", C_MEANING[row.c_convention]) for row in inputs.conventions}
    rows = [*sorted(used, reverse=True), ("D", "training tokens seen"), ("loss", inputs.unit)]
    return table(("symbol", "meaning"), rows, "What the symbols count")


def provenance(inputs: FigureInputs) -> str:
    """Corpus, versions, device and hashes."""
    runs = inputs.runs
    rows = [
        (name, ", ".join(str(value) for value in runs[name].unique()))
        for name in PROVENANCE
        if name in runs.columns
    ]
    if "seconds" in runs.columns:
        total = float(np.nansum(runs["seconds"].to_numpy(np.float64)))
        rows.append(("seconds of training, all runs", f"{total:.0f}"))
    for row in inputs.conventions:
        label = f"table of N {row.n_convention}, C {row.c_convention}"
        rows.append((label, f"hash {row.fit.table_hash}"))
    return table(("what", "value"), rows, "Where the runs come from")
