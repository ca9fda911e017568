"""What it costs to train a size that is not the optimal one."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import published
from analysis.figures import style
from analysis.figures.inputs import FigureInputs, run_groups
from analysis.figures.isoflop import tokens_along
from analysis.figures.style import Page
from analysis.figures.text import law_text
from analysis.intervals.uncertainty import percentile_interval

RATIOS = np.geomspace(0.1, 10, 241)
MOST_COST = 4.0
MOST_BUDGETS = 8


def off_optimal(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Loss against size at equal compute; compute and tokens to the same loss off the optimal size.

    Under E + A/N^alpha + B/D^beta and C = 6ND the two costs depend on N/N* and the exponents alone,
    whatever the loss. Points are runs: their compute over the least that the law needs for the loss
    which they reached.

    Source: after Kaplan et al. 2020, arXiv:2001.08361, figs. 11 and 12 and app. B.4.
    """
    joint = inputs.main.fit
    figure, axes = style.panels(
        page,
        f"{inputs.title}: the cost of a size that is not optimal",
        style.footer(inputs, law=law_text(joint)),
        3,
        width=14.5,
        height=6.4,
    )
    _budgets_panel(axes[0], inputs)
    _cost_panel(axes[1], inputs)
    _tokens_panel(axes[2], inputs)
    for ax in axes:
        style.legend_below(ax)
    return figure


def excess_tokens(ratio: np.ndarray, alpha: Any, beta: Any) -> np.ndarray:
    """D / D* to the loss of the optimum, at N = ratio N*; infinite where no D reaches it.

    At the optimum A/N^alpha is beta/(alpha + beta) of what is above E, B/D^beta the rest.

    Args: alpha, beta: exponents, scalars or (S, 1) draws.
    """
    share = beta / (alpha + beta)
    left = 1 - share * ratio**-alpha
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(left > 0, ((1 - share) / left) ** (1 / beta), np.inf)


def kaplan_cost(ratio: np.ndarray) -> np.ndarray:
    """C / C_min at N = ratio N* by Kaplan's L(N, S); infinite where no number of steps will do."""
    p = published.KAPLAN_2020_NS.parameters
    gain = 1 + p["alpha_S"] / p["alpha_N"] * (1 - ratio ** -p["alpha_N"])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gain > 0, ratio * gain ** (-1 / p["alpha_S"]), np.inf)


def _budgets_panel(ax: Axes, inputs: FigureInputs) -> None:
    found = [m for m in inputs.main.minima if len(m.size_n_params) > 1]
    style.label_axes(
        ax, f"parameters N ({inputs.headline[0]})", f"validation loss ({inputs.unit})",
        "loss at equal compute",
    )  # fmt: skip
    if not found:
        style.note(ax, "no run belongs to an isoFLOP budget")
        return
    found = found[:: -(-len(found) // MOST_BUDGETS)]
    for m, color in zip(found, style.budget_colors(len(found)), strict=True):
        ax.plot(m.size_n_params, m.size_loss_nats, "o", color=color, markersize=5)
        n = np.geomspace(m.size_n_params[0], m.size_n_params[-1], 64)
        loss = inputs.main.fit.predict(n_params=n, n_tokens=tokens_along(inputs, m, n))
        ax.plot(n, loss, color=color, label=f"C = {style.power_of_ten(float(f'{m.budget:.2g}'))}")
        low = int(loss.argmin())
        if 0 < low < len(n) - 1:
            ax.plot(n[low], loss[low], "*", color=color, markersize=12, markeredgecolor=style.BLACK)
    losses = np.concatenate([m.size_loss_nats for m in found])
    style.log_axis(ax, "x", np.concatenate([m.size_n_params for m in found]))
    style.loss_axis(ax, float(losses.min()), float(losses.max()))
    style.reference_lines(ax, inputs)


def _cost_panel(ax: Axes, inputs: FigureInputs) -> None:
    style.label_axes(ax, "N / N*", "compute / least compute", "compute to the same loss")
    alpha, beta = (inputs.main.fit.parameters[k] for k in ("alpha", "beta"))
    cost = RATIOS * excess_tokens(RATIOS, alpha, beta)
    ax.plot(RATIOS, cost, color=style.BLUE, linewidth=1.8, label="these runs, with 90% band")
    _band(ax, inputs, lambda a, b: RATIOS * excess_tokens(RATIOS, a, b))
    ax.plot(RATIOS, kaplan_cost(RATIOS), color=style.GREY, linestyle="--",
            label="Kaplan et al. 2020, L(N, S) as printed")  # fmt: skip
    least, most = published.KAPLAN_2020_NEAR_OPTIMAL
    price = published.KAPLAN_2020_NEAR_OPTIMAL_COST
    ax.plot([least, most], [price, price], "d", color=style.GREY,
            label=f"their {least:g}x and {most:g}x at {price - 1:.0%} more")  # fmt: skip
    _measured(ax, inputs, alpha, beta)
    inside = RATIOS[cost <= 1.2]
    text = f"at most 20% more from {inside.min():.2f} to {inside.max():.2f} N*"
    style.absent(ax, text)
    style.log_axis(ax, "x", RATIOS, pad=1)
    ax.set(ylim=(0.8, MOST_COST))


def _measured(ax: Axes, inputs: FigureInputs, alpha: float, beta: float) -> None:
    """Runs, by their loss: N over the size that is optimal for it, C = 6ND over the least."""
    p = inputs.main.fit.parameters
    share = beta / (alpha + beta)
    for index, group in enumerate(run_groups(inputs)):
        above = group.loss_nats - p["E"]
        known = above > 0
        if not known.all() or not len(group):
            continue
        n_star = (p["A"] / (share * above)) ** (1 / alpha)
        d_star = (p["B"] / ((1 - share) * above)) ** (1 / beta)
        cost = group.n_params * group.n_tokens / (n_star * d_star)
        style.draw_group(ax, group, index, group.n_params / n_star, cost, style.ORANGE)


def _tokens_panel(ax: Axes, inputs: FigureInputs) -> None:
    style.label_axes(ax, "N / N*", "tokens / tokens at N*", "tokens to the same loss")
    alpha, beta = (inputs.main.fit.parameters[k] for k in ("alpha", "beta"))
    ax.plot(RATIOS, excess_tokens(RATIOS, alpha, beta), color=style.BLUE, linewidth=1.8,
            label="these runs, with 90% band")  # fmt: skip
    _band(ax, inputs, lambda a, b: excess_tokens(RATIOS, a, b))
    ax.plot(RATIOS, kaplan_cost(RATIOS) / RATIOS, color=style.GREY, linestyle="--",
            label="Kaplan et al. 2020, steps S_min")  # fmt: skip
    style.log_axis(ax, "x", RATIOS, pad=1)
    style.log_axis(ax, "y", [0.1, 10.0], pad=1)


def _band(ax: Axes, inputs: FigureInputs, of_exponents: Any) -> None:
    fit = inputs.main.fit
    draws = fit.draws[np.isfinite(fit.draws).all(-1)]
    if len(draws) < 20:
        return
    names = fit.law.parameter_names
    alpha, beta = (draws[:, names.index(k), None] for k in ("alpha", "beta"))
    lines = np.minimum(of_exponents(alpha, beta), 1e6)
    band = np.array([percentile_interval(column) for column in lines.T])
    ax.fill_between(RATIOS, *band.T, color=style.BLUE, alpha=style.BAND_ALPHA, linewidth=0)
