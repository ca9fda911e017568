"""Training on more tokens than is compute-optimal: parallel lines, and what they cost."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.inputs import FigureInputs, run_groups
from analysis.figures.style import Page
from analysis.figures.text import law_text
from analysis.fit import Fit, fit
from analysis.intervals.uncertainty import percentile_interval
from analysis.laws import OverTraining

N_LINES = 5
N_DRAWS = 200


def overtraining(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Loss above the floor against C = 6ND by tokens per parameter; the loss off the best ratio.

    The law says that runs at equal M = D/N lie on parallel lines.

    Source: after Gadre et al. 2024, arXiv:2403.08540, figs. 2 and 3.
    """
    law = fit(OverTraining(), inputs.main_points, "ls_log", n_bootstrap=N_DRAWS)
    n_convention = inputs.headline[0]
    figure, (left, right) = style.panels(
        page,
        f"{inputs.title}: over-training",
        style.footer(inputs, conventions=f"N {n_convention}, C = 6ND", law=law_text(law)),
        2,
        width=12.5,
        height=6.0,
    )
    if not law.ok:
        for ax in (left, right):
            style.note(ax, f"no law of over-training: {law.status}")
        return figure
    ratios = np.concatenate([g.n_tokens / g.n_params for g in run_groups(inputs)])
    scale = style.size_scale(ratios)
    _lines_panel(left, inputs, law, scale)
    _cost_panel(right, inputs, law, scale)
    style.size_bar(figure, [left, right], scale, ratios, "tokens per parameter M = D/N")
    for ax in (left, right):
        style.legend_below(ax)
    return figure


def _lines_panel(ax: Axes, inputs: FigureInputs, law: Fit, scale) -> None:
    p = law.parameters
    every_c, every_y = [], []
    for index, group in enumerate(run_groups(inputs)):
        flops, above = 6 * group.n_params * group.n_tokens, group.loss_nats - p["E"]
        if not len(group) or not (above > 0).all():
            continue
        colors = scale.to_rgba(group.n_tokens / group.n_params)
        style.draw_group(ax, group, index, flops, above, colors)
        every_c.append(flops)
        every_y.append(above)
    flops = np.concatenate(every_c)
    points = inputs.main_points
    line = np.geomspace(flops.min(), flops.max(), 32)
    ratios = np.quantile(points.n_tokens / points.n_params, np.linspace(0, 1, N_LINES))
    for k, m in enumerate(ratios):
        term = p["a"] * m ** p["eta"] + p["b"] * m ** -p["eta"]
        ax.plot(line, term * line ** -p["eta"], color=scale.to_rgba(m), linewidth=1.2, zorder=2,
                label=None if k else "the law at equal M")  # fmt: skip
        every_y.append(term * line ** -p["eta"])
    style.log_axis(ax, "x", flops)
    style.log_axis(ax, "y", np.concatenate(every_y))
    slope = style.with_interval(p["eta"], law.intervals["eta"])
    style.label_axes(
        ax, "training compute C = 6ND (FLOPs)", f"loss less {p['E']:.2f} ({inputs.unit})",
        f"equal M, parallel lines: eta = {slope}",
    )  # fmt: skip


def _cost_panel(ax: Axes, inputs: FigureInputs, law: Fit, scale) -> None:
    """Loss above the floor over the least at that compute, against M over the best M."""
    p = law.parameters
    best = (p["b"] / p["a"]) ** (1 / (2 * p["eta"]))
    every_x, every_y = [], []
    for index, group in enumerate(run_groups(inputs)):
        above = group.loss_nats - p["E"]
        if not len(group) or not (above > 0).all():
            continue
        x = group.n_tokens / group.n_params / best
        least = 2 * np.sqrt(p["a"] * p["b"]) * (6 * group.n_params * group.n_tokens) ** -p["eta"]
        style.draw_group(ax, group, index, x, above / least, scale.to_rgba(x * best))
        every_x.append(x)
        every_y.append(above / least)
    style.log_axis(ax, "x", np.concatenate([*every_x, [1.0]]))
    m = np.geomspace(*ax.get_xlim(), 96)
    line = np.cosh(p["eta"] * np.log(m))
    label = f"the law; best M = {style.short(best)}"
    ax.plot(m, line, color=style.BLACK, linewidth=1.6, zorder=3, label=label)
    draws = law.draws[np.isfinite(law.draws).all(-1)]
    if len(draws) >= 20:
        _, a, b, eta = draws.T[..., None]
        shift = np.log(best) - np.log(b / a) / (2 * eta)
        lines = np.cosh(eta * (np.log(m) + shift))
        band = np.array([percentile_interval(c) for c in lines.T])
        ax.fill_between(m, *band.T, color=style.BLACK, alpha=style.BAND_ALPHA, linewidth=0)
    style.log_axis(ax, "y", np.concatenate([*every_y, line]))
    style.label_axes(
        ax, "M over the compute-optimal M", "loss less E / its least",
        "what too few or too many tokens cost",
    )  # fmt: skip
