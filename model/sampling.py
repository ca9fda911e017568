"""Text from a trained model: next-token probabilities, and generation.

Generation keeps the keys and values of what it has seen (model.caching), so that a token costs one
pass of one token. Once a text is longer than the model's context, its tokens no longer stand at the
places at which their keys were formed: from there on every token costs a pass over a whole window.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model.caching import KeysAndValues, Past, no_tokens
from model.config import ModelConfig
from model.functional import Params, apply, features
from model.kernels import soft_cap

Prompt = Sequence[int] | np.ndarray

_SHORTEST = 64


@dataclass(frozen=True)
class Draws:
    """How each next token is drawn: from softmax(logits / temperature), cut down to likely tokens.

    Args:
        temperature: 0 takes the most likely token (the lower id on a tie).
        top_k: only the k most likely tokens; None for all of them.
        top_p: of these, only as many of the most likely as have this probability together.
        seed: the same seed gives the same tokens; each prompt of a batch has draws of its own.

    Raises: ValueError: a value is out of its range; the message names it.
    Source: Fan et al. 2018, arXiv:1805.04833, section 5.1 (top-k); Holtzman et al. 2020,
        arXiv:1904.09751, section 3.1 (top-p).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(
                f"temperature={self.temperature} is no finite number >= 0; use 0 for the most "
                "likely token"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} leaves no token; use at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} is no probability above 0; use one up to 1")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed} is outside 0..2**32 - 1; use one of these")


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
    draws: Draws = Draws(),
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
    draws: Draws = Draws(),
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
    rngs = [np.random.default_rng([draws.seed, i]) for i in range(len(texts))]
    is_live, past, params = [True] * len(texts), None, jax.device_put(params)
    for step in range(n_tokens):
        longest = max(map(len, texts))
        if not is_cached or cfg.parts or longest > cfg.seq_len:
            logits_BV = _window_logits(cfg, parametrization, params, *_windows(cfg, texts))
        else:
            new = _padded(texts, _rounded(longest, cfg)) if past is None else _last_tokens(texts)
            past = past or _no_tokens(cfg, params, len(texts), longest + n_tokens - step)
            logits_BV, past = _cached_logits(cfg, parametrization, params, past, *new)
        rows = np.asarray(logits_BV, np.float64)
        drawn = [
            _draw(logits, draws, rng) if live else None
            for logits, rng, live in zip(rows, rngs, is_live, strict=True)
        ]
        yield drawn
        is_live = [token not in (None, stop) for token in drawn]
        if not any(is_live):
            return
        texts = [
            text if token is None or token == stop else np.append(text, np.int32(token))
            for text, token in zip(texts, drawn, strict=True)
        ]


def _draw(logits_V: np.ndarray, draws: Draws, rng: np.random.Generator) -> int:
    if draws.temperature == 0:
        return int(np.argmax(logits_V))
    candidates = np.arange(len(logits_V))
    if draws.top_k is not None or draws.top_p is not None:
        candidates = np.argsort(-logits_V, kind="stable")[: draws.top_k]
    if draws.top_p is not None:
        with np.errstate(over="ignore"):  # a vanishing temperature leaves the first alone
            weights = np.exp((logits_V[candidates] - logits_V.max()) / draws.temperature)
        before = (np.cumsum(weights) - weights) / weights.sum()
        candidates = candidates[before < draws.top_p]
    # The argmax under Gumbel noise is a draw from the softmax; scaling the noise instead of
    # dividing the logits holds for every temperature, the tiniest included.
    noise = draws.temperature * rng.gumbel(size=len(candidates))
    return int(candidates[np.argmax(logits_V[candidates] + noise)])


class _New(NamedTuple):
    """Tokens of a pass, the place of each prompt's first one, and how many are no padding."""

    tokens_BT: np.ndarray
    first_B: np.ndarray
    n_B: np.ndarray


def _padded(texts: list[np.ndarray], width: int) -> _New:
    tokens_BT = np.zeros((len(texts), width), np.int32)
    for row, text in zip(tokens_BT, texts, strict=True):
        row[: len(text)] = text
    n_B = np.array([len(text) for text in texts], np.int32)
    return _New(tokens_BT, np.zeros_like(n_B), n_B)


def _last_tokens(texts: list[np.ndarray]) -> _New:
    first_B = np.array([len(text) - 1 for text in texts], np.int32)
    return _New(np.stack([text[-1:] for text in texts]), first_B, np.ones_like(first_B))


def _windows(cfg: ModelConfig, texts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The last seq_len tokens of each text, and how many they are; one shape for all lengths."""
    new = _padded([text[-cfg.seq_len :] for text in texts], cfg.seq_len)
    return new.tokens_BT, new.n_B


def _rounded(n_tokens: int, cfg: ModelConfig) -> int:
    """A length that texts of many lengths share, so that they share a compilation."""
    return min(max(_SHORTEST, 1 << (n_tokens - 1).bit_length()), cfg.seq_len)


def _no_tokens(cfg: ModelConfig, params: Params, n_prompts: int, n_tokens: int):
    return no_tokens(cfg, n_prompts, _rounded(n_tokens, cfg), params["token_embedding"].dtype)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _window_logits(
    cfg: ModelConfig,
    parametrization: str,
    params: Params,
    windows_BT: jax.Array,
    n_B: jax.Array,
) -> jax.Array:
    # What is behind a text is padding, and no earlier position sees it.
    logits_BTV = apply(cfg, params, windows_BT, parametrization=parametrization)
    return logits_BTV[jnp.arange(len(n_B)), n_B - 1]


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _cached_logits(
    cfg: ModelConfig,
    parametrization: str,
    params: Params,
    past: list[KeysAndValues],
    tokens_BT: jax.Array,
    first_B: jax.Array,
    n_B: jax.Array,
) -> tuple[jax.Array, list[KeysAndValues]]:
    places_BT = first_B[:, None] + jnp.arange(tokens_BT.shape[1])[None]
    pasts = [Past(stored, places_BT) for stored in past]
    x_BTD, w_VD = features(cfg, params, tokens_BT, parametrization=parametrization, pasts=pasts)
    x_BD = x_BTD[jnp.arange(len(n_B)), n_B - 1]
    return soft_cap(x_BD @ w_VD.T, cfg.logit_softcap), [each.stored for each in pasts]


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
