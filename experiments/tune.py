"""Tune: learning rate and batch as laws of size and data, before a grid is trained.

Question: how do the best learning rate and batch move with N and D, and how far do the exponents of
    a loss law depend on having tuned them?
Source: the design of Li et al. 2025 (Step Law, arXiv:2503.04715) and DeepSeek-AI 2024
    (arXiv:2401.02954), at a scale of 1e4 parameters; sensitivity after Porian et al. 2024
    (arXiv:2406.19146).
Command: python launch.py run tune
Cost: 6.5e12 training FLOPs in 87 runs, and about a quarter more at the edges that they find.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from analysis.load import Sweep
from experiments.ending import Ending
from experiments.options import changes, data_config, sweep_name
from experiments.plan import Cell, Plan
from experiments.recipe import Recipe, Size
from train.config import Budget, RunSpec, from_json, to_json
from train.data.corpora import TokenizedCorpus

Scale = Literal["laptop", "smoke"]
Rows = Mapping[str, Mapping[str, Any]]
STEP = 2.0
"""Factor between neighbouring rates, and between neighbouring batches."""

MAX_RATES = 7
"""Of one search: one that goes further has lost its way."""

MAX_BATCHES = 5
"""Of one size and data size."""


@dataclass(frozen=True)
class Crossing:
    """Sizes by data sizes (tokens), each data size with the batches (sequences) around its best.

    `n_seeds` at the smallest data size: what a difference of two losses is measured against.
    """

    sizes: tuple[Size, ...]
    data: tuple[tuple[int, tuple[int, ...]], ...]
    n_seeds: int


CROSSINGS: dict[Scale, Crossing] = {
    "laptop": Crossing(
        sizes=(Size(1, 16), Size(2, 24), Size(3, 32)),
        data=((131_072, (2, 4, 8)), (327_680, (2, 4, 8)), (819_200, (4, 8, 16))),
        n_seeds=3,
    ),
    "smoke": Crossing(
        sizes=(Size(1, 8), Size(1, 16), Size(1, 24)),
        data=((8_192, (4,)), (16_384, (4,)), (32_768, (4,))),
        n_seeds=2,
    ),
}


@dataclass(frozen=True)
class Options:
    """What can be varied from the command line."""

    scale: Scale = "laptop"
    """laptop: the study. smoke: the same loop in seconds, for tests."""
    corpus: str = "sotu"
    """The text, by a name of `launch.py data list`; lang:... generates it."""
    seed: int = 0
    """First seed of initialisation and data order; replicates count up from it."""
    tokenizer: str = "bytes"
    """bytes, bpe:SIZE (trained on the corpus) or gpt2:FOLDER (with GPT-2's files)."""
    rate: float = 0.02
    """Middle learning rate; half and twice of it are tried too, and further ones where the best
    of a cell is at an edge."""
    floor: float = 1.2
    """E of L = E + A/N^alpha + B/D^beta, held in the table of exponents; the quickstart's fit."""
    save_as: str = "tuned"
    """Name of the recipe that is written."""
    recipe: Recipe = field(default_factory=Recipe)
    """Everything else; its rules for rate and batch are replaced by the ones tuned."""


def plan(options: Options, corpus: TokenizedCorpus) -> Plan:
    """The middle of every search on a prepared corpus; `extend` adds what lies beyond its edges.

    Raises: SpecError: an option gives runs that cannot be (the message says which field).
    """
    crossing, data = CROSSINGS[options.scale], data_config(corpus)

    def cell(size: Size, n_tokens: int, batch: int, rate: float, seed: int) -> Cell:
        recipe = fixed(options.recipe, rate, batch)
        model = recipe.model(size, corpus.vocab_size)
        spec = recipe.spec(model, data, Budget(tokens=n_tokens), seed=seed)
        return Cell(spec, "grid" if seed == options.seed else "seed")

    rates = (options.rate / STEP, options.rate, options.rate * STEP)
    grid = [
        cell(size, n_tokens, batch, rate, options.seed)
        for size in crossing.sizes
        for n_tokens, batches in crossing.data
        for batch in batches
        for rate in rates
    ]
    least, batches = crossing.data[0]
    seeds = [
        cell(size, least, batches[len(batches) // 2], options.rate, options.seed + k)
        for size in crossing.sizes
        for k in range(1, crossing.n_seeds)
    ]
    overrides = changes(options)
    name = sweep_name("tune", overrides, ("scale", "corpus"))
    return Plan(name, "tune", to_json(options), overrides, (*grid, *seeds))


def fixed(recipe: Recipe, rate: float, batch_size: int) -> Recipe:
    """The recipe with this rate and batch for every run."""
    return dataclasses.replace(
        recipe, lr=rate, batch_size=batch_size, batch_exponent=0.0, lr_n_exponent=0.0,
        lr_d_exponent=0.0, lr_b_exponent=0.0,
    )  # fmt: skip


def extend(plan: Plan, rows: Rows) -> tuple[Cell, ...]:
    """More rates where the best is at an edge of those tried; then more batches, likewise."""
    return more_rates(plan, rows) or more_batches(plan, rows)


def more_rates(plan: Plan, rows: Rows) -> tuple[Cell, ...]:
    """One more rate for every search whose lowest loss is at an edge of its rates."""
    more = []
    for specs in searches(plan).values():
        best = _best(specs, rows)
        rates = [spec.optimizer.lr for spec in specs]
        beyond = {min(rates): 1 / STEP, max(rates): STEP}.get(best.optimizer.lr)
        if beyond is not None and len(rates) < MAX_RATES:
            more.append(_changed(plan, best, best.optimizer.lr * beyond, best.batch_size))
    return tuple(more)


def more_batches(plan: Plan, rows: Rows) -> tuple[Cell, ...]:
    """One more batch, with three rates, for every (N, D) whose lowest loss is at an edge of them.

    Not where one batch was planned, and never below one sequence.
    """
    by_cell = defaultdict(list)
    for (model, n_tokens, _), specs in searches(plan).items():
        by_cell[model, n_tokens].append(_best(specs, rows))
    more = []
    for tried in by_cell.values():
        best = _best(tried, rows)
        sizes = [spec.batch_size for spec in tried]
        beyond = {min(sizes): 1 / STEP, max(sizes): STEP}.get(best.batch_size)
        if beyond is None or not 1 < len(sizes) < MAX_BATCHES or best.batch_size * beyond < 1:
            continue
        batch_size = round(best.batch_size * beyond)
        rates = (best.optimizer.lr * factor for factor in (1 / STEP, 1.0, STEP))
        more += [_changed(plan, best, rate, batch_size) for rate in rates]
    return tuple(more)


def _changed(plan: Plan, spec: RunSpec, lr: float, batch_size: int) -> Cell:
    """The run of the same model on the same tokens, at another rate or batch."""
    recipe = fixed(from_json(Recipe, plan.options["recipe"], "recipe"), lr, batch_size)
    budget = Budget(tokens=spec.n_tokens)
    return Cell(recipe.spec(spec.model, spec.data, budget, seed=spec.seed_init), "grid")


def searches(plan: Plan) -> dict[tuple, list[RunSpec]]:
    """The grid's runs by (model, tokens, batch): those that differ in their rate alone."""
    found = defaultdict(list)
    for cell in plan.of_role("grid"):
        spec = cell.spec
        found[(spec.model, spec.n_tokens, spec.batch_size)].append(spec)
    return found


def _best(specs: list[RunSpec], rows: Rows) -> RunSpec:
    return min(specs, key=lambda spec: _loss(rows[spec.run_id]))


def _loss(row: Mapping[str, Any]) -> float:
    return float("inf") if row["loss_nats"] is None else row["loss_nats"]


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """Optima, laws, exponents by way of tuning, and the recipe, from the sweep's records."""
    from experiments.tuning_report import conclude

    return conclude(plan, sweep)
