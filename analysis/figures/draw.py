"""Drawing the figures of a study: all or by name, alone or beside the paper's own."""

import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from matplotlib import rcParams
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.catalog import DRAWINGS, Drawing
from analysis.figures.inputs import FigureInputs
from analysis.figures.style import Page, save

MANY_RUNS, MOST_PROCESSES = 300, 4


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
    n_processes: int = 1,
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
        n_processes: draw side by side; each but this one imports anew, so they are for many runs,
            and the program that calls needs the usual `if __name__ == "__main__"`.

    Raises: ValueError: there is no figure of that name.
    """
    drawings = named(only)
    work = _Work(inputs, Path(directory), page, published or {}, tuple(formats))
    left_out = not_drawn(inputs, drawings)
    drawable = [d for d in drawings if d.name not in left_out or d.published in work.published]
    if min(n_processes, len(drawable)) < 2:
        return [path for drawing in drawable for path in work.draw(drawing)]
    found = _drawn_together(work, drawable, n_processes - 1)
    return [path for drawing in drawable for path in found[drawing.name]]


def _drawn_together(
    work: "_Work", drawings: Sequence[Drawing], n_helpers: int
) -> dict[str, list[Path]]:  # fmt: skip
    """This process draws from the first on and helpers from the last on, until they meet."""
    with ProcessPoolExecutor(n_helpers, get_context("spawn"), _begin, (work,)) as pool:
        handed = {d.name: pool.submit(_draw_handed, d.name) for d in reversed(drawings)}
        try:
            own = {d.name: work.draw(d) for d in drawings if handed[d.name].cancel()}
            rest = {name: share.result() for name, share in handed.items() if name not in own}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return own | rest


def processes_for(n_runs: int) -> int:
    """One, and one a core where there are many runs: another costs two seconds to start."""
    if n_runs < MANY_RUNS:
        return 1
    return min(MOST_PROCESSES, len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class _Work:
    """What to draw of, where to, and how: the arguments of draw_all."""

    inputs: FigureInputs
    folder: Path
    page: Page
    published: Mapping[str, FigureInputs]
    formats: tuple[str, ...]

    def draw(self, drawing: Drawing) -> list[Path]:
        """Draw and save one figure that the study or its paper has the records for."""
        theirs = self.published.get(drawing.published)
        suffix = f"{'-published' if theirs else ''}{'-column' if self.page.is_column else ''}"
        ours = None if drawing.missing(self.inputs) else self.inputs
        if ours is not None and theirs is not None:
            figure = beside(drawing, ours, theirs, self.page)
        else:
            chosen = ours or theirs
            assert chosen is not None
            figure = drawing.draw(chosen, self.page)
        return save(figure, self.folder / f"{drawing.name}{suffix}", self.formats)


_HANDED: list[_Work] = []
"""What this process was given when it began to help another."""


def _begin(work: _Work) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whom Ctrl-C stops is the caller, and he says so
    _HANDED.append(work)


def _draw_handed(name: str) -> list[Path]:
    """One figure for another process; a drawing has functions, so it travels by name."""
    (drawing,) = named([name])
    return _HANDED[0].draw(drawing)


def beside(
    drawing: Drawing, ours: FigureInputs, theirs: FigureInputs, page: Page = style.SCREEN
) -> Figure:
    """One figure of both, drawn by the same function: ours first, then the paper's points."""
    is_row = drawing.is_narrow and not page.is_column
    figure = style.empty_figure(*rcParams["figure.figsize"])
    parts: Any = figure.subfigures(1, 2) if is_row else figure.subfigures(2, 1)
    asked: list[tuple[float, float]] = []
    for part, inputs in zip(parts, (ours, theirs), strict=True):
        drawing.draw(inputs, replace(page, parent=part, asked=asked))
    width, height = (max(values) for values in zip(*asked, strict=True))
    figure.set_size_inches(*((2 * width, height) if is_row else (width, 2 * height)))
    return figure
