"""Languages by name, such as lang:markov:vocab=16,order=2: typed, and spelled in one way only."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any

from train.data.languages.base import Language, floor_nats, require
from train.data.languages.corpus import N_BLOCKS, sampled
from train.data.languages.dyck import Dyck
from train.data.languages.finite import (
    EvenProcess,
    GoldenMean,
    ModularArithmetic,
    UnifilarHidden,
    Zipf,
)
from train.data.languages.grammar import Grammar
from train.data.languages.markov import MarkovSource
from train.data.languages.skills import Skills
from train.data.languages.text import Letters, Words
from train.data.tokenfiles import TokenizedCorpus

PREFIX = "lang:"
FLOORS_AT = (1, 8, 64, 128)
_GENERATOR = 1
"""Counts up when a generator gives other tokens for the same parameters."""


@dataclass(frozen=True)
class RandomMarkov:
    """Order-k Markov chain whose rows are drawn from a symmetric Dirichlet distribution."""

    vocab: int = 16
    order: int = 2
    seed: int = 0
    concentration: float = 0.3

    def __post_init__(self) -> None:
        require("vocab", self.vocab, 2, 2000)
        require("order", self.order, 1, 8)
        require("vocab**(order + 1)", self.vocab ** (self.order + 1), 0, 2_000_000)
        require("seed", self.seed, 0, 2**63)
        require("concentration", self.concentration, 0.01, 100.0)

    def source(self) -> MarkovSource:
        """The chain of these parameters."""
        return MarkovSource.random(
            vocab_size=self.vocab,
            order=self.order,
            seed=self.seed,
            concentration=self.concentration,
        )


@dataclass(frozen=True)
class Sizes:
    """How much of a language makes a corpus: tokens of each split, and the seed of the draw."""

    train: int = 10_000_000
    validation: int = 500_000
    sample: int = 0

    def __post_init__(self) -> None:
        require("train", self.train, N_BLOCKS, 1e10)
        require("validation", self.validation, N_BLOCKS, 1e9)
        require("sample", self.sample, 0, 2**63)


Recipe = Language | RandomMarkov | Letters | Words
TextOf = Callable[[str], tuple[str, str]]
"""Training text of a corpus by name, and its content hash."""

KINDS: dict[str, type] = {
    "zipf": Zipf,
    "markov": RandomMarkov,
    "letters": Letters,
    "words": Words,
    "golden-mean": GoldenMean,
    "even": EvenProcess,
    "hidden": UnifilarHidden,
    "dyck": Dyck,
    "grammar": Grammar,
    "skills": Skills,
    "modular": ModularArithmetic,
}


@dataclass(frozen=True)
class NamedLanguage:
    """A kind of language with its parameters, and how much of it is drawn."""

    kind: str
    recipe: Recipe
    sizes: Sizes

    @property
    def name(self) -> str:
        """The one spelling: parameters in their order, those at their default left out."""
        defaults = {f.name: f.default for part in (KINDS[self.kind], Sizes) for f in fields(part)}
        given = [f"{k}={v}" for k, v in self.parameters().items() if v != defaults[k]]
        return PREFIX + ":".join([self.kind, ",".join(given)] if given else [self.kind])

    @property
    def title(self) -> str:
        """What it is, in a line."""
        return (type(self.recipe).__doc__ or self.kind).splitlines()[0].rstrip(".")

    def parameters(self) -> dict[str, Any]:
        """Every parameter with its value."""
        return {**_given(self.recipe), **_given(self.sizes)}

    def language(self, text_of: TextOf) -> tuple[Language, str | None]:
        """The language itself, and the content hash of the text that it was counted in, if any."""
        if isinstance(self.recipe, Letters | Words):
            text, content_hash = text_of(self.recipe.text)
            return self.recipe.from_text(text), content_hash
        if isinstance(self.recipe, RandomMarkov):
            return self.recipe.source(), None
        return self.recipe, None

    def generate(self, text_of: TextOf) -> TokenizedCorpus:
        """The corpus of this name in memory; parameters, sizes and text are its content hash."""
        language, text_hash = self.language(text_of)
        given = {k: v for k, v in self.parameters().items() if k not in ("train", "validation")}
        meaning = {k: v for k, v in given.items() if k != "sample"}
        identity = [_GENERATOR, self.kind, self.parameters(), text_hash]
        return sampled(
            language,
            name=self.name,
            origin=f"generated: {self.kind} {self.parameters()}",
            identity=identity,
            tokenizer_identity=f"symbols of {self.kind} {sorted(meaning.items())} {text_hash}",
            n_train=self.sizes.train,
            n_validation=self.sizes.validation,
            seed=self.sizes.sample,
        )


@dataclass(frozen=True)
class LanguageReport:
    """What a person wants to know of a language before training on it; entropies in nats/token."""

    name: str
    title: str
    parameters: dict[str, Any]
    vocab_size: int
    content_hash: str
    n_tokens: dict[str, int]
    entropy_rate_nats: float
    floor_nats: dict[int, float]
    ngram_nats: dict[str, tuple[float, ...]]
    sample: str


def is_language(name: str) -> bool:
    """Whether a corpus name means a generated language."""
    return name.startswith(PREFIX)


def kinds() -> dict[str, tuple[str, str]]:
    """Names of the kinds, each with one line on what it is and its parameters at their defaults."""
    return {f"{PREFIX}{kind}": (_title(kind), _defaults(KINDS[kind])) for kind in KINDS}


def parse(name: str) -> NamedLanguage:
    """The language of a name lang:KIND or lang:KIND:parameter=value,parameter=value.

    Raises: ValueError: the kind or a parameter does not exist, or a value cannot be.
    """
    kind, _, text = name.removeprefix(PREFIX).partition(":")
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise ValueError(f"corpus={name!r}: language {kind!r} is unknown; use one of: {known}")
    values: dict[str, str] = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if not equals or key in values:
            raise ValueError(
                f"corpus={name!r}: {item!r} is not one parameter=value; {kind} has: {_help(kind)}"
            )
        values[key] = value
    types = {f.name: f.type for part in (KINDS[kind], Sizes) for f in fields(part)}
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise ValueError(
            f"corpus={name!r}: {kind} has no parameter {unknown[0]!r}; it has: {_help(kind)}"
        )
    try:
        recipe, sizes = (_made(part, values) for part in (KINDS[kind], Sizes))
    except ValueError as error:
        raise ValueError(f"corpus={name!r}: {error}") from error
    return NamedLanguage(kind, recipe, sizes)


def describe(named: NamedLanguage, corpus: TokenizedCorpus, language: Language) -> LanguageReport:
    """Entropy rate, floors, counts and a sample of a prepared language."""
    return LanguageReport(
        name=named.name,
        title=named.title,
        parameters=named.parameters(),
        vocab_size=corpus.vocab_size,
        content_hash=corpus.content_hash,
        n_tokens={
            "train": len(corpus.train_tokens),
            "validation": len(corpus.validation_tokens),
        },
        entropy_rate_nats=language.entropy_rate_nats(),
        floor_nats={seq_len: floor_nats(language, seq_len) for seq_len in FLOORS_AT},
        ngram_nats=corpus.ngram_nats,
        sample=language.render(corpus.validation_tokens[:200]),
    )


def _given(part: Any) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(part)}


def _help(kind: str) -> str:
    return f"{_title(kind)} ({_defaults(KINDS[kind])}, {_defaults(Sizes)})"


def _title(kind: str) -> str:
    return (KINDS[kind].__doc__ or kind).splitlines()[0]


def _defaults(part: Any) -> str:
    given = [f for f in fields(part) if f.default is not MISSING]
    return ", ".join(f"{field.name}={field.default}" for field in given)


def _made(part: type, values: dict[str, str]) -> Any:
    given = {f.name: f for f in fields(part) if f.name in values}
    return part(**{name: _value(name, values[name], f.type) for name, f in given.items()})


def _value(name: str, text: str, kind: Any) -> Any:
    if kind is str:
        return text
    try:
        value = float(text)
        whole = int(text) if text.lstrip("+-").isdigit() else int(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name}={text!r} is not a number") from error
    if kind is float:
        return value
    if whole != value:
        raise ValueError(f"{name}={text} is not a whole number")
    return whole
