"""Which windows of a token file make up batch k, as a pure function of the data spec and k.

Nothing here knows how long a run is, so a longer run begins with the batches of a shorter one, and
a resumed run needs no state but its step. The order of windows is a keyed permutation evaluated at
single points (a Feistel network with cycle walking): no shuffled list is ever held in memory.
"""

from functools import lru_cache

import numpy as np

_MASK_64 = (1 << 64) - 1
_GOLDEN_64 = 0x9E3779B97F4A7C15
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
_SHIFT = np.uint64(32)
_N_ROUNDS = 6
_BLOCK_STEPS = 64


def n_windows(n_tokens: int, seq_len: int) -> int:
    """Number of whole windows in a token file.

    A window is seq_len + 1 tokens (inputs and shifted targets); windows start every seq_len tokens,
    so each token but the first is a target exactly once, save a tail shorter than seq_len.

    Returns: a count, 0 if the file is shorter than one window.
    Raises: ValueError: seq_len < 1.
    """
    if seq_len < 1:
        raise ValueError(f"seq_len={seq_len} is not positive; use at least 1")
    return max(0, n_tokens - 1) // seq_len


def window_ids(
    steps: int | np.integer | np.ndarray,
    *,
    batch_size: int,
    n_windows: int,
    n_windows_unique: int,
    seed: int,
) -> np.ndarray:
    """Windows of one batch, or of several.

    The first epoch visits the first n_windows_unique windows of a permutation of all n_windows
    that depends on the seed alone; each later epoch visits the same windows in an order of its own.
    A batch may straddle two epochs. With a smaller budget of unique windows the first epoch is
    therefore a prefix of the order with a larger one.

    Args:
        steps: batch number(s) k >= 0, an int or an integer array of shape (n_steps,).
        batch_size: windows in a batch, >= 1.
        n_windows: windows in the training file, >= 1.
        n_windows_unique: different windows that may be used, 1 to n_windows.
        seed: seed_data of the run, any non-negative integer below 2**64.
    Returns: int64 of shape (batch_size,), or (n_steps, batch_size) for an array of steps.
    Raises: ValueError: a count or the seed is out of its range, or a step is negative.
    """
    if isinstance(steps, int | np.integer):
        if steps < 0:
            raise ValueError(f"step {steps} is negative; steps count from 0")
        spec = (batch_size, n_windows, n_windows_unique, seed)
        block, row = divmod(int(steps), _BLOCK_STEPS)
        return _block_of_batches(block, *spec)[row].copy()
    return _batches(steps, batch_size, n_windows, n_windows_unique, seed)


@lru_cache(maxsize=64)
def _block_of_batches(block: int, *spec: int) -> np.ndarray:
    # numpy costs some 300 microseconds a call whatever the size: 64 batches share one call.
    steps = np.arange(block * _BLOCK_STEPS, (block + 1) * _BLOCK_STEPS)
    return _batches(steps, *spec)


def _batches(
    steps: np.ndarray, batch_size: int, n_windows: int, n_windows_unique: int, seed: int
) -> np.ndarray:
    _check_spec(batch_size, n_windows, n_windows_unique, seed)
    if steps.size and steps.min() < 0:
        raise ValueError(f"step {steps.min()} is negative; steps count from 0")
    positions = steps[..., None] * np.int64(batch_size) + np.arange(batch_size)
    epochs, offsets = np.divmod(positions, n_windows_unique)
    if epochs.any():
        shuffled = permute(offsets, n_windows_unique, seed=seed, epoch=epochs)
        offsets = np.where(epochs == 0, offsets, shuffled)
    return permute(offsets, n_windows, seed=seed, epoch=0)


def gather(tokens: np.ndarray, window_ids: np.ndarray, seq_len: int) -> np.ndarray:
    """Read windows: inputs are [..., :-1] of the result, targets [..., 1:].

    Returns: int32 of shape (*window_ids.shape, seq_len + 1).
    Raises: IndexError: a window lies beyond the end of the tokens.
    """
    positions = window_ids[..., None] * seq_len + np.arange(seq_len + 1)
    return tokens[positions].astype(np.int32)


def target_positions(window_ids: np.ndarray, seq_len: int) -> np.ndarray:
    """Place in the token file of each target token: int64 of shape (*window_ids.shape, seq_len)."""
    return window_ids[..., None] * seq_len + np.arange(1, seq_len + 1)


def permute(index: np.ndarray, n: int, *, seed: int, epoch: int | np.ndarray) -> np.ndarray:
    """Image of each index under a pseudo-random permutation of range(n).

    An index is split into two digits of base a = ceil(sqrt(n)). Each round maps (left, right) to
    (right, left + F(right) mod a), a bijection of range(a * a); indices that land outside range(n)
    go round again until they are inside (cycle walking), which keeps it a bijection.

    Args:
        index: integers in range(n), any shape with at least one axis.
        n: size of the permuted set, >= 1 and below 2**52.
        seed, epoch: name the permutation; epoch may be an array that broadcasts against index.
    Returns: int64, the shape of index.
    Source: Black and Rogaway 2002, Ciphers with arbitrary finite domains, sections 4 and 5;
        round function after Steele et al. 2014 (SplitMix64).
    """
    base = np.uint64(_ceil_sqrt(n))
    epochs = np.broadcast_to(epoch, index.shape).astype(np.uint64)
    tweak = _mix(epochs * np.uint64(_GOLDEN_64))
    values = _rounds(index.astype(np.uint64), base, tweak, seed)
    outside = values >= n
    while outside.any():
        values[outside] = _rounds(values[outside], base, tweak[outside], seed)
        outside = values >= n
    return values.astype(np.int64)


def _rounds(values: np.ndarray, base: np.uint64, tweak: np.ndarray, seed: int) -> np.ndarray:
    left, right = np.divmod(values, base)
    for key in _round_keys(seed):
        left, right = right, (left + _mix(right + tweak + key) % base) % base
    return left * base + right


def _mix(values: np.ndarray) -> np.ndarray:
    # Arrays wrap modulo 2**64 silently, which scalars do not: values has at least one axis.
    values = (values ^ (values >> _SHIFT)) * _MIX_A
    values = (values ^ (values >> _SHIFT)) * _MIX_B
    return values ^ (values >> _SHIFT)


@lru_cache(maxsize=64)
def _round_keys(seed: int) -> tuple[np.uint64, ...]:
    state = np.array([seed], dtype=np.uint64)
    keys = []
    for _ in range(_N_ROUNDS):
        state = _mix(state + np.uint64(_GOLDEN_64))
        keys.append(np.uint64(state[0]))
    return tuple(keys)


def _ceil_sqrt(n: int) -> int:
    root = int(np.sqrt(n))
    while root * root < n:
        root += 1
    return root


def _check_spec(batch_size: int, n_windows: int, n_windows_unique: int, seed: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is not positive; use at least 1")
    if not 1 <= n_windows < 1 << 52:
        raise ValueError(
            f"n_windows={n_windows} cannot be shuffled; the text must hold at least one window of "
            "seq_len + 1 tokens (use a shorter seq_len or more text)"
        )
    if not 1 <= n_windows_unique <= n_windows:
        raise ValueError(
            f"n_windows_unique={n_windows_unique} is outside 1..{n_windows}; a budget of unique "
            "windows cannot exceed the windows of the corpus"
        )
    if not 0 <= seed <= _MASK_64:
        raise ValueError(f"seed={seed} is outside 0..2**64-1; use a non-negative integer")
