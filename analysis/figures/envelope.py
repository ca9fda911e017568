"""The envelope of the training curves, and the sizes and tokens of its winners."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import curves, style
from analysis.figures.inputs import FigureInputs
from analysis.figures.style import Page
from analysis.frontier.envelope import EnvelopeExponents
from analysis.frontier.loss_of_compute import envelope_mask
from analysis.intervals.uncertainty import percentile_interval

FLOPS_COLUMN = "train_flops_matmul_full"
FAR = 10.0
MOST_SHOWN = 400


def envelope(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Training curves with their lower envelope; N and D of its winners, projected tenfold.

    Source: after Hoffmann et al. 2022, arXiv:2203.15556, fig. 2 (approach 1).
    """
    figure, axes = style.panels(
        page,
        f"{inputs.title}: envelope of the training curves",
        style.footer(inputs),
        3,
        width=14.5,
        height=5.6,
    )
    found = of_curves(inputs)
    sizes = inputs.runs[f"n_params_{inputs.headline[0]}"].to_numpy(np.float64)
    scale = style.size_scale(sizes)
    drawn = curves.lines(inputs, FLOPS_COLUMN)
    colors = scale.to_rgba(np.array([line.n_params for line in drawn]))
    style.draw_lines(axes[0], [line.xy for line in drawn], colors, linewidths=0.8, alpha=0.6)
    lows = inputs.envelope
    new = envelope_mask(lows.train_flops, lows.loss_nats)
    axes[0].plot(lows.train_flops[new], lows.loss_nats[new], "o", color=style.BLACK, markersize=3,
                 zorder=5,
                 label=style.wrapped(f"lowest at each compute; {found.status}"))  # fmt: skip
    style.log_axis(axes[0], "x", np.concatenate([line.xy[:, 0] for line in drawn]))
    low, high, beyond = curves.sight(drawn)
    style.loss_axis(axes[0], low, high)
    style.beyond(axes[0], beyond)
    style.reference_lines(axes[0], inputs)
    compute = f"training compute C (FLOPs, {inputs.headline[1]})"
    style.label_axes(axes[0], compute, f"training loss, smoothed ({inputs.unit})", "every curve")
    for ax, letter in zip(axes[1:], "ND", strict=True):
        _winners(ax, found, letter)
        name = f"parameters N ({inputs.headline[0]})" if letter == "N" else "tokens D"
        style.label_axes(
            ax, compute, f"{name} of the lowest", f"projected to {FAR:g} times the compute"
        )
    for ax in axes:
        style.legend_below(ax)
    style.size_bar(figure, axes, scale, sizes, f"parameters N ({inputs.headline[0]})")
    return figure


def of_curves(inputs: FigureInputs) -> EnvelopeExponents:
    """Approach 1 on the training curves.

    Raises: ValueError: no curves were recorded.
    """
    for row in inputs.approaches:
        if isinstance(row.found, EnvelopeExponents) and row.found.source == "training curves":
            return row.found
    raise ValueError("approach 1 needs training curves, and none were recorded")


def _winners(ax: Axes, found: EnvelopeExponents, letter: str) -> None:
    values = found.n_params if letter == "N" else found.n_tokens
    if not len(values):
        style.note(ax, found.status)
        return
    every = max(1, len(values) // MOST_SHOWN)
    ax.scatter(found.train_flops[::every], values[::every], s=12, color=style.GREY, linewidths=0,
               zorder=3, label="winner inside of the sizes measured")  # fmt: skip
    if not found.ok:
        style.absent(ax, found.status)
        style.log_axis(ax, "x", found.train_flops, pad=1.5)
        style.log_axis(ax, "y", values, pad=1.5)
        return
    column, name = "ND".index(letter), "ab"["ND".index(letter)]
    coefficient, slope = ((found.n_coefficient, found.a), (found.d_coefficient, found.b))[column]
    last = found.train_flops.max()
    flops = np.geomspace(found.train_flops.min(), FAR * last, 64)
    line = coefficient * flops**slope
    inside = flops <= last
    ax.plot(flops[inside], line[inside], color=style.BLACK, linewidth=1.6,
            label=style.optimal_text(letter, slope, found.intervals[name]))  # fmt: skip
    ax.plot(flops[~inside], line[~inside], color=style.BLACK, linewidth=1.6, linestyle="--")
    at = style.power_of_ten(float(f"{flops[-1]:.2g}"))
    ax.plot(flops[-1], line[-1], "*", color=style.VERMILION, markersize=13,
            markeredgecolor=style.BLACK,
            label=f"at {at}: {style.short(line[-1])}")  # fmt: skip
    draws = found.line_draws[np.isfinite(found.line_draws).all((1, 2))][:, column]
    shown = [values, line]
    if len(draws) >= 20:
        lines = np.exp(draws @ np.stack([np.log(flops), np.ones(len(flops))]))
        band = np.array([percentile_interval(c) for c in lines.T])
        ax.fill_between(flops, *band.T, color=style.BLACK, alpha=style.BAND_ALPHA, linewidth=0,
                        label="90% band (bootstrap by run)")  # fmt: skip
        shown.append(band.ravel())
    style.log_axis(ax, "x", flops, pad=1.5)
    style.log_axis(ax, "y", np.concatenate(shown), pad=1.2)
