import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data.ngrams import ngram_entropies

TOKENS = st.lists(st.integers(0, 4), min_size=5, max_size=60)


def count(tokens, n):
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def block_entropy(tokens, n):
    counts = count(tokens, n)
    total = sum(counts.values())
    return -sum(c / total * math.log(c / total) for c in counts.values())


@given(TOKENS, TOKENS)
def test_entropies_equal_plain_counting(train, validation):
    got = ngram_entropies(
        np.array(train, np.uint8), np.array(validation, np.uint8), vocab_size=5, max_n=3
    )
    blocks = [0.0] + [block_entropy(train, n) for n in (1, 2, 3)]
    assert got["train"] == pytest.approx([blocks[n] - blocks[n - 1] for n in (1, 2, 3)], abs=1e-9)
    for n, loss in enumerate(got["validation"], start=1):
        grams, contexts = count(train, n), count(train, n - 1)
        contexts[()] = len(train)
        asked = count(validation, n)
        expected = [
            times * math.log((grams[gram] + 0.01) / (contexts[gram[:-1]] + 0.05))
            for gram, times in asked.items()
        ]
        assert loss == pytest.approx(-sum(expected) / sum(asked.values()), abs=1e-9)


@pytest.mark.parametrize("vocab_size", [2, 256, 257, 60_000])
def test_uniform_tokens_have_the_entropy_of_the_alphabet(vocab_size):
    tokens = np.tile(np.arange(vocab_size, dtype=np.uint16), 20)
    nats = ngram_entropies(tokens, tokens, vocab_size=vocab_size, max_n=2)
    assert nats["train"][0] == pytest.approx(math.log(vocab_size), abs=1e-9)
    assert nats["train"][1] == pytest.approx(0.0, abs=1e-3)


def test_requests_that_cannot_be_counted_are_refused():
    tokens = np.zeros(3, np.uint8)
    with pytest.raises(ValueError, match="3 tokens are too few for 4-grams"):
        ngram_entropies(tokens, tokens, vocab_size=256, max_n=4)
    with pytest.raises(ValueError, match="max_n=5 is too long for vocab_size=50257"):
        ngram_entropies(tokens, tokens, vocab_size=50_257, max_n=5)
