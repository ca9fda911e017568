"""A hierarchy of skills with power-law frequencies: the quantization model of scaling."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import comb, gcd, log

import numpy as np

from train.data.languages.base import (
    Language,
    chunk_sizes,
    entropy,
    from_impossible_on,
    require,
    zipf,
)


@dataclass(frozen=True)
class Skills(Language):
    """Examples of `bits` random bits, a question k and its answer: multitask sparse parity.

    Question k asks for the parity of its own `sparsity` bits, and comes with probability
    proportional to k**-(1 + alpha). Whoever knows skill k predicts its answers; whoever does not
    loses log 2 at each. Learned in the order of frequency, n skills leave an excess of about
    n**-alpha: so alpha is the exponent in N if a skill takes a fixed number of parameters, and
    alpha / (1 + alpha) the exponent in D if it takes a fixed number of examples.

    Tokens: bit i as 2 i or 2 i + 1, then the questions, then the answers 0 and 1. An example is
    bits + 2 tokens.

    Source: Michaud et al. 2023, arXiv:2303.13506, sections 2 and 3.
    """

    skills: int = 64
    alpha: float = 0.5
    bits: int = 12
    sparsity: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        require("skills", self.skills, 1, 50_000)
        require("alpha", self.alpha, 0.0, 10.0)
        require("bits", self.bits, 1, 1000)
        require("sparsity", self.sparsity, 1, self.bits)
        require("seed", self.seed, 0, 2**63)
        if self.skills > comb(self.bits, self.sparsity):
            raise ValueError(
                f"skills={self.skills} of sparsity={self.sparsity} need more than bits={self.bits} "
                f"bits, which have {comb(self.bits, self.sparsity)} different choices"
            )

    @property
    def vocab_size(self) -> int:
        """Bits by place and value, questions, answers."""
        return 2 * self.bits + self.skills + 2

    @property
    def example_len(self) -> int:
        """Tokens of an example."""
        return self.bits + 2

    @cached_property
    def frequencies(self) -> np.ndarray:
        """Probability of each question: float64 of shape (skills,)."""
        return zipf(self.skills, 1 + self.alpha)

    @cached_property
    def subsets(self) -> np.ndarray:
        """Bits whose parity each question asks for, all different: int64 (skills, sparsity)."""
        rng = np.random.default_rng(self.seed)
        found: dict[tuple[int, ...], None] = {}
        while len(found) < self.skills:
            drawn = rng.permutation(self.bits)[: self.sparsity]
            found[tuple(sorted(drawn.tolist()))] = None
        return np.array(list(found))

    def exponents(self) -> dict[str, float]:
        """Expected exponents of the excess loss in the number of parameters N and examples D."""
        return {"N": self.alpha, "D": self.alpha / (1 + self.alpha)}

    def loss_after(self, n_skills: int) -> float:
        """Loss per token of a reader of whole examples who knows the first n_skills skills, nats.

        Raises: ValueError: n_skills is outside 0 to skills.
        """
        require("n_skills", n_skills, 0, self.skills)
        unknown = float(self.frequencies[n_skills:].sum())
        return self.entropy_rate_nats() + unknown * log(2) / self.example_len

    def entropy_rate_nats(self) -> float:
        """Bits and the question are random, the answer follows from them."""
        return (self.bits * log(2) + entropy(self.frequencies)) / self.example_len

    def _starts(self, every: int) -> range:
        return range(0, self.example_len, gcd(every, self.example_len))

    def conditional_entropies(self, n: int, *, every: int = 1) -> np.ndarray:
        """By place in the example: an answer is open if one of its bits came before the window."""
        places = [log(2)] * self.bits + [entropy(self.frequencies), 0.0]
        first_bit = self.subsets.min(axis=1)
        total = np.zeros(n)
        for start in self._starts(every):
            total += np.resize(np.roll(places, -start), n)
            answer = self.bits + 1 - start
            if answer < n:
                total[answer] += self.frequencies[first_bit < start].sum() * log(2)
        found = total / len(self._starts(every))
        found[0] += log(len(self._starts(every)))  # the first token tells where the window starts
        return found

    def log_probs(self, windows: np.ndarray, *, every: int = 1) -> np.ndarray:
        """By place in the example; an answer is known if all its bits are in the window."""
        places = self._places(windows)
        starts = list(self._starts(every))
        found = np.where(places < self.bits, -log(2), 0.0)
        is_question = places == self.bits
        questions = np.where(is_question, windows - 2 * self.bits, 0)
        found += np.where(is_question, np.log(self.frequencies[questions]), 0.0)
        expected = (places[:, :1] + np.arange(windows.shape[1])) % self.example_len
        found[(places != expected) | ~np.isin(places[:, :1], starts)] = -np.inf
        found[:, 0] -= log(len(starts))
        found = from_impossible_on(found)
        is_answer = (places == self.bits + 1) & np.isfinite(found)
        for row, at in zip(*np.nonzero(is_answer), strict=True):
            found[row, at] += self._answer(windows[row, : at + 1])
        return from_impossible_on(found)

    def _places(self, tokens: np.ndarray) -> np.ndarray:
        after_bits = np.where(tokens < 2 * self.bits + self.skills, self.bits, self.bits + 1)
        return np.where(tokens < 2 * self.bits, tokens // 2, after_bits)

    def _answer(self, window: np.ndarray) -> float:
        """log p of the answer that a window ends with."""
        example = window[-self.example_len :].astype(np.int64)
        if len(example) == 1:
            return -log(2)
        subset = self.subsets[example[-2] - 2 * self.bits]
        missing = self.example_len - len(example)
        if subset.min() < missing:
            return -log(2)
        parity = example[subset - missing].sum() % 2
        return 0.0 if parity == example[-1] - 2 * self.bits - self.skills else -np.inf

    def chunks(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Whole examples at a time."""
        cumulative = np.cumsum(self.frequencies)[:-1]
        for size in chunk_sizes():
            n = -(-size // self.example_len)
            bits = rng.integers(2, size=(n, self.bits))
            questions = np.searchsorted(cumulative, rng.random(n), side="right")
            asked = self.subsets[questions]
            answers = np.take_along_axis(bits, asked, axis=1).sum(axis=1) % 2
            tokens = np.empty((n, self.example_len), np.int64)
            tokens[:, : self.bits] = 2 * np.arange(self.bits) + bits
            tokens[:, self.bits] = 2 * self.bits + questions
            tokens[:, self.bits + 1] = 2 * self.bits + self.skills + answers
            yield tokens.ravel()

    def render(self, tokens: np.ndarray) -> str:
        """Bits in place, the number of the question, the answer; a line an example."""
        signs = ["01"[i % 2] for i in range(2 * self.bits)]
        signs += [f" q{k}=" for k in range(1, self.skills + 1)] + ["0\n", "1\n"]
        return "".join(signs[token] for token in np.asarray(tokens).tolist())
