"""Small tasks with a right answer, made offline: each question is text with candidate answers.

A task draws a `Question` from a generator; shots are further questions of the same task with their
answers, put before it. Letters stand apart by spaces, so that they are single tokens of most
tokenizers.
"""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz"
N_CANDIDATES = 4
_N_LETTERS = 4
_TEXT_FIELDS = ("text", "sentence", "content", "question")
_LABEL_FIELDS = ("label", "category", "class", "intent")


@dataclass(frozen=True)
class Question:
    """A prompt, the answers to choose from, and which of them is right."""

    prompt: str
    candidates: tuple[str, ...]
    right: int

    @property
    def solved(self) -> str:
        """The prompt with its right answer."""
        return self.prompt + self.candidates[self.right]


Maker = Callable[[np.random.Generator, int], Question]
"""A question after so many shots."""


def _after_worked(make: Callable[[np.random.Generator, int], list[Question]]) -> Maker:
    """The last of n + 1 questions, the others before it with their answers, each on a line."""

    def after(rng: np.random.Generator, shots: int) -> Question:
        *before, asked = make(rng, shots + 1)
        shown = "".join(f"{question.solved}\n" for question in before)
        return replace(asked, prompt=shown + asked.prompt)

    return after


def _among(right: str, others: Sequence[str], rng: np.random.Generator, prompt: str) -> Question:
    candidates = [right, *others]
    order = rng.permutation(len(candidates))
    return Question(prompt, tuple(candidates[i] for i in order), int(np.argmin(order)))


def _spelled(letters: Sequence[str]) -> str:
    return " " + " ".join(letters)


def _rearranged(answer: Callable[[list[str]], list[str]]) -> Maker:
    """Letters whose answer is an order of them; the other candidates are other orders."""

    def one(rng: np.random.Generator) -> Question:
        shown = list(rng.choice(list(LETTERS), _N_LETTERS, replace=False))
        right, others = answer(shown), set[str]()
        while len(others) < N_CANDIDATES - 1:
            others.add(_spelled(list(rng.permutation(shown))))
            others.discard(_spelled(right))
        return _among(_spelled(right), sorted(others), rng, f"{' '.join(shown)} >")

    return _after_worked(lambda rng, n: [one(rng) for _ in range(n)])


def _addition(rng: np.random.Generator, n: int) -> list[Question]:
    """Sums of two digits modulo ten, all ten digits to choose from."""
    digits = tuple(f" {digit}" for digit in range(10))
    pairs = rng.permutation(100)[np.arange(n) % 100]
    return [
        Question(f"{a} + {b} =", digits, int((a + b) % 10))
        for a, b in zip(pairs // 10, pairs % 10, strict=True)
    ]


def _induction(rng: np.random.Generator, shots: int) -> Question:
    """Random letters in which the pair x y stands `shots` times, and then x: what follows?

    The candidates are y and letters that stand in the text as often, after other letters.
    """
    x, y, *rest = rng.choice(list(LETTERS), len(LETTERS), replace=False)
    others, before = rest[: N_CANDIDATES - 1], rest[N_CANDIDATES - 1 :]
    # Unseen, y stands in the text as the others do: once, after a letter of its own.
    pairs = [(x if shots else before.pop(), y), *zip(before, others, strict=False)]
    units = pairs * max(shots, 1)
    text = [letter for i in rng.permutation(len(units)) for letter in units[i]]
    prompt = " ".join([*text, x])
    return _among(f" {y}", [f" {other}" for other in others], rng, prompt)


def cloze(texts: Sequence[str]) -> Maker:
    """Passages of a text whose last word is to be chosen among words of other passages.

    Raises: ValueError: there are too few passages.
    """
    passages = [words for text in texts for line in text.splitlines() for words in _passages(line)]
    n_words = len({words[-1] for words in passages})
    if n_words < N_CANDIDATES:
        raise ValueError(f"passages of the text end in {n_words} words; task cloze needs more text")

    def one(rng: np.random.Generator) -> Question:
        words = passages[rng.integers(len(passages))]
        others = set[str]()
        while len(others) < N_CANDIDATES - 1:
            others.add(" " + passages[rng.integers(len(passages))][-1])
            others.discard(f" {words[-1]}")
        return _among(f" {words[-1]}", sorted(others), rng, " ".join(words[:-1]))

    return _after_worked(lambda rng, n: [one(rng) for _ in range(n)])


_PASSAGE_WORDS = 10


def _passages(line: str) -> list[list[str]]:
    """Runs of ten words that end in a word of letters."""
    words = line.split()
    runs = [words[i : i + _PASSAGE_WORDS] for i in range(0, len(words), _PASSAGE_WORDS)]
    return [run for run in runs if len(run) == _PASSAGE_WORDS and run[-1].isalpha()]


def labelled(path: Path) -> Maker:
    """Texts with labels from a CSV with a header or from JSON lines: which label has this text?

    The text stands in a field text (or sentence, content, question), the label in label (or
    category, class, intent). Every label that occurs is a candidate.

    Raises: ValueError: no such file, or a field is missing.
    """
    rows = _read_rows(path)
    text, label = (_field(path, rows, names) for names in (_TEXT_FIELDS, _LABEL_FIELDS))
    labels = sorted({str(row[label]) for row in rows})
    if len(labels) < 2:
        raise ValueError(f"{path}: field {label} has {len(labels)} value; at least 2 are needed")

    def make(rng: np.random.Generator, n: int) -> list[Question]:
        picked = rng.permutation(len(rows))[np.arange(n) % len(rows)]
        return [
            Question(
                f"{' '.join(str(rows[i][text]).split())}\nlabel:",
                tuple(f" {name}" for name in labels),
                labels.index(str(rows[i][label])),
            )
            for i in picked
        ]

    return _after_worked(make)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                return list(csv.DictReader(file))
            return [json.loads(line) for line in file if line.strip()]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error}); give a CSV or JSON lines") from error


def _field(path: Path, rows: list[dict[str, Any]], names: Sequence[str]) -> str:
    found = [
        name for name in names if rows and all(isinstance(r, dict) and name in r for r in rows)
    ]
    if not found:
        raise ValueError(f"{path} has no field {' or '.join(names)} in every row; rename one")
    return found[0]


MADE: dict[str, Maker] = {
    "copy": _rearranged(list),
    "reverse": _rearranged(lambda shown: shown[::-1]),
    "sort": _rearranged(sorted),
    "addition": _after_worked(_addition),
    "induction": _induction,
}
"""Tasks that need no text."""
