"""N-gram statistics of a token sequence: the reference lines of every loss figure."""

import numpy as np

_SMOOTHING = 0.01
_PIECE = 1 << 19
"""N-grams that are looked up at once."""


def ngram_entropies(
    train_tokens: np.ndarray, validation_tokens: np.ndarray, *, vocab_size: int, max_n: int
) -> dict[str, tuple[float, ...]]:
    """Entropy of a token given the n - 1 before it, by n-gram counts of the training text.

    "train": H_n - H_(n-1), with H_n the entropy of the relative frequencies of all overlapping
    n-grams (H_0 = 0). It is the loss of the table of counts on its own text, so it falls below the
    entropy of the language once most n-grams are rare.
    "validation": the loss of the same table on the validation text, the figure that a model's
    validation loss compares with: the mean of -log((count(n-gram) + s) / (count(context) + V s)),
    s = 0.01.

    Returns: for each split, nats per token for n = 1 to max_n.
    Raises: ValueError: a split has fewer than max_n tokens, or vocab_size**max_n exceeds 64 bits.
    Source: Shannon 1951, Prediction and entropy of printed English, equation 1; additive smoothing
        as in Chen and Goodman 1999, section 2.1.
    """
    bits = max(1, (vocab_size - 1).bit_length())
    if bits * max_n > 64:
        raise ValueError(f"max_n={max_n} is too long for vocab_size={vocab_size}; use a smaller n")
    shortest = min(len(train_tokens), len(validation_tokens))
    if shortest < max_n:
        raise ValueError(f"{shortest} tokens are too few for {max_n}-grams; give more text")
    contexts, context_counts = np.zeros(1, np.uint64), np.array([len(train_tokens)])
    blocks, losses = [0.0], []
    for n in range(1, max_n + 1):
        codes, counts = _counted(train_tokens, n, bits)
        n_grams = counts.sum()
        blocks.append(np.log(n_grams) - float(counts @ np.log(counts)) / n_grams)
        total = 0.0
        for start in range(0, len(validation_tokens) - n + 1, _PIECE):
            asked = _packed(validation_tokens[start : start + _PIECE + n - 1], n, bits)
            seen = lookup(codes, counts, asked) + _SMOOTHING
            context = lookup(contexts, context_counts, asked >> asked.dtype.type(bits))
            nats = np.log(context + vocab_size * _SMOOTHING) - np.log(seen)
            total += float(np.sum(nats))
        losses.append(total / (len(validation_tokens) - n + 1))
        contexts, context_counts = codes, counts
    return {"train": tuple(float(h) for h in np.diff(blocks)), "validation": tuple(losses)}


def _counted(tokens: np.ndarray, n: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The different n-grams in order, and how often each occurs."""
    grams = _packed(tokens, n, bits)
    grams.sort()
    is_first = np.ones(len(grams), bool)
    np.not_equal(grams[1:], grams[:-1], out=is_first[1:])
    starts = np.flatnonzero(is_first)
    return grams[starts], np.diff(starts, append=len(grams))


def _packed(tokens: np.ndarray, n: int, bits: int) -> np.ndarray:
    """All overlapping n-grams, each as one integer with the last token in the lowest bits."""
    dtype = np.uint32 if bits * n <= 32 else np.uint64
    n_grams = len(tokens) - n + 1
    packed = np.zeros(n_grams, dtype)
    for i in range(n):  # in place: these are the largest arrays of a whole build
        packed <<= dtype(bits)
        packed |= tokens[i : i + n_grams]
    return packed


def lookup(codes: np.ndarray, counts: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Count of each asked code, 0 for one that is not among the sorted codes."""
    places = np.searchsorted(codes, asked).clip(max=len(codes) - 1)
    return np.where(codes[places] == asked, counts[places], 0)
