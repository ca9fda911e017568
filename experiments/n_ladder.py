"""L(N): sizes of your choice at one D, or each at its own share of data.

Question: how does the loss fall with size, where data is not what limits it?
Source: Kaplan et al. 2020 (arXiv:2001.08361, eq. 1.1); with a floor, Henighan et al. 2020
    (arXiv:2010.14701, eq. 1.1).
Command: python launch.py run n_ladder --sizes small --tokens-per-param 20
Cost: what `plan` says; 3.3e12 training FLOPs in 7 runs as it stands.
Result: exponent, coefficient and floor of L(N), under both counts of N.
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

    sizes: tuple[str, ...] = ("1x8", "1x16", "2x16", "2x24", "2x32", "3x32", "3x40")
    """Layers x width, or a family of model.ladders, such as small or kaplan:1e6."""
    tokens: float | None = None
    """D of every size. None: tokens_per_param of each."""
    tokens_per_param: float = 50.0
    """D / N, N total."""


def plan(options: Options, corpus: TokenizedCorpus) -> Plan:
    """Every size at its D.

    Raises: SpecError: an option gives runs that cannot be (the message says which field).
    """
    at = choices.setting(options, corpus)
    shapes = choices.shapes_of(options.sizes)
    if options.tokens is None:
        choices.positive((options.tokens_per_param,), "tokens-per-param")
        cells = grid.n_ladder(at, shapes, tokens_per_param=options.tokens_per_param)
    else:
        (n_tokens,) = choices.tokens_of((options.tokens,))
        cells = grid.n_ladder(at, shapes, tokens=n_tokens)
    cells += grid.with_seeds(cells, options.seeds - 1)
    return choices.plan_of("n_ladder", options, cells)


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """L(N) with and without a floor, from the sweep's records."""
    from experiments.ladder_report import conclude_n

    return conclude_n(plan, sweep)
