"""Markov chains: the next token depends on the last few, by a table that is drawn or counted."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from train.data.languages.base import (
    Language,
    chunk_sizes,
    entropy,
    floor_nats,
    from_impossible_on,
    xlogx,
)

_MANY_CONTEXTS, _TOO_MANY_TO_SOLVE = 300, 2000
_MAX_ROUNDS = 100_000


@dataclass(frozen=True)
class MarkovSource(Language):
    """A stationary Markov chain: the next symbol depends on the last `order` symbols.

    transitions has one row of next-symbol probabilities for each context; contexts are counted in
    base vocab_size with the latest symbol as the last digit, so there are vocab_size**order rows.
    symbols, if given, are what the tokens stand for.

    Raises: ValueError: the table has the wrong size, a row is no distribution, or the chain has
        more than one stationary distribution.
    """

    order: int
    transitions: tuple[tuple[float, ...], ...]
    symbols: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.order < 1:
            raise ValueError(f"order={self.order} is not positive; use at least 1")
        n_rows = self.vocab_size**self.order
        if len(self.transitions) != n_rows or {len(row) for row in self.transitions} != {
            self.vocab_size
        }:
            raise ValueError(
                f"transitions has {len(self.transitions)} rows; order {self.order} over "
                f"{self.vocab_size} symbols needs {n_rows} rows of {self.vocab_size}"
            )
        table = self.table
        if (table < 0).any() or not np.allclose(table.sum(axis=1), 1.0, atol=1e-9):
            raise ValueError("a row of transitions is not a distribution; rows must sum to 1")
        self.stationary()

    @classmethod
    def random(
        cls, *, vocab_size: int, order: int, seed: int, concentration: float = 0.3
    ) -> "MarkovSource":
        """A source whose rows are drawn from a symmetric Dirichlet distribution.

        The smaller the concentration, the more predictable the language.
        """
        rng = np.random.default_rng(seed)
        alphas = np.full(vocab_size, concentration)
        # Mixed with a little of the uniform row, so that every symbol can follow every context.
        table = 0.99 * rng.dirichlet(alphas, size=vocab_size**order) + 0.01 / vocab_size
        return cls(order, tuple(tuple(map(float, row)) for row in table))

    @property
    def vocab_size(self) -> int:
        """Number of symbols."""
        return len(self.transitions[0])

    @cached_property
    def table(self) -> np.ndarray:
        """transitions as an array of shape (vocab_size**order, vocab_size)."""
        return np.asarray(self.transitions)

    def stationary(self) -> np.ndarray:
        """Stationary distribution of the contexts: float64 of shape (vocab_size**order,).

        Raises: ValueError: it is not unique, since the chain falls apart into several.
        """
        return self._stationary

    @cached_property
    def _stationary(self) -> np.ndarray:
        n_states = len(self.transitions)
        if n_states > _MANY_CONTEXTS and not (self.table > 0).all():
            raise ValueError(
                f"transitions has zeros; with more than {_MANY_CONTEXTS} contexts every token must "
                "be able to follow every context"
            )
        if n_states > _TOO_MANY_TO_SOLVE:
            return self._limit()
        flow = np.zeros((n_states, n_states))
        for context, row in enumerate(self.transitions):
            first = context * self.vocab_size % n_states
            flow[context, first : first + self.vocab_size] = row
        balance = np.vstack([flow.T - np.eye(n_states), np.ones(n_states)])
        if n_states > _MANY_CONTEXTS:  # unique, since all is possible: no need of its rank
            return np.linalg.solve(balance[1:], np.eye(n_states)[-1]).clip(min=0.0)
        target = np.append(np.zeros(n_states), 1.0)
        solution, _, rank, _ = np.linalg.lstsq(balance, target)
        if rank < n_states:
            raise ValueError(
                "transitions has several stationary distributions; let every context be reached "
                "from every other"
            )
        return solution.clip(min=0.0)

    def _limit(self) -> np.ndarray:
        """The stationary distribution by stepping until nothing changes: for many contexts."""
        law = np.full(len(self.table), 1 / len(self.table))
        for _ in range(_MAX_ROUNDS):
            # A context (a, b, .., y) steps to (b, .., y, z): sum over a, the first digit.
            stepped = (law[:, None] * self.table).reshape(self.vocab_size, -1).sum(axis=0)
            if np.abs(stepped - law).sum() < 1e-14:
                return stepped / stepped.sum()
            law = stepped
        raise ValueError("transitions mixes too slowly; let contexts forget sooner")

    def entropy_floor_nats(self, seq_len: int) -> float:
        """`floor_nats` of this source.

        Raises: ValueError: seq_len < 1.
        """
        return floor_nats(self, seq_len)

    def entropy_rate_nats(self) -> float:
        """sum_c pi(c) H(row c).

        Source: Cover and Thomas 2006, Elements of Information Theory, theorem 4.2.4.
        """
        return float(self.stationary() @ -xlogx(self.table).sum(axis=1))

    def conditional_entropies(self, n: int, *, every: int = 1) -> np.ndarray:
        """The entropy rate from token order + 1 on; before, differences of block entropies."""
        blocks = [0.0] + [entropy(law) for law in self._marginals()]
        early = np.diff(blocks)[:n]
        return np.append(early, np.full(n - len(early), self.entropy_rate_nats()))

    def _marginals(self) -> list[np.ndarray]:
        """Laws of blocks of 1 to `order` tokens, by code in base vocab_size."""
        law = self.stationary()
        shapes = [self.vocab_size**n for n in range(1, self.order + 1)]
        return [law.reshape(n_blocks, -1).sum(axis=1) for n_blocks in shapes]

    def log_probs(self, windows: np.ndarray, *, every: int = 1) -> np.ndarray:
        """Table entries, and ratios of block probabilities for the first `order` tokens."""
        found = np.empty(windows.shape)
        code, before = np.zeros(len(windows), np.int64), np.ones(len(windows))
        laws = self._marginals()
        with np.errstate(divide="ignore", invalid="ignore"):
            for t, tokens in enumerate(windows.T.astype(np.int64)):
                if t < self.order:
                    code = code * self.vocab_size + tokens
                    p, before = laws[t][code] / before, laws[t][code]
                else:
                    p = self.table[code, tokens]
                    code = (code * self.vocab_size + tokens) % len(self.table)
                found[:, t] = np.log(p)
        return from_impossible_on(found)

    def chunks(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """The stationary chain: one uniform draw a token, looked up in the row of its context."""
        contexts = self.stationary()
        # The stationary context precedes the first token, which then has the stationary law too.
        context = int(rng.choice(len(contexts), p=contexts / contexts.sum()))
        rows = np.cumsum(self.table, axis=1)[:, :-1].tolist()
        for size in chunk_sizes():
            tokens = np.empty(size, np.int64)
            for i, draw in enumerate(rng.random(size).tolist()):
                symbol = bisect_right(rows[context], draw)
                context = (context * self.vocab_size + symbol) % len(rows)
                tokens[i] = symbol
            yield tokens

    def render(self, tokens: np.ndarray) -> str:
        """Letters joined, words and numbers apart."""
        if not self.symbols:
            return super().render(tokens)
        between = "" if max(map(len, self.symbols)) == 1 else " "
        return between.join(self.symbols[token] for token in np.asarray(tokens).tolist())
