"""Haegele et al. 2024 on runs of one's own: trunk and cooldown against separate cosine runs.

Question: do branches that cool down from one constant-rate trunk a size end where separate cosine
    runs of the same length end, what do they save, and is the fitted law the same?
Source: Haegele et al. 2024 (arXiv:2405.18392, sections 3 and 5).
Command: python launch.py run wsd_2024
Cost: the grid of hoffmann_2022, which it shares; 6.0e12 training FLOPs of trunks and branches,
    1.2e12 in the held-out run.
Result: docs/results/wsd_2024.md
"""

from dataclasses import dataclass, replace

from analysis.load import Sweep
from experiments import hoffmann_2022, papers
from experiments.ending import Ending
from experiments.grid import Setting, as_held_out, isoflop
from experiments.papers import SCALES
from experiments.plan import Cell, Plan
from train.config import SpecError
from train.data.corpora import TokenizedCorpus

VARIES = ("schedule.kind", "schedule.final_lr_fraction", "schedule.warmup_steps")
"""Fields of a spec that differ on purpose, beside size, tokens and seeds."""


@dataclass(frozen=True)
class Options(papers.Options):
    """What can be varied from the command line."""

    cooldown_fraction: float = 0.2
    """Share of a branch's steps in which its rate comes down."""


def plan(options: Options, corpus: TokenizedCorpus) -> Plan:
    """The cosine grid, trunks with branches at its D, replicates, and a run to predict.

    Raises: SpecError: an option gives runs that cannot be (the message says which field).
    """
    if not 0 < options.cooldown_fraction < 1:
        raise SpecError(f"cooldown_fraction={options.cooldown_fraction} must be between 0 and 1")
    at = hoffmann_2022.setting(options, corpus)
    wsd = replace(at.recipe, schedule="wsd", cooldown_fraction=options.cooldown_fraction)
    flops, size = SCALES[options.scale].held_out["wsd_2024"]
    held_out = as_held_out(isoflop(replace(at, recipe=wsd), (flops,), (size,)))
    grid = hoffmann_2022.grid_parts(at, options)
    cosine = {"cosine": grid["grid"], "cosine_seeds": grid["seeds"]}
    parts = {**long_parts(at, options, options.cooldown_fraction), **cosine, "held_out": held_out}
    return papers.plan_of_parts("wsd_2024", options, parts)


def long_parts(
    at: Setting, options: papers.Options, cooldown_fraction: float
) -> dict[str, tuple[Cell, ...]]:
    """Trunks and branches; and those of the replicated cell under further seeds."""
    scale = SCALES[options.scale]
    trunks, branches = papers.long_runs(at, scale.stairs, scale.long_sizes, cooldown_fraction)
    more: list[Cell] = []
    flops, size = scale.stairs.replicated
    shorter = tuple((c, (size,)) for c, s in scale.stairs.budgets if size in s and c <= flops)
    one = replace(scale.stairs, budgets=shorter)
    for seed in range(options.seed + 1, options.seed + scale.stairs.n_seeds):
        again, cooled = papers.long_runs(
            replace(at, seed=seed), one, (size,), cooldown_fraction
        )  # fmt: skip
        more += [*again, *(replace(cell, role="seed") for cell in cooled)]
    return {"trunks": trunks, "branches": branches, "branch_seeds": tuple(more)}


def predict(plan: Plan, sweep: Sweep, cell: Cell):
    """The loss of the held-out run by the law of the branches, under both counts of N."""
    from experiments.paper_laws import surface_predictions

    return surface_predictions(papers.part_of(plan, sweep, "branches"), cell)


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """Branches against cosine runs, from the sweep's records."""
    from experiments.wsd_report import conclude

    return conclude(plan, sweep)
