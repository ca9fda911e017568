"""Pieces of HTML that every page is made of; whatever comes from outside is escaped here."""

import base64
import hashlib
import html
import json
import math
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from train.records import to_plain

ESCAPED_IN_SCRIPT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """A table that scrolls within the page; every cell is escaped."""
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>\n"
        for row in rows
    )
    name = html.escape(caption)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{name}"><table>'
        f"<caption>{name}</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>\n"
    )


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>\n"


def html_list(answers: Iterable[tuple[str, str]]) -> str:
    """Terms and sentences, the lead of a page."""
    items = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd></div>\n"
        for name, text in answers
    )
    return f'<dl class="lead">{items}</dl>\n'


def section(identity: str, title: str, body: str) -> str:
    """A landmark with a heading."""
    return (
        f'<section id="{identity}" aria-labelledby="{identity}-title">'
        f'<h2 id="{identity}-title">{html.escape(title)}</h2>\n{body}</section>\n'
    )


def interval(bounds: tuple[float, float], digits: int | None = None) -> str:
    """Bounds as text, "[none]" if there are none."""
    low, high = bounds
    if not math.isfinite(low + high):
        return "[none]"
    form = ".4g" if digits is None else f".{digits}f"
    return f"[{low:{form}}, {high:{form}}]"


def number(value: Any) -> str:
    """A cell: floats to five digits, integers whole, what is missing as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.5g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def json_for_script(values: Any) -> str:
    """JSON that is safe between script tags; what is not finite becomes null."""
    text = json.dumps(to_plain(values), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.translate(ESCAPED_IN_SCRIPT)


def static(name: str) -> str:
    """A file of static/."""
    return files("analysis.report").joinpath("static", name).read_text(encoding="utf-8")


def plotly() -> str:
    """The library of the charts, as its Python package ships it."""
    library = files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    return library.replace("</script", "<\\/script")


def page(title: str, body: str, payload: Any, scripts: Sequence[str]) -> str:
    """A whole page that reads nothing but itself and runs no script but those given.

    Args:
        title: of the page, plain text.
        body: HTML of everything between the header and the scripts.
        payload: JSON values that the scripts read from the element report-data.
        scripts: names of files of static/, in order.
    """
    name = html.escape(title)
    theme, ours = static("theme.js"), "\n".join(static(script) for script in scripts)
    inlined = [theme, plotly(), ours]
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in inlined)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{static('style.css')}</style>\n"
        f"<script>{theme}</script>\n</head>\n<body>\n{body}\n"
        f'<script type="application/json" id="report-data">{json_for_script(payload)}</script>\n'
        f"<script>{inlined[1]}</script>\n<script>{ours}</script>\n</body></html>\n"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
