"""The look that all figures share; nothing here touches pyplot.

Colours: cividis and viridis (ordered quantities) and Okabe-Ito (categories) stay apart for colour
blind readers and in grey; shape or dash tells the same thing a second time.
"""

import math
import os
import textwrap
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)
from matplotlib.transforms import ScaledTranslation

from analysis.figures.inputs import FigureInputs, Group, count_text
from analysis.figures.text import (
    optimal_text,
    plain,
    power_of_ten,
    short,
    with_interval,
    wrapped,
)

__all__ = ["optimal_text", "plain", "power_of_ten", "short", "with_interval", "wrapped"]  # of text

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#6b6b6b"
BAND_ALPHA = 0.18
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 2}
"""Behind a text that crosses lines."""

TITLE_SIZE, LABEL_SIZE, TICK_SIZE, SMALL_SIZE = 12, 10, 9, 8
MARKER_SIZE = 42
X_LABEL_BELOW = 22.0
"""Points from an axis to its label: ticks and one line of their labels."""
FLAG_MARKERS = ("s", "^", "D", "v", "P", "X")
PNG_DPI = 150
PLAIN_FROM, PLAIN_TO = 1e-3, 2e3
"""An axis within these bounds, such as one of ratios, has plain numbers and no powers of ten."""
MOST_VECTOR_POINTS = 20_000
NO_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Creator": None, "Date": None},
}
HOW_TO_SAVE: dict[str, Any] = {"png": {"pil_kwargs": {"compress_level": 3}}}
"""A twentieth more bytes than the default, in half the time."""
PADS: dict[str, Any] = {"w_pad": 0.08, "h_pad": 0.08, "wspace": 0.03, "hspace": 0.03}
"""Of the layout, inches and shares of a panel."""
FORMATS = tuple(NO_METADATA)
_SETTINGS = threading.Lock()
"""Ids in an SVG are only equal under a global setting, which threads take in turns."""
FLOOR_IN_SIGHT = 0.8
"""A floor above this share of the lowest loss is drawn; one further below, which would squeeze the
runs, is named under the axis."""
FEW_SIZES = 10
"""Up to this many model sizes, each is a tick of the colour bar."""


@dataclass(frozen=True)
class Page:
    """Where a figure goes: across a screen or page, or in a column of print, panels stacked.

    A column is drawn 5 inches wide, to be printed at 3.4: labels of 7 points, notes of 5.5.
    `parent` is the part of a larger figure to draw on; `asked` collects the width and height that
    was asked for there.
    """

    is_column: bool = False
    parent: SubFigure | None = None
    asked: list[tuple[float, float]] = field(default_factory=list)


SCREEN, COLUMN = Page(), Page(is_column=True)
COLUMN_WIDTH = 5.0


def new_figure(
    title: str, footer: str, *, width: float, height: float, page: Page = SCREEN
) -> Figure:
    """An empty figure with its title above and its footer below, which the layout leaves free.

    On a page with a parent it is that part of the larger figure.
    """

    if page.is_column:
        width = COLUMN_WIDTH
    if page.parent is None:
        figure = empty_figure(width, height)
    else:
        figure = cast(Figure, page.parent)
        page.asked.append((width, height))
    heading = textwrap.fill(plain(title), int(width * 8.5))
    figure.suptitle(heading, fontsize=TITLE_SIZE, x=0.01, ha="left", weight="bold")
    lines = textwrap.fill(plain(footer), int(width * 15.5))
    figure.supxlabel(lines, fontsize=SMALL_SIZE, x=0.01, ha="left", color=GREY)
    return figure


def empty_figure(width: float, height: float) -> Figure:
    """A figure that is laid out and drawn by one renderer, which measures every text once."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(**PADS)
    return figure


def panels(
    page: Page,
    title: str,
    footer: str,
    n: int,
    *,
    width: float,
    height: float,
    ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure of n panels side by side; in a column of print one under the other."""
    if page.is_column:
        figure = new_figure(title, footer, width=width, height=1.0 + n * 0.66 * height, page=page)
        return figure, list(np.atleast_1d(figure.subplots(n, 1)))
    figure = new_figure(title, footer, width=width, height=height, page=page)
    return figure, list(np.atleast_1d(figure.subplots(1, n, width_ratios=ratios)))


def footer(
    inputs: FigureInputs, *, conventions: str | None = None, runs: str | None = None, law: str = ""
) -> str:
    """Corpus, unit, conventions, number of runs and the fitted law, for below a figure."""
    n_convention, c_convention = inputs.headline
    meaning = conventions or f"N {n_convention}, C {c_convention}"
    said = (
        f"corpus {inputs.corpus}  ·  loss in {inputs.unit}  ·  conventions: {meaning}  ·  "
        f"{runs or count_text(inputs)}"
    )
    return f"{said}  ·  {law}" if law else said


def label_axes(ax: Axes, x: str, y: str, title: str = "") -> None:
    """Axis labels, panel title, tick size and a grid that stays behind."""
    ax.set_xlabel(x, fontsize=LABEL_SIZE)
    ax.set_ylabel(y, fontsize=LABEL_SIZE)
    # Places that are given are not searched for: each search measures every label of a tick anew.
    ax.set_title(title, fontsize=LABEL_SIZE, loc="left", y=1.0)
    scale = ax.figure.dpi_scale_trans  # type: ignore[union-attr]
    below = ax.transAxes + ScaledTranslation(0, -X_LABEL_BELOW / 72, scale)
    ax.xaxis.set_label_coords(0.5, 0.0, transform=below)
    ax.tick_params(labelsize=TICK_SIZE, which="both")
    ax.grid(True, color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def log_axis(ax: Axes, name: Literal["x", "y"], values: Any, *, pad: float = 1.25) -> None:
    """A log axis over positive values, labelled 10^k, and between these where decades are few."""

    low, high = float(np.min(values)) / pad, float(np.max(values)) * pad
    ax.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
    axis = ax.xaxis if name == "x" else ax.yaxis
    decades = math.log10(high / low)
    is_plain = low >= PLAIN_FROM and high <= PLAIN_TO
    axis.set_major_locator(LogLocator(10))
    formatter = FuncFormatter(lambda x, _: f"{x:g}" if is_plain else power_of_ten(x))
    axis.set_major_formatter(formatter)
    if decades >= 2.2:
        axis.set_minor_locator(NullLocator())  # a mark costs as much time as a label
    else:
        some = (2, 5) if name == "x" else (2, 3, 5)
        between = (3,) if decades > 1.2 else some if decades > 0.6 else (2, 3, 4, 6, 8)
        axis.set_minor_locator(LogLocator(10, subs=between))
        axis.set_minor_formatter(formatter)


def loss_axis(ax: Axes, low: float, high: float, *, pad: float = 1.02) -> None:
    """A vertical log axis of losses, which span less than a decade: round numbers as ticks."""

    low, high = low / pad, high * pad
    ax.set(yscale="log", ylim=(low, high))
    ticks = [t for t in MaxNLocator(9, steps=[1, 2, 5, 10]).tick_values(low, high) if t > 0]
    n_decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.{n_decimals}f}"))
    ax.yaxis.set_minor_locator(NullLocator())


def legend_below(
    ax: Axes, handles: Sequence[Any] | None = None, *, n_columns: int = 1, below: float = 42.0
) -> None:
    """The legend under the panel, where it covers no data, `below` points under the axis."""
    shown = ax.get_legend_handles_labels()[0] if handles is None else handles
    if shown:
        scale = ax.figure.dpi_scale_trans  # type: ignore[union-attr]
        ax.legend(
            handles=shown, loc="upper left", bbox_to_anchor=(-0.02, 0.0), fontsize=SMALL_SIZE,
            bbox_transform=ax.transAxes + ScaledTranslation(0, -below / 72, scale),
            ncols=n_columns, frameon=False, borderaxespad=0, handlelength=2.2, labelspacing=0.6,
        )  # fmt: skip


def beyond(ax: Axes, text: str) -> None:
    """A remark, if there is one, in the corner that curves of losses leave free."""
    ax.text(
        0.99, 0.985, text, transform=ax.transAxes, ha="right", va="top", fontsize=SMALL_SIZE,
        color=GREY, bbox=PAPER, zorder=6, visible=bool(text),
    )  # fmt: skip


def absent(ax: Axes, text: str) -> None:
    """A legend entry without a line: what is missing from this panel, and why."""
    ax.plot([], [], linestyle="none", label=wrapped(text))


def note(ax: Axes, text: str) -> None:
    """A sentence in the middle of a panel that has nothing else to show."""
    ax.set(xticks=[], yticks=[])
    ax.text(
        0.5, 0.5, wrapped(text, 38), transform=ax.transAxes, ha="center", va="center",
        fontsize=LABEL_SIZE, color=GREY,
    )  # fmt: skip


def reference_lines(ax: Axes, inputs: FigureInputs) -> None:
    """Entropies of the corpus by n-gram as lines across, named at the right edge, and the floor
    that no model can pass, if it is known; needs the limits of y, which make room for a floor."""
    low, high = ax.get_ylim()
    floor = inputs.entropy_floor_nats
    if floor is not None and FLOOR_IN_SIGHT * low < floor < low:
        loss_axis(ax, floor, high)
        low, high = ax.get_ylim()
    grams = sorted((inputs.ngram_entropies or {}).items())
    dotted: Any = (0, (1, 2))
    lines = [(f"{n}-gram", entropy, dotted) for n, entropy in grams]
    if floor is not None and floor <= low:
        beyond = f"floor {floor:.2f} ↓"
        ax.text(1.01, 0, beyond, transform=ax.transAxes, fontsize=SMALL_SIZE, color=GREY)
    elif floor is not None:
        lines.append(("floor", floor, "solid"))
    placed = math.inf
    for name, entropy, dash in sorted(lines, key=lambda line: -line[1]):
        if not low < entropy < high:
            continue
        ax.axhline(entropy, color=GREY, linewidth=0.8, linestyle=dash, zorder=1)
        height = math.log(entropy / low) / math.log(high / low)
        placed = min(height, placed - 0.045)
        ax.text(
            1.01, placed, name, transform=ax.transAxes, fontsize=SMALL_SIZE, color=GREY,
            va="center",
        )  # fmt: skip


def size_scale(n_params: Any) -> ScalarMappable:
    """Colour by model size, in log; ends before the yellow that print loses."""

    low, high = float(np.min(n_params)), float(np.max(n_params))
    if low == high:
        low, high = low / 1.1, high * 1.1
    shades = ListedColormap(colormaps["viridis"](np.linspace(0, 0.92, 256)))
    return ScalarMappable(LogNorm(low, high), shades)


def size_bar(figure: Figure, ax: Any, scale: ScalarMappable, sizes: Any, label: str) -> None:
    """The colour bar of size_scale beside its panels, sizes as ticks where they are few."""

    bar = figure.colorbar(scale, ax=ax, pad=0.01, fraction=0.04, aspect=30)
    distinct = np.unique(sizes)
    if len(distinct) <= FEW_SIZES:
        bar.set_ticks(distinct.tolist(), labels=[short(n) for n in distinct])
        bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.set_label(label, fontsize=LABEL_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE)


def budget_colors(n: int) -> list[Any]:
    """One colour a budget, dark to light, from cividis without its palest end."""

    return [colormaps["cividis"](x) for x in np.linspace(0, 0.9, n)] if n else []


def draw_group(
    ax: Axes, group: Group, index: int, x: np.ndarray, y: np.ndarray, colors: Any
) -> None:
    """One group of runs: filled if nothing is against them, hollow with the reason otherwise.

    `index` is the group's place in run_groups, which fixes its marker in every figure.
    """
    if not len(group):
        return
    common: dict[str, Any] = {"s": MARKER_SIZE, "zorder": 4}
    if group.reason.startswith("held out"):
        common["s"] = 150
        ax.scatter(x, y, **common, marker="*", c=colors, edgecolors=BLACK,
                   linewidths=0.8, label=group.label)  # fmt: skip
    elif not group.reason:
        ax.scatter(x, y, **common, marker="o", c=colors, edgecolors="white", linewidths=0.5,
                   label=group.label)  # fmt: skip
    else:
        marker = FLAG_MARKERS[(index - 1) % len(FLAG_MARKERS)]
        ax.scatter(x, y, **common, marker=marker, facecolors="none", edgecolors=colors,
                   linewidths=1.4, label=wrapped(group.label))  # fmt: skip


def draw_lines(ax: Axes, lines: Sequence[np.ndarray], colors: Any, **look: Any) -> None:
    """Many lines, (K, 2) each, as one artist; as an image inside of PDF and SVG where they are
    too many for a viewer."""
    n_points = sum(len(line) for line in lines)
    ax.add_collection(
        LineCollection(lines, colors=colors, rasterized=n_points > MOST_VECTOR_POINTS, **look)
    )
    ax.autoscale_view()


def save(
    figure: Figure, path_stem: Path | str, formats: Sequence[str] = FORMATS
) -> list[Path]:  # fmt: skip
    """Write PATH_STEM.png (150 dpi), .pdf and .svg, or some of them; equal figures give equal
    bytes, never half a file."""
    assert isinstance(figure, Figure)
    stem = Path(path_stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    if (engine := figure.get_layout_engine()) is not None:
        figure.set_dpi(PNG_DPI)  # the layout is that of the PNG, in every format
        engine.execute(figure)
        figure.set_layout_engine(None)  # else savefig draws twice, the first time for the layout
    for suffix in formats:
        path = stem.with_name(f"{stem.name}.{suffix}")
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            with _SETTINGS, rc_context({"svg.hashsalt": "figure"}):
                figure.savefig(
                    temporary,
                    format=suffix,
                    dpi=PNG_DPI,
                    metadata=NO_METADATA[suffix],
                    **HOW_TO_SAVE.get(suffix, {}),
                )
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        written.append(path)
    return written
