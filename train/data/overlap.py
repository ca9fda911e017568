"""How much of a held-out split's text occurs in training: a check for contamination."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from train.data.tokenfiles import FileTokens

WINDOW_BYTES = 64
"""About eleven words of English; GPT-3's check took 13 (Brown et al. 2020, appendix C)."""

_ONE_IN = 16
_CHUNK_BYTES = 1 << 18  # what is made of it stays in a core's cache
_MULTIPLIER = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_NONE = np.zeros(0, np.uint64)


def overlaps(
    train_bytes: np.ndarray | FileTokens,
    held_out: Mapping[str, np.ndarray],
    told: Callable[[int], object] = lambda n: None,
) -> dict[str, float]:
    """Share of each held-out text's windows of 64 bytes that occur in the training text.

    One window in 16 is asked for, chosen by its own hash, so that the same text is chosen on both
    sides. Texts are read in pieces; what is held is the held-out hashes.

    Args:
        train_bytes: uint8, documents in a row.
        held_out: such texts by name.
        told: is given the bytes of training text searched so far.
    Returns: 0 to 1 for each name; 0 for a text shorter than a window.
    """
    asked = {name: np.concatenate([_NONE, *_chosen(text)]) for name, text in held_out.items()}
    wanted = np.unique(np.concatenate([_NONE, *asked.values()]))
    if wanted.size == 0:
        return dict.fromkeys(held_out, 0.0)
    is_found = np.zeros(wanted.size, bool)
    for n_pieces, hashes in enumerate(_chosen(train_bytes)):
        told(n_pieces * _CHUNK_BYTES)
        places = np.searchsorted(wanted, hashes).clip(max=wanted.size - 1)
        is_found[places[wanted[places] == hashes]] = True
    found = {name: is_found[np.searchsorted(wanted, hashes)] for name, hashes in asked.items()}
    return {name: float(np.mean(hits)) if hits.size else 0.0 for name, hits in found.items()}


def _chosen(text: np.ndarray | FileTokens) -> Iterator[np.ndarray]:
    """Hashes of the windows that are asked for, piece by piece."""
    for start in range(0, len(text) - WINDOW_BYTES + 1, _CHUNK_BYTES):
        hashes = window_hashes(text[start : start + _CHUNK_BYTES + WINDOW_BYTES - 1])
        mixed = (hashes ^ (hashes >> np.uint64(29))) * np.uint64(_MULTIPLIER)
        yield hashes[mixed >> np.uint64(60) == 0]


def window_hashes(text: np.ndarray) -> np.ndarray:
    """A polynomial hash modulo 2**64 of the 64 bytes from each place on: uint64.

    Windows of 2 n bytes are put together from two of n, six times.
    """
    hashes, power = text.astype(np.uint64) + np.uint64(1), _MULTIPLIER
    n = 1
    while n < WINDOW_BYTES:
        hashes = hashes[:-n] * np.uint64(power) + hashes[n:]
        power, n = power * power & _MASK, 2 * n
    return hashes
