"""The larger run: predicted before it was trained, and measured."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.inputs import FigureInputs, HeldOut, run_groups
from analysis.figures.kaplan import best_frontier, frontier_label
from analysis.figures.style import Page
from analysis.figures.text import law_text
from analysis.intervals.uncertainty import percentile_interval
from analysis.laws import predict

NOTHING_YET = "no held-out run has been predicted yet"


def prediction(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Predicted intervals by convention with the measured loss; extrapolation in compute."""
    meaning = "by row on the left; on the right N {}, C {}".format(*inputs.headline)
    figure, (left, right) = style.panels(
        page,
        f"{inputs.title}: prediction of the held-out run",
        style.footer(inputs, conventions=meaning, law=law_text(inputs.main.fit)),
        2,
        width=13.5,
        height=7.2,
    )
    _intervals_panel(left, inputs)
    _compute_panel(right, inputs)
    style.legend_below(right)
    return figure


def verdict(held_out: HeldOut) -> str:
    """Hit, miss or what is missing, in one word or two."""
    if not held_out.prediction.ok:
        return "no prediction"
    if held_out.measured_loss_nats is None:
        return "not trained yet"
    return "hit" if held_out.is_hit else "MISS"


def _intervals_panel(ax: Axes, inputs: FigureInputs) -> None:
    style.label_axes(ax, f"validation loss ({inputs.unit})", "", "predicted and measured")
    if not inputs.held_out:
        style.note(ax, NOTHING_YET)
        return
    rows = list(enumerate(reversed(inputs.held_out)))
    for y, held_out in rows:
        _interval_row(ax, y, held_out)
    _measured_line(ax, inputs.held_out)
    names = [f"N {h.n_convention}\nC {h.c_convention}" for _, h in rows]
    ax.set_yticks([y for y, _ in rows], labels=names)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.grid(False, axis="y")
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    style.legend_below(ax, list(handles.values()))


def _interval_row(ax: Axes, y: float, held_out: HeldOut) -> None:
    found = held_out.prediction
    beside: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center"}
    ax.text(1.02, y, verdict(held_out), fontsize=style.LABEL_SIZE, weight="bold", **beside)
    if not found.ok:
        reason = style.wrapped(f"no prediction: {found.status}", 48)
        ax.text(0.5, y, reason, ha="center", fontsize=style.SMALL_SIZE, bbox=style.PAPER, **beside)
        return
    level = f"{found.interval_level:.0%} interval"
    ax.plot(
        found.new_run_interval, (y, y), color=style.SKY, linewidth=5, solid_capstyle="butt",
        label=f"{level} of one new run",
    )  # fmt: skip
    ax.plot(
        found.mean_interval, (y, y), color=style.BLUE, linewidth=11, solid_capstyle="butt",
        label=f"{level} of the law's value there (mean of new runs)",
    )  # fmt: skip
    ax.plot(
        found.loss_nats, y, "o", color="white", markeredgecolor=style.BLACK, markersize=7,
        label="predicted",
    )  # fmt: skip


def _measured_line(ax: Axes, held_out: tuple[HeldOut, ...]) -> None:
    measured = [h for h in held_out if h.measured_loss_nats is not None]
    if not measured:
        style.absent(ax, "measured: the held-out run is not trained yet")
        return
    loss, error = measured[0].measured_loss_nats, measured[0].measured_loss_se
    assert loss is not None
    text = f"measured: {loss:.3f}"
    if error is not None and np.isfinite(error):
        ax.axvspan(loss - error, loss + error, color=style.VERMILION, alpha=0.25, linewidth=0)
        text += f" ± {error:.3f} (standard error over validation documents)"
    ax.axvline(loss, color=style.VERMILION, linewidth=2, label=style.wrapped(text))


def _compute_panel(ax: Axes, inputs: FigureInputs) -> None:
    held_out = inputs.main_held_out
    groups = run_groups(inputs)
    style.label_axes(
        ax, f"training compute C (FLOPs, {inputs.headline[1]})",
        f"validation loss ({inputs.unit})", "extrapolation in compute",
    )  # fmt: skip
    flops = np.concatenate([g.train_flops for g in groups])
    losses = np.concatenate([g.loss_nats for g in groups])
    if not len(losses):
        style.note(ax, "no run has a loss")
        return
    known = inputs.main_points.train_flops
    scale = style.size_scale(np.concatenate([g.n_params for g in groups]))
    for index, group in enumerate(groups):
        colors = scale.to_rgba(group.n_params)
        style.draw_group(ax, group, index, group.train_flops, group.loss_nats, colors)
    if held_out is not None:
        flops, losses = np.append(flops, held_out.train_flops), _and_predicted(losses, held_out)
    style.log_axis(ax, "x", flops, pad=1.5)
    _frontier(ax, inputs)
    low = losses.min()
    if held_out is None:
        style.absent(ax, NOTHING_YET)
    else:
        low = min(low, _extrapolated(ax, inputs, held_out))
    style.loss_axis(ax, low, losses.max())
    style.reference_lines(ax, inputs)
    if len(known):
        ax.axvspan(known.max(), ax.get_xlim()[1], color=style.GREY, alpha=0.1, linewidth=0,
                   label="beyond all fitted runs")  # fmt: skip


def _and_predicted(losses: np.ndarray, held_out: HeldOut) -> np.ndarray:
    found = held_out.prediction
    return np.concatenate([losses, found.new_run_interval]) if found.ok else losses


def _frontier(ax: Axes, inputs: FigureInputs) -> None:
    frontier = best_frontier(inputs.frontiers)
    if frontier is None or not len(frontier.train_flops):
        return
    if frontier.power.c_convention != inputs.headline[1]:
        return
    flops = np.geomspace(frontier.train_flops.min(), ax.get_xlim()[1], 64)
    for fit, dash in ((frontier.power, ":"), (frontier.power_floor, "--")):
        if fit.ok:
            label = style.wrapped(f"{frontier_label(fit)}, through {frontier.source}")
            loss = fit.predict(train_flops=flops)
            ax.plot(flops, loss, dash, color=style.GREY, linewidth=1.4, label=label)


def _extrapolated(ax: Axes, inputs: FigureInputs, held_out: HeldOut) -> float:
    """The joint fit along the held-out size, and its prediction; returns the lowest loss drawn."""
    found, joint = held_out.prediction, inputs.main.fit
    is_main = (held_out.n_convention, held_out.c_convention) == inputs.headline
    if not found.ok or not joint.ok or not is_main:
        reason = found.status if not found.ok else joint.status
        style.absent(ax, f"no prediction in this convention: {reason}")
        return float("inf")
    per_token = held_out.train_flops / held_out.n_tokens
    flops = np.geomspace(inputs.main_points.train_flops.min(), held_out.train_flops, 64)
    where = {"n_params": held_out.n_params, "n_tokens": flops / per_token}
    line = joint.predict(**where)
    color = style.BLUE
    ax.plot(flops, line, color=color, linewidth=1.6, zorder=3,
            label=f"joint fit at N = {style.short(held_out.n_params)}, with band")  # fmt: skip
    draws = joint.draws[np.isfinite(joint.draws).all(-1)]
    if len(draws) >= 20:
        band = np.array([percentile_interval(c) for c in predict(joint.law, draws, **where).T])
        ax.fill_between(flops, *band.T, color=color, alpha=style.BAND_ALPHA, linewidth=0)
    low, high = found.new_run_interval
    here = held_out.train_flops
    ax.plot(
        (here, here), (low, high), color=color, linewidth=2.5, zorder=5,
        label=f"predicted, {found.interval_level:.0%} interval of one new run",
    )  # fmt: skip
    ax.plot(here, found.loss_nats, "_", color=color, markersize=20, markeredgewidth=2.5, zorder=5)
    return min(float(line.min()), low)
