"""Two ways to bring batches to a step; both only gather what `batches.window_ids` names.

Host: Grain's MapDataset over step numbers, gathered by threads ahead of time, each process its own
rows. Device: the tokens lie on the device and are gathered there, also inside a scanned step.
docs/data.md says what each costs, and docs/decisions.md what the trainer does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train.data.batches import gather, window_ids

_LAST_STEP = 2**31 - 1


@dataclass(frozen=True)
class BatchOrder:
    """Which windows make up batch k: the arguments of `batches.window_ids`, and their length."""

    batch_size: int
    n_windows: int
    n_windows_unique: int
    seed: int
    seq_len: int

    def window_ids(self, steps: int | np.ndarray) -> np.ndarray:
        """Windows of a batch, or of several."""
        return window_ids(
            steps,
            batch_size=self.batch_size,
            n_windows=self.n_windows,
            n_windows_unique=self.n_windows_unique,
            seed=self.seed,
        )


def host_batches(
    tokens: np.ndarray,
    order: BatchOrder,
    *,
    first_step: int = 0,
    process: tuple[int, int] = (0, 1),
    n_threads: int = 2,
    n_ahead: int = 8,
) -> Iterator[np.ndarray]:
    """Batches from a step on, int32 of shape (rows, seq_len + 1), without end.

    Args:
        process: index and count of the processes; each gets an even share of a batch's rows.
        n_threads, n_ahead: how many gather, and how many batches lie ready; they change nothing.
    Raises: ValueError: a batch cannot be cut into even shares.
    """
    import grain

    index, count = process
    if order.batch_size % count:
        raise ValueError(
            f"batch_size={order.batch_size} cannot be shared by {count} processes; use a multiple"
        )
    share = order.batch_size // count
    rows = slice(index * share, (index + 1) * share)

    def batch(step: int) -> np.ndarray:
        return gather(tokens, order.window_ids(int(step))[rows], order.seq_len)

    steps = grain.MapDataset.range(first_step, _LAST_STEP)
    options = grain.ReadOptions(num_threads=n_threads, prefetch_buffer_size=n_ahead)
    return iter(steps.map(batch).to_iter_dataset(options))


def place_on_device(tokens: np.ndarray, device: Any) -> jax.Array:
    """The tokens of a split on a device, in the bytes a token that they take on disk.

    Args:
        device: a jax.Device.
    Raises: ValueError: there are too many to be indexed with 32 bits.
    """
    if len(tokens) > _LAST_STEP:
        raise ValueError(f"{len(tokens)} tokens cannot lie on a device; use host_batches")
    return jax.device_put(np.asarray(tokens), device)


def gather_on_device(tokens: jax.Array, window_ids: jax.Array, seq_len: int) -> jax.Array:
    """`batches.gather` as traced code: int32 of shape (*window_ids.shape, seq_len + 1).

    Args:
        window_ids: int32, such as one row of a scan's input.
    """
    within = jnp.arange(seq_len + 1, dtype=jnp.int32).reshape((1,) * window_ids.ndim + (-1,))
    places = window_ids[..., None] * jnp.int32(seq_len) + within
    return tokens.at[places].get(mode="promise_in_bounds").astype(jnp.int32)
