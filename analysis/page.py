"""A self-contained HTML page of sentences, tables and figures, for whatever is no loss surface."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.report.parts import static
from analysis.tables import Row
from train.records import write_atomically


def write_page(
    title: str,
    sentences: Sequence[str],
    tables: Mapping[str, Sequence[Row]],
    figures: Mapping[Path, str],
    path: Path,
) -> None:
    """Write the page, whole or not at all; `figures` are captions by PNG file."""
    name = html.escape(title)
    body = "".join(f"<p>{html.escape(sentence)}</p>\n" for sentence in sentences)
    body += "".join(_figure(file, caption) for file, caption in figures.items())
    body += "".join(f"<h2>{html.escape(t)}</h2>\n{_table(rows)}" for t, rows in tables.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(
        path,
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{static('style.css')}</style></head>\n"
        f"<body><main>\n<h1>{name}</h1>\n{body}</main></body></html>\n",
    )


def _figure(file: Path, caption: str) -> str:
    data, text = base64.b64encode(file.read_bytes()).decode("ascii"), html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>\n"
    )


def _table(rows: Sequence[Row]) -> str:
    def line(tag: str, cells) -> str:
        return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)

    head = line("th", rows[0]) if rows else ""
    body = "".join(f"<tr>{line('td', row.values())}</tr>\n" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>\n'
