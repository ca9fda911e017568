"""Porian et al. 2024 on runs of one's own: from Kaplan's exponent to Chinchilla's, step by step.

Question: which of Kaplan's choices move the exponent of compute-optimal size, and by how much: the
    count of the last layer, the warm-up, the decay, the tuning? And how much of it is counting
    alone (Pearce & Song 2024)?
Source: Porian et al. 2024 (arXiv:2406.19146, section 3 and figure 1); Pearce & Song 2024
    (arXiv:2406.12907).
Command: python launch.py run porian_2024
Cost: the grids of quickstart and hoffmann_2022, which it shares; 6.6e12 training FLOPs of long
    runs, 2.3e12 of tuning, 1.3e12 in the held-out run.
Result: docs/results/porian_2024.md
"""

from dataclasses import replace

from analysis.load import Sweep
from experiments import hoffmann_2022, papers
from experiments.ending import Ending
from experiments.grid import Setting, as_held_out, isoflop
from experiments.papers import SCALES, UNTUNED, Options
from experiments.plan import Cell, Plan
from experiments.recipe import Size
from model.accounting import count_params
from train.config import ScheduleConfig
from train.data.corpora import TokenizedCorpus

__all__ = ["Options", "conclude", "plan", "predict"]

VARIES = (
    "batch_size", "optimizer.beta2", "optimizer.lr", "schedule.kind",
    "schedule.final_lr_fraction", "schedule.warmup_steps",
)  # fmt: skip
"""Fields of a spec that differ on purpose, beside size, tokens and seeds."""

N_TUNED = 3
"""Sizes, evenly over the smallest budget, about whose frozen choices the neighbours are tried."""


def plan(options: Options, corpus: TokenizedCorpus) -> Plan:
    """The runs of every rung, the neighbours of the tuned choices, and a larger run to predict.

    Raises: SpecError: an option gives runs that cannot be (the message says which field).
    """
    scale = SCALES[options.scale]
    tuned = hoffmann_2022.setting(options, corpus)
    untuned = replace(tuned, recipe=papers.scaled(UNTUNED, options.scale))
    matched = {
        "matched": papers.staircase(untuned, scale.stairs),
        "matched_seeds": papers.replicates(untuned, scale.stairs),
    }
    grid = hoffmann_2022.grid_parts(tuned, options)
    flops, size = scale.held_out["porian_2024"]
    parts = {
        "long_warmup": long_runs(untuned, options, warmup_steps=scale.long_warmup),
        "short_warmup": long_runs(untuned, options, warmup_steps=None),
        **matched,
        "tuned": grid["grid"],
        "tuned_seeds": grid["seeds"],
        "neighbours": neighbours(tuned, options),
        "held_out": as_held_out(isoflop(untuned, (flops,), (size,))),
    }
    return papers.plan_of_parts("porian_2024", options, parts)


def long_runs(at: Setting, options: Options, *, warmup_steps: int | None) -> tuple[Cell, ...]:
    """One run of constant rate a size, to its largest budget; the replicated size under two seeds.

    Args: warmup_steps: the same for all sizes; None: as many tokens as the model has parameters.

    Source: Porian et al. 2024, arXiv:2406.19146, section 3.3: a warm-up of N tokens.
    """
    scale = SCALES[options.scale]
    _, twice = scale.stairs.replicated
    cells = []
    for size in scale.ladder_sizes:
        flops = _largest(options, size)
        for seed in (0, 1) if size == twice else (0,):
            (cell,) = isoflop(replace(at, seed=options.seed + seed), (flops,), (size,))
            own = round(count_params(cell.spec.model).total / cell.spec.batch_tokens)
            steps = max(1, own if warmup_steps is None else warmup_steps)
            held = ScheduleConfig("constant", warmup_steps=min(steps, cell.spec.n_steps - 1))
            role = "seed" if seed else "grid"
            cells.append(Cell(replace(cell.spec, schedule=held), role))
    return tuple(cells)


def _largest(options: Options, size: Size) -> float:
    scale = SCALES[options.scale]
    of_size = [c for c, sizes in scale.stairs.budgets if size in sizes]
    return min(max(of_size), scale.ladder_flops)


def neighbours(at: Setting, options: Options) -> tuple[Cell, ...]:
    """Half and twice the rate and the batch, and two other beta2, at the smallest budget."""
    flops, sizes = SCALES[options.scale].stairs.budgets[0]
    tried = sizes[:: max(1, len(sizes) // 2)][:N_TUNED]
    recipe, lr = at.recipe, at.recipe.lr or 0.0
    changes = [
        {"lr": lr / 2}, {"lr": lr * 2},
        {"batch_size": recipe.batch_size // 2, "lr": lr * 0.5**recipe.lr_b_exponent},
        {"batch_size": recipe.batch_size * 2, "lr": lr * 2**recipe.lr_b_exponent},
        {"beta2": 0.95}, {"beta2": 0.995},
    ]  # fmt: skip
    return tuple(
        Cell(cell.spec, "grid")
        for changed in changes
        for cell in isoflop(replace(at, recipe=replace(recipe, **changed)), (flops,), tried)
    )


def predict(plan: Plan, sweep: Sweep, cell: Cell):
    """The loss of the held-out run by the law of the untuned, matched runs."""
    from experiments.paper_laws import surface_predictions

    return surface_predictions(papers.part_of(plan, sweep, "matched", "matched_seeds"), cell)


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """The exponent at each rung, from the sweep's records."""
    from experiments.porian_report import conclude

    return conclude(plan, sweep)
