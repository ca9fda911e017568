"""Every generated language against an enumeration of its strings, and against its own samples.

The enumerations are written anew from each language's description, as steps between states that
hold the whole past that matters, and share no code with what they check.
"""

import itertools
import math

import numpy as np
import pytest

from train.data.languages import floor_nats
from train.data.languages.dyck import Dyck
from train.data.languages.finite import (
    EvenProcess,
    GoldenMean,
    ModularArithmetic,
    UnifilarHidden,
    Zipf,
)
from train.data.languages.grammar import Grammar
from train.data.languages.names import KINDS, parse
from train.data.languages.skills import Skills

NO_TEXT = [kind for kind in KINDS if kind not in ("letters", "words")]


def zipf_steps(language):
    weights = [r**-language.exponent for r in range(1, language.vocab + 1)]
    return lambda state: [(w / sum(weights), i, ()) for i, w in enumerate(weights)]


def golden_steps(language):
    p = language.p
    return lambda last: [(1 - p, 0, 0), (p, 1, 1)] if last == 0 else [(1.0, 0, 0)]


def even_steps(language):
    p = language.p
    return lambda odd: [(1.0, 1, 0)] if odd else [(1 - p, 0, 0), (p, 1, 1)]


def hidden_steps(language):
    probs, following = language.machine.probs, language.machine.next_state
    return lambda s: [
        (probs[s, x], x, following[s, x]) for x in range(language.vocab) if probs[s, x]
    ]


def modular_steps(language):
    n, ops = language.modulus, language.ops

    def steps(line):
        if len(line) in (0, 2):
            return [(1 / n, x, (*line, x)) for x in range(n)]
        if len(line) == 1:
            return [(1 / len(ops), n + i, (*line, op)) for i, op in enumerate(ops)]
        if len(line) == 3:
            return [(1.0, n + len(ops), (*line, "="))]
        if len(line) == 4:
            a, op, b, _ = line
            return [(1.0, {"+": a + b, "-": a - b, "*": a * b}[op] % n, (*line, "c"))]
        return [(1.0, n + len(ops) + 1, ())]

    return steps


def dyck_steps(language):
    k, bound, p = language.kinds, language.depth or math.inf, language.p_open

    def steps(stack):
        p_open = p if len(stack) < bound else 0.0
        found = [(p_open / k, kind, (*stack, kind)) for kind in range(k) if p_open]
        last = (k + stack[-1], stack[:-1]) if stack else (2 * k, ())
        return [*found, (1 - p_open, *last)]

    return steps


def grammar_steps(language):
    n_rules, closing = language.rules, language.symbols * language.rules
    weights = [r**-language.exponent for r in range(1, n_rules + 1)]
    children = language.grammar.children

    def steps(stack):
        if not stack:
            stack = ("S0", "end")
        due, rest = stack[0], stack[1:]
        if due == "end":
            return [(1.0, closing + language.symbols, ())]
        symbol = int(due[1:])
        if due[0] == "z":
            return [(1.0, closing + symbol, rest)]
        return [
            (w / sum(weights), symbol * n_rules + rule, (*_below(children, symbol, rule), *rest))
            for rule, w in enumerate(weights)
        ]

    return steps


def _below(children, symbol, rule):
    below = [f"S{child}" for child in children[symbol][rule]]
    return [*below, f"z{symbol}"] if below else []


def skills_steps(language):
    n = language.bits
    weights = [k ** -(1 + language.alpha) for k in range(1, language.skills + 1)]

    def steps(seen):
        if len(seen) < n:
            return [(0.5, 2 * len(seen) + bit, (*seen, bit)) for bit in (0, 1)]
        if len(seen) == n:
            return [(w / sum(weights), 2 * n + k, (*seen, k)) for k, w in enumerate(weights)]
        parity = sum(seen[i] for i in language.subsets[seen[-1]]) % 2
        return [(1.0, 2 * n + language.skills + parity, ())]

    return steps


def start_law(steps, start, every, n_steps, prune):
    """Law of the state where windows start, from a stream run for n_steps windows."""
    law, mean, n_counted = {start: 1.0}, {}, 0
    for step in range(n_steps * every):
        if step % every == 0 and step >= n_steps * every // 2:
            n_counted += 1
            for state, p in law.items():
                mean[state] = mean.get(state, 0.0) + p
        new = {}
        for state, p in law.items():
            for q, _, following in steps(state):
                if p * q > prune:
                    new[following] = new.get(following, 0.0) + p * q
        law = new
    return {state: p / n_counted for state, p in mean.items()}


def block_entropies(steps, law, n):
    words = {(): law}
    blocks = []
    for _ in range(n):
        longer = {}
        for word, states in words.items():
            for state, p in states.items():
                for q, token, following in steps(state):
                    found = longer.setdefault((*word, token), {})
                    found[following] = found.get(following, 0.0) + p * q
        words = longer
        probabilities = [sum(states.values()) for states in words.values()]
        blocks.append(-sum(p * math.log(p) for p in probabilities if p > 0))
    return blocks


CASES = [
    (Zipf(vocab=4, exponent=1.3), zipf_steps, 4, 1, 0.0),
    (GoldenMean(p=0.3), golden_steps, 8, 1, 0.0),
    (EvenProcess(p=0.6), even_steps, 8, 1, 0.0),
    (UnifilarHidden(vocab=3, states=3, seed=1), hidden_steps, 6, 1, 0.0),
    (ModularArithmetic(modulus=3, ops="+*"), modular_steps, 5, 1, 0.0),
    (ModularArithmetic(modulus=3, ops="-"), modular_steps, 5, 4, 0.0),
    (Dyck(kinds=2, depth=0, p_open=0.2), dyck_steps, 5, 1, 1e-8),
    (Dyck(kinds=2, depth=3, p_open=0.6), dyck_steps, 5, 1, 0.0),
    (Dyck(kinds=1, depth=2, p_open=0.4), dyck_steps, 7, 1, 0.0),
    (Grammar(symbols=1, rules=2), grammar_steps, 6, 1, 1e-12),
    (Grammar(symbols=2, rules=2, seed=1), grammar_steps, 4, 1, 1e-7),
    (Skills(skills=3, bits=3, sparsity=2), skills_steps, 6, 1, 0.0),
    (Skills(skills=2, bits=2, sparsity=1), skills_steps, 6, 2, 0.0),
]


def shown(value):
    """A name of the case that is the same in every process, which a function's repr is not."""
    return getattr(value, "__name__", str(value))[:40]


@pytest.mark.parametrize(("language", "steps_of", "n", "every", "prune"), CASES, ids=shown)
def test_block_entropies_equal_enumeration(language, steps_of, n, every, prune):
    steps = steps_of(language)
    start = 0 if steps_of in (golden_steps, even_steps, hidden_steps) else ()
    law = start_law(steps, start, every, 60 if prune else 480, prune)
    expected = block_entropies(steps, {s: p / sum(law.values()) for s, p in law.items()}, n)
    tolerance = 1e-3 if prune else 1e-6
    assert language.block_entropies(n, every=every) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("language", "every"), [(case[0], case[3]) for case in CASES], ids=shown)
def test_probabilities_of_all_strings_give_the_block_entropy(language, every):
    n = max(1, int(math.log(3000) / math.log(language.vocab_size)))
    words = np.array(list(itertools.product(range(language.vocab_size), repeat=n)))
    logs = language.log_probs(words, every=every).sum(axis=1)
    p = np.exp(logs)
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    blocks = language.block_entropies(n, every=every)
    assert -np.sum(p * np.where(p > 0, logs, 0.0)) == pytest.approx(blocks[-1], abs=1e-12)


@pytest.mark.parametrize("kind", NO_TEXT)
def test_samples_have_the_loss_of_the_floor(kind):
    """The oracle's loss on windows cut as batches cut them, with a clustered standard error."""
    seq_len = 20
    named = parse(f"lang:{kind}")
    language, _ = named.language(lambda name: ("", ""))
    tokens = language.sample(100_001, seed=5)
    starts = np.arange(5000) * seq_len
    windows = tokens[starts[:, None] + np.arange(seq_len + 1)].astype(np.int64)
    losses = -language.log_probs(windows, every=seq_len)[:, 1:].mean(axis=1)
    clusters = losses.reshape(100, -1).mean(axis=1)
    error = clusters.std(ddof=1) / 10
    assert losses.mean() == pytest.approx(floor_nats(language, seq_len), abs=3.5 * error + 1e-12)
    assert error < 0.03


@pytest.mark.parametrize("kind", NO_TEXT)
def test_floors_fall_to_the_rate(kind):
    language, _ = parse(f"lang:{kind}").language(lambda name: ("", ""))
    entropies = language.conditional_entropies(60)
    assert (np.diff(entropies) < 1e-9).all()
    assert entropies[0] <= math.log(language.vocab_size) + 1e-12
    assert entropies[-1] >= language.entropy_rate_nats() - 1e-9
    assert len(language.conditional_entropies(1)) == 1


@pytest.mark.parametrize("kind", NO_TEXT)
def test_samples_do_not_depend_on_chunks(kind):
    language, _ = parse(f"lang:{kind}").language(lambda name: ("", ""))
    long, short = language.sample(3000, seed=1), language.sample(700, seed=1)
    assert np.array_equal(long[:700], short)
    assert not np.array_equal(long, language.sample(3000, seed=2))
    assert long.max() < language.vocab_size and long.dtype == np.uint8
    assert language.render(long[:50])


def test_dyck_documents_have_catalan_probabilities():
    language = Dyck(kinds=1, depth=0, p_open=0.4)
    text = language.render(language.sample(400_000, seed=0)).split("\n")[:-1]
    sizes = np.bincount([len(line) // 2 for line in text])[:6] / len(text)
    for n, share in enumerate(sizes):
        p = math.comb(2 * n, n) / (n + 1) * 0.4**n * 0.6 ** (n + 1)
        assert share == pytest.approx(p, abs=4 * math.sqrt(p / len(text)))


def test_brackets_match_and_stay_below_their_bound():
    language = Dyck(kinds=3, depth=2, p_open=0.7)
    for line in language.render(language.sample(5000, seed=0)).split("\n")[:-1]:
        while any(pair in line for pair in ("()", "[]", "{}")):
            for pair in ("()", "[]", "{}"):
                line = line.replace(pair, "")
        assert line == ""
    wrong = np.array([[6, 0, 0, 0], [6, 0, 4, 0]])
    assert np.isneginf(language.log_probs(wrong)[:, [3, 2]].diagonal()).all()


def test_a_document_of_the_grammar_has_the_product_of_its_rules():
    language = Grammar(symbols=3, rules=4, seed=2)
    tokens = language.sample(2000, seed=0).astype(int)
    end = language.vocab_size - 1
    first, second = np.flatnonzero(tokens == end)[:2]
    document = tokens[first : second + 1]
    rules = [token % 4 for token in document if token < 12]
    expected = sum(math.log((rule + 1) ** -1.0 / (1 + 1 / 2 + 1 / 3 + 1 / 4)) for rule in rules)
    logs = language.log_probs(document[None])[0]
    assert logs[1:].sum() == pytest.approx(expected, abs=1e-12)
    assert math.exp(logs[0]) == pytest.approx(np.mean(tokens == end), abs=0.03)


def test_modular_lines_are_true_and_say_which_tokens_are_random():
    language = ModularArithmetic(modulus=11, ops="+-*")
    for line in language.render(language.sample(600, seed=0)).split(" ;\n")[:-1]:
        expression, result = line.split("=")
        assert eval(expression) % 11 == int(result)
    rate = sum(language.token_entropies().values()) / 6
    assert language.entropy_rate_nats() == pytest.approx(rate, abs=1e-12)
    assert floor_nats(language, 6) == pytest.approx(rate, abs=1e-12)


def test_learning_skills_in_order_gives_a_power_law():
    language = Skills(skills=20_000, alpha=0.6, bits=60)
    assert language.loss_after(20_000) == pytest.approx(language.entropy_rate_nats())
    learned = np.array([30, 100, 300])
    excess = [language.loss_after(n) - language.entropy_rate_nats() for n in learned.tolist()]
    slope = np.polyfit(np.log(learned), np.log(excess), 1)[0]
    assert -slope == pytest.approx(language.exponents()["N"], abs=0.04)
    assert language.exponents()["D"] == pytest.approx(0.6 / 1.6)
    with pytest.raises(ValueError, match="n_skills=-1"):
        language.loss_after(-1)


def test_beliefs_that_are_too_many_are_refused(monkeypatch):
    from train.data.languages import machine

    monkeypatch.setattr(machine, "_MAX_ENTRIES", 10)
    with pytest.raises(ValueError, match="too many different pasts"):
        ModularArithmetic(modulus=7).conditional_entropies(12)


def test_machines_that_fall_apart_are_refused():
    from train.data.languages.machine import Machine

    with pytest.raises(ValueError, match="one class"):
        Machine(np.eye(2), np.array([[0, 0], [1, 1]]))
    with pytest.raises(ValueError, match="no distribution"):
        Machine(np.full((2, 2), 0.4), np.zeros((2, 2), int))
