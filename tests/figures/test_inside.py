"""Pictures of one run from the inside."""

import numpy as np
import pytest

from analysis.figures import COLUMN, inside


@pytest.fixture
def patterns():
    rows = np.tril(np.ones((6, 6)))
    return np.tile(rows / rows.sum(-1, keepdims=True), (2, 3, 1, 1))


def test_attention_has_a_map_a_layer_and_head(patterns, texts):
    tokens = list("a$b\\c ")
    figure = inside.attention("Attention", "a run", patterns, tokens)
    written = texts(figure)
    assert "layer 2, head 3" in written and "\\$" in written
    maps = [ax for ax in figure.axes if ax.images]
    assert len(maps) == 6
    assert np.array_equal(maps[-1].images[0].get_array(), patterns[1, 2])


def test_many_heads_are_thinned_and_said(patterns, texts):
    many = np.tile(patterns, (2, 6, 1, 1))
    figure = inside.attention("Attention", "a run", many, list("abcdef"))
    assert "heads of each layer are not shown" in texts(figure)
    width, height = figure.get_size_inches()
    assert width < 16 and height < 16
    column = inside.attention("Attention", "a run", patterns, list("abcdef"), COLUMN)
    assert column.get_size_inches()[0] == 5.0


def test_embeddings_are_drawn_by_kind(texts):
    plane = np.random.default_rng(0).standard_normal((5, 2))
    letters = np.array([True, True, True, False, False])
    written = texts(
        inside.embeddings("Embeddings", "a run", plane, np.array([0.6, 0.1]), list("abc1") + [""],
                          {"letters": letters, "digits": ~letters})
    )  # fmt: skip
    assert "first principal component (60% of the variance)" in written
    assert "letters (3)" in written and "digits (2)" in written


def test_next_tokens_are_ranked_and_named(texts):
    probabilities = np.array([0.05, 0.8, 0.1, 0.05])
    figure = inside.next_tokens("Next", "a run", probabilities, ["w", "x", "y", "z"])
    shown = np.asarray(figure.axes[0].lines[0].get_ydata())
    assert shown == pytest.approx([0.8, 0.1, 0.05, 0.05])
    entropy = -(probabilities * np.log(probabilities)).sum()
    assert f"entropy {entropy:.2f} nats, {np.exp(entropy):.1f} equal tokens" in texts(figure)


def test_training_shows_loss_rate_and_end(texts):
    tokens = np.geomspace(1e3, 1e6, 20)
    loss = np.append(np.linspace(5, 2, 19), np.nan)
    figure = inside.training("Loss", "a run", tokens, loss, np.ones(20), 2.1, "nats/byte")
    assert "validation loss at the end: 2.1000" in texts(figure)
    assert len(figure.axes[0].lines[0].get_ydata()) == 19
    bare = inside.training("Loss", "a run", tokens, loss, np.ones(20), None, "nats/byte")
    assert "validation loss" not in texts(bare)
