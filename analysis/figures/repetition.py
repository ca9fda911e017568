"""What tokens seen again are still worth."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.inputs import FigureInputs
from analysis.figures.style import Page
from analysis.figures.text import law_text
from analysis.fit import Fit, fit
from analysis.intervals.uncertainty import percentile_interval
from analysis.laws import DataConstrained
from analysis.load import Points

N_DRAWS = 40
SAME_EPOCH = 1.05  # D/U up to which data counts as seen once
MOST_GROUPS = 8


def unrepeated(inputs: FigureInputs) -> str:
    """Why the figure cannot be drawn; empty if runs of several epochs are there."""
    points = inputs.main_points
    unique = points.column("U")
    epochs = points.n_tokens / unique
    if not np.isfinite(unique).all() or not (epochs > SAME_EPOCH).any():
        return "no run saw a token twice"
    return "" if (epochs > 2).sum() >= 4 else "fewer than four runs of more than two epochs"


def repetition(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Loss against epochs at equal size and unique data; the effective data of repeated tokens.

    Effective data of a run are the unique tokens that would give its loss by the law.

    Source: after Muennighoff et al. 2023, arXiv:2305.16264, figs. 3 and 5.
    """
    points = inputs.main_points
    law = fit(DataConstrained(), points, n_bootstrap=N_DRAWS)
    figure, (left, right) = style.panels(
        page,
        f"{inputs.title}: return on repeated data",
        style.footer(inputs, law=law_text(law)),
        2,
        width=12.5,
        height=6.0,
    )
    _loss_panel(left, inputs, points, law)
    _return_panel(right, inputs, points, law)
    for ax in (left, right):
        style.legend_below(ax)
    return figure


def _loss_panel(ax: Axes, inputs: FigureInputs, points: Points, law: Fit) -> None:
    epochs = points.n_tokens / points.column("U")
    names = np.stack([points.n_params, np.round(np.log(points.column("U")), 2)], -1)
    groups, codes = np.unique(names, axis=0, return_inverse=True)
    spans = [np.ptp(np.log(epochs[codes == k])) for k in range(len(groups))]
    shown = [k for k in np.argsort(spans)[::-1] if spans[k] > 0][:MOST_GROUPS]
    for k, color in zip(sorted(shown), style.budget_colors(len(shown)), strict=True):
        own = np.flatnonzero(codes == k)
        own = own[np.argsort(epochs[own])]
        unique, n_params = float(points.column("U")[own[0]]), float(points.n_params[own[0]])
        label = f"N {style.short(n_params)}, U {style.short(unique)}"
        ax.plot(epochs[own], points.loss_nats[own], "o", color=color, markersize=5, label=label)
        if law.ok:
            e = np.geomspace(epochs[own[0]], epochs[own[-1]], 64)
            fitted = law.predict(n_params=n_params, n_tokens=e * unique, n_tokens_unique=unique)
            ax.plot(e, fitted, color=color, linewidth=1.2)
    used = np.isin(codes, shown)
    style.log_axis(ax, "x", epochs[used])
    style.loss_axis(ax, float(points.loss_nats[used].min()), float(points.loss_nats[used].max()))
    style.label_axes(
        ax, "epochs D/U", f"validation loss ({inputs.unit})", "loss with repeated data"
    )


def _return_panel(ax: Axes, inputs: FigureInputs, points: Points, law: Fit) -> None:
    style.label_axes(
        ax, "epochs D/U", "effective data D'/U (epochs of new tokens)", "return on repetition"
    )
    if not law.ok:
        style.note(ax, f"no law of repetition: {law.status}")
        return
    epochs = points.n_tokens / points.column("U")
    e = np.geomspace(1, max(epochs.max(), 2.0), 96)
    column = law.law.parameter_names.index("R_D")
    draws = law.draws[np.isfinite(law.draws).all(-1)][:, column]
    ax.plot(e, e, color=style.GREY, linewidth=1, linestyle="--", label="as good as new tokens")
    r_d = style.with_interval(law.parameters["R_D"], law.intervals["R_D"], 1)
    ax.plot(e, _effective(e, law.parameters["R_D"]), color=style.BLUE, linewidth=1.8,
            label=f"the law, R_D = {r_d}")  # fmt: skip
    if len(draws) >= 20:
        lines = _effective(e, draws[:, None])
        band = np.array([percentile_interval(c) for c in lines.T])
        ax.fill_between(e, *band.T, color=style.BLUE, alpha=style.BAND_ALPHA, linewidth=0)
    found = implied(points, law)
    known = np.isfinite(found) & (epochs > SAME_EPOCH)
    scale = style.size_scale(points.n_params)
    ax.scatter(epochs[known], found[known], s=24, c=scale.to_rgba(points.n_params[known]),
               zorder=4, linewidths=0, label="runs, by their loss")  # fmt: skip
    if (left_out := int((epochs > SAME_EPOCH).sum() - known.sum())) > 0:
        style.absent(ax, f"{left_out} runs lie below the law's floor or above no data at all")
    style.log_axis(ax, "x", e, pad=1.1)
    top = max(float(np.nanmax(found, initial=1.0)), float(_effective(e, law.parameters["R_D"])[-1]))
    style.log_axis(ax, "y", [0.7, top], pad=1.2)
    style.size_bar(ax.figure, ax, scale, points.n_params, "parameters N")  # type: ignore[arg-type]


def _effective(epochs: np.ndarray, r_d: Any) -> np.ndarray:
    """D'/U of the law."""
    return 1 - r_d * np.expm1(-(epochs - 1) / r_d)


def implied(points: Points, law: Fit) -> np.ndarray:
    """D'/U at which the law gives the measured loss, N' as the law has it; NaN where none does."""
    p = law.parameters
    unique = points.column("U")
    n_term = law.predict(
        n_params=points.n_params, n_tokens=points.n_tokens, n_tokens_unique=unique
    ) - p["E"]  # fmt: skip
    epochs = points.n_tokens / unique
    d_term = p["B"] / (unique * _effective(np.maximum(epochs, 1.0), p["R_D"])) ** p["alpha"]
    left = points.loss_nats - p["E"] - (n_term - d_term)
    with np.errstate(invalid="ignore", divide="ignore"):
        tokens = np.where(left > 0, (p["B"] / left) ** (1 / p["alpha"]), np.nan)
    return tokens / unique
