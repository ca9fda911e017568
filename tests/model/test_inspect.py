"""What is seen inside of a model, against the model's own arithmetic."""

import dataclasses

import jax
import numpy as np
import pytest

from model.functional import apply, init_params
from model.inspect import attention_patterns, embedding_plane
from model.sampling import next_token_probabilities, next_token_table

PROMPT = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def params(tiny):
    return jax.tree.map(lambda leaf: 2 * leaf, init_params(tiny, 0))


def test_patterns_are_causal_and_sum_to_one(tiny, params):
    patterns = attention_patterns(tiny, params, PROMPT)
    assert patterns.shape == (tiny.n_layers, tiny.n_heads, 5, 5)
    assert np.allclose(patterns.sum(-1), 1, atol=1e-6)
    assert not np.triu(patterns, 1).any(), "a token looked ahead"
    assert patterns[:, :, 0, 0] == pytest.approx(1)
    assert np.ptp(patterns[0, :, -1]) > 1e-3, "planted parameters attend evenly"


def test_patterns_are_those_of_the_model_by_hand(tiny, params):
    """The first layer's scores from its own matrices."""
    cfg = dataclasses.replace(tiny, position="none", norm="rmsnorm")
    own = jax.tree.map(lambda leaf: 3 * np.asarray(leaf), init_params(cfg, 1))
    x = own["token_embedding"][PROMPT]
    block = own["blocks"]["0"]
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * block["attention_norm"]["gain"]
    qkv = x @ block["attention"]["qkv"]
    q, k = (
        qkv[:, i * cfg.d_attn : (i + 1) * cfg.d_attn].reshape(5, cfg.n_heads, cfg.d_head)
        for i in (0, 1)
    )
    scores = np.einsum("thk,shk->hts", q, k) / np.sqrt(cfg.d_head)
    scores = np.where(np.tril(np.ones((5, 5), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    assert np.allclose(attention_patterns(cfg, own, PROMPT)[0], weights, atol=1e-5)


@pytest.mark.parametrize("option", [{"position": "rotary"}, {"n_kv_heads": 1}, {"qk_norm": True}])
def test_watching_changes_nothing(tiny, option, monkeypatch):
    """Logits under the attention that is watched are the model's own."""
    from model import inspect

    cfg = dataclasses.replace(tiny, **option)
    own = init_params(cfg, 2)
    tokens = np.array([PROMPT], np.int32)
    watched = apply(cfg, own, tokens, kernels=inspect._WATCHED)
    assert np.allclose(watched, apply(cfg, own, tokens), atol=1e-5)
    assert attention_patterns(cfg, own, PROMPT).shape[1] == cfg.n_heads


def test_a_long_prompt_is_seen_at_its_end(tiny, params):
    long = np.arange(3 * tiny.seq_len) % tiny.vocab_size
    patterns = attention_patterns(tiny, params, long)
    assert patterns.shape[-1] == tiny.seq_len
    assert np.array_equal(patterns, attention_patterns(tiny, params, long[-tiny.seq_len :]))


def test_no_prompt_and_own_attention_are_refused(tiny, params):
    with pytest.raises(ValueError, match="give one token"):
        attention_patterns(tiny, params, [])
    own = dataclasses.replace(tiny, attention=f"idea.py:Attention@{'0' * 64}")
    with pytest.raises(ValueError, match="a module of one's own"):
        attention_patterns(own, params, PROMPT)


def test_the_plane_holds_what_varies_most():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((50, 6)) * np.array([5.0, 2.0, 0.1, 0.1, 0.1, 0.1]) + 7
    plane, shares = embedding_plane({"token_embedding": table})
    off = table - table.mean(0)
    assert np.abs(np.corrcoef(plane[:, 0], off[:, 0])[0, 1]) > 0.999
    assert shares == pytest.approx(plane.var(0) / off.var(0).sum())
    assert shares.sum() > 0.99
    again, _ = embedding_plane({"token_embedding": table[:, ::-1]})
    assert np.allclose(plane, again), "a component has a sign of its own"


def test_a_table_of_one_column_has_a_plane():
    plane, shares = embedding_plane({"token_embedding": np.arange(4.0)[:, None]})
    assert plane.shape == (4, 2) and shares == pytest.approx([1, 0])


def test_probabilities_are_those_of_the_next_token_table(tiny, params):
    found = next_token_probabilities(tiny, params, PROMPT)
    assert found.sum() == pytest.approx(1)
    for token, probability in next_token_table(tiny, params, PROMPT, 5):
        assert found[token] == pytest.approx(probability, rel=1e-5)
