"""Drawing the figures of a study: all or by name, alone or beside the paper's own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.catalog import DRAWINGS, Drawing
from analysis.figures.inputs import FigureInputs
from analysis.figures.style import Page, save


def named(names: Sequence[str]) -> tuple[Drawing, ...]:
    """Drawings by name, in the order of DRAWINGS; all of them where none is named.

    Raises: ValueError: there is none of that name.
    """
    known = {drawing.name: drawing for drawing in DRAWINGS}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"only={unknown[0]!r} is no figure; use one of {', '.join(known)}")
    return tuple(d for d in DRAWINGS if not names or d.name in names)


def not_drawn(
    inputs: FigureInputs, drawings: Sequence[Drawing] | None = None
) -> dict[str, str]:  # fmt: skip
    """Figures (by default all) that the records do not support, each with the reason."""
    reasons = {drawing.name: drawing.missing(inputs) for drawing in drawings or DRAWINGS}
    return {name: reason for name, reason in reasons.items() if reason}


def draw_all(
    inputs: FigureInputs,
    directory: Path | str,
    only: Sequence[str] = (),
    page: Page = style.SCREEN,
    published: Mapping[str, FigureInputs] | None = None,
    formats: Sequence[str] = style.FORMATS,
) -> list[Path]:
    """Draw figures into a directory, as NAME.png, .pdf and .svg; returns the files.

    Args:
        inputs: of the study.
        directory: made if need be.
        only: names of DRAWINGS; none for all.
        page: SCREEN, or COLUMN for a column of print (NAME-column.png and so on).
        published: inputs of papers by name; a figure of one shows ours and theirs
            (NAME-published.png and so on).
        formats: png, pdf, svg, or some of them.

    Raises: ValueError: there is no figure of that name.
    """
    folder, drawings = Path(directory), named(only)
    suffix = "-column" if page.is_column else ""
    left_out = not_drawn(inputs, drawings)
    paths = []
    for drawing in drawings:
        theirs = (published or {}).get(drawing.published)
        stem = folder / f"{drawing.name}{'-published' if theirs else ''}{suffix}"
        ours = None if drawing.name in left_out else inputs
        if ours is not None and theirs is not None:
            paths += save(beside(drawing, ours, theirs, page), stem, formats)
        elif chosen := ours or theirs:
            paths += save(drawing.draw(chosen, page), stem, formats)
    return paths


def beside(
    drawing: Drawing, ours: FigureInputs, theirs: FigureInputs, page: Page = style.SCREEN
) -> Figure:
    """One figure of both, drawn by the same function: ours first, then the paper's points."""
    is_row = drawing.is_narrow and not page.is_column
    figure = Figure(layout="constrained", facecolor="white")
    parts: Any = figure.subfigures(1, 2) if is_row else figure.subfigures(2, 1)
    asked: list[tuple[float, float]] = []
    for part, inputs in zip(parts, (ours, theirs), strict=True):
        drawing.draw(inputs, replace(page, parent=part, asked=asked))
    width, height = (max(values) for values in zip(*asked, strict=True))
    figure.set_size_inches(*((2 * width, height) if is_row else (width, 2 * height)))
    return figure
