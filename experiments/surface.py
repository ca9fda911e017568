"""Grid: sizes by tokens, and the loss surface through them.

Question: what is L(N, D) over sizes and tokens of your choice?
Source: the design of Kaplan et al. 2020 (arXiv:2001.08361, section 4) and of approach 3 of Hoffmann
    et al. 2022 (arXiv:2203.15556).
Command: python launch.py run grid --sizes 1x16 2x24 3x32 --tokens 4e5 8e5 1.6e6
Cost: what `plan` says; 2.2e12 training FLOPs in 12 runs as it stands.
Result: the fits of the quickstart, on this grid.
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
    """D of every size."""
    held_out: str = ""
    """A run to predict before it is trained, as size:tokens, such as 3x40:4e6."""


def plan(options: Options, corpus: TokenizedCorpus) -> Plan:
    """Every size at every D, and the held-out run.

    Raises: SpecError: an option gives runs that cannot be (the message says which field).
    """
    at = choices.setting(options, corpus)
    shapes, tokens = choices.shapes_of(options.sizes), choices.tokens_of(options.tokens)
    cells = grid.grid(at, shapes, tokens)
    cells += grid.with_seeds(cells, options.seeds - 1)
    if options.held_out:
        shape, n_tokens = choices.pair_of(options.held_out, "held_out", "tokens")
        cells += grid.as_held_out(grid.grid(at, [shape], [round(n_tokens)]))
    return choices.plan_of("grid", options, cells)
