"""The figures of docs/analysis.md that show published points; docs/draw_analysis.py runs them."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import huber

from analysis import published
from analysis.figures import style
from analysis.fit import fit
from analysis.fitting.estimate import projected_surface, setup
from analysis.frontier.isoflop import exponents, minima
from analysis.laws import Chinchilla, DataConstrained, predict
from analysis.load import Points
from analysis.reproduce.tables import points, read_table
from analysis.validity.extrapolation import FREE, NEAREST, PINNED, rollouts
from model.accounting import count_params, train_flops_per_token
from model.config import ModelConfig

COLORS = (style.BLUE, style.VERMILION, style.GREEN, style.PURPLE, style.ORANGE)
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
LEVELS = (0.003, 0.01, 0.03, 0.1)  # rise over the least objective


def panels(
    title: str, footer: str, n: int = 2, height: float = 4.2, width: float = 9.8
) -> tuple[Figure, list[Axes]]:
    """A figure of n panels side by side."""
    figure = style.new_figure(title, footer, width=width, height=height)
    return figure, list(np.atleast_1d(figure.subplots(1, n)))


def hoffmann(data: Path) -> Points:
    """The 240 points of Besiroglu et al. 2024, without the five of largest loss."""
    n_rows, n_kept = published.BESIROGLU_2024_N_POINTS
    table = read_table(data, "hoffmann2022_fig4_points.csv", n_rows, numbers=("N", "D", "L"))
    return points(table, np.argsort(table["L"])[:n_kept])


def porian(data: Path, config: str) -> Points:
    """One configuration of Porian et al. 2024."""
    file, n_rows = "porian2024_refinedweb_isoflop_points.csv", published.PORIAN_2024_N_POINTS
    table = read_table(data, file, n_rows, numbers=("C", "N", "L"), words=("config",))
    return points(table, table["config"] == config)


def count_of_c(data: Path) -> Figure:
    """FLOPs by convention along a ladder; Porian's exponents, one correction at a time."""
    figure, (left, right) = panels(
        "What C counts moves the exponent as well",
        "left: this project's accounting, context 1024, vocabulary 32,000, d_model 64 a layer  ·  "
        "right: points of Porian et al. 2024 (RefinedWeb), Akima minima, 90% intervals",
    )
    shapes = [ModelConfig(k, 64 * k, k, 64, 256 * k, 32_000, 1024) for k in range(2, 33, 2)]
    n = np.array([count_params(s).total for s in shapes])
    names = ("matmul_full", "matmul_causal", "6n_total", "6n_non_embedding")
    for name, color, dash in zip(names, COLORS, DASHES, strict=False):
        per_token = np.array([train_flops_per_token(s, name) for s in shapes])
        left.plot(n, per_token / (6 * n), color=color, linestyle=dash, label=name)
    style.log_axis(left, "x", n)
    left.set_ylim(0, 1.4)
    style.label_axes(left, "parameters N, all", "FLOPs per token / 6N")
    style.legend_below(left, n_columns=2)
    ladder = published.PORIAN_2024_LADDER[:5]
    for row, (_, config, printed, *_) in enumerate(ladder):
        found = exponents(minima(porian(data, config), "akima"), 400)
        low, high = found.intervals["a"]
        right.plot([low, high], [-row, -row], color=style.BLUE)
        right.plot(found.a, -row, "o", color=style.BLUE, label="ours" if not row else None)
        right.plot(printed, -row + 0.2, "d", color=style.VERMILION,
                   label="printed" if not row else None)  # fmt: skip
    right.set_yticks([-r for r in range(5)], [step for step, *_ in ladder])
    right.axvline(0.5, color=style.GREY, linewidth=0.8)
    style.label_axes(right, "allocation exponent a", "")
    style.legend_below(right, n_columns=2)
    return figure


def warmup(data: Path) -> Figure:
    """The same sizes with a warm-up of fixed length and with one that fits the run."""
    figure, (left, right) = panels(
        "Short runs that end in their warm-up tilt the frontier",
        "points of Porian et al. 2024 (RefinedWeb), N with the head, C = 6ND; minima by Akima's "
        "interpolation; long: one warm-up for all sizes, short: one that grows with the size",
    )
    every_n: list[float] = []
    for name, color, dash in zip(("long", "short"), COLORS[1::-1], DASHES[1::-1], strict=True):
        found = minima(porian(data, f"rw/base/{name}/kaplan/standard/val"), "akima")
        first = found[0]
        left.plot(first.size_n_params, first.size_loss_nats, "o", color=color, linestyle=dash,
                  markersize=4, label=f"{name} warm-up")  # fmt: skip
        good = [m for m in found if m.ok]
        c, n = np.array([(m.train_flops, m.n_params) for m in good]).T
        every_n += n.tolist()
        line = exponents(found, 0)
        right.plot(c, n, "o", color=color, markersize=5)
        right.plot(c, line.n_coefficient * c**line.a, color=color, linestyle=dash,
                   label=f"{name} warm-up: a = {line.a:.2f}")  # fmt: skip
    style.log_axis(left, "x", first.size_n_params)
    style.log_axis(right, "x", c)
    style.log_axis(right, "y", every_n)
    style.label_axes(left, "parameters N", "loss, nats/token", f"C = {first.budget:.3g} FLOPs")
    style.label_axes(right, "compute C, FLOPs", "optimal parameters N*")
    style.legend_below(left)
    style.legend_below(right)
    return figure


def huber_delta(data: Path) -> Figure:
    """The 240 points under every delta."""
    figure, (left, right) = panels(
        "Coefficients move with delta, exponents hardly",
        "240 points read off figure 4 of Hoffmann et al. 2022 by Besiroglu et al. 2024; Huber's "
        "function of the log residual",
    )
    table, deltas = hoffmann(data), np.geomspace(1e-5, 1, 21)
    fits = [fit(Chinchilla(), table, "huber_log", delta=d, n_bootstrap=0) for d in deltas]
    usual = fit(Chinchilla(), table, "huber_log", n_bootstrap=0)
    for name, color, dash in zip(usual.parameters, COLORS, DASHES, strict=True):
        values = np.array([f.parameters[name] for f in fits]) / usual.parameters[name]
        left.plot(deltas, values, color=color, linestyle=dash, label=name)
    shares = [np.mean(np.abs(f.residuals) < d) for f, d in zip(fits, deltas, strict=True)]
    right.plot(deltas, shares, color=style.BLACK)
    for ax in (left, right):
        style.log_axis(ax, "x", deltas)
        ax.axvline(1e-3, color=style.GREY, linewidth=0.8)
    left.set_yscale("log")
    left.set_yticks([0.8, 1, 1.5, 2, 3], ["0.8", "1", "1.5", "2", "3"])
    left.minorticks_off()
    style.label_axes(left, "delta, log loss", "parameter / its value at delta 1e-3")
    style.label_axes(right, "delta, log loss", "share of rows with |residual| < delta")
    style.legend_below(left, n_columns=5)
    return figure


def ridge(data: Path) -> Figure:
    """The objective where the data hold two parameters, and where they do not."""
    figure, (left, right) = panels(
        "A bowl and a ridge",
        "rise of Huber's objective (delta 1e-3) over the least one shown: 0.3, 1, 3, 10%  ·  left: "
        "240 points of Hoffmann et al. 2022, E, A and B fitted anew at each point  ·  right: 182 "
        "runs of Muennighoff et al. 2023, their constants otherwise",
    )
    made = setup(Chinchilla(), hoffmann(data), "huber_log", 1e-3)
    alpha, beta = np.linspace(0.28, 0.42, 43), np.linspace(0.28, 0.46, 43)
    grid = np.stack(np.meshgrid(alpha, beta), -1).reshape(-1, 2)
    contours(left, alpha, beta, projected_surface(made, grid).reshape(43, 43))
    style.label_axes(left, "alpha", "beta", "exponents: a bowl")
    file, n_rows = "muennighoff2023_c4_runs.csv", published.MUENNIGHOFF_2023_N_RUNS
    runs = points(read_table(data, file, n_rows, numbers=("N", "D", "U", "L")), with_unique=True)
    printed = published.MUENNIGHOFF_2023_LAW.parameters
    r_d, r_n = np.geomspace(3, 3000, 61), np.geomspace(0.3, 30, 61)
    grid = np.tile(list(printed.values()), (61, 61, 1))
    grid[..., -2], grid[..., -1] = np.meshgrid(r_d, r_n)
    residuals = np.log(runs.loss_nats / predict(DataConstrained(), grid, **runs.variables))
    style.log_axis(right, "x", r_d, pad=1)  # before labels are placed along the lines
    style.log_axis(right, "y", r_n, pad=1)
    contours(right, r_d, r_n, huber(1e-3, residuals).sum(-1))
    right.plot(printed["R_D"], printed["R_N"], "d", color=style.VERMILION, markersize=7,
               markeredgecolor="white", label="as published")  # fmt: skip
    style.label_axes(right, "R_D*, epochs", "R_N*", "constants of repetition: a ridge")
    style.legend_below(left)
    style.legend_below(right, n_columns=2)
    return figure


def contours(ax: Axes, x: np.ndarray, y: np.ndarray, values: np.ndarray) -> None:
    """Lines of equal rise over the least value, in percent, and that value's place."""
    rise = values / values.min() - 1
    shown = ax.contour(x, y, rise, LEVELS, colors=style.BLUE, linewidths=np.linspace(2.4, 0.8, 4))
    labels = ax.clabel(
        shown, LEVELS[1:], fmt=lambda v: f"{100 * v:.3g}%", fontsize=style.SMALL_SIZE
    )
    for label in labels:
        label.set_color(style.BLACK)
    row, column = np.unravel_index(rise.argmin(), rise.shape)
    ax.plot(x[column], y[row], "x", color=style.BLACK, markersize=8, linestyle="none",
            label="least objective shown")  # fmt: skip


def floor(data: Path) -> Figure:
    """What was left out by D, forecast with a free floor and with a pinned one."""
    figure, (ax,) = panels(
        "Free and pinned floor on points left out",
        "240 points of Hoffmann et al. 2022, those of the largest D left out, E + A/N^alpha + "
        "B/D^beta fitted to the rest by least squares in log loss; at the marks: share of left-out "
        "rows inside of their 90% interval",
        1,
        5.2,
        width=6.5,
    )
    shares = (0.05, 0.15, 0.3, 0.5, 0.7)
    found = rollouts(hoffmann(data), [Chinchilla()], by=("D",), shares=shares)
    lines = (
        ("floor free", 6, [r for r in found if r.floor == FREE]),
        ("floor pinned to its value from all rows", -14, [r for r in found if r.floor == PINNED]),
        ("loss of the nearest run fitted", 0, [r for r in found if r.name == NEAREST]),
    )
    for (label, drop, rows), color, dash in zip(lines, COLORS, DASHES, strict=False):
        x, y = [r.factor for r in rows], [100 * r.mean_abs_error for r in rows]
        ax.plot(x, y, "o", color=color, linestyle=dash, label=label)
        for r in rows:
            if np.isfinite(r.coverage):
                ax.annotate(
                    f"{r.coverage:.0%}", (r.factor, 100 * r.mean_abs_error), (0, drop),
                    textcoords="offset points", fontsize=style.SMALL_SIZE, ha="center",
                )  # fmt: skip
    style.log_axis(ax, "x", [r.factor for r in found])
    ax.set_ylim(0)
    style.label_axes(ax, "largest D left out / largest D fitted", "mean absolute error, %")
    style.legend_below(ax)
    return figure


PUBLISHED = {
    "count_of_c": count_of_c,
    "warmup": warmup,
    "huber_delta": huber_delta,
    "ridge": ridge,
    "floor_published": floor,
}
