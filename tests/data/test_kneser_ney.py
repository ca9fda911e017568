import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data.kneser_ney import count
from train.data.languages import MarkovSource


def test_a_case_worked_by_hand():
    """The text 0 0 1 0 2.

    Unigrams 3, 1, 1: d = 2 / (2 + 2 * 0) = 1, so p_1(0) = (3 - 1 + 1 * 3 / 3) / 5 = 3 / 5 and
    p_1(1) = p_1(2) = (0 + 1) / 5. Bigrams 00, 01, 10, 02, once each: d = 1. Different tokens
    before: 0 has 2 (0 and 1), 1 and 2 have 1 (0): d = 2 / (2 + 2 * 1) = 1 / 2, so
    q(0) = (2 - 1/2 + 1/2 * 3 / 3) / 4 = 1 / 2, q(1) = q(2) = (1/2 + 1/2) / 4 = 1 / 4.
    p_2(x | 0) = (0 + 1 * 3 q(x)) / 3 = q(x); p_2(x | 1) = q(x); 2 was never followed: q(x).
    """
    model = count(np.array([0, 0, 1, 0, 2]), vocab_size=3, max_n=2)
    assert model.next_token(np.array([], int)) == pytest.approx([3 / 5, 1 / 5, 1 / 5])
    for context in (0, 1, 2):
        assert model.next_token(np.array([context])) == pytest.approx([1 / 2, 1 / 4, 1 / 4])
    losses = model.cross_entropies(np.array([2, 0, 1]))
    assert losses == pytest.approx([-np.log(3 / 25) / 2, -np.log(1 / 8) / 2])


@given(st.lists(st.integers(0, 3), min_size=4, max_size=60), st.data())
def test_every_law_sums_to_one(tokens, data):
    model = count(np.array(tokens), vocab_size=4, max_n=4)
    context = data.draw(st.lists(st.integers(0, 3), max_size=5))
    law = model.next_token(np.array(context, int))
    assert law.sum() == pytest.approx(1.0) and (law >= 0).all()


def test_order_k_plus_one_reaches_the_entropy_of_an_order_k_source():
    source = MarkovSource.random(vocab_size=8, order=2, seed=0)
    model = count(source.sample(200_000, 1), vocab_size=8, max_n=4)
    validation = source.sample(50_000, 2)
    losses = np.array(model.cross_entropies(validation))
    oracle = -source.log_probs(validation[None].astype(int))[0, 3:]
    exact = source.conditional_entropies(4)
    error = oracle.std() / len(oracle) ** 0.5
    assert np.abs(losses - exact).max() < 0.01 + 3 * error
    assert losses[2] > oracle.mean() and losses[2] < oracle.mean() + 0.003
    assert losses[1] - losses[2] > 0.5


def test_samples_follow_the_counts():
    model = count(np.tile([0, 1, 2, 3], 100), vocab_size=5, max_n=2)
    tokens = model.sample(300, seed=0)
    assert np.mean(np.diff(tokens) % 4 == 1) > 0.9
    assert np.array_equal(tokens, model.sample(300, seed=0))
    shorter = model.of_order(1)
    assert shorter.max_n == 1 and shorter.cross_entropies(tokens)[0] > 1.2


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match=r"order=9 is outside 1\.\.8"):
        count(np.zeros(20, int), vocab_size=256, max_n=9)
    with pytest.raises(ValueError, match="2 tokens are too few"):
        count(np.zeros(2, int), vocab_size=4, max_n=3)
    with pytest.raises(ValueError, match="1 tokens are too few"):
        count(np.zeros(9, int), vocab_size=4, max_n=3).cross_entropies(np.zeros(1, int))
