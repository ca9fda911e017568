"""The figure of loss against one variable, with the laws fitted to it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.style import (
    MARKER_SIZE,
    SMALL_SIZE,
    budget_colors,
    label_axes,
    new_figure,
    plain,
)
from analysis.fit import Fit

N_DRAWN = 200


def draw_one_variable(
    title: str,
    x_label: str,
    series: Sequence[tuple[str, np.ndarray, np.ndarray]],
    laws: Sequence[tuple[str, str, Fit]],
) -> Figure:
    """Points by series, and fitted laws as lines over the range of all points.

    Args:
        series: name, x and loss (nats/token).
        laws: name, the law's variable by its long name, the fit; one that failed is not drawn.
    """
    figure = new_figure(title, "final loss on the whole validation split", width=7, height=4.6)
    axes = figure.subplots()
    colors = budget_colors(max(len(series), len(laws), 1))
    for color, (name, x, loss) in zip(colors, series, strict=False):
        axes.scatter(x, loss, s=MARKER_SIZE, color=color, label=plain(name), zorder=2)
    every = np.concatenate([x for _, x, _ in series])
    drawn = np.geomspace(every.min(), every.max(), N_DRAWN)
    for color, (name, variable, fit) in zip(colors, laws, strict=False):
        if fit.ok:
            axes.plot(drawn, fit.predict(**{variable: drawn}), color=color, label=plain(name))
    axes.set_xscale("log")
    label_axes(axes, x_label, "validation loss, nats/token")
    axes.legend(fontsize=SMALL_SIZE, frameon=False)
    return figure
