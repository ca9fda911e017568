"""Which cells make a study: staircases of isoFLOP budgets, seeds, held-out runs, trunks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from experiments.plan import Cell, Role
from experiments.recipe import Recipe, Size
from train.config import Budget, DataConfig, RunSpec, ScheduleConfig, SpecError


@dataclass(frozen=True)
class Staircase:
    """IsoFLOP budgets, each with the sizes around its expected optimum.

    `budgets` pairs FLOPs (convention matmul_full) with sizes; `replicated` names the (budget, size)
    that is trained with `n_seeds` seeds; `held_out` is the larger run that the fit must predict.
    """

    budgets: tuple[tuple[float, tuple[Size, ...]], ...]
    replicated: tuple[float, Size]
    n_seeds: int
    held_out: tuple[float, Size]


def staircase_cells(
    staircase: Staircase, recipe: Recipe, data: DataConfig, *, vocab_size: int, seed: int
) -> tuple[Cell, ...]:
    """All cells: the grid by budget and size, then the extra seeds, then the held-out run."""

    def cell(flops: float, size: Size, role: Role, seed: int) -> Cell:
        budget = Budget(flops=flops, flops_convention="matmul_full")
        spec = recipe.spec(recipe.model(size, vocab_size), data, budget, seed=seed)
        return Cell(spec, role, None if role == "held_out" else flops)

    grid = [cell(c, size, "grid", seed) for c, sizes in staircase.budgets for size in sizes]
    extra: Sequence[int] = range(seed + 1, seed + staircase.n_seeds)
    seeds = [cell(*staircase.replicated, "seed", s) for s in extra]
    return (*grid, *seeds, cell(*staircase.held_out, "held_out", seed))


def trunk_and_branch_cells(
    sizes: Sequence[Size],
    tokens: Sequence[int],
    recipe: Recipe,
    data: DataConfig,
    *,
    vocab_size: int,
    seed: int,
    cooldown_fraction: float = 0.2,
) -> tuple[Cell, ...]:
    """For each size a trunk of constant rate, and at each D a run that cools down from it.

    The recipe's warm-up is that of the shortest run, for all. A cooldown takes `cooldown_fraction`
    of its run's steps, in the 1-sqrt form of train.schedule; its first step still has the full
    rate, so the trunk ends after that step of the longest run.

    Args: tokens: D of the branches.
    Raises: SpecError: the fraction is not in (0, 1), or leaves the shortest run no room to warm up.

    Source: Haegele et al. 2024, arXiv:2405.18392, section 3.
    """
    if not 0 < cooldown_fraction < 1:
        raise SpecError(f"cooldown_fraction={cooldown_fraction} must be between 0 and 1")
    cells = []
    for size in sizes:
        model = recipe.model(size, vocab_size)
        plain = [recipe.spec(model, data, Budget(tokens=d), seed=seed) for d in sorted(tokens)]
        warmup = plain[0].schedule.warmup_steps
        branches = [_cooling(spec, warmup, cooldown_fraction) for spec in plain]
        n_steps = max(b.n_steps - (b.schedule.decay_steps or 0) + 1 for b in branches)
        constant = ScheduleConfig("constant", warmup_steps=warmup)
        trunk = replace(plain[0], budget=Budget(steps=n_steps), schedule=constant)
        cells += [Cell(trunk, "trunk"), *(Cell(spec, "grid") for spec in branches)]
    return tuple(cells)


def _cooling(spec: RunSpec, warmup_steps: int, cooldown_fraction: float) -> RunSpec:
    decay_steps = max(1, round(cooldown_fraction * spec.n_steps))
    schedule = ScheduleConfig("wsd", warmup_steps=warmup_steps, decay_steps=decay_steps)
    return replace(spec, schedule=schedule)
