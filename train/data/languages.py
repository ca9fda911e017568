"""Generated languages whose entropy is known exactly: the floor that a trained model must reach."""

import hashlib
import json
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from train.data.ngrams import ngram_entropies
from train.data.tokenfiles import TokenizedCorpus

_N_BLOCKS = 64


@dataclass(frozen=True)
class MarkovSource:
    """A stationary Markov chain: the next symbol depends on the last `order` symbols.

    transitions has one row of next-symbol probabilities for each context; contexts are counted in
    base vocab_size with the latest symbol as the last digit, so there are vocab_size**order rows.

    Raises: ValueError: the table has the wrong size, a row is no distribution, or the chain has
        more than one stationary distribution.
    """

    order: int
    transitions: tuple[tuple[float, ...], ...]

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
        table = np.asarray(self.transitions)
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

    def stationary(self) -> np.ndarray:
        """Stationary distribution of the contexts: float64 of shape (vocab_size**order,).

        Raises: ValueError: it is not unique, since the chain falls apart into several.
        """
        n_states = len(self.transitions)
        flow = np.zeros((n_states, n_states))
        for context, row in enumerate(self.transitions):
            first = context * self.vocab_size % n_states
            flow[context, first : first + self.vocab_size] = row
        balance = np.vstack([flow.T - np.eye(n_states), np.ones(n_states)])
        target = np.append(np.zeros(n_states), 1.0)
        solution, _, rank, _ = np.linalg.lstsq(balance, target)
        if rank < n_states:
            raise ValueError(
                "transitions has several stationary distributions; let every context be reached "
                "from every other"
            )
        return solution.clip(min=0.0)

    def entropy_floor_nats(self, seq_len: int) -> float:
        """Lowest mean loss that a model of seq_len inputs can have, nats per token.

        (1/T) sum over t = 1..T of H(X_(t+1) | X_1..X_t), T = seq_len, for windows that start
        anywhere in the stationary chain. Terms with t >= order are the entropy rate
        sum_c pi(c) H(row c); the earlier ones, where the model sees less than a whole context, are
        differences of block entropies. For order 1 the floor is the entropy rate.

        Raises: ValueError: seq_len < 1.
        Source: Cover and Thomas 2006, Elements of Information Theory, theorem 4.2.4.
        """
        if seq_len < 1:
            raise ValueError(f"seq_len={seq_len} is not positive; use at least 1")
        contexts = self.stationary()
        table = np.asarray(self.transitions)
        rate = float(contexts @ [_entropy(row) for row in table])
        marginals = contexts.reshape((self.vocab_size,) * self.order)
        blocks = [
            _entropy(marginals.sum(axis=tuple(range(n, self.order))).ravel())
            for n in range(1, self.order + 1)
        ]
        terms = [*np.diff(blocks)[:seq_len], *[rate] * (seq_len - self.order + 1)]
        return float(np.mean(terms))

    def sample(self, n_tokens: int, seed: int) -> np.ndarray:
        """A stretch of the stationary chain: uint8 (uint16 over 256 symbols), shape (n_tokens,)."""
        rng = np.random.default_rng(seed)
        contexts = self.stationary()
        context = int(rng.choice(len(contexts), p=contexts / contexts.sum()))
        rows = np.cumsum(np.asarray(self.transitions), axis=1)[:, :-1].tolist()
        tokens = np.empty(n_tokens, dtype=np.uint8 if self.vocab_size <= 256 else np.uint16)
        # The stationary context precedes the first token, which then has the stationary law too.
        for i, draw in enumerate(rng.random(n_tokens).tolist()):
            symbol = bisect_right(rows[context], draw)
            context = (context * self.vocab_size + symbol) % len(rows)
            tokens[i] = symbol
        return tokens


def as_corpus(
    source: MarkovSource, *, n_train: int, n_validation: int, seed: int
) -> TokenizedCorpus:
    """Two independent samples of a source as a corpus in memory, one token counted as one byte.

    There is no end-of-text token: each split is one unbroken stretch, so that the entropy floor is
    exact. Its "documents" are equal blocks, which serve as clusters for standard errors.

    Raises: ValueError: a split is shorter than 64 tokens.
    """
    if min(n_train, n_validation) < _N_BLOCKS:
        raise ValueError(
            f"n_train={n_train}, n_validation={n_validation}: each must be at least {_N_BLOCKS}"
        )
    train_seed, validation_seed = np.random.SeedSequence(seed).generate_state(2)
    train = source.sample(n_train, int(train_seed))
    validation = source.sample(n_validation, int(validation_seed))
    identity = json.dumps([source.order, source.transitions, n_train, n_validation, seed])
    keys = tuple(f"block-{i:02d}" for i in range(_N_BLOCKS))
    return TokenizedCorpus(
        name=f"markov-{source.order}-{source.vocab_size}",
        origin=f"Markov source of order {source.order} over {source.vocab_size} symbols",
        tokenizer="symbols",
        vocab_size=source.vocab_size,
        content_hash=hashlib.sha256(identity.encode("utf-8")).hexdigest(),
        tokenizer_hash=hashlib.sha256(b"symbols are tokens").hexdigest(),
        split_rule=f"independent samples, seed {seed}",
        train_tokens=train,
        validation_tokens=validation,
        train_documents=_block_starts(n_train),
        validation_documents=_block_starts(n_validation),
        train_keys=keys,
        validation_keys=keys,
        n_train_bytes=n_train,
        n_validation_bytes=n_validation,
        n_duplicates_dropped=0,
        ngram_nats=ngram_entropies(train, validation, vocab_size=source.vocab_size, max_n=4),
    )


def _block_starts(n_tokens: int) -> np.ndarray:
    return np.arange(_N_BLOCKS, dtype=np.int64) * n_tokens // _N_BLOCKS


def _entropy(probabilities: np.ndarray) -> float:
    positive = probabilities[probabilities > 0]
    return float(-np.sum(positive * np.log(positive)))
