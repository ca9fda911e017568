"""The allocation exponent after each correction of how a study counts: an exponent ladder."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import published
from analysis.figures import style
from analysis.figures.allocation import CLOSED, MINIMA, NUMERIC, estimates
from analysis.figures.inputs import FigureInputs, Step
from analysis.figures.style import Page

LOOKS = (("o", style.BLUE), ("s", style.VERMILION), ("D", style.GREEN))
OFFSET = 0.2
ORDER = (  # from Kaplan's way of counting to Hoffmann's
    ("non_embedding", "6n_non_embedding", "as Kaplan: N and C = 6ND\nwithout embeddings"),
    ("non_embedding", "matmul_full", "+ C of all matrix products"),
    ("total", "matmul_full", "+ N with embeddings"),
)
N_PRINTED = 5  # rows of Porian's ladder with an interval


def ladder(inputs: FigureInputs, page: Page = style.SCREEN) -> Figure:
    """The exponent a step by step: ours by counting, beside the steps that Porian et al. print.

    Source: after Porian et al. 2024, arXiv:2406.19146, fig. 1 and table of exponents.
    """
    is_paper = bool(inputs.steps)
    own = inputs.steps or own_steps(inputs)
    figure, axes = style.panels(
        page,
        f"{inputs.title}: the exponent, one correction at a time",
        style.footer(inputs, conventions=_conventions(is_paper, inputs), runs=_runs_text(own)),
        1 if is_paper else 2,
        width=8.0 if is_paper else 13.0,
        height=5.2,
    )
    _steps_panel(axes[0], own)
    axes[0].set_title("fitted here" if is_paper else "these runs, 90% intervals",
                      fontsize=style.LABEL_SIZE, loc="left")  # fmt: skip
    style.legend_below(axes[0])
    if not is_paper:
        _steps_panel(axes[1], printed_steps())
        axes[1].set_title("Porian et al. 2024 as printed, 95%",
                          fontsize=style.LABEL_SIZE, loc="left")  # fmt: skip
        style.legend_below(axes[1])
    return figure


def _conventions(is_paper: bool, inputs: FigureInputs) -> str:
    if is_paper:
        return f"N {inputs.headline[0]}, C {inputs.headline[1]}, as the paper counts them"
    return "by row, from N non_embedding, C 6n_non_embedding to N total, C matmul_full"


def _runs_text(steps: tuple[Step, ...]) -> str | None:
    """How many runs each step has, where steps have runs of their own."""
    counts = [step.n_runs for step in steps if step.n_runs is not None]
    return f"runs by step, from the top: {', '.join(map(str, counts))}" if counts else None


def own_steps(inputs: FigureInputs) -> tuple[Step, ...]:
    """The conventions of a sweep in the order of Porian's corrections of counting."""
    rows = {(row.n_convention, row.c_convention): row for row in inputs.conventions}
    made = []
    for n_convention, c_convention, name in ORDER:
        row = rows.get((n_convention, c_convention))
        if row is not None:
            found = {method: (a, interval) for method, a, interval, _ in estimates(row)}
            # Where C = 6ND the closed form is the numeric optimum.
            joint = found.get(NUMERIC, found[CLOSED])
            made.append(
                Step(name, (("joint fit, optimum under C", *joint), (MINIMA, *found[MINIMA])))
            )
    return tuple(made)


def printed_steps() -> tuple[Step, ...]:
    """Porian's ladder as printed."""
    return tuple(
        Step(name, (), (a, interval))
        for name, _, a, interval, _ in published.PORIAN_2024_LADDER[:N_PRINTED]
    )


def _steps_panel(ax: Axes, steps: tuple[Step, ...]) -> None:
    methods = list(dict.fromkeys(method for step in steps for method, *_ in step.found))
    named: set[str] = set()
    for row, step in enumerate(steps):
        for method, a, interval in step.found:
            index = methods.index(method)
            y = row + OFFSET * (index - (len(methods) - 1) / 2)
            _mark(ax, y, a, interval, *LOOKS[index % len(LOOKS)], method, named)
        if step.printed is not None:
            a, interval = step.printed
            y = row + (OFFSET * (len(methods) + 1) / 2 if methods else 0)
            _mark(ax, y, a, interval or (math.nan, math.nan), "d", style.BLACK, "printed", named)
    for published_a, label in ((0.5, "0.5"), (published.KAPLAN_2020_OPTIMA["N"][1], "Kaplan 0.73")):
        ax.axvline(published_a, color=style.GREY, linewidth=0.8, linestyle="--", zorder=1)
        ax.text(published_a, len(steps) - 0.15, label, fontsize=style.SMALL_SIZE, color=style.GREY,
                ha="center", va="bottom", bbox=style.PAPER)  # fmt: skip
    style.label_axes(ax, "exponent a of the optimal size, N* ∝ Cᵃ", "")
    ax.set_yticks(range(len(steps)), labels=[step.name for step in steps])
    ax.set(ylim=(len(steps) + 0.05, -0.65))
    ax.grid(False, axis="y")
    ax.margins(x=0.08)


def _mark(
    ax: Axes, y: float, a: float, interval, marker: str, color: str, method: str, named: set[str]
) -> None:
    if not math.isfinite(a):
        ax.text(0.02, y, f"{method}: no exponent", transform=ax.get_yaxis_transform(), va="center",
                fontsize=style.SMALL_SIZE, color=color)  # fmt: skip
        return
    label = None if method in named else method
    named.add(method)
    ax.plot(a, y, marker, color=color, markersize=7, zorder=4, label=label)
    if np.isfinite(interval).all():
        ax.plot(interval, (y, y), color=color, linewidth=1.8, zorder=3)
    ax.text(1.01, y, style.with_interval(a, interval), transform=ax.get_yaxis_transform(),
            fontsize=style.SMALL_SIZE, va="center")  # fmt: skip
