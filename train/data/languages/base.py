"""What every generated language can do, and the floor of a model with a limited context."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

_FIRST_CHUNK, _LAST_CHUNK = 1 << 8, 1 << 16


class Language(ABC):
    """An endless stream of tokens 0 to vocab_size - 1 with a law that is known exactly.

    Windows are cut from the stream every `every` tokens, as batches.py does, and a model sees only
    its window: it does not know what came before. For a language whose stream repeats a pattern of
    fixed length, that fixes at which places of the pattern windows can start. Entropies and
    probabilities are those of such a window, in nats, once the stream has forgotten its start.
    """

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of different tokens."""

    @abstractmethod
    def chunks(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """The stream without end, in integer arrays of bounded length."""

    @abstractmethod
    def conditional_entropies(self, n: int, *, every: int = 1) -> np.ndarray:
        """H(X_1), H(X_2 | X_1) to H(X_n | X_1 to X_(n-1)): float64 of shape (n,), nats.

        every=1: windows that start anywhere.
        """

    @abstractmethod
    def entropy_rate_nats(self) -> float:
        """Entropy of a token given all that came before it, nats."""

    @abstractmethod
    def log_probs(self, windows: np.ndarray, *, every: int = 1) -> np.ndarray:
        """log p(x_t | x_1 to x_(t-1)) in windows (n_windows, n): float64 of the same shape.

        Their negative mean over targets is the loss of the best possible model. A token that
        cannot follow has -inf, and so has every token after it.
        """

    def block_entropies(self, n: int, *, every: int = 1) -> np.ndarray:
        """H(X_1), H(X_1, X_2) to H(X_1 to X_n): float64 of shape (n,), nats."""
        return np.cumsum(self.conditional_entropies(n, every=every))

    def sample(self, n_tokens: int, seed: int) -> np.ndarray:
        """The first tokens of a stream: uint8, or uint16 over 256 tokens, shape (n_tokens,)."""
        tokens = np.empty(n_tokens, np.uint8 if self.vocab_size <= 256 else np.uint16)
        done = 0
        for chunk in self.chunks(np.random.default_rng(seed)):
            taken = min(len(chunk), n_tokens - done)
            tokens[done : done + taken] = chunk[:taken]
            done += taken
            if done == n_tokens:
                return tokens
        raise AssertionError("a stream has no end")

    def render(self, tokens: np.ndarray) -> str:
        """Tokens as a person reads them."""
        return " ".join(map(str, np.asarray(tokens).tolist()))


def floor_nats(language: Language, seq_len: int) -> float:
    """Lowest expected loss of a model with windows of seq_len inputs, nats per token.

    Batches and validation cut windows of seq_len + 1 tokens every seq_len tokens; the first token
    of a window is given, each other is a target, predicted from the tokens before it in the
    window. The floor is therefore (1/T) sum over t = 1..T of H(X_(t+1) | X_1..X_t), which is
    (H(X_1..X_(T+1)) - H(X_1)) / T, T = seq_len. It falls towards the entropy rate as T grows. The
    measured loss of a finite validation split scatters around its expectation: compare with the
    standard error of the evaluation.

    Raises: ValueError: seq_len < 1.
    Source: Cover and Thomas 2006, Elements of Information Theory, theorems 2.5.1, 2.6.3 and 4.2.1.
    """
    if seq_len < 1:
        raise ValueError(f"seq_len={seq_len} is not positive; use at least 1")
    return float(np.mean(language.conditional_entropies(seq_len + 1, every=seq_len)[1:]))


def chunk_sizes() -> Iterator[int]:
    """Doubling up to a bound: short samples are quick, and long ones need no more memory."""
    size = _FIRST_CHUNK
    while True:
        yield size
        size = min(2 * size, _LAST_CHUNK)


def zipf(n: int, exponent: float) -> np.ndarray:
    """Probabilities proportional to rank**-exponent: float64 of shape (n,)."""
    weights = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


def entropy(probabilities: np.ndarray) -> float:
    """-sum p log p over all entries, nats."""
    return float(-np.sum(xlogx(probabilities)))


def xlogx(values: np.ndarray) -> np.ndarray:
    """x log x, 0 at 0."""
    values = np.asarray(values, np.float64)
    return values * np.log(np.where(values > 0, values, 1.0))


def require(name: str, value: float, low: float, high: float) -> None:
    """Refuse a parameter outside of [low, high].

    Raises: ValueError: it is outside.
    """
    if not low <= value <= high:
        raise ValueError(f"{name}={value} is outside {low} to {high}")


def from_impossible_on(log_probs: np.ndarray) -> np.ndarray:
    """-inf from the first token on that cannot follow, along the last axis."""
    impossible = np.isneginf(log_probs) | np.isnan(log_probs)
    return np.where(np.logical_or.accumulate(impossible, axis=-1), -np.inf, log_probs)
