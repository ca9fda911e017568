"""Generation and next-token probabilities against the model's own logits."""

import dataclasses

import jax
import numpy as np
import pytest

from model.drawing import Draws, choice, drawn, generators, noise
from model.functional import apply, init_params
from model.sampling import _drawn_in_turn, generate, generated, next_token_table

PROMPT = [3, 1, 4, 1, 5]
PROMPTS = [PROMPT, [9], [2, 6, 5, 3, 5, 8, 9]]
GREEDY = Draws(temperature=0.0)


def sharp(cfg):
    # Larger than at the start of training, so that the most likely token is no near-tie.
    return jax.tree.map(lambda leaf: 2 * leaf, init_params(cfg, 0))


@pytest.fixture(scope="module")
def params(tiny):
    return sharp(tiny)


def logits_after(cfg, params, tokens):
    return np.asarray(apply(cfg, params, np.asarray(tokens, np.int32)[None, -cfg.seq_len :]))[0, -1]


def one(cfg, params, prompt=PROMPT, **how):
    return generate(cfg, params, [prompt], **how)[0].tolist()


def test_greedy_takes_the_argmax_of_the_full_forward_pass(tiny, params):
    """Twenty tokens outrun the window, so the last ones see a shifted context."""
    tokens, n_prompt = PROMPT + one(tiny, params, n_tokens=20, draws=GREEDY), len(PROMPT)
    # The model is causal: one pass over the first window holds the logits of each prefix in it.
    window = np.asarray(tokens[: tiny.seq_len], np.int32)[None]
    likeliest = np.argmax(apply(tiny, params, window)[0], axis=-1).tolist()
    assert tokens[n_prompt : tiny.seq_len + 1] == likeliest[n_prompt - 1 :]
    for end in range(tiny.seq_len + 1, len(tokens)):
        assert tokens[end] == np.argmax(logits_after(tiny, params, tokens[:end]))


@pytest.mark.parametrize(
    ("options", "draws"),
    [
        ({}, GREEDY),
        ({"n_layers": 1, "bias": True}, Draws(1.3, top_k=5, top_p=0.9, seed=3)),
        ({"position": "rotary", "n_kv_heads": 1, "logit_softcap": 9.0}, Draws(seed=1)),
    ],
)
def test_a_batch_with_kept_keys_gives_the_tokens_of_full_passes(tiny, options, draws):
    """Prompts of different lengths, past the context."""
    cfg = dataclasses.replace(tiny, seq_len=24, **options)
    how = {"n_tokens": 30, "draws": draws}
    kept = list(generated(cfg, sharp(cfg), PROMPTS, **how))
    full = list(generated(cfg, sharp(cfg), PROMPTS, **how, is_cached=False))
    assert kept == full and np.shape(kept) == (30, 3)


def test_a_prompt_is_continued_as_if_alone(tiny, params):
    together = generate(tiny, params, PROMPTS, n_tokens=5, draws=GREEDY)
    alone = [one(tiny, params, prompt, n_tokens=5, draws=GREEDY) for prompt in PROMPTS]
    assert [found.tolist() for found in together] == alone
    first = generate(tiny, params, PROMPTS, n_tokens=5, draws=Draws(seed=4))[0].tolist()
    assert first == one(tiny, params, n_tokens=5, draws=Draws(seed=4))


def test_one_compiled_step(tiny, params):
    """Prompts of other lengths, and other numbers in the same form of draw, compile nothing."""
    one(tiny, params, n_tokens=4, draws=Draws(0.7, top_k=4))
    compiled = _drawn_in_turn._cache_size()
    one(tiny, params, PROMPT[:2], n_tokens=7, draws=Draws(0.3, top_p=0.9, seed=9))
    assert _drawn_in_turn._cache_size() == compiled


def test_a_stop_token_ends_a_continuation_and_is_its_last(tiny, params):
    whole = generate(tiny, params, PROMPTS, n_tokens=7, draws=Draws(2.0))
    stop = int(whole[0][2])
    for found, full in zip(
        generate(tiny, params, PROMPTS, n_tokens=7, draws=Draws(2.0), stop=stop), whole, strict=True
    ):
        at = np.flatnonzero(full == stop)
        end = at[0] + 1 if at.size else len(full)
        assert found.tolist() == full[:end].tolist()


def test_top_1_and_vanishing_temperature_are_greedy(tiny, params):
    greedy = one(tiny, params, n_tokens=7, draws=Draws(0.0, seed=1))
    for draws in (
        Draws(5.0, top_k=1),
        Draws(5.0, top_p=1e-6),
        Draws(1e-300),
        Draws(0.0, 4, 0.5),
        Draws(1e-300, top_p=0.9),
    ):
        assert one(tiny, params, n_tokens=7, draws=draws) == greedy


def test_the_seed_decides(tiny, params):
    first, again, other = (
        one(tiny, params, n_tokens=7, draws=Draws(2.0, seed=seed)) for seed in (0, 0, 1)
    )
    assert first == again != other


def counts(logits, n_draws, draws):
    """How often each token is drawn after the same logits."""
    rows = np.tile(np.array(logits, np.float32), (n_draws, 1))
    rngs = generators(draws.seed, 1)
    noise_NBV = noise(draws.form, rngs, n_draws, n_draws, len(logits))
    found = drawn(draws.form, rows, choice(draws, len(logits)), noise_NBV[:, 0])
    return np.bincount(found, minlength=len(logits))


@pytest.mark.parametrize(
    ("draws", "kept"),
    [
        (Draws(1.5), [0, 1, 2, 3, 4]),
        (Draws(1.5, top_k=3), [1, 2, 4]),
        # At temperature 1 the three likeliest have 0.5, 0.3 and 0.1.
        (Draws(1.0, top_p=0.75), [2, 4]),
        (Draws(1.0, top_p=0.85), [1, 2, 4]),
        # Top-p counts in what top-k left: of 0.8, 0.5 is above six tenths.
        (Draws(1.0, top_k=2, top_p=0.6), [4]),
        (Draws(1.0, top_p=1.0), [0, 1, 2, 3, 4]),
    ],
)
def test_frequencies_follow_the_tempered_probabilities_of_likely_tokens(draws, kept):
    p, n_draws = np.array([0.04, 0.1, 0.3, 0.06, 0.5]), 4000
    expected = np.where(np.isin(np.arange(5), kept), p ** (1 / draws.temperature), 0.0)
    expected /= expected.sum()
    measured = counts(np.log(p), n_draws, draws) / n_draws
    assert (np.abs(measured - expected) <= 4 * np.sqrt(expected * (1 - expected) / n_draws)).all()


def test_ties_go_to_the_lower_id():
    assert counts([1.0, 2.0, 2.0], 3, Draws(3.0, top_k=1)).tolist() == [0, 3, 0]
    assert counts([1.0, 2.0, 2.0], 3, GREEDY).tolist() == [0, 3, 0]


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
    assert one(tiny, params, n_tokens=0) == []
    long = [t % tiny.vocab_size for t in range(3 * tiny.seq_len)]
    whole = next_token_table(tiny, params, long, 4)
    assert whole == next_token_table(tiny, params, long[-tiny.seq_len :], 4)
    assert one(tiny, params, long, n_tokens=1, draws=GREEDY) == [whole[0][0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -0.5}, r"temperature=-0\.5.*use 0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_k": 0}, "top_k=0 leaves no token"),
        ({"top_p": 0.0}, r"top_p=0\.0"),
        ({"top_p": 1.5}, r"top_p=1\.5"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**32}, "seed=4294967296"),
    ],
)
def test_bad_draws_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Draws(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_tokens": -1}, "n_tokens=-1"),
        ({"draws": Draws(top_k=18)}, "top_k=18 is not between 1 and vocab_size=17"),
        ({"stop": 17}, "stop=17 is no token"),
        ({"prompts": []}, "there is no prompt"),
        ({"prompts": [PROMPT, []]}, "prompt of shape .*0.*give one token"),
        ({"prompts": [np.array([[1, 2]])]}, r"prompt of shape \(1, 2\)"),
        ({"prompts": [np.array([0.5])]}, "dtype float64.*use ints"),
        ({"prompts": [[3, 17]]}, "token 17, outside vocab_size=17; use ids from 0 to 16"),
        ({"prompts": [[-1]]}, "token -1"),
    ],
)
def test_bad_arguments_are_named(tiny, params, change, message):
    arguments = {"prompts": [PROMPT], "n_tokens": 2, **change}
    with pytest.raises(ValueError, match=message):
        generate(tiny, params, **arguments)


@pytest.mark.parametrize("k", [0, 18])
def test_a_table_of_no_size_is_refused(tiny, params, k):
    with pytest.raises(ValueError, match=f"k={k} is not between 1 and vocab_size=17"):
        next_token_table(tiny, params, PROMPT, k)
