"""Learning curves of every size, and the laws L(N, D) and L(N, S) of Kaplan et al. 2020."""

from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import curves, style
from analysis.figures.inputs import FigureInputs, run_groups
from analysis.figures.style import Page
from analysis.figures.text import law_text
from analysis.fit import Fit, fit
from analysis.intervals.uncertainty import percentile_interval
from analysis.laws import KaplanND, KaplanNS
from analysis.laws.batch import minimum_steps
from analysis.load import Points, points_from_columns

FLOPS_COLUMN = "train_flops_matmul_full"
N_DRAWS = 100
MOST_ROWS, MOST_CURVES = 600, 60
"""Of curve points in one fit of L(N, S), and of the curves that they are on."""
AFTER_WARMUP = 2.0
"""Times the warm-up from which a curve counts; Kaplan et al. leave the transient out as well."""


def learning_curves(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Every training curve against the tokens seen and against the compute spent.

    Source: after Kaplan et al. 2020, arXiv:2001.08361, fig. 2.
    """
    figure, axes = style.panels(
        page,
        f"{inputs.title}: learning curves by size",
        style.footer(inputs),
        2,
        width=12.0,
        height=5.4,
    )
    sizes = inputs.runs[f"n_params_{inputs.headline[0]}"].to_numpy(np.float64)
    scale = style.size_scale(sizes)
    names = {
        "n_tokens": ("tokens processed D", "larger models need fewer tokens"),
        FLOPS_COLUMN: ("training compute C (FLOPs, matmul_full)", "the best size grows with C"),
    }
    for ax, (column, (name, title)) in zip(axes, names.items(), strict=True):
        _curves_panel(ax, inputs, scale, column)
        style.label_axes(ax, name, f"training loss, smoothed ({inputs.unit})", title)
    style.size_bar(figure, axes, scale, sizes, f"parameters N ({inputs.headline[0]})")
    return figure


def _curves_panel(ax: Axes, inputs: FigureInputs, scale: Any, column: str) -> None:
    drawn = curves.lines(inputs, column)
    colors = scale.to_rgba(np.array([line.n_params for line in drawn]))
    style.draw_lines(ax, [line.xy for line in drawn], colors, linewidths=0.9, alpha=0.8)
    style.log_axis(ax, "x", np.concatenate([line.xy[:, 0] for line in drawn]))
    low, high, beyond = curves.sight(drawn)
    style.loss_axis(ax, low, high)
    style.beyond(ax, beyond)
    style.reference_lines(ax, inputs)


def data_and_steps(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """L(N, D) against D, the excess over infinite data, and learning curves with L(N, S).

    Excess: L(N, D) / L(N, infinite D) - 1 against N^(alpha_N/alpha_D) / D, on which the law is one
    line. In a study of single epochs this is the price of stopping early, not of repeating.
    S is S_min = S / (1 + B_crit/B) where a batch sweep gives B_crit, else the steps as taken.

    Source: after Kaplan et al. 2020, arXiv:2001.08361, figs. 4 and 9, eqs. 1.5, 1.6 and 4.3.
    """
    law = fit(KaplanND(), inputs.main_points, "ls_log", n_bootstrap=N_DRAWS)
    steps = curve_points(inputs)
    of_steps = fit(KaplanNS(), steps, "ls_log", n_bootstrap=N_DRAWS) if len(steps) else None
    figure, axes = style.panels(
        page,
        f"{inputs.title}: loss by size with data, and with steps",
        style.footer(inputs, law=law_text(law)),
        3,
        width=14.5,
        height=6.0,
    )
    scale = style.size_scale(np.concatenate([g.n_params for g in run_groups(inputs)]))
    _data_panel(axes[0], inputs, law, scale)
    _excess_panel(axes[1], inputs, law, scale)
    _steps_panel(axes[2], inputs, steps, of_steps, scale)
    for ax in axes:
        style.legend_below(ax)
    sizes = inputs.main_points.n_params
    style.size_bar(figure, axes, scale, sizes, f"parameters N ({inputs.headline[0]})")
    return figure


def _data_panel(ax: Axes, inputs: FigureInputs, law: Fit, scale: Any) -> None:
    groups = run_groups(inputs)
    for index, group in enumerate(groups):
        colors = scale.to_rgba(group.n_params)
        style.draw_group(ax, group, index, group.n_tokens, group.loss_nats, colors)
    losses = np.concatenate([g.loss_nats for g in groups])
    style.log_axis(ax, "x", np.concatenate([g.n_tokens for g in groups]))
    style.loss_axis(ax, float(losses.min()), float(losses.max()))
    style.label_axes(
        ax, "training tokens D", f"validation loss ({inputs.unit})", "loss against data, by size"
    )
    if not law.ok:
        style.absent(ax, f"no L(N, D): {law.status}")
        return
    points = inputs.main_points
    d = np.geomspace(*ax.get_xlim(), 64)
    for size in _some(np.unique(points.n_params)):
        loss = law.predict(n_params=size, n_tokens=d)
        ax.plot(d, loss, color=scale.to_rgba(size), linewidth=1.0, zorder=2)
    ax.plot([], [], color=style.GREY, linewidth=1.0, label="L(N, D) of Kaplan et al., fitted")
    style.reference_lines(ax, inputs)


def _excess_panel(ax: Axes, inputs: FigureInputs, law: Fit, scale: Any) -> None:
    style.label_axes(ax, "N^(α_N/α_D) / D", "L(N, D) / L(N, ∞) − 1", "excess over infinite data")
    if not law.ok:
        style.note(ax, f"no L(N, D): {law.status}")
        return
    groups = run_groups(inputs)
    p = law.parameters
    ratio = p["alpha_N"] / p["alpha_D"]
    every_x = np.concatenate([g.n_params**ratio / g.n_tokens for g in groups])
    shown = []
    for index, group in enumerate(groups):
        limit = (p["N_c"] / group.n_params) ** p["alpha_N"]
        excess = group.loss_nats / limit - 1
        above = excess > 0  # the others lie off a logarithmic axis
        shown.append(excess[above])
        x, colors = group.n_params**ratio / group.n_tokens, scale.to_rgba(group.n_params)
        style.draw_group(ax, group, index, x[above], excess[above], colors[above])
    style.log_axis(ax, "x", every_x)
    x = np.geomspace(*ax.get_xlim(), 64)
    draws = law.draws[np.isfinite(law.draws).all(-1)]
    # A draw has another ratio: it is read along D at the middle size, which the axis then shifts.
    middle = float(np.exp(np.log(inputs.main_points.n_params).mean()))
    lines = np.stack(
        [_excess(row, middle, middle**ratio / x) for row in (list(p.values()), *draws)]
    )
    ax.plot(x, lines[0], color=style.BLACK, linewidth=1.6, label="the law: one line for all sizes")
    if len(draws) >= 20:
        band = np.array([percentile_interval(column) for column in lines[1:].T])
        ax.fill_between(x, *band.T, color=style.BLACK, alpha=style.BAND_ALPHA, linewidth=0)
    style.log_axis(ax, "y", np.concatenate([*shown, lines[0]]))


def _excess(row: Any, n_params: float, n_tokens: np.ndarray) -> np.ndarray:
    """L(N, D) / L(N, infinite D) - 1. Source: Kaplan et al. 2020, eq. 4.3."""
    n_c, d_c, alpha_n, alpha_d = row
    return (1 + (n_params / n_c) ** (alpha_n / alpha_d) * d_c / n_tokens) ** alpha_d - 1


def _steps_panel(
    ax: Axes, inputs: FigureInputs, points: Points, law: Fit | None, scale: Any
) -> None:
    is_minimum = inputs.critical_here is not None
    name = "steps S_min" if is_minimum else "optimizer steps S (no B_crit known for S_min)"
    style.label_axes(
        ax, name, f"training loss, smoothed ({inputs.unit})", "learning curves with L(N, S)"
    )
    if law is None:
        style.note(ax, "no training curves were recorded")
        return
    steps, loss = points.column("S"), points.loss_nats
    for run in _some(np.unique(points.cluster), 40):
        own = points.cluster == run
        color = scale.to_rgba(points.n_params[own][0])
        ax.plot(steps[own], loss[own], ".", color=color, markersize=3, zorder=3)
        if law.ok:
            fitted = law.predict(n_params=points.n_params[own], n_steps=steps[own])
            ax.plot(steps[own], fitted, color=color, linewidth=0.9, zorder=2)
    style.log_axis(ax, "x", steps)
    of_run = [loss[points.cluster == run] for run in np.unique(points.cluster)]
    high, beyond = curves.top(*np.array([(own[0], own.max()) for own in of_run]).T)
    style.loss_axis(ax, float(loss.min()), high)
    style.beyond(ax, beyond)
    style.reference_lines(ax, inputs)
    text = law_text(law)
    if len(of_run) == MOST_CURVES:
        text += f"; of {MOST_CURVES} of the curves"
    ax.plot([], [], color=style.GREY, linewidth=1, label=style.wrapped(text))


def curve_points(inputs: FigureInputs) -> Points:
    """Points (N, S, L) along the curves after their warm-up, thinned; a run is one cluster."""
    by_id: Any = inputs.runs.drop_duplicates("run_id").set_index("run_id")
    runs = by_id.to_dict("index")
    drawn = curves.lines(inputs, "step") if "step" in inputs.curves.columns else []
    drawn = [line for line in drawn if runs[line.run_id]["status"] == "finished"]
    drawn = [drawn[i] for i in _some(np.arange(len(drawn)), MOST_CURVES)]
    every = max(1, round(sum(len(line.xy) for line in drawn) / MOST_ROWS))
    rows: list[np.ndarray] = []
    for index, line in enumerate(drawn):
        run = runs[line.run_id]
        steps, loss = line.xy[line.xy[:, 0] > AFTER_WARMUP * float(run["warmup_steps"])].T
        if inputs.critical_here is not None:
            steps = minimum_steps(
                steps, np.array(run["batch_tokens"], np.float64), inputs.critical_here.at(loss)[0]
            )
        table = np.stack([np.full(len(steps), line.n_params), steps, loss], -1)[::every]
        rows.append(np.column_stack([table, np.full(len(table), index)]))
    if not rows:
        return points_from_columns({name: np.empty(0) for name in "NSL"})
    n, s, loss, cluster = np.concatenate(rows).T
    made = points_from_columns({"N": n, "S": s, "L": loss})
    return replace(made, cluster=cluster.astype(np.int64))


def _some(values: np.ndarray, most: int = 12) -> np.ndarray:
    """At most so many of the values, evenly."""
    if len(values) <= most:
        return values
    return values[np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))]
