import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data.batches import n_windows, target_positions
from train.data.languages import MarkovSource, as_corpus


def brute_force_floor(source, seq_len):
    """Enumerate every string of order + seq_len + 1 symbols of a chain run to equilibrium.

    Shares nothing with the code under test: the chain starts uniform and burns in by repeated
    steps, conditional entropies come from sums over whole strings.
    """
    n, order = source.vocab_size, source.order
    law = {context: 1 / n**order for context in itertools.product(range(n), repeat=order)}
    row = {
        c: source.transitions[int(sum(s * n**i for i, s in enumerate(reversed(c))))] for c in law
    }
    for _ in range(3000):
        new = dict.fromkeys(law, 0.0)
        for context, p in law.items():
            for symbol in range(n):
                new[(*context[1:], symbol)] += p * row[context][symbol]
        law = new
    strings = dict(law)
    for _ in range(seq_len + 1):
        strings = {
            (*string, symbol): p * row[string[-order:]][symbol]
            for string, p in strings.items()
            for symbol in range(n)
        }

    def block(length):
        totals = {}
        for string, p in strings.items():
            window = string[order : order + length]
            totals[window] = totals.get(window, 0.0) + p
        return -sum(p * math.log(p) for p in totals.values() if p > 0)

    blocks = [block(length) for length in range(1, seq_len + 2)]
    return sum(b - a for a, b in itertools.pairwise(blocks)) / seq_len


@pytest.mark.parametrize(("vocab_size", "order"), [(2, 1), (3, 1), (2, 2), (3, 2), (2, 3)])
@pytest.mark.parametrize("seq_len", [1, 2, 4])
def test_floor_equals_enumeration(vocab_size, order, seq_len):
    source = MarkovSource.random(vocab_size=vocab_size, order=order, seed=1)
    floor = source.entropy_floor_nats(seq_len)
    assert floor == pytest.approx(brute_force_floor(source, seq_len), abs=1e-9)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(1, 100))
def test_two_state_chain_has_the_textbook_rate(p, q, seq_len):
    def h(x):
        return -x * math.log(x) - (1 - x) * math.log(1 - x)

    source = MarkovSource(1, ((1 - p, p), (q, 1 - q)))
    rate = (q * h(p) + p * h(q)) / (p + q)
    assert source.entropy_floor_nats(seq_len) == pytest.approx(rate, rel=1e-9)


def test_longer_windows_have_a_lower_floor_that_tends_to_the_rate():
    source = MarkovSource.random(vocab_size=4, order=3, seed=0)
    floors = [source.entropy_floor_nats(t) for t in (1, 2, 3, 8, 64, 100_000)]
    assert floors == sorted(floors, reverse=True)
    rate = source.stationary() @ [-np.dot(row, np.log(row)) for row in source.transitions]
    assert floors[-1] == pytest.approx(rate, abs=1e-4)


def test_every_way_to_the_stationary_law_gives_the_same(monkeypatch):
    from train.data.languages import markov

    expected = MarkovSource.random(vocab_size=3, order=3, seed=2).stationary()
    monkeypatch.setattr(markov, "_MANY_CONTEXTS", 5)
    solved = MarkovSource.random(vocab_size=3, order=3, seed=2).stationary()
    monkeypatch.setattr(markov, "_TOO_MANY_TO_SOLVE", 5)
    stepped = MarkovSource.random(vocab_size=3, order=3, seed=2).stationary()
    assert solved == pytest.approx(expected, abs=1e-12)
    assert stepped == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="transitions has zeros"):
        MarkovSource(1, tuple(map(tuple, np.eye(6))))


def test_a_deterministic_cycle_has_no_entropy():
    source = MarkovSource(1, ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)))
    assert source.entropy_floor_nats(5) == pytest.approx(0.0, abs=1e-12)
    assert set(np.diff(source.sample(10, seed=0).astype(int)) % 3) == {1}


@settings(max_examples=10)
@given(st.integers(2, 5), st.integers(1, 2), st.integers(0, 100))
def test_samples_follow_the_transitions(vocab_size, order, seed):
    source = MarkovSource.random(vocab_size=vocab_size, order=order, seed=seed, concentration=1.0)
    tokens = source.sample(20_000, seed=seed + 1).astype(int)
    n_contexts = vocab_size**order
    digits = [tokens[i : len(tokens) - order + i] for i in range(order)]
    contexts = sum(d * vocab_size ** (order - 1 - i) for i, d in enumerate(digits))
    pairs = np.bincount(contexts * vocab_size + tokens[order:], minlength=n_contexts * vocab_size)
    joint = pairs.reshape(n_contexts, vocab_size) / len(contexts)
    expected = source.stationary()[:, None] * np.asarray(source.transitions)
    assert np.abs(joint - expected).max() < 0.06


def test_sampling_is_repeatable_and_depends_on_the_seed():
    source = MarkovSource.random(vocab_size=7, order=1, seed=0)
    assert np.array_equal(source.sample(500, seed=3), source.sample(500, seed=3))
    assert not np.array_equal(source.sample(500, seed=3), source.sample(500, seed=4))


def test_first_token_has_the_stationary_law():
    source = MarkovSource(1, ((0.9, 0.1), (0.3, 0.7)))
    first = np.mean([source.sample(1, seed=seed)[0] for seed in range(2000)])
    assert first == pytest.approx(0.25, abs=0.05)


def test_corpus_of_a_source_can_be_trained_on():
    source = MarkovSource.random(vocab_size=17, order=1, seed=0)
    corpus = as_corpus(source, n_train=20_000, n_validation=5000, seed=2)
    assert (len(corpus.train_tokens), len(corpus.validation_tokens)) == (20_000, 5000)
    assert not np.array_equal(corpus.train_tokens[:5000], corpus.validation_tokens)
    targets = target_positions(np.arange(n_windows(5000, 12)), 12)
    clusters = corpus.document_of_token("validation", targets)
    assert set(clusters.ravel()) == set(range(64))
    assert corpus.ngram_nats["train"][1] == pytest.approx(source.entropy_floor_nats(12), abs=0.02)


def test_corpus_identity_covers_source_sizes_and_seed():
    one, two = (MarkovSource.random(vocab_size=3, order=1, seed=s) for s in (0, 1))
    corpora = [
        as_corpus(one, n_train=100, n_validation=100, seed=0),
        as_corpus(two, n_train=100, n_validation=100, seed=0),
        as_corpus(one, n_train=101, n_validation=100, seed=0),
        as_corpus(one, n_train=100, n_validation=100, seed=1),
    ]
    assert len({corpus.content_hash for corpus in corpora}) == 4


def test_more_than_256_symbols_use_two_bytes():
    uniform = tuple((1 / 300,) * 300 for _ in range(300))
    tokens = MarkovSource(1, uniform).sample(5000, seed=0)
    assert tokens.dtype == np.uint16 and tokens.max() > 255


@pytest.mark.parametrize(
    ("order", "transitions", "message"),
    [
        (0, ((1.0,),), "order=0"),
        (2, ((0.5, 0.5), (0.5, 0.5)), "needs 4 rows"),
        (1, ((0.5, 0.5), (0.5,)), "needs 2 rows"),
        (1, ((0.5, 0.6), (0.5, 0.5)), "sum to 1"),
        (1, ((1.5, -0.5), (0.5, 0.5)), "distribution"),
        (1, ((1.0, 0.0), (0.0, 1.0)), "several stationary"),
    ],
)
def test_impossible_sources_are_refused(order, transitions, message):
    with pytest.raises(ValueError, match=message):
        MarkovSource(order, transitions)


def test_too_short_requests_are_refused():
    source = MarkovSource.random(vocab_size=2, order=1, seed=0)
    with pytest.raises(ValueError, match="seq_len=0"):
        source.entropy_floor_nats(0)
    with pytest.raises(ValueError, match="n_validation=5"):
        as_corpus(source, n_train=100, n_validation=5, seed=0)
