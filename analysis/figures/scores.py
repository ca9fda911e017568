"""How far the fits can be believed: predicted against measured, coverage, extrapolation."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.inputs import FigureInputs, count_text, run_groups, some_of
from analysis.figures.style import Page
from analysis.figures.text import law_text
from analysis.fit import fit
from analysis.intervals.uncertainty import loss_draws
from analysis.laws import LAWS
from analysis.load import Points, select
from analysis.validity.extrapolation import FREE, PINNED, SHARES, rollouts, scores

N_FOLDS = 5
LEVELS = np.linspace(0.05, 0.95, 19)
N_DRAWS = 40
MANY = 200  # runs: more are not needed to see whether intervals cover
MANY_RANKED = 100  # runs: more are not needed to rank laws, each fitted nine times
SCORED = ("chinchilla", "chinchilla_shared", "kaplan", "power_C")
LETTERS = {"N": ("o", style.BLUE), "D": ("s", style.VERMILION), "C": ("D", style.GREEN)}


def predicted(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Measured loss of every run against what the joint fit says of it, held-out run included."""
    joint = inputs.main.fit
    figure = style.new_figure(
        f"{inputs.title}: predicted and measured loss",
        style.footer(inputs, law=law_text(joint)),
        width=7.2,
        height=6.6 if page.is_column else 7.4,
        page=page,
    )
    ax = figure.subplots()
    groups = run_groups(inputs)
    scale = style.size_scale(np.concatenate([g.n_params for g in groups]))
    every = []
    for index, group in enumerate(groups):
        expected = joint.predict(n_params=group.n_params, n_tokens=group.n_tokens)
        style.draw_group(
            ax, group, index, expected, group.loss_nats, scale.to_rgba(group.n_params)
        )  # fmt: skip
        every += [expected, group.loss_nats]
    low, high = float(np.concatenate(every).min()) / 1.02, float(np.concatenate(every).max()) * 1.02
    ax.plot((low, high), (low, high), color=style.BLACK, linewidth=1, label="equal", zorder=1)
    spread = float(np.sqrt((joint.residuals**2).mean()))
    line = np.array([low, high])
    ax.fill_between(line, line * np.exp(-2 * spread), line * np.exp(2 * spread), color=style.SKY,
                    alpha=style.BAND_ALPHA, linewidth=0,
                    label=f"± 2 x {spread:.2%}, RMS residual of the fitted runs")  # fmt: skip
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    style.label_axes(ax, f"predicted loss ({inputs.unit})", f"measured loss ({inputs.unit})")
    sizes = np.concatenate([g.n_params for g in groups])
    style.size_bar(figure, ax, scale, sizes, f"parameters N ({inputs.headline[0]})")
    style.legend_below(ax)
    return figure


def coverage(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Share of runs left out that lie inside of their intervals, against the level asked for.

    Left out by fifths at random, and the fifth of most compute. On the diagonal intervals say what
    they mean; below it they are too narrow.
    """
    figure = style.new_figure(
        f"{inputs.title}: do the intervals cover?",
        style.footer(inputs, runs=_some_text(inputs, MANY))
        + f"  ·  intervals of one new run, {N_DRAWS} bootstrap draws a fit",
        width=6.8,
        height=6.4,
        page=page,
    )
    ax = figure.subplots()
    points = some_of(inputs.main_points, MANY)
    ax.plot((0, 1), (0, 1), color=style.BLACK, linewidth=1, label="as asked for")
    ends = (points.train_flops >= np.quantile(points.train_flops, 1 - 1 / N_FOLDS),)
    for name, folds, (marker, color) in (
        ("a random fifth left out, five times", _folds(points), ("o", style.BLUE)),
        ("the fifth of most compute left out", ends, ("s", style.VERMILION)),
    ):
        inside = [_inside(inputs, points, mask) for mask in folds]
        known = [rows for rows in inside if len(rows)]
        if not known:
            style.absent(ax, f"{name}: no fit of the rest")
            continue
        rows = np.concatenate(known)
        share = rows.mean(0)
        error = np.sqrt(np.maximum(share * (1 - share), 0.25 / len(rows)) / len(rows))
        ax.fill_between(LEVELS, share - error, share + error, color=color, alpha=0.12, linewidth=0)
        ax.plot(LEVELS, share, color=color, marker=marker, markersize=5,
                label=f"{name} ({len(rows)} forecasts), ± 1 standard error")  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    style.label_axes(ax, "level of the interval", "share of runs inside")
    style.legend_below(ax)
    return figure


def _some_text(inputs: FigureInputs, most: int) -> str:
    n = len(inputs.main_points)
    return f"{most} of the {n} runs fitted" if n > most else count_text(inputs)


def _folds(points: Points) -> list[np.ndarray]:
    """Masks of runs left out; those of one cluster go together."""
    names, codes = np.unique(points.cluster, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names)) % N_FOLDS
    return [fold[codes] == k for k in range(N_FOLDS)]


def _inside(inputs: FigureInputs, points: Points, mask: np.ndarray) -> np.ndarray:
    """Whether each run left out lies inside of its interval at each of LEVELS, (rows, levels)."""
    joint = inputs.main.fit
    kept = select(points, ["left out" if out else None for out in mask])
    left = select(points, [None if out else "kept" for out in mask])
    found = fit(joint.law, kept, joint.objective, n_bootstrap=N_DRAWS)
    if not found.ok or not len(left):
        return np.empty((0, len(LEVELS)), bool)
    run = loss_draws(found, n_params=left.n_params, n_tokens=left.n_tokens)[1]
    low = np.quantile(run, (1 - LEVELS) / 2, axis=0)
    high = np.quantile(run, (1 + LEVELS) / 2, axis=0)
    return ((low <= left.loss_nats) & (left.loss_nats <= high)).T


def extrapolation(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Laws ranked by their error on the largest runs left out, with every cut beside the mean.

    Cuts leave out the largest 15, 30 and 50% of the runs by N, by D and by C.
    """
    points = some_of(inputs.main_points, MANY_RANKED)
    laws = [LAWS[name] for name in SCORED]
    found = rollouts(points, laws, n_bootstrap=0)
    ranked = scores(found)
    figure = style.new_figure(
        f"{inputs.title}: which law extrapolates?",
        style.footer(inputs, runs=_some_text(inputs, MANY_RANKED)) + "  ·  left out: the largest "
        f"{', '.join(f'{s:.0%}' for s in SHARES)}; fits by least squares in log loss; a pinned "
        "floor is that of all runs, so not blind",
        width=9.5,
        height=2.6 + 0.34 * len(ranked),
        page=page,
    )
    ax = figure.subplots()
    for row, score in enumerate(ranked):
        own = [r for r in found if (r.name, r.floor) == (score.name, score.floor) and r.ok]
        for letter, (marker, color) in LETTERS.items():
            errors = [100 * r.mean_abs_error for r in own if r.by == letter]
            ax.plot(errors, [row] * len(errors), marker, color=color, markersize=4, alpha=0.7,
                    linestyle="none", label=f"cut by {letter}" if row == 0 else None)  # fmt: skip
        ax.plot(100 * score.mean_abs_error, row, "|", color=style.BLACK, markersize=16, zorder=5,
                markeredgewidth=2.2, label="mean of the cuts" if row == 0 else None)  # fmt: skip
    ax.set_yticks(range(len(ranked)), labels=[_name(s.name, s.floor, s.n_failed) for s in ranked])
    ax.invert_yaxis()
    errors = [100 * r.mean_abs_error for r in found if r.ok]
    style.log_axis(ax, "x", np.maximum(errors, 1e-2))
    style.label_axes(ax, "mean |log error| of the runs left out, %", "")
    _legend(ax, page)
    return figure


def _legend(ax: Axes, page: Page) -> None:
    style.legend_below(ax, n_columns=2 if page.is_column else 4)


def _name(name: str, floor: str, n_failed: int) -> str:
    suffix = {FREE: ", floor free", PINNED: ", floor pinned"}.get(floor, "")
    failed = f" ({n_failed} failed)" if n_failed else ""
    return f"{name}{suffix}{failed}"
