"""L(D): one or few sizes at rising D, also on fewer unique tokens than they see.

Question: how does the loss fall with data, and what are tokens worth that are seen again?
Source: Kaplan et al. 2020 (arXiv:2001.08361, eq. 1.2); repeated tokens: Muennighoff et al. 2023
    (arXiv:2305.16264, eqs. 5 to 7).
Command: python launch.py run d_ladder --sizes 2x24 --unique 2.5e5 5e5
Cost: what `plan` says; 1.7e12 training FLOPs in 12 runs as it stands.
Result: exponent and floor of L(D) of each size, and how many fresh tokens the repeated ones are
    worth; with three sizes or more, Muennighoff's law.
"""

from dataclasses import dataclass

from analysis.load import Sweep
from experiments import choices, grid
from experiments.ending import Ending
from experiments.plan import Plan
from train.data.corpora import TokenizedCorpus


@dataclass(frozen=True)
class Options(choices.Choices):
    """What can be varied from the command line."""

    sizes: tuple[str, ...] = ("2x24",)
    """Layers x width, or a family of model.ladders, such as small or kaplan:1e6."""
    tokens: tuple[float, ...] = (125_000.0, 250_000.0, 500_000.0, 1e6, 2e6)
    """D of every size, on as much text as there is."""
    unique: tuple[float, ...] = (125_000.0, 250_000.0)
    """Further budgets of unique tokens, for every D that goes beyond them."""


def plan(options: Options, corpus: TokenizedCorpus) -> Plan:
    """Every size at every D on all of the text, then on each budget of unique tokens.

    Raises: SpecError: an option gives runs that cannot be (the message says which field).
    """
    at = choices.setting(options, corpus)
    shapes, tokens = choices.shapes_of(options.sizes), choices.tokens_of(options.tokens)
    limits = choices.tokens_of(options.unique, "unique") if options.unique else ()
    cells = grid.d_ladder(at, shapes, tokens, unique=(None, *limits))
    cells += grid.with_seeds(cells, options.seeds - 1)
    return choices.plan_of("d_ladder", options, cells)


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """L(D) of every size, and the worth of repeated tokens, from the sweep's records."""
    from experiments.ladder_report import conclude_d

    return conclude_d(plan, sweep)
