"""N-gram models of a prepared corpus: what a trained model must beat, and what they write."""

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from tyro.conf import Positional

from experiments.analyse import OutputFlags, Rows, Shown

if TYPE_CHECKING:
    from train.data.corpora import TokenizedCorpus
    from train.data.languages import Language

OTHER = "_"
"""Stands for every word outside of the vocabulary."""


@dataclass(frozen=True)
class NgramFlags(OutputFlags):
    """Which corpus, which n-grams."""

    name: Positional[str] = "sotu"
    """Name of a prepared corpus."""
    order: int = 5
    """Longest n-gram: the last token and order - 1 before it."""
    unit: Literal["letters", "words"] = "letters"
    """letters: the corpus's own tokens (bytes of a text, tokens of a language). words: words and
    punctuation marks, for a text."""
    vocab: int = 20_000
    """Words told apart; rarer ones are one word, _."""
    sample: int = 300
    """How many tokens each order writes."""
    seed: int = 0
    """Seed of the draw."""


@dataclass(frozen=True)
class _Units:
    """Both splits in the units asked for, and how units are written."""

    train: np.ndarray
    validation: np.ndarray
    words: tuple[str, ...]
    corpus: "TokenizedCorpus"
    language: "Language | None"

    @property
    def vocab_size(self) -> int:
        return len(self.words) or self.corpus.vocab_size

    def text(self, tokens: np.ndarray) -> str:
        if self.words:
            return " ".join(self.words[token] for token in tokens.tolist())
        if self.language is not None:
            return self.language.render(tokens)
        from train.data.tokenizers import BYTES

        return BYTES.decode(tokens)


def ngrams(flags: NgramFlags) -> Shown:
    """Cross-entropy of interpolated Kneser-Ney models on validation text, and what they write.

    Raises: ValueError: the corpus is not prepared, or cannot be counted in this way.
    """
    from train.data.kneser_ney import count

    if flags.order < 1 or flags.sample < 1 or flags.vocab < 2:
        raise ValueError(
            f"order={flags.order}, sample={flags.sample}, vocab={flags.vocab}: use an order and a "
            "sample of at least 1 and a vocab of at least 2"
        )
    units = _units(flags)
    model = count(units.train, vocab_size=units.vocab_size, max_n=flags.order)
    losses = model.cross_entropies(units.validation)
    exact = _exact(units, flags.order)
    rows: Rows = [
        {
            "n": str(n),
            "nats/token": f"{loss:.4f}",
            "bits/token": f"{loss / math.log(2):.4f}",
            **({} if exact is None else {"exact H(X_n | before), nats": f"{exact[n - 1]:.4f}"}),
        }
        for n, loss in enumerate(losses, start=1)
    ]
    samples = {
        n: units.text(model.of_order(n).sample(flags.sample, flags.seed))
        for n in range(1, flags.order + 1)
    }
    sentences = tuple(f"written with n = {n}:\n{text}\n" for n, text in samples.items())
    values = {"nats_per_token": losses, "exact_nats": exact, "samples": samples}
    title = f"{flags.name}: loss of n-gram models on {len(units.validation):,} {flags.unit}"
    return Shown({title: rows}, sentences, values)


def _units(flags: NgramFlags) -> _Units:
    from pathlib import Path

    from train.data import corpora
    from train.data.languages import names

    data_dir = Path(flags.out) / "data"
    corpus = corpora.load(flags.name, data_dir)
    if names.is_language(flags.name):
        if flags.unit == "words":
            raise ValueError(f"unit=words: {flags.name} has tokens, not words; use --unit letters")
        language = corpora.language(flags.name, data_dir)
        return _Units(corpus.train_tokens, corpus.validation_tokens, (), corpus, language)
    if flags.unit == "letters":
        return _Units(corpus.train_tokens, corpus.validation_tokens, (), corpus, None)
    split = {name: _words(corpora.split_text(corpus, name)) for name in ("train", "validation")}
    common = [word for word, _ in Counter(split["train"]).most_common(flags.vocab - 1)]
    index = {word: i for i, word in enumerate([OTHER, *common])}
    coded = {name: np.array([index.get(w, 0) for w in words]) for name, words in split.items()}
    return _Units(coded["train"], coded["validation"], tuple(index), corpus, None)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def _exact(units: _Units, order: int) -> list[float] | None:
    """Entropy of a token of a language given the order - 1 before it, from first principles."""
    if units.language is None:
        return None
    return units.language.conditional_entropies(order).tolist()
