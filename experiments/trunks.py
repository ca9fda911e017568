"""Trunks: one constant-rate trunk a size, and a cooldown from it at every D.

Question: what is L(N, D), when runs of one size share all but their cooldown?
Source: Haegele et al. 2024 (arXiv:2405.18392, section 3).
Command: python launch.py run trunks --sizes 1x16 2x24 3x32 --tokens 4e5 8e5 1.6e6
Cost: what `plan` says; 1.5e12 training FLOPs in 16 runs as it stands, shared steps charged once.
Result: the fits of the quickstart, branches of one trunk being one cluster of every bootstrap.
"""

from dataclasses import dataclass

from experiments import choices, grid
from experiments.plan import Plan
from train.data.corpora import TokenizedCorpus


@dataclass(frozen=True)
class Options(choices.Choices):
    """What can be varied from the command line."""

    sizes: tuple[str, ...] = ("1x16", "2x16", "2x24", "3x32")
    """Layers x width, or a family of model.ladders, such as small or kaplan:1e6."""
    tokens: tuple[float, ...] = (500_000.0, 1_000_000.0, 2_000_000.0)
    """D of the branches of every trunk; recipe.cooldown_fraction is the share of steps in which
    the rate comes down."""


def plan(options: Options, corpus: TokenizedCorpus) -> Plan:
    """Of every size and seed a trunk, and a branch of it at every D.

    Raises: SpecError: an option gives runs that cannot be (the message says which field).
    """
    choices.setting(options, corpus)
    shapes, tokens = choices.shapes_of(options.sizes), choices.tokens_of(options.tokens)
    cells = []
    for seed in range(options.seed, options.seed + options.seeds):
        at = choices.setting(choices.replaced(options, seed=seed), corpus)
        cells += grid.trunk_and_branch_cells(
            shapes, tokens, at.recipe, at.data, vocab_size=at.vocab_size, seed=seed,
            cooldown_fraction=at.recipe.cooldown_fraction,
        )  # fmt: skip
    return choices.plan_of("trunks", options, cells)
