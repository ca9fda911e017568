"""Hoffmann et al. 2022 on runs of one's own: three approaches to the compute-optimal model.

Question: how do compute-optimal size and tokens grow with compute, by each of the paper's three
    approaches, when every run's schedule is matched to its tokens?
Source: Hoffmann et al. 2022 (arXiv:2203.15556, sections 3.1 to 3.3, table 2).
Command: python launch.py run hoffmann_2022
Cost: 1.0e13 training FLOPs in 25 runs, 2.0e12 in the held-out one.
Result: docs/results/hoffmann_2022.md
"""

from analysis.load import Sweep
from experiments import papers
from experiments.ending import Ending
from experiments.grid import Setting, as_held_out, isoflop
from experiments.options import data_config
from experiments.papers import SCALES, TUNED, Options
from experiments.plan import Cell, Plan
from train.data.corpora import TokenizedCorpus

__all__ = ["Options", "conclude", "grid_parts", "plan", "predict"]


def plan(options: Options, corpus: TokenizedCorpus) -> Plan:
    """The staircase under the tuned recipe, its replicates, and a larger run to predict.

    Raises: SpecError: an option gives runs that cannot be (the message says which field).
    """
    stairs = SCALES[options.scale].stairs
    at = setting(options, corpus)
    flops, size = stairs.held_out
    parts = {**grid_parts(at, options), "held_out": as_held_out(isoflop(at, (flops,), (size,)))}
    return papers.plan_of_parts("hoffmann_2022", options, parts)


def setting(options: Options, corpus: TokenizedCorpus) -> Setting:
    """The tuned recipe at the scale, on the corpus."""
    recipe = papers.scaled(TUNED, options.scale)
    return Setting(recipe, data_config(corpus), corpus.vocab_size, options.seed)


def grid_parts(at: Setting, options: Options) -> dict[str, tuple[Cell, ...]]:
    """The runs of the grid and its further seeds, which other experiments share."""
    stairs = SCALES[options.scale].stairs
    return {"grid": papers.staircase(at, stairs), "seeds": papers.replicates(at, stairs)}


def predict(plan: Plan, sweep: Sweep, cell: Cell):
    """The loss of the held-out run by approach 3, under both counts of N."""
    from experiments.paper_laws import surface_predictions

    return surface_predictions(papers.part_of(plan, sweep, "grid", "seeds"), cell)


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """The three approaches side by side, from the sweep's records."""
    from experiments.hoffmann_report import conclude

    return conclude(plan, sweep)
