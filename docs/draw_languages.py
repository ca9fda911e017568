"""Draws the floors of docs/languages.md: `python docs/draw_languages.py`. Takes a few seconds.

The languages that are counted in a text need it prepared: --out names the folder of the corpora.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from analysis.figures import style
from train.data import corpora
from train.data.languages.names import parse

FIGURE = Path(__file__).parent / "figures" / "data" / "floors.png"
LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
NAMES = {
    "zipf": "lang:zipf",
    "Markov, order 2": "lang:markov",
    "letters, order 2": "lang:letters",
    "words, order 1": "lang:words",
    "golden mean": "lang:golden-mean",
    "even process": "lang:even",
    "hidden": "lang:hidden",
    "brackets": "lang:dyck",
    "brackets, depth 4": "lang:dyck:depth=4",
    "grammar": "lang:grammar",
    "skills": "lang:skills",
    "modular": "lang:modular",
}
COLORS = (
    style.BLACK, style.BLUE, style.VERMILION, style.GREEN, style.PURPLE, style.ORANGE, style.SKY,
)  # fmt: skip
DASHES = ("-", (0, (5, 2)))


def draw(ax: Axes, blocks: dict[str, np.ndarray], rates: dict[str, float], title: str) -> None:
    """Curves over T, labelled at their right ends; a tick there marks the entropy rate."""
    ends = []
    for i, (label, values) in enumerate(blocks.items()):
        color, dash = COLORS[i % len(COLORS)], DASHES[i // len(COLORS)]
        ax.plot(LENGTHS, values, color=color, linestyle=dash, marker="o", markersize=3)
        ax.plot(LENGTHS[-1] * 1.12, rates[label], marker="_", color=color, markersize=8)
        ends.append((values[-1], label, color))
    low, high = ax.get_ylim()
    values, labels, colors = zip(*sorted(ends), strict=True)
    for at, value, label, color in zip(
        _apart(values, 0.043 * (high - low)), values, labels, colors, strict=True
    ):
        ax.annotate(
            label, (LENGTHS[-1] * 1.2, value), (LENGTHS[-1] * 1.5, at), color=color, va="center",
            annotation_clip=False, fontsize=style.SMALL_SIZE,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkB": 0},
        )  # fmt: skip
    style.label_axes(ax, "length T", "nats per token", title)
    ax.set(xscale="log", xlim=(0.9, LENGTHS[-1] * 6))
    ax.xaxis.set_major_locator(FixedLocator(LENGTHS))
    ax.xaxis.set_major_formatter(FixedFormatter([str(n) for n in LENGTHS]))
    ax.xaxis.set_minor_locator(NullLocator())


def _apart(values: tuple[float, ...], gap: float) -> list[float]:
    """Places at least `gap` apart, each group of crowded ones centred on its values (ascending)."""
    groups: list[list[float]] = []
    for value in values:
        groups.append([value])
        while len(groups) > 1 and _bottom(groups[-1], gap) < _top(groups[-2], gap) + gap:
            last = groups.pop()
            groups[-1] += last
    return [_bottom(group, gap) + i * gap for group in groups for i in range(len(group))]


def _bottom(group: list[float], gap: float) -> float:
    return float(np.mean(group)) - gap * (len(group) - 1) / 2


def _top(group: list[float], gap: float) -> float:
    return float(np.mean(group)) + gap * (len(group) - 1) / 2


def main() -> None:
    """Compute, print and draw."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--out", type=Path, default=Path("out"))
    data_dir = flags.parse_args().out / "data"
    corpora.prepare("sotu", data_dir)
    blocks, floors, rates = {}, {}, {}
    for label, name in NAMES.items():
        language = corpora.language(name, data_dir)
        lengths = np.array(LENGTHS)
        blocks[label] = language.block_entropies(LENGTHS[-1])[lengths - 1] / lengths
        longest = language.conditional_entropies(LENGTHS[-1] + 1)
        if parse(name).kind in ("skills", "modular"):
            floors[label] = np.array(
                [language.conditional_entropies(n + 1, every=n)[1:].mean() for n in LENGTHS]
            )
        else:  # windows start anywhere, however they are cut
            floors[label] = np.cumsum(longest[1:])[lengths - 1] / lengths
        rates[label] = language.entropy_rate_nats()
        shown = [f"{floors[label][LENGTHS.index(n)]:.4f}" for n in (1, 8, 64, 128)]
        cells = (f"`{name}`", str(language.vocab_size), f"{rates[label]:.4f}", *shown)
        print(f"| {' | '.join(cells)} |")
    figure = style.new_figure(
        "Languages of known entropy: what a window of T tokens can know",
        "exact values, nats  ·  left: block entropy H(X_1..X_T) / T  ·  right: lowest loss of a "
        "model with T tokens of context, first token given  ·  marks at the right: entropy rate",
        width=12,
        height=6,
    )
    left, right = np.atleast_1d(figure.subplots(1, 2))
    draw(left, blocks, rates, "H(X_1 .. X_T) / T")
    draw(right, floors, rates, "floor of the loss, context T")
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=style.PNG_DPI, metadata={"Software": None})


if __name__ == "__main__":
    main()
