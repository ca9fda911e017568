"""One self-contained HTML page of a sweep: law, interval and verdict first, then everything else.

No script and no network; figures are inlined, and whatever came from outside is escaped.
"""

import base64
import html
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.conventions import ConventionRow
from analysis.figures.allocation import estimates
from analysis.figures.draw import DRAWINGS
from analysis.figures.inputs import C_MEANING, N_MEANING, FigureInputs, HeldOut, count_text
from analysis.figures.kaplan import equation
from analysis.figures.prediction import NOTHING_YET, verdict
from analysis.figures.style import short, with_interval
from analysis.published import ALLOCATION_EXPONENTS

RUN_TABLE = {  # column of a record -> heading
    "run_id": "run",
    "role": "role",
    "status": "status",
    "n_layers": "layers",
    "d_model": "d_model",
    "n_params_total": "N total",
    "n_params_non_embedding": "N non-embedding",
    "n_tokens": "D",
    "train_flops_matmul_full": "C matmul_full",
    "isoflop_budget": "budget",
    "n_steps": "steps",
    "lr": "lr",
    "seed_init": "seed",
    "loss_nats": "validation loss",
    "loss_se_document": "its standard error",
    "train_loss_nats_final": "training loss",
    "seconds": "seconds",
}
PROVENANCE = (
    "corpus", "corpus_hash", "tokenizer", "seq_len", "vocab_size", "batch_tokens", "schedule",
    "beta2", "weight_decay", "dtype", "parametrization", "device", "mode", "jax_version",
    "git_commit", "record_version",
)  # fmt: skip

CSS = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #8886; padding: 0.25rem 0.7rem 0.25rem 0; text-align: left; }
td { vertical-align: top; }
figure { margin: 2rem 0; } figure img { max-width: 100%; height: auto; background: white; }
figcaption { font-size: 0.9rem; max-width: 60rem; }
.lead { font-size: 1.1rem; border-left: 4px solid #0072b2; padding-left: 1rem; }
"""


def html_page(inputs: FigureInputs, images: dict[str, bytes]) -> str:
    """The page as a string.

    Args:
        inputs: what the figures were drawn from.
        images: PNG bytes by name of a figure; a figure of DRAWINGS without one is named as missing.
    """
    title = html.escape(inputs.title)
    sections = (
        ("What came out", _headline(inputs)),
        ("Predicted and measured", _predictions(inputs)),
        ("Range, and what this does not say", _range(inputs)),
        ("Figures", _figures(images)),
        ("Allocation exponents", _exponents(inputs)),
        ("Fits", _fits(inputs)),
        ("IsoFLOP minima", _minima(inputs)),
        ("Quality: flagged and left out", _quality(inputs)),
        ("Runs", _runs(inputs)),
        ("Conventions", _conventions(inputs)),
        ("Provenance", _provenance(inputs)),
    )
    body = "\n".join(f"<section><h2>{name}</h2>\n{text}</section>" for name, text in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{CSS}</style></head>\n<body><main>\n<h1>{title}</h1>\n"
        f"{body}\n</main></body></html>\n"
    )


def write_report(inputs: FigureInputs, figures: Iterable[Path], path: Path | str) -> Path:
    """Write the page, whole or not at all.

    Args:
        inputs: what the figures were drawn from.
        figures: files as draw_all returns them; those that are PNG are inlined by name.
        path: of the page.
    """
    images = {p.stem: p.read_bytes() for p in map(Path, figures) if p.suffix == ".png"}
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(html_page(inputs, images), encoding="utf-8")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _headline(inputs: FigureInputs) -> str:
    sentences = [
        f"{count_text(inputs)}, trained on the corpus {inputs.corpus}; losses in {inputs.unit}.",
        *(_exponent_sentence(row) for row in inputs.conventions),
    ]
    published = ", ".join(
        f"{p.label} {p.a:g}"
        for p in ALLOCATION_EXPONENTS
        if p.label.startswith(("Kaplan", "Hoffmann"))
    )
    lead, *rest = (html.escape(sentence) for sentence in sentences)
    items = "".join(f"<li>{sentence}</li>" for sentence in rest)
    return (
        f'<div class="lead"><p>{lead}</p><p>How compute-optimal model size grows with compute, '
        f"N* ~ C^a, from these runs:</p><ul>{items}</ul>"
        f"<p>Published, at other scales: {html.escape(published)}.</p></div>\n"
    )


def _exponent_sentence(row: ConventionRow) -> str:
    parts = []
    for method, a, interval, status in estimates(row):
        value = with_interval(a, interval) if math.isfinite(a) else f"no exponent ({status})"
        parts.append(f"{value} by {method}")
    percent = f"{row.fit.interval_level:.0%} intervals"
    return f"N {row.n_convention}, C {row.c_convention}: a = {'; '.join(parts)} ({percent})."


def _predictions(inputs: FigureInputs) -> str:
    if not inputs.held_out:
        return _paragraph(NOTHING_YET[0].upper() + NOTHING_YET[1:] + ".")
    rows = [
        (
            f"N {h.n_convention}, C {h.c_convention}",
            f"{short(h.n_params)}, {short(h.n_tokens)}, {short(h.train_flops)}",
            f"{h.prediction.loss_nats:.4f}" if h.prediction.ok else h.prediction.status,
            _interval(h.prediction.mean_interval, 4),
            _interval(h.prediction.new_run_interval, 4),
            _number(h.measured_loss_nats),
            verdict(h),
        )
        for h in inputs.held_out
    ]
    level = f"{inputs.held_out[0].prediction.interval_level:.0%}"
    heads = ("convention", "N, D, C", "predicted", f"{level}, mean", f"{level}, one new run",
             "measured", "verdict")  # fmt: skip
    sentences = "".join(_paragraph(_verdict_sentence(h)) for h in inputs.held_out)
    return sentences + _table(heads, rows)


def _verdict_sentence(held_out: HeldOut) -> str:
    where = f"Run {held_out.run_id} under N {held_out.n_convention}, C {held_out.c_convention}"
    found, loss = held_out.prediction, held_out.measured_loss_nats
    if not found.ok:
        return f"{where}: no prediction, as the fit failed ({found.status})."
    if loss is None:
        return f"{where}: predicted {found.loss_nats:.4f}; not trained yet."
    error = loss - found.loss_nats
    interval = _interval(found.new_run_interval, 4)
    text = (
        f"{error:+.4f} from the prediction {found.loss_nats:.4f} ({error / found.loss_nats:+.1%})"
    )
    if held_out.is_hit:
        return f"{where}: a hit. Measured {loss:.4f} lies inside of {interval}, {text}."
    return f"{where}: a MISS. Measured {loss:.4f} lies outside of {interval}, {text}."


def _range(inputs: FigureInputs) -> str:
    points = inputs.main_points
    if not len(points):
        return _paragraph("No run was fitted, so nothing is said at any scale.")
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
        "the runs within this range and do not know whether the law goes on beyond it; one corpus, "
        "one tokenizer and one training recipe were used."
    )
    return _paragraph(text) + _table(("fitted runs", "smallest", "largest", "ratio"), rows)


def _figures(images: dict[str, bytes]) -> str:
    parts = []
    for drawing in DRAWINGS:
        caption = html.escape(drawing.caption)
        if drawing.name not in images:
            parts.append(_paragraph(f"The figure {drawing.name} was not drawn."))
            continue
        data = base64.b64encode(images[drawing.name]).decode("ascii")
        parts.append(
            f'<figure id="{drawing.name}"><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>\n"
        )
    return "".join(parts)


def _exponents(inputs: FigureInputs) -> str:
    rows = [
        (version, f"N {row.n_convention}", f"C {row.c_convention}", method,
         with_interval(a, interval, 3), status)
        for version, fitted in _versions(inputs)
        for row in fitted
        for method, a, interval, status in estimates(row)
    ]  # fmt: skip
    heads = ("runs", "N", "C", "method", "a [interval]", "status")
    return _table(heads, rows)


def _fits(inputs: FigureInputs) -> str:
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
                f"{k} = {v:.4g} {_interval(fit.intervals[k])}" for k, v in fit.parameters.items()
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
    return _table(heads, rows)


def _versions(inputs: FigureInputs) -> list[tuple[str, Sequence[ConventionRow]]]:
    versions: list[tuple[str, Sequence[ConventionRow]]] = [("as fitted", inputs.conventions)]
    return versions + ([("no flagged run left out", inputs.all_cells)] if inputs.all_cells else [])


def _minima(inputs: FigureInputs) -> str:
    rows = [
        (f"N {row.n_convention}, C {row.c_convention}", short(m.budget),
         "accepted" if m.ok else "refused", m.status, short(m.n_params), short(m.n_tokens),
         _number(m.loss_nats), str(len(m.size_n_params)))
        for row in inputs.conventions
        for m in row.minima
    ]  # fmt: skip
    if not rows:
        return _paragraph("No run belongs to an isoFLOP budget.")
    heads = ("convention", "budget", "minimum", "reason", "N*", "D*", "loss", "sizes")
    return _table(heads, rows)


def _quality(inputs: FigureInputs) -> str:
    points = inputs.main_points
    rows = [
        (run_id, "fitted", "; ".join(flags))
        for run_id, flags in zip(points.run_id, points.flags, strict=True)
        if flags
    ]
    rows += [(run_id, "not fitted", reason) for run_id, reason in inputs.main.fit.rows_excluded]
    if not rows:
        return _paragraph("No run is flagged and none was left out.")
    return _table(("run", "state", "reason"), rows)


def _runs(inputs: FigureInputs) -> str:
    present = [name for name in RUN_TABLE if name in inputs.runs.columns]
    rows = [[_number(row[name]) for name in present] for row in inputs.runs.to_dict("records")]
    return _table([RUN_TABLE[name] for name in present], rows)


def _conventions(inputs: FigureInputs) -> str:
    used = {(f"N {row.n_convention}", N_MEANING[row.n_convention]) for row in inputs.conventions}
    used |= {(f"C {row.c_convention}", C_MEANING[row.c_convention]) for row in inputs.conventions}
    rows = [*sorted(used, reverse=True), ("D", "training tokens seen"), ("loss", inputs.unit)]
    return _table(("symbol", "meaning"), rows)


def _provenance(inputs: FigureInputs) -> str:
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
    return _table(("what", "value"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; every cell is escaped here."""
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>\n"
    )


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>\n"


def _interval(interval: tuple[float, float], digits: int | None = None) -> str:
    low, high = interval
    if not math.isfinite(low + high):
        return "[none]"
    form = ".4g" if digits is None else f".{digits}f"
    return f"[{low:{form}}, {high:{form}}]"


def _number(value: Any) -> str:
    """A cell: floats to five digits, integers whole, what is missing as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.5g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
