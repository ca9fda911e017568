"""The page of one study: summary, charts with their controls, calculator, runs, and everything
written down under them."""

import base64
import html
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from analysis.figures.catalog import Drawing
from analysis.figures.draw import DRAWINGS
from analysis.figures.inputs import FigureInputs
from analysis.report import sections
from analysis.report.parts import page, paragraph, section
from analysis.report.payload import study_payload
from analysis.report.summary import summary
from train.records import write_atomically

SCRIPTS = (
    "text.js", "maths.js", "view.js", "marks.js", "dom.js", "charts_loss.js", "charts_fit.js",
    "charts_optimum.js",
    "run_table.js", "wiring.js", "calculator.js", "page.js",
)  # fmt: skip
CHARTS = {
    "compute": "Loss against compute",
    "isoflop": "IsoFLOP curves and minima",
    "law": "The law: loss against data by size",
    "surface": "The law: loss over size and data",
    "allocation": "Optimal size against compute",
    "exponents": "Exponent of the optimal size",
    "predicted": "Predicted against measured",
    "residuals": "Residuals",
    "heldout": "The held-out run",
    "curves": "Learning curves",
}
DRAWN_BY_CHARTS = (
    "allocation", "learning_curves", "approaches", "isoflop", "surface", "residuals", "predicted",
    "prediction",
)  # fmt: skip
MOST_IMAGE_BYTES = 2_600_000
"""Of all static figures together, before base64: the page stays under 10 MB with all else."""
N_COLORS = 255

CONTROLS = """<p id="law-text" role="status" data-testid="law-text"></p>
<div class="controls sticky">
<label for="n-convention">N counts<select id="n-convention" data-testid="n-convention"></select>
</label>
<label for="c-convention">C counts<select id="c-convention" data-testid="c-convention"></select>
</label>
<label for="axis-scale">Axes<select id="axis-scale" data-testid="axis-scale">
<option value="log">both logarithmic</option><option value="semi">horizontal logarithmic</option>
<option value="linear">linear</option></select></label>
<button type="button" id="show-all" data-testid="show-all">Show all runs</button>
</div>
<fieldset id="sizes"><legend>Sizes shown (layers x width)</legend></fieldset>
<p class="hint">Single runs are shown and hidden in the table of runs. Without some fitted runs the
law is refitted here, by least squares in log loss and without an interval. Drag across a chart to
zoom, double-click to zoom out.</p>
"""
CALCULATOR = """<div class="controls">
<label for="calc-compute">Compute C, FLOPs
<input id="calc-compute" data-testid="calc-compute" inputmode="decimal" placeholder="2e12"></label>
<label for="calc-params">or size N, parameters
<input id="calc-params" data-testid="calc-params" inputmode="decimal" placeholder="1e5"></label>
<label for="calc-tokens">and data D, tokens
<input id="calc-tokens" data-testid="calc-tokens" inputmode="decimal" placeholder="5e6"></label>
</div>
<div id="calc-output" data-testid="calc-output" role="status" aria-live="polite"></div>
"""
RUNS = """<div class="controls">
<label for="runs-filter">Filter<input id="runs-filter" data-testid="runs-filter" type="search"
 placeholder="n_layers &gt; 2 status = finished" aria-describedby="filter-hint runs-count"></label>
<button type="button" id="runs-hide-others" data-testid="runs-hide-others">Hide all others in the
charts</button>
<button type="button" id="download-csv" data-testid="download-csv">Runs as CSV</button>
<button type="button" id="download-json" data-testid="download-json">Runs as JSON</button>
<button type="button" id="download-fits" data-testid="download-fits">Fits as JSON</button>
</div>
<p class="hint" id="filter-hint">Words that a row must hold, and comparisons of a column with
&lt; &lt;= &gt; &gt;= = !=, as in <code>loss_nats &lt; 1.7 state = fitted</code>; names of columns
are shown when pointing at a heading.</p>
<p id="runs-count" role="status"></p>
<div class="wide" tabindex="0" role="region" aria-label="Runs"><table id="runs-table"
 data-testid="runs-table"><caption>All runs</caption><thead><tr></tr></thead><tbody></tbody></table>
</div>
<noscript><p>The table, the charts and the calculator need scripts; <code>python launch.py
table</code> prints the same rows.</p></noscript>
"""


def html_page(inputs: FigureInputs, images: Mapping[str, bytes]) -> str:
    """The page as a string.

    Args:
        inputs: what the figures were drawn from.
        images: PNG bytes by name of a figure; one of DRAWINGS that has no chart and none here is
            named as missing.
    """
    parts = (
        ("summary", "What came out", summary(inputs)),
        ("charts", "Charts", CONTROLS + charts(CHARTS)),
        ("calculator", "Calculator", CALCULATOR),
        ("runs", "Runs", RUNS),
        ("quality", "Data quality: flagged and left out", sections.quality(inputs)),
        ("prediction", "Predicted and measured", sections.predictions(inputs)),
        ("range", "Range, and what this does not say", sections.fitted_range(inputs)),
        ("exponents", "Allocation exponents", sections.exponents(inputs)),
        ("fits", "Fits", sections.fits(inputs)),
        ("minima", "IsoFLOP minima", sections.minima(inputs)),
        ("figures", "More figures", _figures(inputs, images)),
        ("conventions", "Conventions", sections.conventions(inputs)),
        ("provenance", "Provenance", sections.provenance(inputs)),
    )
    body = frame(inputs.title, parts)
    return page(inputs.title, body, study_payload(inputs), SCRIPTS)


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
    write_atomically(target, html_page(inputs, images))
    return target


def frame(title: str, parts: Iterable[tuple[str, str, str]]) -> str:
    """Header, contents and sections (id, title, HTML) of a page."""
    listed = list(parts)
    links = "".join(f'<li><a href="#{key}">{html.escape(name)}</a></li>' for key, name, _ in listed)
    body = "".join(section(*part) for part in listed)
    return (
        '<a class="skip" href="#summary">Skip to the summary</a>\n'
        f"<header><h1>{html.escape(title)}</h1>"
        '<button type="button" id="theme-toggle" data-testid="theme-toggle">Theme</button>'
        f'<nav aria-label="Contents"><ul>{links}</ul></nav></header>\n<main>{body}</main>'
    )


def charts(titles: Mapping[str, str]) -> str:
    """Empty charts, which the scripts fill: each with its sentence and its numbers in a table."""
    figures = "".join(
        f'<figure><h3>{html.escape(title)}</h3><div class="chart" id="chart-{name}" role="img" '
        f'aria-label="{html.escape(title)}" data-testid="chart-{name}"></div>'
        f"<figcaption></figcaption><details><summary>Numbers of this chart</summary>"
        f'<div class="wide" tabindex="0" role="region" '
        f'aria-label="{html.escape(title)}: numbers"></div></details></figure>\n'
        for name, title in titles.items()
    )
    return f'<div class="charts">{figures}</div>\n'


def _figures(inputs: FigureInputs, images: Mapping[str, bytes]) -> str:
    """Figures that have no chart, in as few bytes as they take, until they would be too many."""
    parts, left = [], MOST_IMAGE_BYTES
    for drawing in DRAWINGS:
        if drawing.name in DRAWN_BY_CHARTS:
            continue
        if drawing.name not in images:
            reason = drawing.missing(inputs)
            why = f": {reason}" if reason else ""
            parts.append(paragraph(f"The figure {drawing.name} was not drawn{why}."))
            continue
        data = _fewer_colors(images[drawing.name])
        if len(data) > left:
            parts.append(paragraph(f"The figure {drawing.name} is in the folder figures only."))
            continue
        left -= len(data)
        parts.append(_figure(drawing, data))
    return f'<div class="statics">{"".join(parts)}</div>'


def _figure(drawing: Drawing, data: bytes) -> str:
    caption, text = html.escape(drawing.caption), base64.b64encode(data).decode("ascii")
    return (
        f'<figure id="{drawing.name}"><img loading="lazy" alt="{caption}" {_sides(data)} '
        f'src="data:image/png;base64,{text}"><figcaption>{caption}</figcaption></figure>\n'
    )


def _sides(png: bytes) -> str:
    """Width and height, so that the page keeps the place of a picture that is not there yet."""
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    return f'width="{width}" height="{height}"'


def _fewer_colors(png: bytes) -> bytes:
    """The same picture from a palette: a third of the bytes, and hardly a difference to the eye.

    The octree is a fifth of the work of k-means about a median cut, at the same error and bytes.
    """
    from PIL import Image

    palette = {"method": Image.Quantize.FASTOCTREE, "dither": Image.Dither.NONE}
    small = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(N_COLORS, **palette).save(small, "PNG")
    return min(png, small.getvalue(), key=len)
