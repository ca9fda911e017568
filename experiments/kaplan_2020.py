"""Kaplan et al. 2020 on runs of one's own: power laws under a constant rate, shapes, batches.

Question: which of the paper's laws hold for byte-level models of 1e4 parameters: L(N), L(D), L(C),
    L(N, D), L(N, S), the critical batch, C_min and its allocation, and that shape hardly matters?
Source: Kaplan et al. 2020 (arXiv:2001.08361, sections 3 to 6).
Command: python launch.py run kaplan_2020
Cost: the trunks of wsd_2024 and the batches of critical_batch, which it shares (5.4e12 training
    FLOPs), 5.4e12 in shapes and 1.0e12 in the held-out run.
Result: docs/results/kaplan_2020.md
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from analysis.load import Sweep
from experiments import critical_batch, hoffmann_2022, papers, wsd_2024
from experiments.ending import Ending
from experiments.grid import Setting, as_held_out, isoflop, with_seeds
from experiments.papers import SCALES, Options
from experiments.plan import Cell, Plan
from train.config import Budget, ScheduleConfig, to_json
from train.data.corpora import TokenizedCorpus

__all__ = ["Options", "conclude", "extend", "plan", "predict"]

BATCH = "batches"
VARIES = (
    "model.d_head", "model.n_heads", "batch_size", "optimizer.lr", "schedule.kind",
    "schedule.final_lr_fraction", "schedule.warmup_steps",
)  # fmt: skip
"""Fields of a spec that differ on purpose, beside size, tokens and seeds."""


def plan(options: Options, corpus: TokenizedCorpus) -> Plan:
    """Constant-rate runs by size, shapes of one N, batches, and a larger run to predict.

    Raises: SpecError: an option gives runs that cannot be (the message says which field).
    """
    at = hoffmann_2022.setting(options, corpus)
    fraction = wsd_2024.Options().cooldown_fraction
    long = wsd_2024.long_parts(at, options, fraction)
    flops, size = SCALES[options.scale].held_out["kaplan_2020"]
    (larger,) = isoflop(at, (flops,), (size,))
    parts = {
        "trunks": long["trunks"],
        "more_seeds": tuple(
            cell for cell in long["branch_seeds"] if cell.spec.schedule.kind == "constant"
        ),
        "shapes": shapes(at, options),
        BATCH: _batches(options, corpus).cells,
        "held_out": as_held_out((constant(larger),)),
    }
    return papers.plan_of_parts("kaplan_2020", options, parts)


def constant(cell: Cell) -> Cell:
    """The run under a constant rate after its warm-up."""
    held = ScheduleConfig("constant", warmup_steps=cell.spec.schedule.warmup_steps)
    return replace(cell, spec=replace(cell.spec, schedule=held))


def shapes(at: Setting, options: Options) -> tuple[Cell, ...]:
    """Models of nearly one N by depth and width and by width of a head, under two seeds."""
    scale = SCALES[options.scale]
    budget = Budget(tokens=scale.shape_tokens)
    cells = [
        Cell(replace(at, recipe=replace(at.recipe, d_head=d_head)).spec(size, budget), "grid")
        for size, d_head in scale.shapes
    ]
    return (*cells, *with_seeds(cells, 1))


def _batches(options: Options, corpus: TokenizedCorpus) -> Plan:
    scale = "smoke" if options.scale == "smoke" else "laptop"
    return critical_batch.plan(
        critical_batch.Options(scale=scale, corpus=options.corpus, tokenizer=options.tokenizer),
        corpus,
    )


def batch_plan(plan: Plan) -> Plan:
    """The batch sweep alone, as critical_batch reads it: all runs that are of no other part."""
    others = {i for part, ids in plan.options["parts"].items() if part != BATCH for i in ids}
    cells = tuple(cell for cell in plan.cells if cell.spec.run_id not in others)
    options = critical_batch.Options()
    known = {"recipe": to_json(options.recipe), "n_targets": options.n_targets}
    return replace(plan, options={**plan.options, **known}, cells=cells)


def extend(plan: Plan, rows: Mapping[str, Mapping[str, Any]]) -> tuple[Cell, ...]:
    """More rates for the batches whose best is at an edge of those tried."""
    return critical_batch.extend(batch_plan(plan), rows)


def predict(plan: Plan, sweep: Sweep, cell: Cell):
    """The loss of the held-out run by Kaplan's L(N, D), and with a floor."""
    from experiments.kaplan_reading import along_trunks
    from experiments.paper_laws import kaplan_predictions

    return kaplan_predictions(along_trunks(plan, sweep), cell)


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """Every law of the paper, from the sweep's records."""
    from experiments.kaplan_report import conclude

    return conclude(plan, sweep)
