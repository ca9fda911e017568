"""Learning rates tried, the best ones against their law, and the best batch against data."""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.fit import Fit
from analysis.frontier.tuning import Cell, Search, lowest

MARKERS = ("o", "s", "^", "D", "v", "P")


def tuning_figure(
    title: str, searches: Sequence[Search], cells: Sequence[Cell], rate: Fit, batch: Fit
) -> Figure:
    """Loss against rate; best rates measured against predicted; best batches against D.

    Colour tells N, marker tells D; intervals are 90%, of the noise between seeds.
    """
    foot = (
        f"{sum(len(s.lr) for s in searches)} runs  ·  loss in nats/token, N non-embedding  ·  "
        "intervals 90%, noise of seeds"
    )
    figure = style.new_figure(f"{title}: learning rate and batch", foot, width=13.5, height=5.6)
    left, middle, right = figure.subplots(1, 3)
    sizes = sorted({s.n_params_non_embedding for s in searches})
    data = sorted({s.n_tokens for s in searches})
    scale = style.size_scale(sizes)
    _losses(left, searches, cells, scale, data)
    _rates(middle, searches, rate, scale, data)
    _batches(right, cells, batch, scale, data)
    style.size_bar(figure, right, scale, sizes, "N non-embedding")
    return figure


def _losses(ax: Axes, searches: Sequence[Search], cells: Sequence[Cell], scale, data) -> None:
    by_cell = {(c.n_params_non_embedding, c.n_tokens): c for c in cells}
    tried, shown = defaultdict(list), set()
    for search in searches:
        tried[search.n_params_non_embedding, search.n_tokens].append(search.batch_tokens)
    for search in searches:
        key = search.n_params_non_embedding, search.n_tokens
        best = math.log(by_cell[key].batch.at[0])
        if search.batch_tokens != min(tried[key], key=lambda b, best=best: abs(math.log(b) - best)):
            continue
        color = scale.to_rgba(search.n_params_non_embedding)
        marker = MARKERS[data.index(search.n_tokens) % len(MARKERS)]
        label = f"D {style.short(search.n_tokens)}"
        ax.plot(
            search.lr, search.loss_nats[0], color=color, marker=marker, markersize=5,
            linewidth=1, label=None if label in shown else label,
        )  # fmt: skip
        shown.add(label)
        best = lowest(search.lr, search.loss_nats)
        if best.ok:
            ax.scatter(best.at[0], best.loss_nats[0], marker="*", s=130, color=color,
                       edgecolors=style.BLACK, linewidths=0.6, zorder=5)  # fmt: skip
    style.log_axis(ax, "x", np.concatenate([s.lr for s in searches]))
    style.label_axes(ax, "learning rate", "loss", "a. loss by rate, at the best batch")
    style.legend_below(ax, n_columns=3)


def _rates(ax: Axes, searches: Sequence[Search], rate: Fit, scale, data) -> None:
    if not rate.ok:
        style.label_axes(ax, "", "", "b. best rate of every batch")
        style.note(ax, f"no law of the rate: {rate.status}")
        return
    shown = []
    for search in searches:
        found = lowest(search.lr, search.loss_nats)
        expected = float(
            rate.predict(
                n_params=search.n_params_non_embedding, n_tokens=search.n_tokens,
                batch_tokens=search.batch_tokens,
            )
        )  # fmt: skip
        shown += [expected, found.at[0]]
        _point(ax, expected, found, scale.to_rgba(search.n_params_non_embedding),
               MARKERS[data.index(search.n_tokens) % len(MARKERS)])  # fmt: skip
    ends = np.array([min(shown), max(shown)])
    ax.plot(ends, ends, color=style.BLACK, linewidth=1, label="measured = law")
    for name in ("x", "y"):
        style.log_axis(ax, name, shown, pad=1.6)
    p = rate.parameters
    law = " ".join(f"{v}^{p[f'p_{v}']:.2f}" for v in rate.law.variables)
    style.label_axes(ax, "rate by the law", "best rate", f"b. lr* ~ {law}")
    style.legend_below(ax)


def _batches(ax: Axes, cells: Sequence[Cell], batch: Fit, scale, data) -> None:
    sizes = sorted({cell.n_params_non_embedding for cell in cells})
    for cell in cells:
        # Apart by a few percent, or the intervals of one D would hide each other.
        shift = 1.06 ** (sizes.index(cell.n_params_non_embedding) - (len(sizes) - 1) / 2)
        marker = MARKERS[data.index(cell.n_tokens) % len(MARKERS)]
        _point(
            ax,
            cell.n_tokens * shift,
            cell.batch,
            scale.to_rgba(cell.n_params_non_embedding),
            marker,
        )
    title = "c. best batch against data"
    if batch.ok:
        grid = np.geomspace(data[0], data[-1], 50)
        draws = batch.draws[:, :, None]
        band = np.quantile(draws[:, 0] * grid ** draws[:, 1], [0.05, 0.95], axis=0)
        ax.plot(grid, batch.predict(n_tokens=grid), color=style.BLACK, linewidth=1.2, label="law")
        ax.fill_between(grid, *band, color=style.BLACK, alpha=style.BAND_ALPHA, linewidth=0)
        title = f"c. B* ~ D^{batch.parameters['p_D']:.2f}"
    else:
        style.absent(ax, f"no law: {batch.status}")
    style.log_axis(ax, "x", data)
    style.log_axis(ax, "y", np.concatenate([c.batch.at for c in cells]))
    style.label_axes(ax, "D, tokens", "best batch, tokens", title)
    style.legend_below(ax)


def _point(ax: Axes, x: float, found, color, marker: str) -> None:
    """A measured optimum with its interval; hollow where it is at an edge of what was tried."""
    y = found.at[0]
    low, high = found.interval
    if np.isfinite(low + high):
        ax.plot([x, x], [low, high], color=color, linewidth=1, zorder=2)
    ax.plot(x, y, marker=marker, markersize=7, linestyle="none", markeredgecolor=color,
            markerfacecolor=color if found.ok else "none", zorder=3)  # fmt: skip
