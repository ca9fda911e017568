"""Loss against compute, data and parameters: three panels after fig. 1 of Kaplan et al. 2020."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import curves, style
from analysis.figures.inputs import FigureInputs, Group, run_groups
from analysis.figures.style import Page
from analysis.figures.text import equation, law_text
from analysis.fit import Fit
from analysis.frontier.loss_of_compute import Frontier, Limit, envelope_mask, limits
from analysis.intervals.uncertainty import percentile_interval
from analysis.laws import predict

GRID = 96
CURVE_CONVENTION = "matmul_full"  # the only one that curves are logged in
FLOPS_COLUMN = f"train_flops_{CURVE_CONVENTION}"


def kaplan_panels(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Every training curve against compute, final losses against data, and against parameters.

    The lines of the second and third panel are limits of the joint fit (the other variable
    infinite), not fits of their own. Training curves are smoothed losses on fresh text; final
    losses are of the whole validation split.

    Source: after Kaplan et al. 2020, arXiv:2001.08361, fig. 1.
    """
    figure, axes = style.panels(
        page,
        f"{inputs.title}: loss against compute, data and parameters",
        style.footer(inputs, law=law_text(inputs.main.fit)),
        3,
        width=14.5,
        height=6.6,
    )
    groups = run_groups(inputs)
    scale = style.size_scale(np.concatenate([g.n_params for g in groups]))
    _compute_panel(axes[0], inputs, scale)
    _variable_panel(axes[1], inputs, groups, scale, "D")
    _variable_panel(axes[2], inputs, groups, scale, "N")
    for ax in axes:
        style.legend_below(ax)
    sizes = np.concatenate([g.n_params for g in groups])
    style.size_bar(figure, axes, scale, sizes, f"parameters N ({inputs.headline[0]})")
    return figure


def _compute_panel(ax: Axes, inputs: FigureInputs, scale: Any) -> None:
    used: Any = inputs.curves[
        (inputs.curves[FLOPS_COLUMN] > 0) & inputs.curves["loss_nats"].notna()
    ]
    style.label_axes(
        ax, f"training compute C (FLOPs, {CURVE_CONVENTION})",
        f"training loss, smoothed ({inputs.unit})", "every training curve",
    )  # fmt: skip
    if not len(used):
        style.note(ax, "no training curves were recorded")
        return
    for_drawing = curves.lines(inputs, FLOPS_COLUMN)
    colors = scale.to_rgba(np.array([line.n_params for line in for_drawing]))
    style.draw_lines(ax, [line.xy for line in for_drawing], colors, linewidths=0.9, alpha=0.75)
    style.log_axis(ax, "x", used[FLOPS_COLUMN])
    found = inputs.envelope
    # Sizes whose runs have ended leave the envelope, which then steps up: draw new lows only.
    lows = envelope_mask(found.train_flops, found.loss_nats)
    if lows.any():
        ax.plot(
            found.train_flops[lows], found.loss_nats[lows], color=style.BLACK, linewidth=1.4,
            linestyle=(0, (1, 1)), label="lower envelope of the curves", zorder=5,
        )  # fmt: skip
    low, high, beyond = curves.sight(for_drawing)
    style.loss_axis(ax, min(low, _frontier_lines(ax, inputs)), high)
    style.beyond(ax, beyond)
    style.reference_lines(ax, inputs)


def _frontier_lines(ax: Axes, inputs: FigureInputs) -> float:
    """Draw L(C) up to the right edge; returns the lowest loss of it."""
    frontier = best_frontier(inputs.frontiers)
    if frontier is None:
        style.absent(ax, "no L(C): no frontier was fitted")
        return np.inf
    if frontier.power.c_convention != CURVE_CONVENTION:
        convention = frontier.power.c_convention
        style.absent(ax, f"no L(C): fitted in {convention}, curves are in {CURVE_CONVENTION}")
        return np.inf
    lowest = np.inf
    looks = ((frontier.power, "-", style.VERMILION), (frontier.power_floor, "--", style.BLUE))
    for fit, dash, color in looks:
        if not fit.ok:
            style.absent(ax, f"no {equation(fit)}: {fit.status}")
            continue
        flops = np.geomspace(frontier.train_flops.min() / 3, ax.get_xlim()[1], GRID)
        loss = fit.predict(train_flops=flops)
        lowest = min(lowest, float(loss.min()))
        ax.plot(
            flops, loss, color=color, linestyle=dash, linewidth=2,
            label=style.wrapped(f"{frontier_label(fit)}, through {frontier.source}"), zorder=6,
        )  # fmt: skip
    return lowest


def best_frontier(frontiers: tuple[Frontier, ...]) -> Frontier | None:
    """The first frontier with a fit that is sound, else the first, None if there is none."""
    sound = [f for f in frontiers if f.power.ok or f.power_floor.ok]
    return next(iter((*sound, *frontiers)), None)


def frontier_label(fit: Fit) -> str:
    """The fitted L(C) with the interval of its exponent."""
    alpha = style.with_interval(fit.parameters["alpha"], fit.intervals["alpha"], 3)
    if "E" not in fit.parameters:
        return f"L(C), exponent {alpha}"
    return f"L(C) with floor {fit.parameters['E']:.2f}, exponent {alpha}"


def _variable_panel(
    ax: Axes, inputs: FigureInputs, groups: tuple[Group, ...], scale: Any, variable: str
) -> None:
    joint = inputs.main.fit
    x_of = {"D": lambda g: g.n_tokens, "N": lambda g: g.n_params}[variable]
    names = {"D": "training tokens D", "N": f"parameters N ({inputs.headline[0]})"}
    title = {"D": "final loss against data", "N": "final loss against parameters"}[variable]
    style.label_axes(ax, names[variable], f"validation loss ({inputs.unit})", title)
    losses = np.concatenate([g.loss_nats for g in groups])
    if not len(losses):
        style.note(ax, "no run has a loss")
        return
    x = np.concatenate([x_of(g) for g in groups])
    for index, group in enumerate(groups):
        colors = scale.to_rgba(group.n_params)
        style.draw_group(ax, group, index, x_of(group), group.loss_nats, colors)
    style.log_axis(ax, "x", x)
    low = float(losses.min())
    if not joint.ok:
        style.absent(ax, f"no L({variable}): the joint fit failed: {joint.status}")
    elif joint.law.name != "chinchilla":
        style.absent(ax, f"no L({variable}): not defined for the law {joint.law.name}")
    else:
        if variable == "D":
            _lines_of_sizes(ax, inputs, scale)
        low = min(low, _limit_line(ax, inputs, variable))
    style.loss_axis(ax, low, float(losses.max()))
    style.reference_lines(ax, inputs)


def _lines_of_sizes(ax: Axes, inputs: FigureInputs, scale: Any) -> None:
    points, joint = inputs.main_points, inputs.main.fit
    for size in np.unique(points.n_params):
        tokens = points.n_tokens[points.n_params == size]
        line = np.geomspace(tokens.min(), tokens.max(), 32)
        loss = joint.predict(n_params=size, n_tokens=line)
        ax.plot(line, loss, color=scale.to_rgba(size), linewidth=0.8, alpha=0.7, zorder=2)
    ax.plot([], [], color=style.GREY, linewidth=0.8, label="joint fit at each N")


def _limit_line(ax: Axes, inputs: FigureInputs, variable: str) -> float:
    """Draw L(N) or L(D) with its band over the panel; returns the lowest loss of it."""
    joint = inputs.main.fit
    limit = next(found for found in limits(joint) if found.law.variable == variable)
    argument = {"D": "n_tokens", "N": "n_params"}[variable]
    x = np.geomspace(*ax.get_xlim(), GRID)
    loss = predict(limit.law, limit.parameters, **{argument: x})
    exponent = style.with_interval(limit.parameters["alpha"], limit.intervals["alpha"])
    ax.plot(
        x, loss, color=style.BLACK, linewidth=1.6, zorder=3,
        label=style.wrapped(f"{limit.label}, exponent {exponent}".replace("-> infinity", "→ ∞")),
    )  # fmt: skip
    draws = _limit_draws(joint, limit)
    if len(draws):
        lines = predict(limit.law, draws, **{argument: x})
        band = np.array([percentile_interval(column) for column in lines.T])
        ax.fill_between(x, *band.T, color=style.BLACK, alpha=style.BAND_ALPHA, linewidth=0)
    return float(loss.min())


def _limit_draws(joint: Fit, limit: Limit) -> np.ndarray:
    names = {"N": ("E", "A", "alpha"), "D": ("E", "B", "beta")}[limit.law.variable]
    columns = [joint.law.parameter_names.index(name) for name in names]
    return joint.draws[np.isfinite(joint.draws).all(-1)][:, columns]
