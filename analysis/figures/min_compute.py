"""Least compute and fewest steps: a study corrected for its batch by a critical batch size."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import published
from analysis.figures import curves, style
from analysis.figures.inputs import FigureInputs
from analysis.figures.style import Page
from analysis.frontier.critical_batch import CriticalLaw
from analysis.frontier.envelope import Lines, lowest_runs
from analysis.intervals.uncertainty import percentile_interval
from analysis.laws.batch import minimum_flops, minimum_steps

FLOPS_COLUMN = "train_flops_matmul_full"
GRID = 64
N_KEPT = 24
N_DRAWS = 200
LEAST_WINNERS = 5
AFTER = 0.1
"""Share of the compute of the largest run, in log, that is left out at the low end."""


@dataclass(frozen=True)
class Winners:
    """Along the envelope in C_min: compute, loss, N and S_min of the winner, (1 + S, K); row 0 as
    measured, the rest bootstrap draws of whole runs; NaN where no run drawn reaches."""

    flops: np.ndarray
    loss_nats: np.ndarray
    n_params: np.ndarray
    n_steps: np.ndarray


def no_critical_batch(inputs: FigureInputs) -> str:
    """Why the figure cannot be drawn, and which runs it needs; empty if B_crit and curves are
    there."""
    finals = inputs.main_points.loss_nats
    ends = f"{finals.min():.2f} to {finals.max():.2f}" if len(finals) else "no loss"
    if inputs.critical is None:
        return (
            f"no B_crit on this text; needed: a sweep of batch sizes on {inputs.corpus} in which "
            f"every batch reaches the losses that these runs end at, {ends} "
            "(python launch.py run critical_batch measures B_crit)"
        )
    if not np.isfinite(inputs.critical.b_star[0]):
        return f"no law of B_crit: {inputs.critical.status}"
    if inputs.critical_here is None:
        low, high = inputs.critical.loss_range
        return (
            f"B_crit was measured at losses of {low:.2f} to {high:.2f}, these runs end at {ends}; "
            f"needed: a batch sweep of a larger size, or of more tokens, in which every batch "
            f"reaches {np.median(finals):.2f}"
        )
    return "" if len(inputs.curves) else "no training curves were recorded"


def min_compute(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Loss against C and C_min along the envelopes; N and S_min of the winners against C_min.

    C_min = C / (1 + B/B_crit(L)), S_min = S / (1 + B_crit(L)/B).

    Source: after Kaplan et al. 2020, arXiv:2001.08361, figs. 13 and 14, eqs. 5.4 and 5.5.
    """
    critical = inputs.critical
    assert critical is not None
    naive, adjusted = winners(inputs, None), winners(inputs, critical)
    batch = f"B_crit = {style.short(critical.b_star[0])} / L^{1 / critical.alpha_b[0]:.2f} tokens"
    figure, axes = style.panels(
        page,
        f"{inputs.title}: least compute and fewest steps",
        style.footer(inputs) + f"  ·  {batch}; {critical.status}",
        3,
        width=14.5,
        height=5.8,
    )
    _loss_panel(axes[0], inputs, naive, adjusted)
    printed = published.KAPLAN_2020_OPTIMA
    for ax, values, letter, name in (
        (axes[1], adjusted.n_params, "N", f"parameters N ({inputs.headline[0]}) of the lowest"),
        (axes[2], adjusted.n_steps, "S", "steps S_min of the lowest"),
    ):
        _power_panel(ax, adjusted.flops, values, letter, printed[letter][1])
        style.label_axes(ax, "least compute C_min (FLOPs, matmul_full)", name)
    for ax in axes:
        style.legend_below(ax)
    return figure


def winners(inputs: FigureInputs, critical: CriticalLaw | None) -> Winners:
    """The lowest run at each compute, in C or, given B_crit, in C_min."""
    by_tokens = {line.run_id: line.xy for line in curves.lines(inputs, FLOPS_COLUMN)}
    runs = inputs.runs.drop_duplicates("run_id").set_index("run_id")
    kept = [name for name in by_tokens if str(runs.loc[name, "status"]) == "finished"]
    flops, losses, steps = [], [], []
    for name in kept:
        compute, loss = by_tokens[name].T
        batch = np.array(runs.loc[name, "batch_tokens"], np.float64)
        taken = compute / compute[-1] * float(runs.loc[name, "n_steps"])  # type: ignore[arg-type]
        if critical is not None:
            b_crit = critical.at(loss)[0]
            compute = minimum_flops(compute, batch, b_crit)
            taken = minimum_steps(taken, batch, b_crit)
        order = np.argsort(compute)
        flops.append(np.log(compute[order]))
        losses.append(loss[order])
        steps.append(np.log(taken[order]))
    start = np.concatenate([[0], np.cumsum([len(x) for x in flops])])
    lines = Lines(tuple(kept), start, np.concatenate(flops), np.concatenate(losses))
    size = runs.loc[kept, f"n_params_{inputs.headline[0]}"].to_numpy(np.float64)
    low, high = lines.x.min(), lines.x.max()
    grid = np.linspace(low + (1 - AFTER) * (high - low) / 2, high, GRID)
    best = lowest_runs(lines, grid, N_KEPT, np.zeros(len(kept)), size)
    drawn = np.random.default_rng(0).integers(0, len(kept), (N_DRAWS, len(kept)))
    chosen = [np.ones(len(kept), bool), *(np.isin(np.arange(len(kept)), row) for row in drawn)]
    rows = [_of(best.run, best.loss_nats, mask, grid, size, flops, steps) for mask in chosen]
    loss_nats, n_params, n_steps = (np.stack(column) for column in zip(*rows, strict=True))
    return Winners(np.exp(grid), loss_nats, n_params, n_steps)


def _of(run, loss, mask, grid, size, flops, steps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss, N and steps of the lowest run of the mask at each compute that is a new low."""
    candidate = mask[run] & np.isfinite(loss)
    place = candidate.argmax(1)
    rows = np.arange(len(grid))
    winner, level = run[rows, place], loss[rows, place]
    known = candidate.any(1)
    before = np.minimum.accumulate(np.where(known, level, np.inf))
    known &= level <= before
    taken = [np.exp(np.interp(x, flops[r], steps[r])) for x, r in zip(grid, winner, strict=True)]
    values = (level, size[winner], np.array(taken))
    return tuple(np.where(known, v, np.nan) for v in values)  # type: ignore[return-value]


def _loss_panel(ax: Axes, inputs: FigureInputs, naive: Winners, adjusted: Winners) -> None:
    looks = (("C", naive, "o", style.GREY), ("C_min", adjusted, "s", style.BLUE))
    flops, losses = [], []
    for name, found, marker, color in looks:
        slope, _ = power_of(found.flops, found.loss_nats)
        known = np.isfinite(found.loss_nats[0])
        text = style.with_interval(
            -slope[0], tuple(sorted(-np.array(percentile_interval(slope[1:]))))
        )
        ax.plot(found.flops[known], found.loss_nats[0][known], marker, color=color, markersize=4,
                linestyle="none", label=f"lowest at each {name}: L ~ {name}^-{text}")  # fmt: skip
        flops.append(found.flops[known])
        losses.append(found.loss_nats[0][known])
    style.log_axis(ax, "x", np.concatenate(flops))
    every = np.concatenate(losses)
    style.loss_axis(ax, float(every.min()), float(every.max()))
    style.reference_lines(ax, inputs)
    style.label_axes(
        ax, "C and C_min (FLOPs, matmul_full)", f"training loss, smoothed ({inputs.unit})",
        "envelopes of the training curves",
    )  # fmt: skip


def _power_panel(ax: Axes, flops, values: np.ndarray, letter: str, printed: float) -> None:
    known = np.isfinite(values[0])
    ax.plot(flops[known], values[0][known], "o", color=style.GREY, markersize=4, linestyle="none")
    slope, offset = power_of(flops, values)
    if not np.isfinite(slope[0]):
        style.absent(ax, f"no power law: fewer than {LEAST_WINNERS} winners")
    else:
        line = np.exp(np.outer(slope, np.log(flops)) + offset[:, None])
        text = style.with_interval(slope[0], percentile_interval(slope[1:]))
        ax.plot(flops, line[0], color=style.BLACK, label=f"{letter} ~ C_min^{text}")
        band = np.array([percentile_interval(column) for column in line[1:].T])
        ax.fill_between(flops, *band.T, color=style.BLACK, alpha=style.BAND_ALPHA, linewidth=0,
                        label="90% band (bootstrap by run)")  # fmt: skip
        middle = len(flops) // 2
        kaplan = line[0][middle] * (flops / flops[middle]) ** printed
        ax.plot(flops, kaplan, color=style.GREY, linestyle="--",
                label=f"slope of Kaplan et al. 2020: {printed:g}")  # fmt: skip
    style.log_axis(ax, "x", flops)
    style.log_axis(ax, "y", values[0][known], pad=1.5)


def power_of(flops: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset of log values against log flops in every row, NaN for few winners."""
    x = np.broadcast_to(np.log(flops), values.shape)
    known = np.isfinite(values)
    count = np.maximum(known.sum(1), 1)
    y = np.where(known, np.log(np.where(known, values, 1.0)), 0.0)
    mean_x, mean_y = np.where(known, x, 0).sum(1) / count, y.sum(1) / count
    dx = np.where(known, x - mean_x[:, None], 0.0)
    slope = (dx * y).sum(1) / np.maximum((dx**2).sum(1), 1e-300)
    slope = np.where(known.sum(1) >= LEAST_WINNERS, slope, np.nan)
    return slope, mean_y - slope * mean_x
