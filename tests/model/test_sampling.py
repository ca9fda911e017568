"""Generation and next-token probabilities against the model's own logits."""

import dataclasses

import jax
import numpy as np
import pytest

from model.functional import apply, init_params
from model.sampling import generate, next_token_table

PROMPT = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def params(tiny):
    # Larger than at the start of training, so that the most likely token is no near-tie.
    return jax.tree.map(lambda leaf: 2 * leaf, init_params(tiny, 0))


def logits_after(cfg, params, tokens):
    return np.asarray(apply(cfg, params, np.asarray(tokens, np.int32)[None, -cfg.seq_len :]))[0, -1]


def test_greedy_takes_the_argmax_of_the_full_forward_pass(tiny, params):
    """Twenty tokens outrun the window, so the last ones see a shifted context."""
    generated = generate(tiny, params, PROMPT, n_tokens=20, temperature=0.0)
    assert generated.dtype == np.int32
    tokens, n_prompt = PROMPT + generated.tolist(), len(PROMPT)
    # The model is causal: one pass over the first window holds the logits of each prefix in it.
    window = np.asarray(tokens[: tiny.seq_len], np.int32)[None]
    likeliest = np.argmax(apply(tiny, params, window)[0], axis=-1).tolist()
    assert tokens[n_prompt : tiny.seq_len + 1] == likeliest[n_prompt - 1 :]
    for end in range(tiny.seq_len + 1, len(tokens)):
        assert tokens[end] == np.argmax(logits_after(tiny, params, tokens[:end]))


def test_top_1_and_vanishing_temperature_are_greedy(tiny, params):
    greedy = generate(tiny, params, PROMPT, n_tokens=8, temperature=0.0, seed=1)
    top_1 = generate(tiny, params, PROMPT, n_tokens=8, temperature=5.0, top_k=1, seed=2)
    cold = generate(tiny, params, PROMPT, n_tokens=8, temperature=1e-300, seed=3)
    assert greedy.tolist() == top_1.tolist() == cold.tolist()


def test_the_seed_decides(tiny, params):
    first, again, other = (
        generate(tiny, params, PROMPT, n_tokens=12, temperature=2.0, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_frequencies_follow_the_tempered_probabilities(tiny, params):
    temperature, n_draws = 1.5, 400
    logits = logits_after(tiny, params, PROMPT).astype(float) / temperature
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()
    draws = [
        generate(tiny, params, PROMPT, n_tokens=1, temperature=temperature, seed=seed)[0]
        for seed in range(n_draws)
    ]
    measured = np.bincount(draws, minlength=tiny.vocab_size) / n_draws
    error = 4 * np.sqrt(expected * (1 - expected) / n_draws)
    assert (np.abs(measured - expected) <= error + 2 / n_draws).all()


def test_top_k_draws_only_the_k_most_likely(tiny, params):
    likely = {token for token, _ in next_token_table(tiny, params, PROMPT, 3)}
    drawn = {
        int(generate(tiny, params, PROMPT, n_tokens=1, temperature=100.0, top_k=3, seed=seed)[0])
        for seed in range(40)
    }
    assert drawn == likely


def test_next_token_table_is_the_sorted_softmax(tiny, params):
    table = next_token_table(tiny, params, PROMPT, tiny.vocab_size)
    logits = logits_after(tiny, params, PROMPT)
    expected = np.exp(logits) / np.exp(logits).sum()
    probabilities = [probability for _, probability in table]
    assert sorted(token for token, _ in table) == list(range(tiny.vocab_size))
    assert probabilities == sorted(probabilities, reverse=True)
    for token, probability in table:
        assert probability == pytest.approx(expected[token], rel=1e-4)
    assert next_token_table(tiny, params, PROMPT, 2) == table[:2]


def test_no_tokens_and_long_prompts(tiny, params):
    assert generate(tiny, params, PROMPT, n_tokens=0).tolist() == []
    long = [t % tiny.vocab_size for t in range(3 * tiny.seq_len)]
    whole = next_token_table(tiny, params, long, 4)
    assert whole == next_token_table(tiny, params, long[-tiny.seq_len :], 4)


def test_rotary_models_generate(tiny):
    cfg = dataclasses.replace(tiny, position="rotary")
    assert len(generate(cfg, init_params(cfg, 0), PROMPT, n_tokens=3)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_tokens": -1}, "n_tokens=-1"),
        ({"temperature": -0.5}, r"temperature=-0\.5.*use 0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_k": 0}, "top_k=0 is not between 1 and vocab_size=17"),
        ({"top_k": 18}, "top_k=18"),
        ({"seed": -1}, "seed=-1"),
        ({"prompt_T": []}, "prompt of shape .*0.*give one token"),
        ({"prompt_T": np.array([[1, 2]])}, r"prompt of shape \(1, 2\)"),
        ({"prompt_T": np.array([0.5])}, "dtype float64.*use ints"),
        ({"prompt_T": [3, 17]}, "token 17, outside vocab_size=17; use ids from 0 to 16"),
        ({"prompt_T": [-1]}, "token -1"),
    ],
)
def test_bad_arguments_are_named(tiny, params, change, message):
    arguments = {"prompt_T": PROMPT, "n_tokens": 2, **change}
    with pytest.raises(ValueError, match=message):
        generate(tiny, params, **arguments)


@pytest.mark.parametrize("k", [0, 18])
def test_a_table_of_no_size_is_refused(tiny, params, k):
    with pytest.raises(ValueError, match=f"k={k} is not between 1 and vocab_size=17"):
        next_token_table(tiny, params, PROMPT, k)
