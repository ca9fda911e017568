"""Quickstart: a scaling law of one's own, from a laptop, in minutes.

Question: how should compute be split between parameters and data for byte-level GPTs, what does
    the answer depend on, and does the fitted law predict a larger run?
Source: the design of Hoffmann et al. 2022 (arXiv:2203.15556, approaches 2 and 3) at a scale of
    1e11 to 2e12 FLOPs; the counting of N after Pearce & Song 2024 (arXiv:2406.12907).
Command: python launch.py run quickstart
Cost: 1.0e13 training FLOPs in 25 small runs, 2.4e12 in the held-out one; 8 minutes on 2 cores.
Result: from the same runs, a = 0.57 with total N (Chinchilla's side) and 0.74 with non-embedding N
    (Kaplan's), 90% intervals [0.47, 0.65] and [0.55, 0.84]; the held-out run is predicted.
"""

from dataclasses import dataclass, field
from typing import Literal

from experiments.grid import Staircase, staircase_cells
from experiments.options import changes, data_config, sweep_name
from experiments.plan import Plan
from experiments.recipe import Recipe, Size
from train.config import to_json
from train.data.corpora import TokenizedCorpus

Scale = Literal["laptop", "smoke"]


def _sizes(*pairs: tuple[int, int]) -> tuple[Size, ...]:
    return tuple(Size(*pair) for pair in pairs)


_A, _B, _C, _D, _E, _F, _G, _H = _sizes(
    (1, 16), (2, 16), (2, 24), (2, 32), (3, 32), (3, 40), (3, 56), (4, 64)
)

STAIRCASES: dict[Scale, Staircase] = {
    # Around the optimum of each budget, and few cells so short that they are not on a law yet.
    "laptop": Staircase(
        budgets=(
            (1.3e11, (_A, _B, _C, _D, _E)),
            (2.4e11, (_A, _B, _C, _D, _E, _F)),
            (4.4e11, (_B, _C, _D, _E, _F, _G)),
            (8.0e11, (_C, _D, _E, _F, _G, _H)),
        ),
        replicated=(2.4e11, _C),
        n_seeds=3,
        held_out=(2.4e12, Size(4, 80)),
    ),
    # Proves the loop in about a minute; its runs are too short to lie on any law.
    "smoke": Staircase(
        budgets=tuple((c, _sizes((1, 8), (1, 16), (1, 24), (1, 32))) for c in (1e10, 2e10, 4e10)),
        replicated=(2e10, Size(1, 16)),
        n_seeds=2,
        held_out=(8e10, Size(1, 40)),
    ),
}


@dataclass(frozen=True)
class Options:
    """What can be varied from the command line."""

    scale: Scale = "laptop"
    """laptop: the study. smoke: the same loop in about a minute, for tests."""
    corpus: str = "sotu"
    """The text, by a name of `launch.py data list`; lang:... generates it."""
    seed: int = 0
    """First seed of initialisation and data order; replicates count up from it."""
    tokenizer: str = "bytes"
    """bytes, bpe:SIZE (trained on the corpus) or gpt2:FOLDER (with GPT-2's files)."""
    recipe: Recipe = field(default_factory=Recipe)
    """Rules from size to hyperparameters."""


def plan(options: Options, corpus: TokenizedCorpus) -> Plan:
    """Every run of the study on a prepared corpus.

    Raises: SpecError: an option gives runs that cannot be (the message says which field).
    """
    cells = staircase_cells(
        STAIRCASES[options.scale],
        options.recipe,
        data_config(corpus),
        vocab_size=corpus.vocab_size,
        seed=options.seed,
    )
    overrides = changes(options)
    name = sweep_name("quickstart", overrides, ("scale", "corpus"))
    return Plan(name, "quickstart", to_json(options), overrides, cells)
