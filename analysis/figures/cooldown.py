"""Branches that cool down from one trunk against separate cosine runs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.validity.paired import Mean

if TYPE_CHECKING:
    import pandas as pd

LOOKS = {
    "constant": (style.GREY, "-", "trunk, constant rate"),
    "cooldown": (style.BLUE, "-", "cooldown from the trunk"),
    "cosine": (style.VERMILION, "--", "separate cosine runs"),
}
SKIPPED = 0.03
"""Share of the longest run's tokens at which the curves begin to be drawn."""


def cooldown_figure(
    title: str,
    pairs: "pd.DataFrame",
    mean: Mean,
    curves: Mapping[str, Mapping[str, np.ndarray]],
) -> Figure:
    """Relative differences of loss against compute; curves of one size.

    Args:
        pairs: n_params_total, isoflop_budget, loss_nats (cosine) and loss_other (branch).
        curves: (tokens, loss) by kind of schedule and run.

    Source: after Haegele et al. 2024, arXiv:2405.18392, figures 1 and 5.
    """
    figure, axes = style.panels(
        style.SCREEN, f"{title}: cooldown against cosine",
        "validation loss of final weights (left), smoothed training loss (right), nats/token", 2,
        width=12.5, height=5.4,
    )  # fmt: skip
    _differences(axes[0], figure, pairs, mean)
    _curves(axes[1], curves)
    for ax in axes:
        style.legend_below(ax)
    return figure


def _differences(ax: Axes, figure: Figure, pairs: "pd.DataFrame", mean: Mean) -> None:
    style.label_axes(
        ax, "training compute of the run (FLOPs, matmul_full)",
        "branch less cosine run, % of the loss", "pairs of equal size, tokens and seed",
    )  # fmt: skip
    if not len(pairs):
        style.note(ax, "no pairs")
        return
    share = 100 * (pairs["loss_other"] / pairs["loss_nats"] - 1)
    sizes = pairs["n_params_total"].to_numpy(float)
    scale = style.size_scale(sizes)
    colors = scale.to_rgba(sizes)
    ax.scatter(pairs["isoflop_budget"], share, s=style.MARKER_SIZE, c=colors, zorder=4)
    ax.axhline(0, color=style.GREY, linewidth=0.8)
    low, high = (100 * value for value in mean.interval)
    ax.axhline(100 * mean.value, color=style.BLACK, linewidth=1.4,
               label=f"mean over {mean.n} cells: {100 * mean.value:+.2f}%")  # fmt: skip
    if np.isfinite(low + high):
        ax.axhspan(low, high, color=style.BLACK, alpha=style.BAND_ALPHA, linewidth=0,
                   label=f"90% interval [{low:+.2f}, {high:+.2f}]")  # fmt: skip
    style.log_axis(ax, "x", pairs["isoflop_budget"].to_numpy(float))
    style.size_bar(figure, ax, scale, sizes, "parameters N (total)")


def _curves(ax: Axes, curves: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    style.label_axes(
        ax, "tokens D", "training loss, smoothed (nats/token)", "the runs of one size"
    )  # fmt: skip
    every = [xy for of_kind in curves.values() for xy in of_kind.values()]
    if not every:
        style.note(ax, "no training curves")
        return
    first = SKIPPED * max(float(xy[-1, 0]) for xy in every)
    shown = []
    for kind, (color, dash, label) in LOOKS.items():
        for k, xy in enumerate(curves[kind].values()):
            late = xy[xy[:, 0] > first]
            ax.plot(*late.T, color=color, linestyle=dash, linewidth=1.1, zorder=3,
                    label=label if k == 0 else None)  # fmt: skip
            shown.append(late)
    points = np.concatenate(shown)
    style.log_axis(ax, "x", points[:, 0])
    style.loss_axis(ax, float(points[:, 1].min()), float(points[:, 1].max()))
