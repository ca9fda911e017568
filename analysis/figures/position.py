"""Loss against token position for each model size, and against size at single positions."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis.figures import style
from analysis.figures.inputs import FigureInputs
from analysis.figures.style import Page
from analysis.positions import PositionLoss, fit_position, position_loss

NO_EVALUATIONS = (
    "no evaluation by token position; python launch.py evaluate SWEEP scores the trained weights"
)


def position(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Of each size the run of lowest loss: loss against position with its law, and against N.

    Source: after Kaplan et al. 2020, arXiv:2001.08361, figs. 20 and 21.
    """
    runs = best_of_sizes(inputs)
    figure, axes = style.panels(
        page,
        f"{inputs.title}: loss by token position",
        style.footer(inputs),
        2,
        width=12.5,
        height=6.6,
        ratios=[1.15, 1],
    )
    if not runs:
        for ax in axes:
            style.note(ax, NO_EVALUATIONS)
        return figure
    sizes = np.array(list(runs))
    scale = style.size_scale(sizes)
    _position_panel(axes[0], inputs, runs, scale, n_columns=1 if page.is_column else 2)
    _size_panel(axes[1], inputs, runs)
    style.size_bar(figure, axes[0], scale, sizes, f"parameters N ({inputs.headline[0]})")
    return figure


def best_of_sizes(inputs: FigureInputs) -> dict[float, PositionLoss]:
    """By size N, smallest first, the losses by position of its run of lowest loss."""
    rows = inputs.evaluations
    if rows is None or not len(rows):
        return {}
    rows = rows[rows["is_result"].astype(bool) & (rows["split"] == "validation")]
    column = f"n_params_{inputs.headline[0]}"
    runs = inputs.runs.drop_duplicates("run_id")[["run_id", "corpus_hash", column]]
    own: Any = rows.merge(runs, on=["run_id", "corpus_hash"]).dropna(subset="loss_nats")
    best = own.sort_values("loss_nats").drop_duplicates(column).sort_values(column)
    return {float(row[column]): position_loss(row) for row in best.to_dict("records")}


def _position_panel(
    ax: Axes, inputs: FigureInputs, runs: dict[float, PositionLoss], scale: Any, n_columns: int
) -> None:
    style.label_axes(
        ax, "position t (tokens of context)", f"validation loss ({inputs.unit})",
        "of each size the run of lowest loss;\nbands: ± 1 standard error by document",
    )  # fmt: skip
    for size, found in runs.items():
        color, t, loss = scale.to_rgba(size), found.middle, found.loss_nats
        ax.plot(t, loss, "o", color=color, markersize=2.6, zorder=3)
        ax.fill_between(
            t, loss - found.se_document, loss + found.se_document, color=color,
            alpha=style.BAND_ALPHA, linewidth=0,
        )  # fmt: skip
        _law_line(ax, size, found, color)
    every = np.concatenate([found.loss_nats for found in runs.values()])
    style.log_axis(ax, "x", np.concatenate([found.middle for found in runs.values()]))
    ticks = 2 ** np.arange(int(max(found.last[-1] for found in runs.values())).bit_length())
    ax.set_xticks(ticks.tolist(), labels=[str(t) for t in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    style.loss_axis(ax, float(every.min()), float(every.max()))
    style.reference_lines(ax, inputs)
    style.legend_below(ax, n_columns=n_columns)


def _law_line(ax: Axes, size: float, found: PositionLoss, color: Any) -> None:
    law = fit_position(found, n_bootstrap=0)
    if not law.ok:
        style.absent(ax, f"N = {style.short(size)}: no law, {law.status}")
        return
    t = np.geomspace(found.middle.min(), found.middle.max(), 64)
    p = law.parameters
    ax.plot(
        t, law.predict(position=t), color=color, linewidth=1.1,
        label=f"N = {style.short(size)}: "
        f"{p['E']:.2f} + {p['A']:.2f} / t^{p['alpha']:.2f}",
    )  # fmt: skip


def _size_panel(ax: Axes, inputs: FigureInputs, runs: dict[float, PositionLoss]) -> None:
    sizes = np.array(list(runs))
    shown = shown_positions(next(iter(runs.values())))
    style.label_axes(
        ax, f"parameters N ({inputs.headline[0]})", f"validation loss ({inputs.unit})",
        "the same losses at single positions",
    )  # fmt: skip
    losses = np.array([[found.loss_nats[k] for k in shown.values()] for found in runs.values()])
    for (t, _), column, color in zip(
        shown.items(), losses.T, style.budget_colors(len(shown)), strict=True
    ):
        ax.plot(sizes, column, "o-", color=color, markersize=4, linewidth=1.1, label=f"t = {t}")
    style.log_axis(ax, "x", sizes)
    style.loss_axis(ax, float(losses.min()), float(losses.max()))
    style.legend_below(ax, n_columns=4)


def shown_positions(found: PositionLoss) -> dict[str, int]:
    """Bins at powers of two and the last one, by what they hold."""
    n = int(found.last[-1])
    wanted = [*(2**k for k in range(n.bit_length()) if 2**k < n), n]
    bins = [int(np.searchsorted(found.last, t)) for t in wanted]
    names = [
        f"{a:.0f}" if a == b else f"{a:.0f}-{b:.0f}"
        for a, b in zip(found.first, found.last, strict=True)
    ]
    return {names[k]: k for k in bins}
