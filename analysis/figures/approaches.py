"""The three approaches of Hoffmann et al. 2022 on the same runs: overlaid, and as their table 2."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import published
from analysis.figures import style
from analysis.figures.inputs import FigureInputs
from analysis.figures.style import Page
from analysis.frontier.approaches import ApproachRow
from analysis.intervals.uncertainty import percentile_interval

SHOWN = {  # methods drawn in the overlay, the first that has an exponent of each approach
    1: ("envelope of training curves", "envelope of final losses"),
    2: ("parabola", "akima", "spline"),
    3: ("numeric, exact FLOPs", "closed form, C = 6ND"),
}
LOOKS = {1: (style.GREEN, "-", "o"), 2: (style.VERMILION, "--", "D"), 3: (style.BLUE, "-.", "s")}
FAR = 10.0
GRID = 48
TOP = ("approach", "a, N* ~ C^a", "b, D* ~ C^b", "bias of a")


def approaches(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """N*(C) by approaches 1, 2 and 3, ten times beyond the runs, with the published lines.

    Source: after Hoffmann et al. 2022, arXiv:2203.15556, fig. 1.
    """
    figure = style.new_figure(
        f"{inputs.title}: optimal size by three approaches",
        style.footer(inputs),
        width=8.6,
        height=6.9,
        page=page,
    )
    ax = figure.subplots()
    points = inputs.main_points
    flops = np.geomspace(points.train_flops.min(), FAR * points.train_flops.max(), GRID)
    ax.scatter(
        points.train_flops, points.n_params, s=14, color="#b0b0b0", zorder=2, label="runs fitted",
        linewidths=0,
    )  # fmt: skip
    shown = chosen(inputs)
    for approach in SHOWN:
        row = shown.get(approach)
        if row is None:
            style.absent(ax, f"approach {approach}: {_refusal(inputs, approach)}")
        else:
            _line(ax, row, flops)
    style.log_axis(ax, "x", flops, pad=1.2)
    style.log_axis(ax, "y", _sizes(ax, points.n_params), pad=1.5)
    _slopes(ax)
    ax.axvspan(points.train_flops.max(), ax.get_xlim()[1], color=style.GREY, alpha=0.1, linewidth=0,
               label="beyond all runs")  # fmt: skip
    n_convention, c_convention = inputs.headline
    style.label_axes(
        ax, f"compute C (FLOPs, {c_convention})", f"optimal parameters N* ({n_convention})"
    )
    style.legend_below(ax)
    return figure


def chosen(inputs: FigureInputs) -> dict[int, ApproachRow]:
    """Of each approach the first method of SHOWN that gave an exponent."""
    by_method = {row.method: row for row in inputs.approaches if row.found.ok}
    rows = {}
    for approach, methods in SHOWN.items():
        good = [by_method[m] for m in methods if m in by_method]
        if good:
            rows[approach] = good[0]
    return rows


def _refusal(inputs: FigureInputs, approach: int) -> str:
    rows = [row for row in inputs.approaches if row.approach == approach]
    return f"no exponent, {rows[0].found.status.split(' (')[0]}" if rows else "not applied"


def _line(ax: Axes, row: ApproachRow, flops: np.ndarray) -> None:
    color, dash, marker = LOOKS[row.approach]
    found = row.found
    slope = style.with_interval(found.a, found.intervals["a"])
    sizes = found.n_coefficient * flops**found.a
    text = f"approach {row.approach}, {row.method}: a = {slope}"
    ax.plot(flops, sizes, color=color, linestyle=dash, linewidth=2, marker=marker, zorder=4,
            markevery=(row.approach * 4, 14), markersize=6,
            label=style.wrapped(text, 64))  # fmt: skip
    draws = found.line_draws[np.isfinite(found.line_draws).all((1, 2))][:, 0]
    if len(draws) >= 20:
        lines = np.exp(draws @ np.stack([np.log(flops), np.ones(len(flops))]))
        band = np.array([percentile_interval(column) for column in lines.T])
        ax.fill_between(flops, *band.T, color=color, alpha=0.12, linewidth=0, zorder=1)


def _sizes(ax: Axes, n_params: np.ndarray) -> np.ndarray:
    drawn = [np.asarray(line.get_ydata(), np.float64) for line in ax.lines]
    return np.concatenate([n_params, *[y for y in drawn if len(y)]])


def _slopes(ax: Axes) -> None:
    """Kaplan's and Hoffmann's exponents through the middle of the plot: their scale is another."""
    (low, high), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    flops = np.array([low, high])
    middle = math.sqrt(low * high), math.sqrt(bottom * top)
    kaplan = published.KAPLAN_2020_OPTIMA["N"][1]
    for label, a, dash in (
        ("slope of Kaplan et al. 2020", kaplan, (0, (5, 2))),
        ("slope of Hoffmann et al. 2022, approach 1", published.HOFFMANN_2022_APPROACH_1_A,
         (0, (1, 1.5))),
    ):  # fmt: skip
        ax.plot(flops, middle[1] * (flops / middle[0]) ** a, color=style.GREY, linewidth=1.2,
                linestyle=dash, zorder=1, label=f"{label}: {a:g}")  # fmt: skip


def table_2(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Exponents of every approach and method with their intervals and bias, and those published.

    Source: after Hoffmann et al. 2022, arXiv:2203.15556, table 2.
    """
    rows = [_cells(row) for row in inputs.approaches]
    printed = [
        (p.label, style.with_interval(p.a, p.interval or (math.nan, math.nan), 3), "", "")
        for p in published.ALLOCATION_EXPONENTS
    ]
    every = [TOP, *rows, ("published, other scales", "", "", ""), *printed]
    figure = style.new_figure(
        f"{inputs.title}: exponents by approach",
        style.footer(inputs) + "  ·  bias: the method on noise-free losses of the joint fit, minus "
        "that law's optimum",
        width=10.5,
        height=1.4 + (0.4 if page.is_column else 0.27) * len(every),
        page=page,
    )
    ax = figure.subplots()
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(-len(every), 0.5))
    heads = (0, len(rows) + 1)
    for y, cells in enumerate(every):
        weight = "bold" if y in heads else "normal"
        for (x, drop), text in zip(_places(page), cells, strict=True):
            ax.text(x, -y - drop, style.plain(text), fontsize=style.TICK_SIZE, weight=weight,
                    va="center")  # fmt: skip
        if y in (0, len(rows)):
            ax.axhline(-y - 0.62, color=style.GREY, linewidth=0.8)
    return figure


def _places(page: Page) -> tuple[tuple[float, float], ...]:
    """(x, rows down) of the cells of a row; in a column the numbers stand under the name."""
    if page.is_column:
        return (0.0, 0.0), (0.06, 0.42), (0.46, 0.42), (0.84, 0.42)
    return (0.0, 0.0), (0.38, 0.0), (0.62, 0.0), (0.86, 0.0)


def _cells(row: ApproachRow) -> tuple[str, ...]:
    found = row.found
    name = f"{row.approach}, {row.method}"
    if not found.ok:
        return name, "none", "none", "–"
    a, b = (style.with_interval(getattr(found, k), found.intervals[k]) for k in "ab")
    return name, a, b, f"{row.bias_a:+.2f}" if math.isfinite(row.bias_a) else "–"
