"""Loss against size, counted with and without embeddings."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.conventions import ConventionRow
from analysis.figures import style
from analysis.figures.inputs import FigureInputs
from analysis.figures.style import Page

MARKERS = ("o", "s", "^", "D", "v", "P")
COUNTS = {"total": "with embeddings", "non_embedding": "without embeddings"}
MOST_NAMED = 12


def embeddings(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Losses less the data's term of the joint fit against both counts of N, one mark a depth.

    Kaplan et al. train every size to convergence; here each count has its joint fit, whose
    B/D^beta is taken off. The count about whose line the runs scatter less describes them better.

    Source: after Kaplan et al. 2020, arXiv:2001.08361, fig. 6.
    """
    figure, axes = style.panels(
        page,
        f"{inputs.title}: size with and without embeddings",
        style.footer(inputs, conventions="N total and non_embedding by panel, C matmul_full"),
        2,
        width=12.0,
        height=5.6,
    )
    for ax, row in zip(axes, _counted(inputs), strict=True):
        _panel(ax, inputs, row)
        style.legend_below(ax, n_columns=3 if page.is_column else 4)
    return figure


def _counted(inputs: FigureInputs) -> list[ConventionRow]:
    """The first convention of each count of N."""
    return [next(row for row in inputs.conventions if row.n_convention == name) for name in COUNTS]


def counts_missing(inputs: FigureInputs) -> str:
    """Why the figure cannot be drawn; empty if it can."""
    known = {row.n_convention for row in inputs.conventions if row.fit.ok}
    if absent := [name for name in COUNTS if name not in known]:
        return f"no joint fit with N counted as {' or '.join(absent)}"
    return "" if "n_layers" in inputs.runs.columns else "runs do not say how deep they are"


def _panel(ax: Axes, inputs: FigureInputs, row: ConventionRow) -> None:
    points = inputs.points[row.n_convention, row.c_convention]
    depth_of = dict(zip(inputs.runs["run_id"].astype(str), inputs.runs["n_layers"], strict=True))
    depth = np.array([int(depth_of[run_id]) for run_id in points.run_id])
    p = row.fit.parameters
    loss = points.loss_nats - p["B"] / points.n_tokens ** p["beta"]
    depths = np.unique(depth)
    for k, (n_layers, color) in enumerate(
        zip(depths, style.budget_colors(len(depths)), strict=True)
    ):
        own = depth == n_layers
        label = f"{n_layers} layer{'s' if n_layers > 1 else ''}"
        ax.plot(points.n_params[own], loss[own], linestyle="none", marker=MARKERS[k % 6],
                color=color, markersize=6,
                label=label if len(depths) <= MOST_NAMED else None)  # fmt: skip
    n = np.geomspace(points.n_params.min(), points.n_params.max(), 64)
    line = p["E"] + p["A"] / n ** p["alpha"]
    ax.plot(n, line, color=style.BLACK, linewidth=1.4, label="E + A / N^alpha")
    style.log_axis(ax, "x", points.n_params)
    every = np.append(loss, line)
    style.loss_axis(ax, float(every.min()), float(every.max()))
    counted = COUNTS[row.n_convention]
    style.label_axes(ax, f"parameters N, {counted}", f"loss less B / D^beta ({inputs.unit})")
    slope = style.with_interval(p["alpha"], row.fit.intervals["alpha"])
    spread = float(np.sqrt((row.fit.residuals**2).mean()))
    ax.set_title(
        f"{counted}: alpha = {slope};\nscatter about the joint fit {spread:.2%} of the loss",
        fontsize=style.LABEL_SIZE, loc="left",
    )  # fmt: skip
