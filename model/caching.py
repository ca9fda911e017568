"""Keys and values of tokens that a model has seen, so that the next token need not see them again.

B prompts, T new tokens of each, S slots for tokens, H heads, K d_head.

A slot is where the keys and values of a token lie; its place is where it stands in its text. Texts
of a batch may differ in length, but their next tokens share a slot, so that all are written at
once, as one block: the prompts lie in the slots from 0 on, the shorter ones with a gap behind.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from model.config import ModelConfig

KeysAndValues = tuple[jax.Array, jax.Array]


def no_tokens(cfg: ModelConfig, n_prompts: int, capacity: int, dtype) -> list[KeysAndValues]:
    """Room for the keys and values of `capacity` tokens of each prompt, by block.

    Keys lie as NKS and values as NSK, N = B * H, as the products with them read them.
    """
    N, K, S = n_prompts * cfg.n_heads, cfg.d_head, capacity
    return [(jnp.zeros((N, K, S), dtype), jnp.zeros((N, S, K), dtype)) for _ in range(cfg.n_layers)]


class Where(NamedTuple):
    """The tokens of one pass: places in their texts, their first slot, and the slots they see."""

    places_BT: jax.Array
    slot: jax.Array
    is_seen_BTS: jax.Array


def of_prompts(n_prompts: int, width: int, capacity: int) -> Where:
    """Prompts in the first slots; padding behind a shorter one is seen by padding alone."""
    places_BT = jnp.broadcast_to(jnp.arange(width)[None], (n_prompts, width))
    is_seen_TS = jnp.arange(capacity)[None] <= jnp.arange(width)[:, None]
    is_seen_BTS = jnp.broadcast_to(is_seen_TS[None], (n_prompts, width, capacity))
    return Where(places_BT, jnp.int32(0), is_seen_BTS)


def of_next_token(n_B: jax.Array, step: jax.Array, capacity: int) -> Where:
    """The step-th token (from 0) after prompts of n_B tokens: it sees its prompt and what is since.

    The slots from the longest prompt's end on hold what came since.
    """
    slots_S, since = jnp.arange(capacity)[None], jnp.max(n_B)
    is_since_S = (since <= slots_S) & (slots_S <= since + step)
    is_seen_BS = (slots_S < n_B[:, None]) | is_since_S
    return Where((n_B + step)[:, None], since + step, is_seen_BS[:, None])


class Past:
    """One block's keys and values, and where the tokens are that are new in this pass."""

    def __init__(self, stored: KeysAndValues, where: Where):
        self.stored, self.where = stored, where
        self.places_BT = where.places_BT
        self.capacity = stored[1].shape[1]

    def attend(self, q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array) -> jax.Array:
        """Add the new keys and values, and attend to all: `Kernels.attention` with a past."""
        B, T, H, K = q_BTHK.shape
        slot = self.where.slot
        k_NKT = k_BTHK.transpose(0, 2, 3, 1).reshape(B * H, K, T)
        q_NTK, v_NTK = (x.transpose(0, 2, 1, 3).reshape(B * H, T, K) for x in (q_BTHK, v_BTHK))
        # Products read what is kept as it lies: XLA:CPU would copy all of it to reshape it.
        k_NKS = lax.dynamic_update_slice(self.stored[0], k_NKT, (0, 0, slot))
        v_NSK = lax.dynamic_update_slice(self.stored[1], v_NTK, (0, slot, 0))
        self.stored = k_NKS, v_NSK
        scores_BHTS = jnp.einsum("NTK,NKS->NTS", q_NTK, k_NKS).reshape(B, H, T, -1) * K**-0.5
        scores_BHTS = jnp.where(self.where.is_seen_BTS[:, None], scores_BHTS, -jnp.inf)
        weights_NTS = jax.nn.softmax(scores_BHTS).reshape(B * H, T, -1)
        y_NTK = jnp.einsum("NTS,NSK->NTK", weights_NTS, v_NSK)
        return y_NTK.reshape(B, H, T, K).transpose(0, 2, 1, 3)
