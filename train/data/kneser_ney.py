"""N-gram models: interpolated Kneser-Ney, to compare trained models with, and to sample from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from train.data.ngrams import lookup


@dataclass(frozen=True, eq=False)
class _Counts:
    """Counts of n-grams of one length, and of their contexts, each packed in an integer."""

    grams: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    n_followers: np.ndarray
    discount: float

    def refine(self, shorter: np.ndarray, asked: np.ndarray, bits: int) -> np.ndarray:
        """Probabilities of the asked n-grams' last tokens, from those given by shorter contexts."""
        context = asked >> np.uint64(bits)
        total = lookup(self.contexts, self.totals, context)
        followers = lookup(self.contexts, self.n_followers, context)
        seen = np.maximum(lookup(self.grams, self.counts, asked) - self.discount, 0.0)
        mixed = (seen + self.discount * followers * shorter) / np.maximum(total, 1)
        return np.where(total > 0, mixed, shorter)


@dataclass(frozen=True, eq=False)
class KneserNey:
    """Models of order n = 1 to max_n (contexts of n - 1 tokens) of one text.

    p_n(x | c) = (max(N(cx) - d, 0) + d T(c) q(x | c')) / N(c), with T(c) the number of different
    followers of c, c' the context without its first token, and q the same formula with counts of
    different tokens before an n-gram in place of counts of the n-gram; at the end of the chain 1 /
    vocab_size. An unseen context leaves q. d = n1 / (n1 + 2 n2) for each length, from the numbers
    of n-grams counted once and twice (1/2 if none was counted once).

    Source: Kneser and Ney 1995, Improved backing-off for m-gram language modeling, in the
        interpolated form of Chen and Goodman 1999, section 2.7; d: Ney et al. 1994.
    """

    vocab_size: int
    bits: int
    raw: tuple[_Counts, ...]
    continued: tuple[_Counts, ...]

    @property
    def max_n(self) -> int:
        """Longest n-gram."""
        return len(self.raw)

    def of_order(self, n: int) -> "KneserNey":
        """The models up to order n."""
        return replace(self, raw=self.raw[:n], continued=self.continued[: n - 1])

    def cross_entropies(self, tokens: np.ndarray) -> tuple[float, ...]:
        """Loss of each order on a text, nats/token: all on the tokens from number max_n on.

        Raises: ValueError: the text is shorter than max_n.
        """
        if len(tokens) < self.max_n:
            raise ValueError(f"{len(tokens)} tokens are too few for order={self.max_n}")
        losses = [-np.log(p).mean() for p in self._probabilities(self._grams(tokens))]
        return tuple(float(loss) for loss in losses)

    def next_token(self, context: np.ndarray) -> np.ndarray:
        """Law of the next token by the longest order: float64 of shape (vocab_size,).

        A context shorter than max_n - 1 uses the order that it is long enough for.
        """
        n = min(self.max_n, len(context) + 1)
        asked = np.tile(np.append(context[len(context) - n + 1 :], 0), (self.vocab_size, 1))
        asked[:, -1] = np.arange(self.vocab_size)
        *_, law = self._probabilities([_packed(columns, self.bits) for columns in _suffixes(asked)])
        return law

    def sample(self, n_tokens: int, seed: int) -> np.ndarray:
        """A text by the longest order, int64 of shape (n_tokens,)."""
        rng = np.random.default_rng(seed)
        tokens = np.empty(n_tokens, np.int64)
        for i, draw in enumerate(rng.random(n_tokens)):
            law = self.next_token(tokens[max(0, i - self.max_n + 1) : i])
            place = np.searchsorted(np.cumsum(law), draw * law.sum(), side="right")
            tokens[i] = min(place, self.vocab_size - 1)
        return tokens

    def _grams(self, tokens: np.ndarray) -> list[np.ndarray]:
        """The n-gram that ends at each token from number max_n on, for n = 1 to max_n."""
        first = self.max_n - 1
        return [_grams(tokens, n, self.bits)[first - n + 1 :] for n in range(1, self.max_n + 1)]

    def _probabilities(self, asked: list[np.ndarray]) -> Iterator[np.ndarray]:
        """p_1, p_2 and so on of the last token of asked n-grams, given by length."""
        shorter = np.full(asked[0].shape, 1 / self.vocab_size)
        for n, grams in enumerate(asked):
            yield self.raw[n].refine(shorter, grams, self.bits)
            if n + 1 < len(asked):
                shorter = self.continued[n].refine(shorter, grams, self.bits)


def count(tokens: np.ndarray, *, vocab_size: int, max_n: int) -> KneserNey:
    """The models of a text's tokens.

    Raises: ValueError: the text is too short, or an n-gram needs more than 64 bits.
    """
    bits = max(1, (vocab_size - 1).bit_length())
    if not 1 <= max_n <= 64 // bits:
        raise ValueError(
            f"order={max_n} is outside 1..{64 // bits}, what a vocabulary of {vocab_size} allows"
        )
    if len(tokens) < max_n:
        raise ValueError(f"{len(tokens)} tokens are too few for order={max_n}")
    raw = [
        _counted(*np.unique(_grams(tokens, n, bits), return_counts=True), bits)
        for n in range(1, max_n + 1)
    ]
    continued = []
    for n, longer in enumerate(raw[1:], start=1):
        endings = longer.grams & np.uint64((1 << bits * n) - 1)
        continued.append(_counted(*np.unique(endings, return_counts=True), bits))
    return KneserNey(vocab_size, bits, tuple(raw), tuple(continued))


def _counted(grams: np.ndarray, counts: np.ndarray, bits: int) -> _Counts:
    contexts, starts = np.unique(grams >> np.uint64(bits), return_index=True)
    once, twice = (counts == 1).sum(), (counts == 2).sum()
    return _Counts(
        grams,
        counts,
        contexts,
        np.add.reduceat(counts, starts),
        np.diff(np.append(starts, len(grams))),
        float(once / (once + 2 * twice)) if once else 0.5,
    )


def _grams(tokens: np.ndarray, n: int, bits: int) -> np.ndarray:
    n_grams = len(tokens) - n + 1
    return _packed([tokens[i : i + n_grams] for i in range(n)], bits)


def _packed(columns: Sequence[np.ndarray] | np.ndarray, bits: int) -> np.ndarray:
    """Tokens side by side in one integer, the last in the lowest bits."""
    code = np.zeros(columns[0].shape, np.uint64)
    for column in columns:
        code = (code << np.uint64(bits)) | column.astype(np.uint64)
    return code


def _suffixes(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Columns from the last one, the last two, and so on."""
    columns = rows.T
    return (columns[len(columns) - n :] for n in range(1, len(columns) + 1))
