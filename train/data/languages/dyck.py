"""Balanced brackets of several kinds, with and without a bound on their depth."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from train.data.languages.base import Language, chunk_sizes, entropy, from_impossible_on, require
from train.data.languages.machine import Machine, MachineLanguage

_OPEN, _CLOSE, _END = range(3)
_PAIRS = ("()", "[]", "{}", "<>")


@dataclass(frozen=True)
class _BoundedDepth(MachineLanguage):
    """Brackets of one kind: open with probability p_open, at depth 0 end otherwise, else close."""

    depth: int
    p_open: float

    @cached_property
    def machine(self) -> Machine:
        """State: the depth. At the bound a bracket must close."""
        probs = np.zeros((self.depth + 1, 3))
        probs[:-1, _OPEN], probs[1:, _CLOSE] = self.p_open, 1 - self.p_open
        probs[0, _END], probs[-1, _CLOSE] = 1 - self.p_open, 1.0
        levels = np.arange(self.depth + 1)
        moves = np.stack([levels + 1, levels - 1, np.zeros_like(levels)], axis=1)
        return Machine(probs, moves.clip(0, self.depth))


@dataclass(frozen=True)
class Dyck(Language):
    """Documents of balanced brackets, each followed by an end token.

    At every token a bracket opens with probability p_open, its kind uniform; otherwise the last
    open one closes, or the document ends if none is open. At a depth of `depth` (0: no bound) the
    last one must close. Tokens: opening brackets by kind, closing ones by kind, the end. Without a
    bound, documents of n pairs have probability Catalan(n) p_open^n (1 - p_open)^(n + 1).

    The shape (open, close, end) does not depend on the kinds. An opening bracket adds log kinds to
    the entropy; a closing one adds as much if it opened before the window, and else nothing.
    """

    kinds: int = 2
    depth: int = 0
    p_open: float = 0.45

    def __post_init__(self) -> None:
        require("kinds", self.kinds, 1, 1000)
        require("depth", self.depth, 0, 30)
        require("p_open", self.p_open, 0.01, 0.99)
        if self.depth == 0 and self.p_open >= 0.5:
            raise ValueError(
                f"p_open={self.p_open} never closes all brackets without a bound; use less than "
                "0.5, or a depth"
            )

    @property
    def vocab_size(self) -> int:
        """Two brackets a kind and the end."""
        return 2 * self.kinds + 1

    @cached_property
    def _bounded(self) -> _BoundedDepth:
        return _BoundedDepth(self.depth, self.p_open)

    def entropy_rate_nats(self) -> float:
        """Entropy of open or not, plus log kinds at every opening."""
        if self.depth:
            machine = self._bounded.machine
            p_open = float(machine.stationary @ machine.probs[:, _OPEN])
            return self._bounded.entropy_rate_nats() + p_open * float(np.log(self.kinds))
        choice = entropy(np.array([self.p_open, 1 - self.p_open]))
        return choice + self.p_open * float(np.log(self.kinds))

    def conditional_entropies(self, n: int, *, every: int = 1) -> np.ndarray:
        """Entropies of the shape, plus log kinds for every bracket whose kind is new."""
        if self.depth:
            shape = self._bounded.conditional_entropies(n, every=every)
            new = self._new_kinds_bounded(n)
        else:
            shape, new = self._unbounded(n)
        return shape + np.log(self.kinds) * new

    def _unbounded(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Entropies of the shape and probability of a new kind, by token.

        The depth has the geometric law of ratio r = p / (1 - p), and so have the brackets left over
        from before the window, however many of them closed in it. As long as no document has ended,
        all that matters is the number of brackets opened in the window that are still open; if it
        is 0, the next token opens with p, closes an older bracket with r (1 - p) = p, or ends.
        """
        p = self.p_open
        known = entropy(np.array([p, 1 - p]))
        unknown = entropy(np.array([p, p, 1 - 2 * p]))
        height = np.zeros(n + 1)
        height[0] = 1.0
        shape, new = np.empty(n), np.empty(n)
        for t in range(n):
            ground = height[0]
            shape[t] = known + ground * (unknown - known)
            new[t] = p + p * ground
            height = p * np.append(0.0, height[:-1]) + (1 - p) * np.append(height[1:], 0.0)
            height[0] += p * ground
        return shape, new

    def _new_kinds_bounded(self, n: int) -> np.ndarray:
        """Probability that a token is an opening bracket, or closes one from before the window."""
        machine = self._bounded.machine
        law, new = machine.stationary, np.empty(n)
        older = np.diag(law)  # [depth, brackets open from before the window]
        levels = np.arange(self.depth + 1)
        for t in range(n):
            opened, closed = machine.probs[:, _OPEN], machine.probs[:, _CLOSE]
            grounded = np.diag(older) * closed
            new[t] = law @ opened + grounded[1:].sum()
            following = np.zeros_like(older)
            following[1:] += older[:-1] * opened[:-1, None]
            following[:-1] += np.tril(older, -1)[1:] * closed[1:, None]
            following[levels[:-1], levels[:-1]] += grounded[1:]
            following[0, 0] += older[0, 0] * machine.probs[0, _END]
            older = following
        return new

    def log_probs(self, windows: np.ndarray, *, every: int = 1) -> np.ndarray:
        """Shape by filtering, kinds by matching brackets within the window."""
        shapes = np.where(windows < self.kinds, _OPEN, _CLOSE)
        shapes[windows == 2 * self.kinds] = _END
        if self.depth:
            found = self._bounded.log_probs(shapes, every=every)
        else:
            found = np.array([self._unbounded_log_probs(shape) for shape in shapes.tolist()])
        kinds = np.array([self._kind_log_probs(window) for window in windows.tolist()])
        return from_impossible_on(found + kinds)

    def _unbounded_log_probs(self, shape: list[int]) -> list[float]:
        p, height, has_ended, found = self.p_open, 0, False, []
        for move in shape:
            if height:
                law = (p, 1 - p, 0.0)
            else:
                law = (p, 0.0, 1 - p) if has_ended else (p, p, 1 - 2 * p)
            found.append(float(np.log(law[move])) if law[move] else -np.inf)
            has_ended |= move == _END
            height = max(0, height + (1, -1, 0)[move])
        return found

    def _kind_log_probs(self, window: list[int]) -> list[float]:
        stack, found, new = [], [], -float(np.log(self.kinds))
        for token in window:
            if token < self.kinds:
                stack.append(token)
                found.append(new)
            elif token < 2 * self.kinds and stack:
                found.append(0.0 if stack.pop() == token - self.kinds else -np.inf)
            else:
                found.append(new if token < 2 * self.kinds else 0.0)
        return found

    def chunks(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """A draw for open or not and one for the kind, for every token."""
        stack, bound = [], self.depth or np.inf
        for size in chunk_sizes():
            tokens = np.empty(size, np.int64)
            opens = (rng.random(size) < self.p_open).tolist()
            kinds = rng.integers(self.kinds, size=size).tolist()
            for i in range(size):
                if opens[i] and len(stack) < bound:
                    stack.append(kinds[i])
                    tokens[i] = kinds[i]
                else:
                    tokens[i] = self.kinds + (stack.pop() if stack else self.kinds)
            yield tokens

    def render(self, tokens: np.ndarray) -> str:
        """Brackets, a document a line; kinds beyond the fourth have numbers."""
        pairs = [_PAIRS[i] if i < len(_PAIRS) else (f" {i}(", f"){i} ") for i in range(self.kinds)]
        signs = [*(pair[0] for pair in pairs), *(pair[1] for pair in pairs), "\n"]
        return "".join(signs[token] for token in np.asarray(tokens).tolist())
