"""What a window shows of a tree that began before it: exact entropies and probabilities."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from train.data.languages.base import entropy

_KEY_DIGITS = 12


@dataclass(frozen=True, eq=False)
class Rules:
    """Rule r of symbol A has probability probs[r] and the symbols children[A][r] below it.

    A place is a child of a rule, by symbol, rule and number; the last place is the root's.
    """

    probs: np.ndarray
    children: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def n_symbols(self) -> int:
        """Number of symbols."""
        return len(self.children)

    @property
    def n_rules(self) -> int:
        """Number of rules of each symbol."""
        return len(self.probs)

    @property
    def rule_entropy(self) -> float:
        """Entropy of the rule of a known symbol, nats."""
        return entropy(self.probs)

    @cached_property
    def mean_children(self) -> np.ndarray:
        """Mean number of children [symbol, symbol of the child]."""
        mean = np.zeros((self.n_symbols, self.n_symbols))
        for symbol, rule, child in self._all_children():
            mean[symbol, child] += self.probs[rule]
        return mean

    def _all_children(self):
        for symbol, rules in enumerate(self.children):
            for rule, children in enumerate(rules):
                for child in children:
                    yield symbol, rule, child

    @cached_property
    def nodes_per_document(self) -> np.ndarray:
        """Mean number of nodes of each symbol in a document."""
        root = np.eye(self.n_symbols)[0]
        return np.linalg.solve(np.eye(self.n_symbols) - self.mean_children.T, root)

    @cached_property
    def p_closing(self) -> np.ndarray:
        """Probability that a node of each symbol has children, and so a closing token."""
        has = np.array([[bool(children) for children in rules] for rules in self.children])
        return has @ self.probs

    @property
    def tokens_per_document(self) -> float:
        """Mean length of a document with its end token."""
        return float(self.nodes_per_document @ (1 + self.p_closing)) + 1

    @cached_property
    def first_token(self) -> np.ndarray:
        """Law of a token at a random place of the stream."""
        opening = self.nodes_per_document[:, None] * self.probs
        closing = self.nodes_per_document * self.p_closing
        return np.concatenate([opening.ravel(), closing, [1.0]]) / self.tokens_per_document

    @cached_property
    def places(self) -> list[tuple[int, int, int]]:
        """Symbol, rule and number of every child."""
        return [
            (symbol, rule, i)
            for symbol, rules in enumerate(self.children)
            for rule, children in enumerate(rules)
            for i in range(len(children))
        ]

    @cached_property
    def place_laws(self) -> np.ndarray:
        """Law of the place of a node, given its symbol: [symbol, place]."""
        laws = np.zeros((self.n_symbols, len(self.places) + 1))
        for at, (symbol, rule, i) in enumerate(self.places):
            child = self.children[symbol][rule][i]
            laws[child, at] = self.nodes_per_document[symbol] * self.probs[rule]
        laws[0, -1] = 1.0
        return laws / self.nodes_per_document[:, None]

    def after(self, belief: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """What may follow a node whose place has this law.

        Returns: laws of the place of a next child, not normalised [its symbol, place]; probability
            of each symbol's closing token; probability of the end token.
        """
        following = np.zeros((self.n_symbols, len(belief)))
        closing = np.zeros(self.n_symbols)
        for at, (symbol, rule, i) in enumerate(self.places):
            children = self.children[symbol][rule]
            if i + 1 < len(children):
                following[children[i + 1], at + 1] += belief[at]
            else:
                closing[symbol] += belief[at]
        return following, closing, float(belief[-1])

    def subtrees(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Law of the size of a subtree, and mean entropy of its tokens by offset: [symbol, n + 1].

        Rounds of substitution: a round is exact for nodes one level deeper than the one before,
        and a node at depth d has d tokens before it at least.
        """
        sizes, entropies = np.zeros((2, self.n_symbols, n + 1))
        for _ in range(n + 1):
            new_sizes, new_entropies = np.zeros((2, self.n_symbols, n + 1))
            new_entropies[:, 0] = self.rule_entropy
            for symbol, rules in enumerate(self.children):
                for p, children in zip(self.probs, rules, strict=True):
                    begun = np.zeros(n + 1)
                    begun[1:2] = p
                    for child in children:
                        new_entropies[symbol] += np.convolve(begun, entropies[child])[: n + 1]
                        begun = np.convolve(begun, sizes[child])[: n + 1]
                    new_sizes[symbol] += np.append(0.0, begun[:-1]) if children else begun
            same = np.array_equal(new_sizes, sizes) and np.array_equal(new_entropies, entropies)
            sizes, entropies = new_sizes, new_entropies
            if same:
                break
        return sizes, entropies


def conditional_entropies(rules: Rules, n: int) -> np.ndarray:
    """H(X_1) to H(X_n | X_1 to X_(n-1)) of windows that start anywhere, nats.

    A reader parses the window. Of a node that began in it everything is known but what is to come;
    when such a node is complete and nothing of its parent was seen, its place is known by a law
    only, which depends on the nodes completed since the parent's last token. A closing token
    reveals the parent's symbol, whose own place then has a law that depends on nothing else: the
    different laws are few. The end token reveals everything.

    done[k, t] is the probability that t tokens were read and the last one completed a node whose
    place has law k; begins[t], that t tokens were read and the last one ended a document.
    """
    sizes, inside = rules.subtrees(n)
    beliefs, steps = _beliefs(rules)
    done, begins = np.zeros((len(beliefs), n + 1)), np.zeros(n + 1)
    entropies = np.zeros(n + 1)
    entropies[0] = entropy(rules.first_token)
    share = rules.nodes_per_document / rules.tokens_per_document
    for symbol in range(rules.n_symbols):
        done[symbol] += share[symbol] * sizes[symbol]
        done[symbol, 1:2] += share[symbol] * rules.p_closing[symbol]
        entropies[1:] += share[symbol] * inside[symbol, 1:]
    begins[1:2] = 1 / rules.tokens_per_document
    for t in range(1, n):
        left = n + 1 - t
        for k, (children, closing, p_end, h) in enumerate(steps):
            mass = done[k, t]
            if mass == 0:
                continue
            entropies[t] += mass * h
            begins[t + 1] += mass * p_end
            done[: rules.n_symbols, t + 1] += mass * closing
            for symbol, p, target in children:
                entropies[t + 1 :] += mass * p * inside[symbol, 1:left]
                done[target, t:] += mass * p * sizes[symbol, :left]
        entropies[t:] += begins[t] * inside[0, :left]
        begins[t + 1 :] += begins[t] * sizes[0, : left - 1]
    return entropies[:n]


def _beliefs(rules: Rules):
    """Every law of a place that can come up, and what follows it; the first are place_laws."""
    beliefs = list(rules.place_laws)
    index = {_key(belief): i for i, belief in reversed(list(enumerate(beliefs)))}
    steps = []
    while len(steps) < len(beliefs):
        following, closing, p_end = rules.after(beliefs[len(steps)])
        p_child = following.sum(axis=1)
        children = []
        for symbol in np.flatnonzero(p_child):
            belief = following[symbol] / p_child[symbol]
            target = index.setdefault(_key(belief), len(beliefs))
            if target == len(beliefs):
                beliefs.append(belief)
            children.append((int(symbol), float(p_child[symbol]), target))
        law = np.concatenate([np.outer(p_child, rules.probs).ravel(), closing, [p_end]])
        steps.append((children, closing, p_end, entropy(law)))
    return beliefs, steps


def _key(belief: np.ndarray) -> bytes:
    return (np.round(belief, _KEY_DIGITS) + 0.0).tobytes()


def log_probs(rules: Rules, window: list[int]) -> list[float]:
    """log p of each token of a window that starts anywhere, given those before it."""
    closing, end = rules.n_symbols * rules.n_rules, rules.n_symbols * (rules.n_rules + 1)
    stack: list[int] = []  # what must follow: a symbol, or a token as -1 - token
    belief = None
    found: list[float] = []
    for token in window:
        due = stack.pop() if stack else None
        if due is not None and due < 0:
            p = float(token == -1 - due)
        elif due is not None:
            is_rule = token < closing and token // rules.n_rules == due
            p = float(rules.probs[token % rules.n_rules]) if is_rule else 0.0
        elif belief is None:
            p = float(rules.first_token[token])
        else:
            following, closes, p_end = rules.after(belief)
            if token < closing:
                belief = following[token // rules.n_rules]
                p = float(belief.sum() * rules.probs[token % rules.n_rules])
            else:
                p = p_end if token == end else float(closes[token - closing])
        if p == 0:
            return found + [-np.inf] * (len(window) - len(found))
        found.append(float(np.log(p)))
        if token == end:
            stack = [-1 - end, 0]
        elif token < closing:
            symbol, rule = divmod(token, rules.n_rules)
            if due is None:
                belief = rules.place_laws[symbol] if belief is None else belief / belief.sum()
            if rules.children[symbol][rule]:
                stack.append(-1 - closing - symbol)
                stack.extend(reversed(rules.children[symbol][rule]))
        elif due is None:
            belief = rules.place_laws[token - closing]
    return found
