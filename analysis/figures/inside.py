"""Pictures of one trained model: attention, token embeddings, next tokens, loss while training."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.style import Page

MOST_MAPS = 24
MOST_WIDE = 13.0
DRAWN_SHARE, LEAST_LETTER = 0.85, 4.5
"""Of a map's side that is map; points below which tokens go unnamed."""
N_NAMED = 8


def attention(
    title: str, footer: str, patterns: np.ndarray, tokens: Sequence[str], page: Page = style.SCREEN
) -> Figure:
    """One map a layer (rows) and head (columns): how much each token (row) looks at each (column).

    Args:
        patterns: (n_layers, n_heads, T, T), rows sum to one.
        tokens: T texts.
    """
    n_layers, n_heads = patterns.shape[:2]
    heads = np.linspace(0, n_heads - 1, min(n_heads, max(1, MOST_MAPS // n_layers))).astype(int)
    left_out = n_heads - len(heads)
    note = f"  ·  {left_out} of {n_heads} heads of each layer are not shown" if left_out else ""
    shape = (n_layers * len(heads), 1) if page.is_column else (n_layers, len(heads))
    side = 4.2 if page.is_column else min(MOST_WIDE / len(heads), 4.2)
    letter = 72 * side * DRAWN_SHARE / len(tokens)  # points that a token has
    figure = style.new_figure(
        title, footer + note, width=max(1.4 + side * shape[1], 5.0), height=1.4 + side * shape[0],
        page=page,
    )  # fmt: skip
    axes = np.atleast_1d(figure.subplots(*shape)).reshape(n_layers, len(heads))
    for layer in range(n_layers):
        for column, head in enumerate(heads):
            ax = axes[layer, column]
            image = ax.imshow(patterns[layer, head], cmap="cividis", vmin=0, vmax=1)
            ax.set_title(
                f"layer {layer + 1}, head {head + 1}", fontsize=style.TICK_SIZE, loc="left"
            )
            _token_ticks(ax, tokens, letter, column == 0 or page.is_column)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, aspect=40)
    bar.set_label("share of the attention of a row", fontsize=style.TICK_SIZE)
    bar.ax.tick_params(labelsize=style.SMALL_SIZE)
    return figure


def _token_ticks(ax: Axes, tokens: Sequence[str], letter: float, with_rows: bool) -> None:
    labelled = letter >= LEAST_LETTER
    places = np.arange(len(tokens)) if labelled else []
    names = [style.plain(text) for text in tokens] if labelled else []
    size = min(style.SMALL_SIZE, letter)
    ax.set_xticks(places, labels=names, fontsize=size)
    ax.set_yticks(places, labels=names if with_rows else [""] * len(names), fontsize=size)
    ax.tick_params(length=0)
    ax.grid(False)


def embeddings(
    title: str,
    footer: str,
    plane: np.ndarray,
    shares: np.ndarray,
    tokens: Sequence[str],
    kinds: Mapping[str, np.ndarray],
    page: Page = style.SCREEN,
) -> Figure:
    """Token embeddings in the plane of their first two principal components.

    Args:
        plane: (V, 2).
        shares: of the variance that the components hold (2,).
        tokens: V texts; an empty one is a dot without a name.
        kinds: masks (V,) of tokens drawn alike, by what they are called.
    """
    figure = style.new_figure(title, footer, width=8.6, height=7.6, page=page)
    ax = figure.subplots()
    looks = zip(
        kinds.items(),
        (style.BLUE, style.VERMILION, style.GREEN, style.PURPLE, style.GREY),
        ("o", "s", "^", "D", "."),
        strict=False,
    )
    for (name, mask), color, marker in looks:
        ax.plot(*plane[mask].T, marker, color=color, markersize=4, alpha=0.5, linestyle="none",
                label=f"{name} ({int(mask.sum())})")  # fmt: skip
        for i in np.flatnonzero(mask).tolist():
            if tokens[i]:
                ax.annotate(style.plain(tokens[i]), plane[i], (2, 2), textcoords="offset points",
                            fontsize=style.SMALL_SIZE, color=color)  # fmt: skip
    first, second = (f"{100 * share:.0f}% of the variance" for share in shares)
    style.label_axes(ax, f"first principal component ({first})", f"second ({second})")
    style.legend_below(ax, n_columns=2 if page.is_column else 5)
    return figure


def next_tokens(
    title: str,
    footer: str,
    probabilities: np.ndarray,
    tokens: Sequence[str],
    page: Page = style.SCREEN,
) -> Figure:
    """Next-token probabilities against their rank, both in logs; the likeliest are named.

    Args: probabilities, tokens: of the whole vocabulary (V,).
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked = np.maximum(probabilities[order], 1e-12)
    entropy = float(-(ranked * np.log(ranked)).sum())
    figure = style.new_figure(title, footer, width=7.6, height=5.8, page=page)
    ax = figure.subplots()
    rank = np.arange(1, len(ranked) + 1)
    ax.plot(rank, ranked, "o-", color=style.BLUE, markersize=4, linewidth=1,
            label=f"entropy {entropy:.2f} nats, {np.exp(entropy):.1f} equal tokens")  # fmt: skip
    for i in range(min(N_NAMED, len(order))):
        ax.annotate(style.plain(tokens[int(order[i])]), (rank[i], ranked[i]), (4, 5),
                    textcoords="offset points", fontsize=style.TICK_SIZE)  # fmt: skip
    style.log_axis(ax, "x", rank)
    style.log_axis(ax, "y", ranked, pad=1.6)
    style.label_axes(ax, "rank of the token", "probability")
    style.legend_below(ax)
    return figure


def training(
    title: str,
    footer: str,
    n_tokens: np.ndarray,
    loss_nats: np.ndarray,
    lr: np.ndarray,
    final: float | None,
    unit: str,
    page: Page = style.SCREEN,
) -> Figure:
    """Loss while training, with the learning rate under it.

    Args:
        n_tokens, loss_nats, lr: of every logged point.
        final: validation loss at the end, if there is one.
    """
    figure = style.new_figure(title, footer, width=7.6, height=6.4, page=page)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, 1])
    known = np.isfinite(loss_nats)
    top.plot(n_tokens[known], loss_nats[known], color=style.BLUE, linewidth=1.2,
             label="training loss, smoothed")  # fmt: skip
    shown = [float(loss_nats[known].min()), float(loss_nats[known].max())]
    if final is not None:
        top.axhline(final, color=style.VERMILION, linestyle="--", linewidth=1.2,
                    label=f"validation loss at the end: {final:.4f}")  # fmt: skip
        shown.append(final)
    style.log_axis(top, "x", n_tokens)
    style.loss_axis(top, min(shown), max(shown))
    style.label_axes(top, "", f"loss ({unit})")
    top.legend(fontsize=style.SMALL_SIZE, frameon=False)
    bottom.plot(n_tokens, lr, color=style.GREY, linewidth=1.2)
    bottom.set_ylim(0)
    style.label_axes(bottom, "tokens processed D", "learning rate")
    return figure
