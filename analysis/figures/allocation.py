"""The exponent of compute-optimal model size, under every convention: the headline."""

import math
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.conventions import ConventionRow
from analysis.figures import style
from analysis.figures.inputs import FigureInputs
from analysis.figures.style import Page
from analysis.intervals.uncertainty import INTERVAL_LEVEL
from analysis.published import ALLOCATION_EXPONENTS

Estimate = tuple[str, float, tuple[float, float], str]
NO_INTERVAL = (math.nan, math.nan)

LOOKS = {
    "joint fit, closed form (takes C = 6ND)": ("o", style.BLUE),
    "joint fit, numeric optimum under the row's FLOPs": ("s", style.VERMILION),
    "isoFLOP minima": ("D", style.GREEN),
}
CLOSED, NUMERIC, MINIMA = LOOKS
X_LIMITS = (0.0, 1.2)
NOTE_WIDTH = 130  # letters that fit a row; the report has the whole reason
KAPLAN, CHINCHILLA = "Kaplan", "Hoffmann"


def estimates(row: ConventionRow) -> list[Estimate]:
    """(method, a, interval, status) of one convention; a is NaN where there is none.

    The numeric exponent is left out where C = 6ND, as it is the closed form there.
    """
    joint, found = row.fit, row.isoflop
    closed, spread = joint.allocation, joint.allocation_intervals
    listed: list[Estimate] = [
        (CLOSED, closed.get("a", math.nan), spread.get("a", NO_INTERVAL), joint.status)
    ]
    if "a_numeric" in closed:
        a = closed["a_numeric"]
        status = joint.status if math.isfinite(a) else "the optimum is outside of the sizes trained"
        listed.append((NUMERIC, a, spread["a_numeric"], status))
    listed.append((MINIMA, found.a, found.intervals["a"], found.status))
    return listed


def allocation(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Exponent a of N* ~ C^a by method and convention, beside Kaplan's and Chinchilla's."""
    n_rows = sum(len(estimates(row)) for row in inputs.conventions)
    figure = style.new_figure(
        f"{inputs.title}: how model size should grow with compute",
        style.footer(inputs, conventions="by row"),
        width=11.5,
        height=2.9 + 0.36 * n_rows,
        page=page,
    )
    ax = figure.subplots()
    style.label_axes(ax, "exponent a of the optimal size, N* ∝ Cᵃ", "")
    _published(ax, page)
    y, ticks, names = 0.0, [], []
    named: set[str] = set()
    for row in inputs.conventions:
        listed = estimates(row)
        ticks.append(y + (len(listed) - 1) / 2)
        names.append(f"N {row.n_convention}\nC {row.c_convention}")
        for estimate in listed:
            _estimate(ax, y, estimate, named)
            y += 1
        ax.axhline(y, color="#cccccc", linewidth=0.8)
        y += 1
    ax.set_yticks(ticks, labels=names)
    ax.tick_params(axis="y", length=0, labelsize=style.LABEL_SIZE)
    ax.set(ylim=(y - 1, -1), xlim=X_LIMITS)
    ax.grid(False, axis="y")
    height = 1.12 if page.is_column else 1.01
    ax.text(1.01, height, f"a [{INTERVAL_LEVEL:.0%} interval]", transform=ax.transAxes,
            fontsize=style.TICK_SIZE, weight="bold", va="bottom")  # fmt: skip
    style.legend_below(ax, n_columns=1 if page.is_column else 2)
    return figure


def _estimate(ax: Axes, y: float, estimate: Estimate, named: set[str]) -> None:
    method, a, (low, high), status = estimate
    marker, color = LOOKS[method]
    if not math.isfinite(a):
        kind = "isoFLOP minima" if method == MINIMA else "joint fit"
        text = textwrap.shorten(f"{kind}: no exponent, {status}", NOTE_WIDTH, placeholder=" …")
        ax.text(0.02, y, style.plain(text), fontsize=style.SMALL_SIZE, color=color, va="center",
                bbox=style.PAPER, zorder=5)  # fmt: skip
        return
    label = None if method in named else method
    named.add(method)
    ax.plot(a, y, marker, color=color, markersize=7, zorder=4, label=label)
    if math.isfinite(low + high):
        ax.plot((low, high), (y, y), color=color, linewidth=2, zorder=3)
    ax.text(1.01, y, style.with_interval(a, (low, high)), transform=ax.get_yaxis_transform(),
            fontsize=style.TICK_SIZE, va="center")  # fmt: skip


def _published(ax: Axes, page: Page) -> None:
    for group, dash in ((KAPLAN, "-"), (CHINCHILLA, "--")):
        found = [p for p in ALLOCATION_EXPONENTS if p.label.startswith(group)]
        for published in found:
            ax.axvline(published.a, color=style.GREY, linewidth=1.2, linestyle=dash, zorder=1)
        values = " / ".join(f"{p.a:.2f}" for p in found)
        shown = "Kaplan 2020" if group == KAPLAN else "Chinchilla (Hoffmann 2022)"
        # In a column the names would run into each other.
        side = "center" if not page.is_column else "right" if group == CHINCHILLA else "left"
        middle = sum(p.a for p in found) / len(found)
        ax.text(middle, 1.01, f"{shown}\n{values}", transform=ax.get_xaxis_transform(),
                ha=side, va="bottom", fontsize=style.TICK_SIZE, color=style.GREY)  # fmt: skip
