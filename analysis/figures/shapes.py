"""Loss against the shape of a model at nearly one number of parameters."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style


@dataclass(frozen=True)
class Shape:
    """One shape: mean loss of its seeds, corrected to one N, over the lowest of all, minus 1."""

    n_layers: int
    d_model: int
    d_head: int
    excess: float
    excess_of_seeds: tuple[float, ...]


def shapes_figure(title: str, found: Sequence[Shape], d_head: int) -> Figure:
    """Excess loss against width over depth, heads of one width; then against the width of a head.

    Args: d_head: width of a head of the models on the left.

    Source: after Kaplan et al. 2020, arXiv:2001.08361, fig. 5.
    """
    figure, axes = style.panels(
        style.SCREEN, f"{title}: shape at one N", "final loss on the whole validation split, over "
        "the lowest; corrected to one N by L(N); points are seeds", 2, width=11.0, height=4.8,
    )  # fmt: skip
    deep = [s for s in found if s.d_head == d_head]
    _panel(axes[0], [(s.d_model / s.n_layers, f"{s.n_layers}x{s.d_model}", s) for s in deep])
    style.label_axes(axes[0], "width over depth, d_model / n_layers", "excess loss, %")
    shape = max(
        {(s.n_layers, s.d_model) for s in found},
        key=lambda key: sum((s.n_layers, s.d_model) == key for s in found),
    )
    heads = [s for s in found if (s.n_layers, s.d_model) == shape]
    _panel(axes[1], [(s.d_head, str(s.d_head), s) for s in heads])
    style.label_axes(axes[1], f"width of a head, {shape[0]}x{shape[1]}", "excess loss, %")
    return figure


def _panel(ax: Axes, points: Sequence[tuple[float, str, Shape]]) -> None:
    ordered = sorted(points, key=lambda point: point[0])
    ax.plot([x for x, *_ in ordered], [100 * s.excess for *_, s in ordered], "o-",
            color=style.BLUE, zorder=4)  # fmt: skip
    for x, name, shape in ordered:
        seeds = [100 * value for value in shape.excess_of_seeds]
        ax.plot([x] * len(seeds), seeds, "_", color=style.GREY, markersize=10)
        ax.annotate(name, (x, 100 * shape.excess), textcoords="offset points", xytext=(5, 6),
                    fontsize=style.SMALL_SIZE)  # fmt: skip
    if ordered:
        style.log_axis(ax, "x", [x for x, *_ in ordered], pad=1.5)
