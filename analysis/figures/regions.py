"""How well the parameters are known: regions of the bootstrap, and the ridges of the objective."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import chdtri

from analysis.figures import style
from analysis.figures.inputs import FigureInputs, some_of
from analysis.figures.style import Page
from analysis.figures.text import law_text
from analysis.fit import DEFAULT_DELTA
from analysis.fitting.estimate import projected_surface, setup
from analysis.fitting.solver import solve
from analysis.laws.base import EXPONENT_BOUNDS, FLOOR_BOUND
from analysis.load import Points

PAIRS = (("A", "alpha"), ("B", "beta"), ("alpha", "beta"))
SHARES = (0.5, 0.8, 0.95)
GRID = 17  # values of a parameter in a surface
MOST_ROWS = 400
FINER = 4  # times that grid: contours of a smooth surface, drawn smoothly
RISES = (0.01, 0.03, 0.1, 0.3)
LEAST_DRAWS = 20
MARKS = (("d", style.VERMILION), ("^", style.GREEN), ("v", style.PURPLE))


def regions(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """Bootstrap draws of pairs of parameters with ellipses that hold 50, 80 and 95% of them.

    An ellipse is that of the draws' covariance in the logs of coefficients. Constants that a paper
    prints for the same points are marked.

    Source: after Besiroglu et al. 2024, arXiv:2404.10102, fig. 3.
    """
    figure, axes = style.panels(
        page,
        f"{inputs.title}: confidence regions of the joint fit",
        style.footer(inputs, law=law_text(inputs.main.fit)),
        3,
        width=14.0,
        height=5.8,
    )
    for ax, names in zip(axes, PAIRS, strict=True):
        _pair_panel(ax, inputs, names)
        style.legend_below(ax)
    return figure


def _pair_panel(ax: Axes, inputs: FigureInputs, names: tuple[str, str]) -> None:
    fit = inputs.main.fit
    columns = [fit.law.parameter_names.index(name) for name in names]
    draws = fit.draws[np.isfinite(fit.draws).all(-1)][:, columns]
    is_log = [name in ("A", "B") for name in names]
    if is_log[0]:
        ax.set_xscale("log")
    ax.plot(*draws.T, ".", color=style.SKY, markersize=3, alpha=0.6, zorder=2, rasterized=True,
            label=f"{len(draws)} draws, {fit.interval_method.split(',')[0]}")  # fmt: skip
    logs = np.where(is_log, np.log(np.maximum(draws, 1e-300)), draws)
    for share, width in zip(SHARES, (2.2, 1.5, 0.9), strict=True):
        x, y = np.exp(np.where(np.array(is_log)[:, None], _ellipse(logs, share), 0.0))
        plain = _ellipse(logs, share)
        x, y = (u if log else v for u, v, log in zip((x, y), plain, is_log, strict=True))
        ax.plot(x, y, color=style.BLUE, linewidth=width, zorder=3, label=f"{share:.0%}")
    here = [fit.parameters[name] for name in names]
    ax.plot(*here, "x", color=style.BLACK, markersize=9, markeredgewidth=2, zorder=5, label="fit",
            linestyle="none")  # fmt: skip
    shown = np.vstack([draws, here])
    for law, (marker, color) in zip(inputs.references, MARKS, strict=False):
        there = [law.parameters[name] for name in names]
        ax.plot(*there, marker, color=color, markersize=8, zorder=5, linestyle="none",
                markeredgecolor="white", label=style.wrapped(law.citation, 44))  # fmt: skip
        shown = np.vstack([shown, there])
    _limits(ax, shown, is_log[0])
    style.label_axes(ax, *names)
    if not is_log[0]:
        _equal_exponents(ax)


def _limits(ax: Axes, shown: np.ndarray, is_log: bool) -> None:
    """Hold the middle 98% of the draws and every mark, with a margin."""
    low, high = np.quantile(shown, [0.01, 0.99], axis=0)
    low, high = np.minimum(low, shown[-3:].min(0)), np.maximum(high, shown[-3:].max(0))
    if is_log:
        style.log_axis(ax, "x", [low[0], high[0]], pad=1.3)
    else:
        margin = 0.1 * (high[0] - low[0])
        ax.set_xlim(low[0] - margin, high[0] + margin)
    margin = 0.12 * (high[1] - low[1])
    ax.set_ylim(low[1] - margin, high[1] + margin)


def _equal_exponents(ax: Axes) -> None:
    """Lines of equal a = beta / (alpha + beta)."""
    alpha = np.array(ax.get_xlim())
    bottom, top = ax.get_ylim()
    for a in (0.4, 0.5, 0.6, 0.7):
        beta = alpha * a / (1 - a)
        ax.plot(alpha, beta, color=style.GREY, linewidth=0.8, linestyle=":", zorder=1)
        x = alpha[1] if bottom < beta[1] < top else top * (1 - a) / a
        if alpha[0] < x <= alpha[1]:
            ax.text(x, x * a / (1 - a), f"a = {a:g}", fontsize=style.SMALL_SIZE, color=style.GREY,
                    ha="right", va="top")  # fmt: skip
    ax.set(xlim=alpha, ylim=(bottom, top))


def _ellipse(draws: np.ndarray, share: float) -> np.ndarray:
    """x and y of the ellipse that holds a share of normal draws of this covariance."""
    angle = np.linspace(0, 2 * np.pi, 121)
    circle = np.stack([np.cos(angle), np.sin(angle)]) * np.sqrt(chdtri(2, 1 - share))
    values, vectors = np.linalg.eigh(np.cov(draws.T))
    return draws.mean(0)[:, None] + (vectors * np.sqrt(np.maximum(values, 0))) @ circle


def ridge(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """The objective over both exponents, and over floor and exponent, all else fitted anew.

    A bowl is a pair that the runs determine; a valley is a ridge along which one pays for the
    other, and there an interval of one alone says little.
    """
    fit = inputs.main.fit
    figure, (left, right) = style.panels(
        page,
        f"{inputs.title}: what the runs determine, and what they do not",
        style.footer(inputs, law=law_text(fit)),
        2,
        width=12.5,
        height=5.8,
    )
    _surface_panel(left, inputs, ("alpha", "beta"))
    _surface_panel(right, inputs, ("E", "beta"))
    for ax in (left, right):
        style.legend_below(ax)
    return figure


def _surface_panel(ax: Axes, inputs: FigureInputs, names: tuple[str, str]) -> None:
    fit, points = inputs.main.fit, some_of(inputs.main_points, MOST_ROWS)
    x, y = (_span(inputs, name) for name in names)
    objective = fit.objective
    if names[0] == "E":
        coarse = np.stack([_column(inputs, points, e, y) for e in x], -1)
    else:
        held = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        made = setup(fit.law, points, objective, fit.delta or DEFAULT_DELTA)
        coarse = projected_surface(made, held).reshape(GRID, GRID)
    from scipy.ndimage import zoom  # a sixth of the time to import all figures

    values = np.asarray(zoom(coarse, FINER, order=3, grid_mode=False), np.float64)
    x, y = (np.linspace(v[0], v[-1], FINER * GRID) for v in (x, y))
    rise = values / np.nanmin(values) - 1
    shown = ax.contour(
        x, y, rise, RISES, colors=style.BLUE, linewidths=np.linspace(2.4, 0.7, len(RISES))
    )
    for label in ax.clabel(shown, fmt=lambda v: f"{100 * v:.3g}%", fontsize=style.SMALL_SIZE):
        label.set_color(style.BLACK)
    draws = fit.draws[np.isfinite(fit.draws).all(-1)]
    columns = [fit.law.parameter_names.index(name) for name in names]
    ax.plot(*draws[:, columns].T, ".", color=style.ORANGE, markersize=2.5, alpha=0.5, zorder=1,
            rasterized=True, label="bootstrap draws")  # fmt: skip
    ax.plot(*(fit.parameters[n] for n in names), "x", color=style.BLACK, markersize=9, zorder=5,
            markeredgewidth=2, linestyle="none", label="fit")  # fmt: skip
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    some = f",\n{len(points)} of the runs" if len(points) < len(inputs.main_points) else ""
    style.label_axes(ax, *names, f"rise of the objective ({objective}) over its least value{some}")


def _span(inputs: FigureInputs, name: str) -> np.ndarray:
    """Values of a parameter over most of its draws, and some margin."""
    fit = inputs.main.fit
    draws = fit.draws[np.isfinite(fit.draws).all(-1)][:, fit.law.parameter_names.index(name)]
    here = fit.parameters[name]
    low, high = np.quantile(np.append(draws, here), [0.01, 0.99]) if len(draws) else (here, here)
    margin = 0.25 * (high - low) + 0.02 * abs(here)
    most = 0.999 * inputs.main_points.loss_nats.min() if name == "E" else EXPONENT_BOUNDS[1]
    least = 2 * FLOOR_BOUND * inputs.main_points.loss_nats.min()
    low, high = max(low - margin, least, 1e-3 * abs(here)), min(high + margin, most)
    return np.linspace(low, high, GRID)


def _column(inputs: FigureInputs, points: Points, floor: float, beta: np.ndarray) -> np.ndarray:
    """The objective at one floor and every beta, all other parameters fitted, shape of beta."""
    fit = inputs.main.fit
    made = setup(fit.law, points, fit.objective, fit.delta or DEFAULT_DELTA, fixed={"E": floor})
    at = np.tile([*(fit.parameters | {"E": floor}).values()], (len(beta), 1))
    start = fit.law.pack(at, made.centre).T
    low, high = (np.tile(bound[:, None], len(beta)) for bound in (made.low, made.high))
    last = fit.law.parameter_names.index("beta")
    start[last] = low[last] = high[last] = beta
    problems = made.problems(start, low_PB=low, high_PB=high)
    return solve(fit.law, problems, made.objective).value
