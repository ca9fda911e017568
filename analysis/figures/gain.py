"""The figure of a comparison: losses of both sides, and the gain of every cell."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.style import (
    BLUE,
    GREY,
    MARKER_SIZE,
    SMALL_SIZE,
    VERMILION,
    label_axes,
    new_figure,
    plain,
    power_of_ten,
    with_interval,
)
from analysis.table.points import Points
from analysis.validity.paired import PairedGain


def draw_gain(
    title: str,
    labels: Sequence[str],
    cells: Sequence[int],
    baseline: Points,
    new: Points,
    gain: PairedGain,
) -> Figure:
    """Left: loss over training FLOPs, pairs joined. Right: gain by cell, the mean with its band.

    Args: labels, cells: name and number of the cell of every pair, in the rows' order.
    """
    text = (
        f"C exact matmul FLOPs  ·  {len(labels)} pairs, same seeds and data order  ·  "
        f"{gain.interval_level:.0%} interval by Student's t over cells"
    )
    figure = new_figure(title, text, width=10, height=4.6)
    losses, ratios = figure.subplots(1, 2)
    # Side by side within a pair, lest one hide the other.
    left, right = baseline.train_flops / 1.05, new.train_flops * 1.05
    sides = np.stack([left, right]), np.stack([baseline.loss_nats, new.loss_nats])
    losses.plot(*sides, color=GREY, linewidth=0.8, zorder=1)
    common = {"s": MARKER_SIZE, "edgecolors": "white", "linewidths": 0.6}
    losses.scatter(left, baseline.loss_nats, c=BLUE, marker="o", label="baseline", **common)
    losses.scatter(right, new.loss_nats, c=VERMILION, marker="^", label="idea", **common)
    losses.set_xscale("log")
    budgets = np.unique([float(f"{c:.2g}") for c in baseline.train_flops])
    losses.set_xticks(budgets, [power_of_ten(c) for c in budgets])
    losses.minorticks_off()
    label_axes(losses, "training FLOPs", "validation loss, nats/token", "both sides of every pair")
    losses.legend(fontsize=SMALL_SIZE, frameon=False)

    names = [labels[list(cells).index(cell)] for cell in sorted(set(cells))]
    rows = np.arange(len(names))[::-1]
    if gain.ok:
        ratios.axvspan(*gain.interval, color=VERMILION, alpha=0.18, linewidth=0)
        ratios.axvline(gain.ratio, color=VERMILION, linewidth=1.4)
    ratios.axvline(1, color=GREY, linewidth=1, linestyle="--")
    ratios.scatter(gain.cell_ratio, rows, c=VERMILION, marker="^", **common)
    ratios.set_yticks(rows, [plain(name) for name in names])
    mean = f"gain, cell by cell; mean {with_interval(gain.ratio, gain.interval)}"
    label_axes(ratios, "compute-equivalent gain (1: none)", "size @ FLOPs", mean)
    return figure
