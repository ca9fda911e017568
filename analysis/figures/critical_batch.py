"""B_crit from a batch sweep against B_simple from the gradient noise scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.frontier.critical_batch import Compared, Critical, CriticalLaw
from analysis.intervals.uncertainty import percentile_interval

COLORS = (style.BLUE, style.VERMILION, style.GREEN, style.PURPLE)
MARKERS = ("o", "s", "^", "D")


@dataclass(frozen=True)
class SizeFound:
    """What a sweep says of one size of model."""

    name: str
    critical: tuple[Critical, ...]
    law: CriticalLaw
    compared: tuple[Compared, ...]


def critical_figure(title: str, found: Sequence[SizeFound], *, corpus: str, n_runs: int) -> Figure:
    """Steps against tokens to each loss; then B_crit and B_simple against the loss.

    Source: after McCandlish et al. 2018, arXiv:1812.06162, figures 5 and 7; Kaplan et al. 2020,
        arXiv:2001.08361, fig. 10.
    """
    figure = style.new_figure(
        f"{title}: critical batch size",
        f"corpus {corpus}  ·  {n_runs} runs  ·  training loss in nats/token  ·  intervals 90%  ·  "
        "(S/S_min - 1)(E/E_min - 1) = 1, "
        "B_crit = E_min/S_min",
        width=12.5,
        height=6.4,
    )
    left, right = figure.subplots(1, 2)
    for index, size in enumerate(found):
        _tradeoff(left, size, index)
        _against_loss(right, size, index)
    _finish(left, right, found)
    return figure


def _tradeoff(ax: Axes, size: SizeFound, index: int) -> None:
    for critical in size.critical:
        color, batches = COLORS[index % len(COLORS)], critical.batch_tokens
        tokens = batches * critical.n_steps
        ax.plot(critical.n_steps, tokens, linestyle="none", marker=MARKERS[index % len(MARKERS)],
                color=color, markersize=5)  # fmt: skip
        if np.isfinite(critical.s_min[0]):
            grid = np.geomspace(batches.min() / 1.5, batches.max() * 1.5, 80)
            steps = critical.s_min[0] + critical.e_min[0] / grid
            ax.plot(steps, grid * steps, color=color, linewidth=1, alpha=0.7)
            at = steps[0], grid[0] * steps[0]
            ax.annotate(f"{critical.loss_nats:.2f}", at, fontsize=style.SMALL_SIZE, color=color)


def _against_loss(ax: Axes, size: SizeFound, index: int) -> None:
    color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
    known = [c for c in size.critical if np.isfinite(c.b_crit[0])]
    losses = np.array([c.loss_nats for c in known])
    for k, critical in enumerate(known):
        low, high = percentile_interval(critical.b_crit[1:])
        ax.plot([losses[k]] * 2, [low, high], color=color, linewidth=1.4)
        ax.plot(losses[k], critical.b_crit[0], marker=marker, color=color, linestyle="none",
                label=None if k else f"{size.name}: B_crit of the sweep")  # fmt: skip
    if np.isfinite(size.law.b_star[0]):
        grid = np.linspace(min(losses), max(losses), 40)
        rows = size.law.at(grid)
        ax.plot(grid, rows[0], color=color, linewidth=1)
        band = np.nanquantile(rows[1:], [0.05, 0.95], axis=0)
        ax.fill_between(grid, *band, color=color, alpha=style.BAND_ALPHA, linewidth=0)
    for k, c in enumerate(size.compared):
        ax.plot([c.loss_nats] * 2, c.interval, color=color, linewidth=1.4, linestyle=":")
        ax.plot(c.loss_nats, c.b_simple, marker="*", markersize=12, linestyle="none",
                markeredgecolor=color, markerfacecolor="none" if c.is_extrapolated else color,
                label=None if k else f"{size.name}: B_simple{_ratio(size.compared)}")  # fmt: skip


def _ratio(found: Sequence[Compared]) -> str:
    rows = np.stack([np.log(c.ratio) for c in found], -1).mean(-1)
    if not np.isfinite(rows[0]):
        return ""
    mean, spread = float(np.exp(rows[0])), percentile_interval(np.exp(rows[1:]))
    return f", B_crit over it {style.with_interval(mean, spread, 1)}"


def _finish(left: Axes, right: Axes, found: Sequence[SizeFound]) -> None:
    critical = [c for size in found for c in size.critical]
    steps = np.concatenate([c.n_steps[np.isfinite(c.n_steps)] for c in critical])
    tokens = np.concatenate(
        [(c.n_steps * c.batch_tokens)[np.isfinite(c.n_steps)] for c in critical]
    )
    style.log_axis(left, "x", steps, pad=1.6)
    style.log_axis(left, "y", tokens, pad=1.6)
    style.label_axes(left, "steps S", "tokens E", "a. steps against tokens to a loss")
    levels = [value for size in found for c in size.compared for value in c.interval]
    for c in critical:
        levels += [v for v in (c.b_crit[0], *percentile_interval(c.b_crit[1:])) if np.isfinite(v)]
    if levels:
        style.log_axis(right, "y", np.clip(levels, 1, 1e7))
    right.invert_xaxis()
    style.label_axes(right, "training loss", "batch, tokens", "b. B_crit and the noise scale")
    style.legend_below(right)
