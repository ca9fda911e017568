"""Keys and values of tokens that a model has seen, so that the next token need not see them again.

B prompts, T new tokens of each, S places for tokens, H heads, K d_head.
"""

import jax
import jax.numpy as jnp

from model.config import ModelConfig

KeysAndValues = tuple[jax.Array, jax.Array]


def no_tokens(cfg: ModelConfig, n_prompts: int, capacity: int, dtype) -> list[KeysAndValues]:
    """Room for the keys and values of `capacity` tokens of each prompt, by block."""
    shape = (n_prompts, cfg.n_heads, capacity, cfg.d_head)
    return [(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(cfg.n_layers)]


class Past:
    """One block's keys and values, and the places of the tokens that are new in this pass.

    A query sees the keys up to its own place. What lies behind the last token of a prompt, such as
    padding, is therefore never seen, and the tokens that come there write over it.

    Args: places_BT: counted from 0 in each prompt.
    """

    def __init__(self, stored: KeysAndValues, places_BT: jax.Array):
        self.stored = stored
        self.places_BT = places_BT
        self.capacity = stored[0].shape[2]

    def attend(self, q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array) -> jax.Array:
        """Add the new keys and values, and attend to all: `Kernels.attention` with a past."""
        prompts_B1 = jnp.arange(len(self.places_BT))[:, None]
        k_BHSK = self.stored[0].at[prompts_B1, :, self.places_BT].set(k_BTHK)
        v_BHSK = self.stored[1].at[prompts_B1, :, self.places_BT].set(v_BTHK)
        self.stored = k_BHSK, v_BHSK
        scores_BHTS = jnp.einsum("BTHK,BHSK->BHTS", q_BTHK, k_BHSK) * q_BTHK.shape[-1] ** -0.5
        is_seen_BTS = jnp.arange(self.capacity)[None, None] <= self.places_BT[:, :, None]
        scores_BHTS = jnp.where(is_seen_BTS[:, None], scores_BHTS, -jnp.inf)
        return jnp.einsum("BHTS,BHSK->BTHK", jax.nn.softmax(scores_BHTS), v_BHSK)
