"""What goes on inside a model, as arrays: attention and token embeddings."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import jax
import jax.numpy as jnp
import numpy as np

from model.config import ModelConfig
from model.functional import Params, apply
from model.kernels import PLAIN
from model.sampling import checked_prompt

_SEEN: ContextVar[list[jax.Array] | None] = ContextVar("_SEEN", default=None)


def attention_patterns(
    cfg: ModelConfig,
    params: Params,
    prompt_T: Sequence[int] | np.ndarray,
    parametrization: str = "standard",
) -> np.ndarray:
    """How much each position attends to each: (n_layers, n_heads, T, T), rows sum to one.

    Of a prompt longer than seq_len the last seq_len tokens are seen.

    Raises: ValueError: the prompt is no sequence of token ids, or the model has attention of a
        user's own, of which nothing is known.
    """
    if {"block", "attention"} & set(cfg.parts):
        raise ValueError(
            f"attention={cfg.block or cfg.attention} is a module of one's own, whose patterns are "
            "not known; inspect a model without it"
        )
    tokens = checked_prompt(cfg, prompt_T)[-cfg.seq_len :]
    return np.asarray(_patterns(cfg, parametrization, params, tokens[None]))


def embedding_plane(params: Params) -> tuple[np.ndarray, np.ndarray]:
    """Token embeddings in the plane of their first two principal components.

    Returns: (V, 2) float64, and the share of the variance that each component holds (2,).
    """
    table = np.asarray(params["token_embedding"], np.float64)
    table = table - table.mean(0)
    left, singular, _ = np.linalg.svd(table, full_matrices=False)
    plane, shares = left[:, :2] * singular[:2], singular**2 / (singular**2).sum()
    plane = np.pad(plane, ((0, 0), (0, max(2 - plane.shape[1], 0))))
    # A component has no sign of its own: its largest entry is made positive.
    signs = np.sign(plane[np.abs(plane).argmax(0), [0, 1]])
    return plane * np.where(signs == 0, 1.0, signs), np.pad(shares, (0, 1))[:2]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _patterns(
    cfg: ModelConfig, parametrization: str, params: Params, tokens_BT: jax.Array
) -> jax.Array:
    with _recording() as seen:
        apply(cfg, params, tokens_BT, kernels=_WATCHED, parametrization=parametrization)
    return jnp.concatenate(seen)


@contextlib.contextmanager
def _recording() -> Iterator[list[jax.Array]]:
    """A list that takes the attention of every layer traced meanwhile, first layer first."""
    seen: list[jax.Array] = []
    token = _SEEN.set(seen)
    try:
        yield seen
    finally:
        _SEEN.reset(token)


def _watched_attention(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array) -> jax.Array:
    """Causal attention as model.kernels defines it, step by step, its weights noted."""
    T, d_head = q_BTHK.shape[1], q_BTHK.shape[-1]
    scores_BHTS = jnp.einsum("bthk,bshk->bhts", q_BTHK, k_BTHK) / np.sqrt(d_head).astype(np.float32)
    causal_TS = np.tril(np.ones((T, T), bool))[None, None]
    weights_BHTS = jax.nn.softmax(jnp.where(causal_TS, scores_BHTS, -jnp.inf), axis=-1)
    if (seen := _SEEN.get()) is not None:
        seen.append(weights_BHTS)
    return jnp.einsum("bhts,bshk->bthk", weights_BHTS, v_BTHK)


_WATCHED = PLAIN._replace(name="watched", attention=_watched_attention)
