"""IsoFLOP: budgets by sizes, each with the tokens that the budget leaves.

Question: which size is best at each budget of training FLOPs, and how does it move?
Source: approach 2 of Hoffmann et al. 2022 (arXiv:2203.15556, section 3.2).
Command: python launch.py run isoflop --budgets 1.3e11 2.6e11 --sizes 1x16 2x16 2x24 2x32 3x32
Cost: the sum of its budgets times its sizes; 4.6e12 training FLOPs in 15 runs as it stands.
Result: the fits of the quickstart, on these budgets.
"""

from dataclasses import dataclass

from experiments import choices, grid
from experiments.plan import BUDGET_CONVENTION, Plan
from model.accounting import FlopsConvention
from train.data.corpora import TokenizedCorpus


@dataclass(frozen=True)
class Options(choices.Choices):
    """What can be varied from the command line."""

    budgets: tuple[float, ...] = (1.3e11, 2.6e11, 5.2e11)
    """Training FLOPs of a run, as the convention counts them."""
    sizes: tuple[str, ...] = ("1x16", "2x16", "2x24", "2x32", "3x32")
    """Layers x width, or a family of model.ladders, such as small or kaplan:1e6."""
    convention: FlopsConvention = BUDGET_CONVENTION
    """What a budget counts (model.accounting): D is solved under it, and so differs."""
    held_out: str = ""
    """A run to predict before it is trained, as size:FLOPs, such as 3x40:1e12."""


def plan(options: Options, corpus: TokenizedCorpus) -> Plan:
    """Every size at every budget, and the held-out run.

    Raises: SpecError: an option gives runs that cannot be, or that are 1% off their budget.
    """
    at = choices.setting(options, corpus)
    shapes = choices.shapes_of(options.sizes)
    budgets = choices.positive(options.budgets, "budgets")
    cells = grid.isoflop(at, budgets, shapes, options.convention)
    cells += grid.with_seeds(cells, options.seeds - 1)
    if options.held_out:
        shape, flops = choices.pair_of(options.held_out, "held_out", "FLOPs")
        cells += grid.as_held_out(grid.isoflop(at, [flops], [shape], options.convention))
    return choices.plan_of("isoflop", options, cells)
