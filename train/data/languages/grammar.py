"""A random grammar with power-law rule probabilities whose strings have one derivation each."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from train.data.languages import grammar_windows
from train.data.languages.base import Language, chunk_sizes, require, zipf
from train.data.languages.grammar_windows import Rules

_MAX_CHILDREN = 3
_GROWTH = (0.6, 0.92)
"""Spectral radius of the mean number of children: documents end, and are not all leaves."""
_MAX_TRIES = 10_000


@dataclass(frozen=True)
class Grammar(Language):
    """Documents derived from symbol 0, each followed by an end token.

    Rule r of symbol A is A -> x_Ar C_1 .. C_m z_A, or A -> x_Ar if it has no children; rules have
    probability proportional to rank**-exponent. The opening token x_Ar belongs to one rule, and the
    closing token z_A to one symbol, so a string has one derivation, read off from left to right,
    and its probability is the product of those of its rules. Tokens: opening ones by symbol and
    rule, closing ones by symbol, the end. Children are drawn from the seed until the mean number
    of them has a spectral radius of 0.6 to 0.92.

    Source: McNaughton 1967, Parenthesis grammars; Booth and Thompson 1973, Applying probability
        measures to abstract languages (the condition on the spectral radius).
    """

    symbols: int = 4
    rules: int = 6
    exponent: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        require("symbols", self.symbols, 1, 20)
        require("rules", self.rules, 2, 1000)
        require("exponent", self.exponent, 0.0, 5.0)
        require("seed", self.seed, 0, 2**63)

    @property
    def vocab_size(self) -> int:
        """Opening tokens, closing tokens and the end."""
        return self.symbols * (self.rules + 1) + 1

    @cached_property
    def grammar(self) -> Rules:
        """The children of every rule, drawn from the seed.

        Raises: ValueError: no grammar of these sizes was found.
        """
        rng = np.random.default_rng(self.seed)
        probs = zipf(self.rules, self.exponent)
        for _ in range(_MAX_TRIES):
            drawn = rng.integers(-1, self.symbols, (self.symbols, self.rules, _MAX_CHILDREN))
            # Half of all places stay empty, whatever the number of symbols.
            drawn[rng.random(drawn.shape) < 0.5] = -1
            children = tuple(
                tuple(tuple(int(c) for c in rule if c >= 0) for rule in rules) for rules in drawn
            )
            found = Rules(probs, children)
            growth = np.abs(np.linalg.eigvals(found.mean_children)).max()
            if _GROWTH[0] <= growth <= _GROWTH[1] and (found.nodes_per_document > 0).all():
                return found
        raise ValueError(
            f"no grammar of symbols={self.symbols}, rules={self.rules}, exponent={self.exponent} "
            "has documents that end; use more rules or a smaller exponent"
        )

    def entropy_rate_nats(self) -> float:
        """Entropy of the rules of a document over its mean length."""
        rules = self.grammar
        return float(
            rules.nodes_per_document.sum() * rules.rule_entropy / rules.tokens_per_document
        )

    def conditional_entropies(self, n: int, *, every: int = 1) -> np.ndarray:
        """By dynamic programming over what a window shows of the tree that it starts in."""
        return grammar_windows.conditional_entropies(self.grammar, n)

    def log_probs(self, windows: np.ndarray, *, every: int = 1) -> np.ndarray:
        """By parsing each window."""
        return np.array([grammar_windows.log_probs(self.grammar, w) for w in windows.tolist()])

    def chunks(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """A stack of what is still to come: a symbol, or a closing or end token as -1 - token."""
        rules = self.grammar
        cumulative = np.cumsum(rules.probs)[:-1]
        closing, end = rules.n_symbols * rules.n_rules, self.vocab_size - 1
        stack: list[int] = []
        for size in chunk_sizes():
            tokens = np.empty(size, np.int64)
            drawn = np.searchsorted(cumulative, rng.random(size), side="right").tolist()
            for i, rule in enumerate(drawn):
                symbol = stack.pop() if stack else 0
                if symbol < 0:
                    tokens[i] = -1 - symbol
                    continue
                if not stack:
                    stack.append(-1 - end)
                tokens[i] = symbol * rules.n_rules + rule
                children = rules.children[symbol][rule]
                if children:
                    stack.append(-1 - closing - symbol)
                    stack.extend(reversed(children))
            yield tokens

    def render(self, tokens: np.ndarray) -> str:
        """Opening tokens as a letter and a rule number, closing ones as /letter, a line a tree."""
        letters = [chr(ord("A") + i) for i in range(self.symbols)]
        signs = [f"{letter}{rule}" for letter in letters for rule in range(self.rules)]
        signs += [f"/{letter}" for letter in letters] + ["\n"]
        words = " ".join(signs[token] for token in np.asarray(tokens).tolist())
        return words.replace("\n ", "\n")
