"""What the joint fit leaves over, against size, data and compute."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.inputs import FigureInputs, Group, run_groups
from analysis.figures.style import Page
from analysis.figures.text import law_text


def residuals(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Log of measured over predicted loss of the joint fit, flagged and left-out runs hollow.

    Sigma is sqrt(sum r^2 / (rows - parameters)) over the fitted rows.
    """
    figure, axes = style.panels(
        page,
        f"{inputs.title}: residuals of the joint fit",
        style.footer(inputs, law=law_text(inputs.main.fit)),
        3,
        width=13,
        height=5.6,
    )
    groups, joint = run_groups(inputs), inputs.main.fit
    n_convention, c_convention = inputs.headline
    names = (
        f"parameters N ({n_convention})",
        "training tokens D",
        f"compute C (FLOPs, {c_convention})",
    )
    for ax, name in zip(axes, names, strict=True):
        style.label_axes(ax, name, "ln(measured / predicted loss)" if ax is axes[0] else "")
    if not joint.ok:
        for ax in axes:
            style.note(ax, f"the joint fit failed: {joint.status}")
        return figure
    left_over = [_residuals(inputs, group) for group in groups]
    n_free = joint.n_rows - len(joint.law.parameter_names)
    sigma = float(np.sqrt((joint.residuals**2).sum() / n_free))
    scale = style.size_scale(np.concatenate([g.n_params for g in groups]))
    columns = ("n_params", "n_tokens", "train_flops")
    for ax, column in zip(axes, columns, strict=True):
        _sigma(ax, sigma)
        for index, (group, values) in enumerate(zip(groups, left_over, strict=True)):
            colors = scale.to_rgba(group.n_params)
            style.draw_group(ax, group, index, getattr(group, column), values, colors)
        style.log_axis(ax, "x", np.concatenate([getattr(g, column) for g in groups]))
    style.legend_below(axes[0])
    sizes = np.concatenate([g.n_params for g in groups])
    style.size_bar(figure, axes, scale, sizes, names[0])
    return figure


def _residuals(inputs: FigureInputs, group: Group) -> np.ndarray:
    predicted = inputs.main.fit.predict(n_params=group.n_params, n_tokens=group.n_tokens)
    return np.log(group.loss_nats / predicted)


def _sigma(ax: Axes, sigma: float) -> None:
    ax.axhline(0, color=style.BLACK, linewidth=1, zorder=2)
    ax.axhspan(-sigma, sigma, color=style.SKY, alpha=style.BAND_ALPHA, linewidth=0, zorder=1)
    for sign in (-1, 1):
        ax.axhline(
            sign * sigma, color=style.BLUE, linewidth=1, linestyle="--", zorder=2,
            label=f"sigma = {sigma:.4f} ({sigma:.1%} of the loss)" if sign > 0 else None,
        )  # fmt: skip
