"""Languages with finitely many hidden states: unigram, hidden Markov, modular arithmetic."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from train.data.languages.base import chunk_sizes, require, zipf
from train.data.languages.machine import Machine, MachineLanguage

_MAX_TRIES = 1000


@dataclass(frozen=True)
class Zipf(MachineLanguage):
    """Independent tokens, the token of rank r with probability proportional to r**-exponent.

    H(X_1..X_T) = T H(X_1): context does not help.
    """

    vocab: int = 64
    exponent: float = 1.0

    def __post_init__(self) -> None:
        require("vocab", self.vocab, 2, 65_536)
        require("exponent", self.exponent, 0.0, 10.0)

    @cached_property
    def machine(self) -> Machine:
        """A single state."""
        probs = zipf(self.vocab, self.exponent)[None]
        return Machine(probs, np.zeros(probs.shape, np.int64))

    def chunks(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """One uniform draw a token."""
        cumulative = np.cumsum(self.machine.probs[0])[:-1]
        for size in chunk_sizes():
            yield np.searchsorted(cumulative, rng.random(size), side="right")


@dataclass(frozen=True)
class GoldenMean(MachineLanguage):
    """Zeros and ones without two ones in a row: after a zero, a one has probability p.

    Source: Crutchfield and Feldman 2003, Regularities unseen, randomness observed, section V.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        require("p", self.p, 0.01, 0.99)

    @cached_property
    def machine(self) -> Machine:
        """States: a one may come; it may not."""
        return Machine(np.array([[1 - self.p, self.p], [1.0, 0.0]]), np.array([[0, 1], [0, 0]]))


@dataclass(frozen=True)
class EvenProcess(MachineLanguage):
    """Zeros and ones with ones in blocks of even length; no finite order of Markov chain has it.

    Where a block may begin or end, a one has probability p.

    Source: Crutchfield and Feldman 2003, Regularities unseen, randomness observed, section V.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        require("p", self.p, 0.01, 0.99)

    @cached_property
    def machine(self) -> Machine:
        """States: an even number of ones came last; an odd number."""
        return Machine(np.array([[1 - self.p, self.p], [0.0, 1.0]]), np.array([[0, 1], [0, 0]]))


@dataclass(frozen=True)
class UnifilarHidden(MachineLanguage):
    """A random unifilar hidden Markov model whose memory is as long as its runs of token 0.

    In each state the law of the next token is drawn from a symmetric Dirichlet distribution. Token
    0 permutes the states, so a run of zeros walks through them and forgets nothing; any other token
    leads to one state whatever the state before. That keeps the beliefs of a reader who sees only a
    window to as many as the window has tokens, so its entropies are exact; without it they double
    with each token. Drawn again until every state can be reached from every other.
    """

    vocab: int = 8
    states: int = 6
    seed: int = 0
    concentration: float = 0.5

    def __post_init__(self) -> None:
        require("vocab", self.vocab, 2, 4096)
        require("states", self.states, 2, 64)
        require("seed", self.seed, 0, 2**63)
        require("concentration", self.concentration, 0.01, 100.0)

    @cached_property
    def machine(self) -> Machine:
        """Drawn from the seed."""
        rng = np.random.default_rng(self.seed)
        for _ in range(_MAX_TRIES):
            alphas = np.full(self.vocab, self.concentration)
            # A little of the uniform law keeps every token possible in every state.
            probs = 0.99 * rng.dirichlet(alphas, size=self.states) + 0.01 / self.vocab
            following = np.tile(rng.integers(self.states, size=self.vocab), (self.states, 1))
            following[:, 0] = rng.permutation(self.states)
            if _is_one_class(following):
                return Machine(probs, following)
        raise ValueError(
            f"states={self.states} with vocab={self.vocab} tokens do not connect; use more tokens"
        )


def _is_one_class(following: np.ndarray) -> bool:
    n_states = len(following)
    reach = np.eye(n_states, dtype=bool)
    reach[np.arange(n_states)[:, None], following] = True
    for _ in range(n_states.bit_length()):
        reach = reach @ reach
    return bool(reach.all())


@dataclass(frozen=True)
class ModularArithmetic(MachineLanguage):
    """Lines `a o b = c ;` with c = a o b modulo `modulus`; a, b and the operator o are random.

    Tokens: the numbers 0 to modulus - 1, then the operators in the order given, then `=` and `;`.
    Whoever sees a line from its start can predict `=`, c and `;` (entropy 0); a and b are uniform
    (log modulus each), the operator is uniform (log of their number). Lines have six tokens.
    """

    modulus: int = 23
    ops: str = "+"

    def __post_init__(self) -> None:
        require("modulus", self.modulus, 2, 200)
        if not self.ops or set(self.ops) - set("+-*") or len(set(self.ops)) < len(self.ops):
            raise ValueError(f"ops={self.ops!r} is not made of different ones of + - *, as in +*")

    @cached_property
    def machine(self) -> Machine:
        """States: start; a read; a and operator read; c due after `=`; c due; `;` due."""
        n, n_ops = self.modulus, len(self.ops)
        after_a, after_op = 1, 1 + n
        equals = after_op + n * n_ops
        result, end = equals + n, equals + 2 * n
        probs = np.zeros((end + 1, n + n_ops + 2))
        following = np.zeros(probs.shape, np.int64)
        numbers = np.arange(n)
        probs[0, :n], following[0, :n] = 1 / n, after_a + numbers
        operators = n + np.arange(n_ops)
        probs[after_a:after_op, operators] = 1 / n_ops
        following[after_a:after_op, operators] = after_op + numbers[:, None] * n_ops + range(n_ops)
        for i, op in enumerate(self.ops):
            rows = after_op + numbers * n_ops + i
            probs[rows, :n] = 1 / n
            following[rows, :n] = equals + _result(op, numbers[:, None], numbers) % n
        probs[equals + numbers, n + n_ops] = 1.0
        following[equals + numbers, n + n_ops] = result + numbers
        probs[result + numbers, numbers] = 1.0
        following[result + numbers, numbers] = end
        probs[end, n + n_ops + 1] = 1.0
        return Machine(probs, following)

    def token_entropies(self) -> dict[str, float]:
        """Entropy of each token of a line given the line so far, nats."""
        number, operator = float(np.log(self.modulus)), float(np.log(len(self.ops)))
        return {"a": number, "o": operator, "b": number, "=": 0.0, "c": 0.0, ";": 0.0}

    def render(self, tokens: np.ndarray) -> str:
        """Lines as a person writes them."""
        signs = [*map(str, range(self.modulus)), *self.ops, "=", ";\n"]
        return " ".join(signs[token] for token in np.asarray(tokens).tolist()).replace("\n ", "\n")


def _result(op: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a + b if op == "+" else a - b if op == "-" else a * b
