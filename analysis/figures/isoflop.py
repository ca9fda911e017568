"""IsoFLOP curves with their minima, and the optimal size and data against compute."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.figures.inputs import FigureInputs
from analysis.figures.style import Page
from analysis.frontier.isoflop import IsoflopMinimum
from analysis.intervals.uncertainty import INTERVAL_LEVEL

STAR_SIZE = 190
MOST_REMARKS = 6  # budgets whose doubts are spelt out in the legend
MOST_NAMED = 24  # budgets that the legend names
FAR = 10.0  # times the largest compute: how far the power laws are drawn on
PERCENT = f"{INTERVAL_LEVEL:.0%}"


def isoflop(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Loss against N at each budget with its parabola; then N* and D* of the minima against C.

    A minimum that was refused is hollow, at the lowest size measured, its reason in the legend.

    Source: after Hoffmann et al. 2022, arXiv:2203.15556, fig. 3.
    """
    figure = style.new_figure(
        f"{inputs.title}: isoFLOP minima",
        style.footer(inputs, runs=_count_text(inputs)),
        width=12.5,
        height=13.0 if page.is_column else 7.2,
        page=page,
    )
    if page.is_column:
        panels = figure.subplot_mosaic([["loss"], ["N"], ["D"]], height_ratios=[1.6, 1, 1])
    else:
        panels = figure.subplot_mosaic([["loss", "N"], ["loss", "D"]], width_ratios=[1.25, 1])
    found = inputs.main.minima
    colors = style.budget_colors(len(found))
    _loss_panel(panels["loss"], inputs, colors)
    for variable in "ND":
        _optimum_panel(panels[variable], inputs, variable, colors)
    return figure


def _count_text(inputs: FigureInputs) -> str:
    table = inputs.runs[["isoflop_budget", "loss_nats"]].to_numpy(np.float64)
    n_inside = int(np.isfinite(table).all(1).sum())
    n_budgets = len(inputs.main.minima)
    return f"{len(inputs.runs)} runs: {n_inside} with a loss in {n_budgets} isoFLOP budgets"


def _loss_panel(ax: Axes, inputs: FigureInputs, colors: list[Any]) -> None:
    found = inputs.main.minima
    n_convention, c_convention = inputs.headline
    style.label_axes(
        ax, f"parameters N ({n_convention})", f"validation loss ({inputs.unit})",
        f"one colour a budget of compute (FLOPs, {c_convention})",
    )  # fmt: skip
    if not found:
        style.note(ax, "no run belongs to an isoFLOP budget")
        return
    for minimum, color in zip(found, colors, strict=True):
        _budget(ax, minimum, color, with_remark=len(found) <= MOST_REMARKS)
    losses = np.concatenate([m.size_loss_nats for m in found])
    style.log_axis(ax, "x", np.concatenate([m.size_n_params for m in found]))
    style.loss_axis(ax, losses.min(), losses.max())
    style.reference_lines(ax, inputs)
    named = ax.get_legend_handles_labels()[0]
    every = -(-len(named) // MOST_NAMED)
    if every > 1:
        named = [*named[::every], Line2D([], [], linestyle="none", label=f"one in {every} named")]
    style.legend_below(ax, named, n_columns=2 if len(found) > MOST_REMARKS else 1)


def _budget(ax: Axes, minimum: IsoflopMinimum, color: Any, with_remark: bool) -> None:
    sizes, losses = minimum.size_n_params, minimum.size_loss_nats
    ax.scatter(sizes, losses, s=style.MARKER_SIZE, color=color, zorder=4, linewidths=0)
    if minimum.coefficients is not None:
        line = np.geomspace(sizes.min(), sizes.max(), 64)
        dash = "-" if minimum.ok else ":"
        ax.plot(line, np.polyval(minimum.coefficients, np.log(line)), dash, color=color, zorder=3)
    common: dict[str, Any] = {"s": STAR_SIZE, "marker": "*", "zorder": 6}
    budget = style.power_of_ten(minimum.budget)
    if minimum.ok:
        remark = minimum.status.partition("; ")[2]
        label = f"N* = {style.short(minimum.n_params)}, D* = {style.short(minimum.n_tokens)}"
        label = style.wrapped(f"{label}; {remark}" if remark and with_remark else label, 68)
        ax.scatter(
            minimum.n_params, minimum.loss_nats, **common, color=color, edgecolors=style.BLACK,
            linewidths=0.8, label=f"{budget}: {label}",
        )  # fmt: skip
    else:
        lowest = int(losses.argmin())
        ax.scatter(
            sizes[lowest], losses[lowest], **common, facecolors="none", edgecolors=color,
            linewidths=1.4, label=f"{budget}: "
            + style.wrapped(f"refused, {minimum.status}" if with_remark else "refused", 68),
        )  # fmt: skip


def tokens_along(inputs: FigureInputs, minimum: IsoflopMinimum, n_params: np.ndarray) -> np.ndarray:
    """Tokens of sizes within a budget: C/6N where that is what C counts, else between the runs."""
    if inputs.headline[1] == "6nd":
        return minimum.budget / (6 * n_params)
    sizes, tokens = minimum.size_n_params, minimum.size_n_tokens
    return np.exp(np.interp(np.log(n_params), np.log(sizes), np.log(tokens)))


def _optimum_panel(ax: Axes, inputs: FigureInputs, variable: str, colors: list[Any]) -> None:
    names = {"N": "optimal size N* (parameters)", "D": "optimal data D* (tokens)"}
    x_name = f"compute C (FLOPs, {inputs.headline[1]})"
    accepted = [(m, c) for m, c in zip(inputs.main.minima, colors, strict=True) if m.ok]
    style.label_axes(ax, x_name if variable == "D" else "", names[variable])
    if not accepted:
        style.note(ax, f"no accepted minimum, so no {variable}*(C)")
        return
    flops = np.array([m.train_flops for m, _ in accepted])
    stars = np.array([m.n_params if variable == "N" else m.n_tokens for m, _ in accepted])
    ax.scatter(
        flops, stars, s=STAR_SIZE, marker="*", c=[c for _, c in accepted], zorder=5,
        edgecolors=style.BLACK, linewidths=0.8,
    )  # fmt: skip
    found = inputs.main.isoflop
    style.log_axis(ax, "x", [flops.min(), flops.max() * (FAR if found.ok else 1)], pad=1.5)
    if not found.ok:
        style.log_axis(ax, "y", stars, pad=1.5)
        if variable == "D":
            style.absent(ax, f"no exponents: {found.status}")
            style.legend_below(ax)
    else:
        edges = _exponent_line(ax, inputs, variable, float(flops.max()))
        style.log_axis(ax, "y", np.concatenate([stars, edges]), pad=1.1)
        ax.legend(loc="upper left", fontsize=style.TICK_SIZE, frameon=False)


def _exponent_line(ax: Axes, inputs: FigureInputs, variable: str, largest: float) -> np.ndarray:
    """Draw the fitted power law with its band, dashed beyond the largest compute, and its value at
    FAR times that; returns what the axis must hold."""
    found = inputs.main.isoflop
    name, slope, factor = {
        "N": ("a", found.a, found.n_coefficient),
        "D": ("b", found.b, found.d_coefficient),
    }[variable]
    flops = np.geomspace(*ax.get_xlim(), 64)
    line = factor * flops**slope
    inside = flops <= largest
    ax.plot(
        flops[inside], line[inside], color=style.BLACK, linewidth=1.4, zorder=3,
        label=style.optimal_text(variable, slope, found.intervals[name]),
    )  # fmt: skip
    ax.plot(flops[~inside], line[~inside], "--", color=style.BLACK, linewidth=1.4, zorder=3)
    far = factor * (FAR * largest) ** slope
    at = style.power_of_ten(float(f"{FAR * largest:.2g}"))
    ax.plot(FAR * largest, far, "*", color=style.VERMILION, markersize=13, zorder=5,
            markeredgecolor=style.BLACK, label=f"at {at}: {style.short(far)}")  # fmt: skip
    lines = _lines_of_draws(found.minima_draws, "ND".index(variable), flops)
    if len(lines) < 20:
        return line
    tail = (1 - found.interval_level) / 2
    low, high = np.exp(np.quantile(lines, [tail, 1 - tail], axis=0))
    ax.fill_between(flops, low, high, color=style.BLACK, alpha=style.BAND_ALPHA, linewidth=0,
                    label=f"{PERCENT} band (residual bootstrap)")  # fmt: skip
    return np.concatenate([low, high])


def _lines_of_draws(draws_SM4: np.ndarray, column: int, flops: np.ndarray) -> np.ndarray:
    """Log of the power law through the minima of each draw that kept all of them, (S, K)."""
    whole = draws_SM4[np.isfinite(draws_SM4).all((1, 2))]
    if not len(whole):
        return np.empty((0, len(flops)))
    log_c, y = whole[..., 2], whole[..., column]
    dx = log_c - log_c.mean(1, keepdims=True)
    slope = (dx * y).sum(1) / (dx**2).sum(1)
    offset = y.mean(1) - slope * log_c.mean(1)
    return offset[:, None] + slope[:, None] * np.log(flops)
