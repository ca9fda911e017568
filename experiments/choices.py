"""What experiments that are put together on the command line have in common: words to cells."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from experiments.grid import Setting, Shape
from experiments.options import changes, data_config, sweep_name
from experiments.plan import Cell, Plan
from experiments.recipe import Recipe, Size
from model.accounting import count_params
from model.ladders import LADDERS
from train.config import SpecError, to_json
from train.data.corpora import TokenizedCorpus

SIZE = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True)
class Choices:
    """Text, seeds and rules: what every such experiment can be given."""

    corpus: str = "sotu"
    """The text, by a name of `launch.py data list`; lang:... generates it."""
    tokenizer: str = "bytes"
    """bytes, bpe:SIZE or gpt2:FOLDER."""
    seed: int = 0
    """First seed of initialisation and data order; further ones count up from it."""
    seeds: int = 1
    """Seeds that every run is trained under."""
    recipe: Recipe = field(default_factory=Recipe)
    """Rules from size to hyperparameters."""


def setting(options: Choices, corpus: TokenizedCorpus) -> Setting:
    """The rules and the text of the options.

    Raises: SpecError: no seed.
    """
    if options.seeds < 1:
        raise SpecError(f"seeds={options.seeds}: a run needs one at least; use 1 or more")
    return Setting(options.recipe, data_config(corpus), corpus.vocab_size, options.seed)


def plan_of(
    experiment: str, options: Choices, cells: Sequence[Cell], spoken: tuple[str, ...] = ()
) -> Plan:
    """The plan of these cells, named by the options that are not their defaults."""
    overrides = changes(options)
    name = sweep_name(experiment, overrides, ("corpus", *spoken))
    return Plan(name, experiment, to_json(options), overrides, tuple(cells))


def shapes_of(words: Sequence[str], field_name: str = "sizes") -> tuple[Shape, ...]:
    """Sizes by name: 2x24 (layers x width), a family (small), or its rungs up to an N (kaplan:1e6).

    Raises: SpecError: a word that is none of these, a family without so small a rung, or a size
        twice.
    """
    if not words:
        raise SpecError(f"{field_name} names no size; give some, such as --{field_name} 2x24 3x40")
    shapes = tuple(shape for word in words for shape in _shapes_of(word, field_name))
    twice = [str(s) for k, s in enumerate(shapes) if s in shapes[:k]]
    if twice:
        raise SpecError(f"{field_name} names {twice[0]} twice; name every size once")
    return shapes


def _shapes_of(word: str, field_name: str) -> tuple[Shape, ...]:
    if match := SIZE.fullmatch(word):
        n_layers, d_model = map(int, match.groups())
        if n_layers and d_model:
            return (Size(n_layers, d_model),)
    family, _, limit = word.partition(":")
    if family not in LADDERS:
        raise SpecError(
            f"{field_name}={word!r} is no size; write layers x width, such as 2x24, or a family: "
            f"{', '.join(LADDERS)}, also with a largest N, such as kaplan:1e6"
        )
    at_most = number(limit, field_name) if limit else float("inf")
    found = tuple(r.model for r in LADDERS[family] if count_params(r.model).total <= at_most)
    if not found:
        least = min(count_params(rung.model).total for rung in LADDERS[family])
        raise SpecError(
            f"{field_name}={word!r}: the smallest of {family} has N = {least:,}; allow at least it"
        )
    return found


def number(word: str, field_name: str) -> float:
    """A positive number.

    Raises: SpecError: it is none.
    """
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise SpecError(f"{field_name}={word!r} is no positive number; write it as 400000 or 4e5")
    return value


def positive(values: Sequence[float], field_name: str) -> tuple[float, ...]:
    """The values in rising order.

    Raises: SpecError: there is none, one is not positive, or one is there twice.
    """
    if not values:
        raise SpecError(f"{field_name} is empty; give values, such as --{field_name} 4e5 1.6e6")
    for value in values:
        number(str(value), field_name)
    if len(set(values)) < len(values):
        raise SpecError(f"{field_name}={values} has a value twice; give every one once")
    return tuple(sorted(values))


def tokens_of(values: Sequence[float], field_name: str = "tokens") -> tuple[int, ...]:
    """Whole tokens in rising order.

    Raises: SpecError: as of `positive`.
    """
    return tuple(max(1, round(value)) for value in positive(values, field_name))


def pair_of(word: str, field_name: str, unit: str) -> tuple[Shape, float]:
    """A size with an amount, such as 4x80:2.4e12.

    Raises: SpecError: it is not of this form.
    """
    size, _, amount = word.partition(":")
    if not SIZE.fullmatch(size) or not amount:
        raise SpecError(f"{field_name}={word!r} is no size with {unit}; write it as 4x80:2.4e12")
    return _shapes_of(size, field_name)[0], number(amount, field_name)


def shape_name(shape: Shape) -> str:
    """Layers x width."""
    return f"{shape.n_layers}x{shape.d_model}"


def replaced(options: Choices, **values: object) -> Choices:
    """The options with other values."""
    return dataclasses.replace(options, **values)  # type: ignore[arg-type]
