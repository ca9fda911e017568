"""Text from a trained model: next-token probabilities, and generation.

Generation keeps the keys and values of what it has seen (model.caching), so that a token costs one
pass of one token; pass, draw and the way back to the next pass are one compiled loop. Once a text
is longer than the model's context, its tokens no longer stand at the places at which their keys
were formed: from there on every token costs a pass over a whole window.
"""

import functools
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from model.caching import KeysAndValues, Past, no_tokens, of_next_token, of_prompts
from model.config import ModelConfig
from model.drawing import FROM_ALL, Choice, Draws, Form, choice, drawn, generators, noise
from model.functional import Params, features
from model.kernels import kernels_for, soft_cap

Prompt = Sequence[int] | np.ndarray

_Generators = Sequence[np.random.Generator]

_SHORTEST = 64
_MOST_AT_ONCE = 32
"""Tokens that the compiled loop draws at most before they are looked at."""
_PAUSE_S = 0.05
"""Time between two looks that nobody who reads along minds."""


def next_token_table(
    cfg: ModelConfig,
    params: Params,
    prompt_T: Prompt,
    k: int,
    parametrization: str = "standard",
) -> list[tuple[int, float]]:
    """The `k` most likely next tokens with their probabilities, most likely first.

    Raises: ValueError: k is not in 1..vocab_size, or the prompt is no sequence of token ids.
    """
    if not 1 <= k <= cfg.vocab_size:
        raise ValueError(f"k={k} is not between 1 and vocab_size={cfg.vocab_size}")
    probabilities = next_token_probabilities(cfg, params, prompt_T, parametrization)
    order = np.argsort(-probabilities, kind="stable")[:k]
    return [(int(token), float(probabilities[token])) for token in order]


def next_token_probabilities(
    cfg: ModelConfig,
    params: Params,
    prompt_T: Prompt,
    parametrization: str = "standard",
) -> np.ndarray:
    """Probability of every token after a prompt, of which the last seq_len are seen: (V,) float64.

    Raises: ValueError: the prompt is no sequence of token ids.
    """
    windows_BT, n_seen_B = _windows(cfg, [checked_prompt(cfg, prompt_T)])
    logits = _window_logits(cfg, parametrization, params, windows_BT, n_seen_B)
    weights = np.exp(np.asarray(logits[0], np.float64) - float(logits.max()))
    return weights / weights.sum()


def generate(
    cfg: ModelConfig,
    params: Params,
    prompts: Sequence[Prompt],
    *,
    n_tokens: int,
    draws: Draws = FROM_ALL,
    stop: int | None = None,
    parametrization: str = "standard",
) -> list[np.ndarray]:
    """What follows each prompt: at most `n_tokens` tokens, int32, without the prompt.

    Args:
        prompts: of any lengths; of a text longer than seq_len the last seq_len tokens are seen.
        stop: the token with which a continuation ends; it is the last one of it.
    Raises: ValueError: an argument is out of its range; the message names it.
    """
    found: list[list[int]] = [[] for _ in prompts]
    for tokens in generated(
        cfg, params, prompts,
        n_tokens=n_tokens, draws=draws, stop=stop, parametrization=parametrization,
    ):  # fmt: skip
        for continuation, token in zip(found, tokens, strict=True):
            if token is not None:
                continuation.append(token)
    return [np.array(continuation, np.int32) for continuation in found]


def generated(
    cfg: ModelConfig,
    params: Params,
    prompts: Sequence[Prompt],
    *,
    n_tokens: int,
    draws: Draws = FROM_ALL,
    stop: int | None = None,
    parametrization: str = "standard",
    is_cached: bool = True,
) -> Iterator[list[int | None]]:
    """As `generate`, token by token: of each prompt its next one, None once it has stopped.

    Args: is_cached: False for a pass over the whole window for every token, which gives the same
        tokens slowly. A model with a part of a user's own always has that: nothing says that its
        past can be kept as keys and values.
    """
    if not len(prompts):
        raise ValueError("there is no prompt; give at least one")
    _check(cfg, n_tokens, draws, stop)
    texts = [checked_prompt(cfg, prompt) for prompt in prompts]
    model = _Model(cfg, parametrization, draws.form, jax.device_put(params))
    by, rngs = choice(draws, cfg.vocab_size), generators(draws.seed, len(texts))
    n_kept = cfg.seq_len + 1 - max(map(len, texts)) if is_cached and not cfg.parts else 0
    is_live = [True] * len(texts)
    for tokens_B in _all_drawn(model, texts, by, rngs, n_tokens, min(max(n_kept, 0), n_tokens)):
        told = [int(token) if live else None for token, live in zip(tokens_B, is_live, strict=True)]
        yield told
        is_live = [token not in (None, stop) for token in told]
        if not any(is_live):
            return


class _Model(NamedTuple):
    """What every compiled pass begins with; all but the parameters are static."""

    cfg: ModelConfig
    parametrization: str
    form: Form
    params: Params


def _all_drawn(
    model: _Model,
    texts: list[np.ndarray],
    by: Choice,
    rngs: _Generators,
    n_tokens: int,
    n_kept: int,
) -> Iterator[np.ndarray]:
    """The next token of each text: the first n_kept with a past, the others over windows."""
    since = []
    for tokens_B in _drawn_with_past(model, texts, by, rngs, n_kept) if n_kept else ():
        since.append(tokens_B)
        yield tokens_B
    if n_kept < n_tokens and since:
        texts = [np.append(*each) for each in zip(texts, np.stack(since, axis=1), strict=True)]
    for _ in range(n_kept, n_tokens):
        one_NBV = noise(model.form, rngs, 1, 1, model.cfg.vocab_size)
        windows = _windows(model.cfg, texts)
        tokens_B = np.asarray(_drawn_over_windows(*model, *windows, by, one_NBV[0]))
        yield tokens_B
        texts = [np.append(text, token) for text, token in zip(texts, tokens_B, strict=True)]


def _drawn_with_past(
    model: _Model, texts: list[np.ndarray], by: Choice, rngs: _Generators, n_tokens: int
) -> Iterator[np.ndarray]:
    """Tokens that all fit into the context, in batches of as many as a short pause allows."""
    longest = max(map(len, texts))
    tokens_BT, n_B = _padded(texts, _rounded(longest, model.cfg))
    capacity = _rounded(longest + n_tokens - 1, model.cfg)
    one_NBV = noise(model.form, rngs, 1, 1, model.cfg.vocab_size)
    tokens_B, past = _drawn_after_prompts(*model, capacity, tokens_BT, n_B, by, one_NBV[0])
    yield np.asarray(tokens_B)
    n_done, n_steps = 1, 1
    while n_done < n_tokens:
        started, n_steps = time.monotonic(), min(n_steps, n_tokens - n_done)
        noise_NBV = noise(model.form, rngs, n_steps, _MOST_AT_ONCE, model.cfg.vocab_size)
        tokens_B, past, found_BN = _drawn_in_turn(
            *model, past, tokens_B, n_B, by, noise_NBV, np.int32(n_done), np.int32(n_steps)
        )
        yield from np.asarray(found_BN).T[:n_steps]
        n_done += n_steps
        is_quick = time.monotonic() - started < _PAUSE_S
        n_steps = min(2 * n_steps, _MOST_AT_ONCE) if is_quick else max(n_steps // 2, 1)


def _padded(texts: list[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Texts as one array, and how many tokens of each are no padding."""
    tokens_BT = np.zeros((len(texts), width), np.int32)
    for row, text in zip(tokens_BT, texts, strict=True):
        row[: len(text)] = text
    return tokens_BT, np.array([len(text) for text in texts], np.int32)


def _windows(cfg: ModelConfig, texts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The last seq_len tokens of each text, and how many they are; one shape for all lengths."""
    return _padded([text[-cfg.seq_len :] for text in texts], cfg.seq_len)


def _rounded(n_tokens: int, cfg: ModelConfig) -> int:
    """A length that texts of many lengths share, so that they share a compilation."""
    return min(max(_SHORTEST, 1 << (n_tokens - 1).bit_length()), cfg.seq_len)


def _last_logits(
    cfg: ModelConfig,
    parametrization: str,
    params: Params,
    tokens_BT: jax.Array,
    n_B: jax.Array,
    pasts: Sequence[Past] | None = None,
) -> jax.Array:
    """Logits of the token after the first n_B of each row: what is behind them is padding."""
    kernels = kernels_for(jax.default_backend())
    x_BTD, w_VD = features(
        cfg, params, tokens_BT, kernels=kernels, parametrization=parametrization, pasts=pasts
    )
    x_BD = x_BTD[jnp.arange(len(n_B)), n_B - 1]
    return soft_cap(x_BD @ w_VD.T, cfg.logit_softcap)


_window_logits = jax.jit(_last_logits, static_argnums=(0, 1))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _drawn_over_windows(
    cfg: ModelConfig,
    parametrization: str,
    form: Form,
    params: Params,
    windows_BT: jax.Array,
    n_B: jax.Array,
    by: Choice,
    noise_BV: jax.Array,
) -> jax.Array:
    logits_BV = _last_logits(cfg, parametrization, params, windows_BT, n_B)
    return drawn(form, logits_BV, by, noise_BV)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 4))
def _drawn_after_prompts(
    cfg: ModelConfig,
    parametrization: str,
    form: Form,
    params: Params,
    capacity: int,
    tokens_BT: jax.Array,
    n_B: jax.Array,
    by: Choice,
    noise_BV: jax.Array,
) -> tuple[jax.Array, list[KeysAndValues]]:
    """The first token of each prompt, and the keys and values of all prompts."""
    empty = no_tokens(cfg, len(n_B), capacity, params["token_embedding"].dtype)
    where = of_prompts(len(n_B), tokens_BT.shape[1], capacity)
    pasts = [Past(stored, where) for stored in empty]
    logits_BV = _last_logits(cfg, parametrization, params, tokens_BT, n_B, pasts)
    return drawn(form, logits_BV, by, noise_BV), [each.stored for each in pasts]


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _drawn_in_turn(
    cfg: ModelConfig,
    parametrization: str,
    form: Form,
    params: Params,
    past: list[KeysAndValues],
    tokens_B: jax.Array,
    n_B: jax.Array,
    by: Choice,
    noise_NBV: jax.Array,
    n_done: jax.Array,
    n_steps: jax.Array,
) -> tuple[jax.Array, list[KeysAndValues], jax.Array]:
    """Tokens n_done, n_done + 1, ... of each prompt, each from the one before: the compiled step.

    Returns: the last tokens, all keys and values, and the n_steps tokens in found_BN.
    """
    ones_B = jnp.ones_like(n_B)

    def one(i, carry):
        past, tokens_B, found_BN = carry
        where = of_next_token(n_B, n_done + i - 1, past[0][1].shape[1])
        pasts = [Past(stored, where) for stored in past]
        logits_BV = _last_logits(cfg, parametrization, params, tokens_B[:, None], ones_B, pasts)
        tokens_B = drawn(form, logits_BV, by, noise_NBV[i])
        return [each.stored for each in pasts], tokens_B, found_BN.at[:, i].set(tokens_B)

    found_BN = jnp.zeros((len(n_B), _MOST_AT_ONCE), jnp.int32)
    past, tokens_B, found_BN = lax.fori_loop(0, n_steps, one, (past, tokens_B, found_BN))
    return tokens_B, past, found_BN


def checked_prompt(cfg: ModelConfig, prompt_T: Prompt) -> np.ndarray:
    """A prompt as int32 tokens.

    Raises: ValueError: it is no sequence of the model's token ids.
    """
    prompt = np.asarray(prompt_T)
    if prompt.ndim != 1 or prompt.size == 0:
        raise ValueError(f"prompt of shape {prompt.shape} is no sequence of tokens; give one token")
    if not np.issubdtype(prompt.dtype, np.integer):
        raise ValueError(f"prompt of dtype {prompt.dtype} holds no token ids; use ints")
    outside = prompt[(prompt < 0) | (prompt >= cfg.vocab_size)]
    if outside.size:
        raise ValueError(
            f"prompt holds token {outside[0]}, outside vocab_size={cfg.vocab_size}; "
            f"use ids from 0 to {cfg.vocab_size - 1}"
        )
    return prompt.astype(np.int32)


def _check(cfg: ModelConfig, n_tokens: int, draws: Draws, stop: int | None) -> None:
    if n_tokens < 0:
        raise ValueError(f"n_tokens={n_tokens} is negative; use at least 0")
    if draws.top_k is not None and draws.top_k > cfg.vocab_size:
        raise ValueError(f"top_k={draws.top_k} is not between 1 and vocab_size={cfg.vocab_size}")
    if stop is not None and not 0 <= stop < cfg.vocab_size:
        raise ValueError(f"stop={stop} is no token; use an id from 0 to {cfg.vocab_size - 1}")
