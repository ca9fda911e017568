"""The fitted loss over model size and data, with the runs and the compute-optimal path."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import style
from analysis.figures.inputs import FigureInputs, Group, run_groups
from analysis.figures.isoflop import tokens_along
from analysis.figures.style import Page
from analysis.figures.text import law_text
from analysis.frontier.allocation import Ladder, ladder_from_points, optima

GRID = 80
PATH_STEPS = 25
MAX_DRAWS = 200
KEPT_SHARE = 0.9
"""The band stops where fewer draws than this have an optimum between the sizes trained."""
N_LEVELS = 12
MOST_SLICES = 10


def surface(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Filled contours of the joint fit in the N-D plane with the runs; slices at equal compute.

    The compute-optimal path minimises the fitted loss under the FLOPs of the headline convention,
    between the smallest and the largest size only.

    Source: after Hoffmann et al. 2022, arXiv:2203.15556, fig. 4.
    """
    figure, (ax, slices) = style.panels(
        page,
        f"{inputs.title}: loss over size and data",
        style.footer(inputs, law=law_text(inputs.main.fit)),
        2,
        width=14.5,
        height=7.2,
        ratios=[1.1, 1],
    )
    groups = [g for g in run_groups(inputs) if len(g)]
    style.label_axes(
        ax, f"parameters N ({inputs.headline[0]})", "training tokens D",
        f"contours: joint fit; points: measured; both in {inputs.unit}",
    )  # fmt: skip
    if not groups:
        for empty in (ax, slices):
            style.note(empty, "no run has a loss")
        return figure
    scale = _loss_scale(groups)
    style.log_axis(ax, "x", np.concatenate([g.n_params for g in groups]), pad=1.4)
    style.log_axis(ax, "y", np.concatenate([g.n_tokens for g in groups]), pad=1.5)
    ax.grid(False)
    if inputs.main.fit.ok:
        _contours(ax, inputs, scale)
        _optimal_path(ax, inputs)
    else:
        style.absent(ax, f"no surface: the joint fit failed: {inputs.main.fit.status}")
    _isoflop_lines(ax, inputs)
    for index, group in enumerate(run_groups(inputs)):
        _measured(ax, group, index, scale)
    bar = figure.colorbar(scale, ax=ax, pad=0.01, fraction=0.05, aspect=35, extend="both")
    bar.set_label(f"validation loss ({inputs.unit})", fontsize=style.LABEL_SIZE)
    bar.ax.tick_params(labelsize=style.TICK_SIZE)
    style.legend_below(ax, n_columns=1 if page.is_column else 2)
    _slices_panel(slices, inputs)
    style.legend_below(slices, n_columns=2)
    return figure


def _slices_panel(ax: Axes, inputs: FigureInputs) -> None:
    """The joint fit and the runs along budgets of compute."""
    found = [m for m in inputs.main.minima if len(m.size_n_params) > 1]
    style.label_axes(
        ax, f"parameters N ({inputs.headline[0]})", f"validation loss ({inputs.unit})",
        f"the same surface at equal compute (FLOPs, {inputs.headline[1]})",
    )  # fmt: skip
    if not found or not inputs.main.fit.ok:
        style.note(ax, "no isoFLOP budget" if not found else "no surface: the joint fit failed")
        return
    found = found[:: -(-len(found) // MOST_SLICES)]
    drawn = []
    for m, color in zip(found, style.budget_colors(len(found)), strict=True):
        n = np.geomspace(m.size_n_params[0], m.size_n_params[-1], 64)
        loss = inputs.main.fit.predict(n_params=n, n_tokens=tokens_along(inputs, m, n))
        drawn += [loss, m.size_loss_nats]
        ax.plot(n, loss, color=color, linewidth=1.6)
        ax.plot(m.size_n_params, m.size_loss_nats, "o", color=color, markersize=6,
                label=style.power_of_ten(float(f"{m.budget:.2g}")))  # fmt: skip
    style.log_axis(ax, "x", np.concatenate([m.size_n_params for m in found]))
    style.loss_axis(ax, float(np.concatenate(drawn).min()), float(np.concatenate(drawn).max()))
    style.reference_lines(ax, inputs)


def _loss_scale(groups: list[Group]) -> Any:

    losses = np.concatenate([g.loss_nats for g in groups])
    low, high = float(losses.min()), float(losses.max())
    if low == high:
        low, high = low * 0.99, high * 1.01
    levels = MaxNLocator(N_LEVELS, steps=[1, 2, 5, 10]).tick_values(low, high)
    return ScalarMappable(BoundaryNorm(levels, 256, extend="both"), colormaps["cividis_r"])


def _contours(ax: Axes, inputs: FigureInputs, scale: Any) -> None:
    sizes, tokens = np.geomspace(*ax.get_xlim(), GRID), np.geomspace(*ax.get_ylim(), GRID)
    loss = inputs.main.fit.predict(n_params=sizes[None, :], n_tokens=tokens[:, None])
    ax.contourf(
        sizes, tokens, loss, levels=scale.norm.boundaries, cmap=scale.cmap, norm=scale.norm,
        extend="both", alpha=0.9,
    )  # fmt: skip
    lines = ax.contour(
        sizes, tokens, loss, levels=scale.norm.boundaries, colors="white", linewidths=0.5
    )
    ax.clabel(lines, fontsize=style.SMALL_SIZE, fmt="%.3g", colors="white")


def _isoflop_lines(ax: Axes, inputs: FigureInputs) -> None:
    for index, minimum in enumerate(inputs.main.minima):
        ax.plot(
            minimum.size_n_params, minimum.size_n_tokens, color=style.BLACK, linewidth=0.8,
            linestyle="--", zorder=2, label="isoFLOP budgets" if index == 0 else None,
        )  # fmt: skip


def _optimal_path(ax: Axes, inputs: FigureInputs) -> None:
    points, fit = inputs.main_points, inputs.main.fit
    if len(np.unique(points.n_params)) < 2:
        style.absent(ax, "no compute-optimal path: one model size only")
        return
    ladder = ladder_from_points(points)
    flops = np.geomspace(points.train_flops.min(), points.train_flops.max(), PATH_STEPS)
    vector = np.array([fit.parameters[name] for name in fit.law.parameter_names])
    sizes, tokens = optima(fit.law, vector, ladder, flops)
    if not np.isfinite(sizes).any():
        style.absent(ax, "no compute-optimal path: the optimum lies outside of the sizes trained")
        return
    label = "compute-optimal path of the joint fit\n(bends where the ladder changes depth)"
    ax.plot(sizes, tokens, color=style.VERMILION, linewidth=2.6, zorder=3, label=label)
    draws = fit.draws[np.isfinite(fit.draws).all(-1)][:MAX_DRAWS]
    band = _path_band(inputs, draws, ladder, flops)
    if len(band):
        ax.fill(*band, color=style.VERMILION, alpha=0.3, linewidth=0, zorder=2.5,
                label=f"its {fit.interval_level:.0%} band")  # fmt: skip


def _path_band(
    inputs: FigureInputs, draws: np.ndarray, ladder: Ladder, flops: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Outline (N, D) of the interval of N* along isoFLOP lines; empty where draws allow none."""
    fit = inputs.main.fit
    if len(draws) < 20:
        return ()
    sizes, _ = optima(fit.law, draws, ladder, flops)
    known = np.isfinite(sizes).mean(0) >= KEPT_SHARE
    if known.sum() < 2:
        return ()
    tail = (1 - fit.interval_level) / 2
    edges = np.nanquantile(sizes[:, known], [tail, 1 - tail], axis=0)
    per_token = np.exp(np.interp(np.log(edges), np.log(ladder.n_params),
                                 np.log(ladder.flops_per_token)))  # fmt: skip
    tokens = flops[known] / per_token
    return tuple(np.concatenate([low, high[::-1]]) for low, high in (edges, tokens))


def _measured(ax: Axes, group: Group, index: int, scale: Any) -> None:
    """Runs on the colour scale of the contours; a black rim is filled, a flag changes the shape."""
    if not len(group):
        return
    marker = "*" if group.reason.startswith("held out") else "o"
    hollow = group.reason and marker == "o"
    if hollow:
        marker = style.FLAG_MARKERS[(index - 1) % len(style.FLAG_MARKERS)]
        ax.scatter(group.n_params, group.n_tokens, s=120, marker=marker, facecolors="none",
                   edgecolors=style.BLACK, linewidths=1.2, zorder=6,
                   label=style.wrapped(group.label))  # fmt: skip
        ax.scatter(group.n_params, group.n_tokens, s=26, c=scale.to_rgba(group.loss_nats),
                   edgecolors="white", linewidths=0.4, zorder=6)  # fmt: skip
    else:
        ax.scatter(group.n_params, group.n_tokens, s=240 if marker == "*" else 80, marker=marker,
                   c=scale.to_rgba(group.loss_nats), edgecolors=style.BLACK, linewidths=1.0,
                   zorder=6, label=style.wrapped(group.label))  # fmt: skip
