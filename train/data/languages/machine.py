"""Unifilar machines: finitely many hidden states, and the token emitted fixes the next state."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from train.data.languages.base import Language, chunk_sizes, xlogx

_KEY = 1e12
"""Beliefs that agree to this many parts are one: only the rounding of equal ones differs."""
_MAX_ENTRIES = 100_000
_MAX_ERROR_NATS = 1e-7


@dataclass(frozen=True, eq=False)
class Machine:
    """In state s, token x has probability probs[s, x] and leads to state next_state[s, x].

    A stream begins in state `start`. All states must be reachable from each other.

    Raises: ValueError: a row is no distribution, or a state cannot be reached from `start`.
    """

    probs: np.ndarray
    next_state: np.ndarray
    start: int = 0

    def __post_init__(self) -> None:
        if (self.probs < 0).any() or not np.allclose(self.probs.sum(axis=1), 1.0, atol=1e-9):
            raise ValueError("a state's probabilities are no distribution; they must sum to 1")
        if (self.levels < 0).any() or not np.isfinite(self.stationary).all():
            raise ValueError("some states cannot be reached from others; let all be in one class")

    @cached_property
    def edges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """State, token, next state and probability of every possible step, by state."""
        states, tokens = np.nonzero(self.probs)
        return states, tokens, self.next_state[states, tokens], self.probs[states, tokens]

    @cached_property
    def stationary(self) -> np.ndarray:
        """Share of time in each state: float64 of shape (n_states,)."""
        n_states = len(self.probs)
        states, _, following, p = self.edges
        balance = -np.eye(n_states)
        np.add.at(balance, (following, states), p)
        balance[-1] = 1.0
        try:
            found = np.linalg.solve(balance, np.eye(n_states)[-1])
        except np.linalg.LinAlgError:
            return np.full(n_states, np.nan)
        return found.clip(min=0.0) / found.clip(min=0.0).sum()

    @cached_property
    def levels(self) -> np.ndarray:
        """Fewest steps from `start` to each state, -1 if there is no way."""
        levels = np.full(len(self.probs), -1)
        levels[self.start], level = 0, 0
        states, _, following, _ = self.edges
        while (levels == level).any():
            reached = following[levels[states] == level]
            level += 1
            levels[reached[levels[reached] < 0]] = level
        return levels

    @cached_property
    def period(self) -> int:
        """The greatest common divisor of the lengths of all cycles."""
        states, _, following, _ = self.edges
        return int(np.gcd.reduce(self.levels[states] + 1 - self.levels[following]))

    def at_window_start(self, every: int) -> np.ndarray:
        """Law of the state where windows start, over all windows cut every `every` tokens."""
        common = int(np.gcd(every, self.period))
        law = np.where(self.levels % common == 0, self.stationary, 0.0)
        return law / law.sum()

    @cached_property
    def state_entropies(self) -> np.ndarray:
        """Entropy of the token that each state emits, nats."""
        return -xlogx(self.probs).sum(axis=1)


class MachineLanguage(Language):
    """A language that a machine speaks; subclasses say which."""

    @cached_property
    def machine(self) -> Machine:
        """States and steps."""
        raise NotImplementedError

    @property
    def vocab_size(self) -> int:
        """Number of different tokens."""
        return self.machine.probs.shape[1]

    def entropy_rate_nats(self) -> float:
        """Mean entropy of the states: they are known to whoever knows the whole past."""
        return float(self.machine.stationary @ self.machine.state_entropies)

    def chunks(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """One uniform draw a token, looked up in the state's cumulative probabilities."""
        rows = [list(zip(*_row(p, n), strict=True)) for p, n in self._rows()]
        cumulative = [[edge[0] for edge in row[:-1]] for row in rows]
        state = self.machine.start
        for size in chunk_sizes():
            tokens = np.empty(size, np.int64)
            for i, draw in enumerate(rng.random(size).tolist()):
                _, tokens[i], state = rows[state][bisect_right(cumulative[state], draw)]
            yield tokens

    def _rows(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return zip(self.machine.probs, self.machine.next_state, strict=True)

    def conditional_entropies(self, n: int, *, every: int = 1) -> np.ndarray:
        """By dynamic programming over what a reader of the window believes about the state.

        Raises: ValueError: the beliefs are too many for an exact answer.
        """
        return _conditional_entropies(self.machine, n, self.machine.at_window_start(every))

    def log_probs(self, windows: np.ndarray, *, every: int = 1) -> np.ndarray:
        """By filtering: the belief about the state after each token, by Bayes' rule."""
        machine = self.machine
        n_windows, n_states = len(windows), len(machine.probs)
        beliefs = np.tile(machine.at_window_start(every), (n_windows, 1))
        found = np.full(windows.shape, -np.inf)
        offsets = np.arange(n_windows)[:, None] * n_states
        for t, tokens in enumerate(windows.T):
            joint = beliefs * machine.probs[:, tokens].T
            p = joint.sum(axis=1)
            np.log(p, out=found[:, t], where=p > 0)
            following = machine.next_state[:, tokens].T + offsets
            flat = np.bincount(following.ravel(), joint.ravel(), n_windows * n_states)
            beliefs = flat.reshape(n_windows, n_states) / np.where(p > 0, p, 1.0)[:, None]
        return found


def _row(p: np.ndarray, following: np.ndarray) -> tuple[list, list, list]:
    tokens = np.flatnonzero(p)
    return np.cumsum(p[tokens]).tolist(), tokens.tolist(), following[tokens].tolist()


def _conditional_entropies(machine: Machine, n: int, start: np.ndarray) -> np.ndarray:
    """Entropies of successive tokens, the state at first having the law `start`.

    Words with equal beliefs are one row of (row, state, probability of word and state). A word
    after which the state is certain needs no row: its probability goes to `known`, the law of
    certain states, which then moves like the chain itself. Rows beyond _MAX_ENTRIES, the least
    likely first, are taken as certain too; that lowers the sum of all entropies by at most their
    probability times log n_states.
    """
    n_states, n_tokens = machine.probs.shape
    states, tokens, following, p = machine.edges
    first_edge = np.searchsorted(states, np.arange(n_states + 1))
    known, error = np.zeros(n_states), 0.0
    at = np.flatnonzero(start)
    row, weight = np.zeros(len(at), np.int64), start[at]
    if len(at) == 1:
        known, at, row, weight = start.copy(), at[:0], row[:0], weight[:0]
    entropies = np.empty(n)
    for t in range(n):
        fan = np.diff(first_edge)[at]
        entry = np.repeat(np.arange(len(at)), fan)
        edge = np.arange(fan.sum()) - np.repeat(np.cumsum(fan) - fan, fan) + first_edge[at][entry]
        joint, word = weight[entry] * p[edge], row[entry] * n_tokens + tokens[edge]
        entropies[t] = known @ machine.state_entropies + _branching(row, weight, word, joint)
        known = np.bincount(following, known[states] * p, n_states)
        row, at, weight = _summed(word, following[edge], joint, n_states)
        row, at, weight, settled, hidden = _merged(row, at, weight, n_states)
        known += settled
        error += hidden * np.log(n_states)
    if error > _MAX_ERROR_NATS:
        raise ValueError(
            f"the entropies of {n} tokens are known to {error:.1e} nats only, since too many "
            "different pasts of a window matter; use fewer states, fewer tokens or shorter windows"
        )
    return entropies


def _branching(row: np.ndarray, weight: np.ndarray, word: np.ndarray, joint: np.ndarray) -> float:
    if not len(row):
        return 0.0
    _, one = np.unique(word, return_inverse=True)
    return float(xlogx(np.bincount(row, weight)).sum() - xlogx(np.bincount(one, joint)).sum())


def _summed(
    word: np.ndarray, at: np.ndarray, joint: np.ndarray, n_states: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add up what leads to the same state by the same word; rows are counted anew."""
    codes, one = np.unique(word * n_states + at, return_inverse=True)
    words, at = np.divmod(codes, n_states)
    _, row = np.unique(words, return_inverse=True)
    return row, at, np.bincount(one, joint, len(codes))


def _merged(
    row: np.ndarray, at: np.ndarray, weight: np.ndarray, n_states: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Rows of equal beliefs joined; the law of states now certain; the probability not followed."""
    if not len(row):
        return row, at, weight, np.zeros(n_states), 0.0
    size, mass = np.bincount(row), np.bincount(row, weight)
    kept = (size > 1) & (mass > 0)
    hidden = 0.0
    if size[kept].sum() > _MAX_ENTRIES:
        order = np.argsort(-mass)
        dropped = order[np.cumsum((size * kept)[order]) > _MAX_ENTRIES]
        hidden = float(mass[dropped[kept[dropped]]].sum())
        kept[dropped] = False
    certain = ~kept[row]
    settled = np.bincount(at[certain], weight[certain], n_states)
    row, at, weight = row[~certain], at[~certain], weight[~certain]
    if not len(row):
        return row, at, weight, settled, hidden
    share = np.rint(weight / mass[row] * _KEY).astype(np.uint64)
    key = np.bincount(row).astype(np.uint64)
    np.add.at(key, row, _mixed(share ^ _mixed(at.astype(np.uint64))))
    _, belief = np.unique(key[row], return_inverse=True)
    new_row, at, weight = _summed(belief, at, weight, n_states)
    return new_row, at, weight, settled, hidden


def _mixed(values: np.ndarray) -> np.ndarray:
    values = (values + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(32))
