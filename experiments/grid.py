"""Which cells make a study: staircases of isoFLOP budgets, seeds, held-out runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.plan import Cell, Role
from experiments.recipe import Recipe, Size
from train.config import Budget, DataConfig


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
