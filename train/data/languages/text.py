"""Markov chains counted in a text: Shannon's letters and words."""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from train.data.languages.base import require
from train.data.languages.markov import MarkovSource

LETTERS = " abcdefghijklmnopqrstuvwxyz"
OTHER = "_"
"""Stands for every word outside of the vocabulary."""
_MAX_ENTRIES = 4_000_000


@dataclass(frozen=True)
class Letters:
    """Order-k chain over the 26 letters and the space, counted in the training text of a corpus.

    Other characters count as a space, and several spaces as one. Contexts are counted to order k;
    each row is interpolated with the next shorter context by Witten and Bell's rule, so that every
    letter can follow every context.

    Source: Shannon 1948, A mathematical theory of communication, section 3; smoothing: Witten and
        Bell 1991, The zero-frequency problem, method C.
    """

    text: str = "sotu"
    order: int = 2

    def __post_init__(self) -> None:
        _check_name(self.text)
        require("order", self.order, 1, 4)

    def from_text(self, text: str) -> MarkovSource:
        """The chain of a text."""
        codes = np.frombuffer(_plain(text, "a-z").encode("ascii"), np.uint8)
        tokens = np.searchsorted(np.frombuffer(LETTERS.encode("ascii"), np.uint8), codes)
        return _chain(tokens, LETTERS, self.order)


@dataclass(frozen=True)
class Words:
    """Order-k chain over the most frequent words of the training text of a corpus.

    Words are runs of letters and apostrophes in lower case; those outside of the vocabulary of
    `vocab` tokens are one more token of it, shown as _. Smoothed like Letters.
    """

    text: str = "sotu"
    order: int = 1
    vocab: int = 512

    def __post_init__(self) -> None:
        _check_name(self.text)
        require("order", self.order, 1, 4)
        require("vocab", self.vocab, 2, 2000)

    def from_text(self, text: str) -> MarkovSource:
        """The chain of a text."""
        words = _plain(text, "a-z'").split()
        common = [word for word, _ in Counter(words).most_common(self.vocab - 1)]
        index = {word: i for i, word in enumerate([OTHER, *common])}
        tokens = [index.get(word, 0) for word in words]
        return _chain(np.array(tokens), list(index), self.order)


def _check_name(text: str) -> None:
    if not re.fullmatch(r"[a-z0-9-]+", text):
        raise ValueError(f"text={text!r} is not the name of a corpus, such as sotu")


def _plain(text: str, kept: str) -> str:
    return re.sub(f"[^{kept}]+", " ", text.lower())


def _chain(tokens: np.ndarray, symbols: str | list[str], order: int) -> MarkovSource:
    """The smoothed table of next-token counts, from the shortest context to the longest.

    Raises: ValueError: the table would be too large, or the text is too short.
    """
    n = len(symbols)
    if n ** (order + 1) > _MAX_ENTRIES:
        raise ValueError(
            f"order={order} over {n} symbols has {n ** (order + 1):,} probabilities, more than "
            f"{_MAX_ENTRIES:,}; use a smaller order or vocabulary"
        )
    if len(tokens) <= order:
        raise ValueError(f"the text has {len(tokens)} symbols, too few for order={order}")
    table = np.full((1, n), 1 / n)
    for length in range(order + 1):
        codes = np.zeros(len(tokens) - length, np.int64)
        for i in range(length + 1):
            codes = codes * n + tokens[i : len(tokens) - length + i]
        counts = np.bincount(codes, minlength=n ** (length + 1)).reshape(-1, n)
        shorter = table if length == 0 else np.tile(table, (n, 1))
        weight = np.maximum((counts > 0).sum(axis=1, keepdims=True), 1)
        table = (counts + weight * shorter) / (counts.sum(axis=1, keepdims=True) + weight)
    return MarkovSource(order, tuple(map(tuple, table.tolist())), tuple(symbols))
