"""How each next token is drawn from logits; the draw is a part of the compiled step.

Its noise is not: it comes from the host, from one numpy generator a prompt. Random bits by jax take
a second to compile in every step that they are part of.

B prompts, N steps, V tokens of the vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Form = Literal["likeliest", "all", "likely"]
"""The likeliest token; a draw from all tokens; a draw from the likely ones, which sorts them."""

_COLDEST, _HOTTEST = 1e-30, 1e30
"""Temperatures that float32 can divide logits by; beyond them draws are greedy, or even."""


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

    @property
    def form(self) -> Form:
        """Static in a compiled step, so that only what is asked for is computed."""
        if self.temperature == 0 or self.top_k == 1:
            return "likeliest"
        is_cut = self.top_k is not None or (self.top_p is not None and self.top_p < 1)
        return "likely" if is_cut else "all"


FROM_ALL = Draws()
"""By the model's own probabilities."""


class Choice(NamedTuple):
    """The numbers of a draw as arguments of a compiled step."""

    temperature: np.float32
    top_k: np.int32
    top_p: np.float32


def choice(draws: Draws, vocab_size: int) -> Choice:
    """What `drawn` needs of `draws`."""
    return Choice(
        np.float32(min(max(draws.temperature, _COLDEST), _HOTTEST)),
        np.int32(min(draws.top_k or vocab_size, vocab_size)),
        np.float32(1.0 if draws.top_p is None else draws.top_p),
    )


def generators(seed: int, n_prompts: int) -> list[np.random.Generator]:
    """The source of each prompt's draws, whatever the other prompts are."""
    return [np.random.default_rng([seed, i]) for i in range(n_prompts)]


def noise(
    form: Form, rngs: Sequence[np.random.Generator], n_steps: int, n_most: int, vocab_size: int
) -> np.ndarray:
    """Gumbel noise of the next n_steps in an array for n_most, [N, B, V]; greedy needs none."""
    if form == "likeliest":
        return np.zeros((n_most, len(rngs), 1), np.float32)
    found_NBV = np.zeros((n_most, len(rngs), vocab_size), np.float32)
    for b, rng in enumerate(rngs):
        # An exponential variable of exactly zero would be noise without end.
        waits_NV = rng.standard_exponential((n_steps, vocab_size), np.float32)
        found_NBV[:n_steps, b] = -np.log(np.maximum(waits_NV, np.finfo(np.float32).tiny))
    return found_NBV


def drawn(form: Form, logits_BV: jax.Array, by: Choice, noise_BV: jax.Array) -> jax.Array:
    """The next token of each prompt, int32.

    The argmax under Gumbel noise is a draw from the softmax.
    """
    if form == "likeliest":
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    noise_BV = by.temperature * noise_BV
    if form == "all":
        return jnp.argmax(logits_BV + noise_BV, axis=-1).astype(jnp.int32)
    order_BV = jnp.argsort(-logits_BV, axis=-1, stable=True)
    sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
    is_kept_BV = (jnp.arange(logits_BV.shape[1]) < by.top_k)[None]
    weights_BV = jnp.exp((sorted_BV - sorted_BV[:, :1]) / by.temperature)
    weights_BV = jnp.where(is_kept_BV, weights_BV, 0)
    before_BV = jnp.cumsum(weights_BV, axis=-1) - weights_BV
    # The likeliest stays whatever rounding says; a top_p of 1 leaves none out.
    is_within_BV = before_BV < by.top_p * jnp.sum(weights_BV, axis=-1, keepdims=True)
    is_kept_BV = is_kept_BV & (is_within_BV | (by.top_p == 1))
    at_B = jnp.argmax(jnp.where(is_kept_BV, sorted_BV + noise_BV, -jnp.inf), axis=-1)
    return jnp.take_along_axis(order_BV, at_B[:, None], axis=-1)[:, 0].astype(jnp.int32)
