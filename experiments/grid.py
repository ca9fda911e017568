"""Which cells make a study: builders that return tuples of cells, to be added up into a plan.

at = Setting(recipe, data_config(corpus), corpus.vocab_size)
cells = isoflop(at, (1e11, 2e11), sizes) + as_held_out(grid(at, [Size(4, 80)], [10**7]))
cells += with_seeds(cells[:1], 2)
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from experiments.plan import BUDGET_CONVENTION, Cell
from experiments.recipe import Recipe, Size
from model.accounting import FlopsConvention, count_params
from model.config import ModelConfig
from train.config import Budget, DataConfig, RunSpec, ScheduleConfig, SpecError

Shape = Size | ModelConfig
"""A rung: layers by width under the recipe's rules, or a whole model, such as one of a family."""


@dataclass(frozen=True)
class Setting:
    """What all runs of a builder share: rules, text, and the seed of init and data order."""

    recipe: Recipe
    data: DataConfig
    vocab_size: int
    seed: int = 0

    def model(self, shape: Shape) -> ModelConfig:
        """The model of a rung, with the corpus's vocabulary and the recipe's context."""
        if isinstance(shape, Size):
            return self.recipe.model(shape, self.vocab_size)
        seq_len = self.recipe.seq_len
        return dataclasses.replace(shape, vocab_size=self.vocab_size, seq_len=seq_len)

    def spec(self, shape: Shape, budget: Budget) -> RunSpec:
        """The run of a rung under a budget."""
        return self.recipe.spec(self.model(shape), self.data, budget, seed=self.seed)

    def unique(self, n_tokens: int | None) -> "Setting":
        """The same on the first `n_tokens` of the training text; None for all of it."""
        return replace(self, data=replace(self.data, n_tokens_unique=n_tokens))


def grid(at: Setting, shapes: Iterable[Shape], tokens: Sequence[int]) -> tuple[Cell, ...]:
    """Every size at every D (tokens)."""
    pairs = product(shapes, tokens)
    return tuple(Cell(at.spec(shape, Budget(tokens=d)), "grid") for shape, d in pairs)


def isoflop(
    at: Setting,
    budgets: Iterable[float],
    shapes: Sequence[Shape],
    convention: FlopsConvention = BUDGET_CONVENTION,
) -> tuple[Cell, ...]:
    """Every size at every budget (FLOPs as the convention counts); D to the nearest whole step.

    A plan refuses cells that this leaves more than 1% off; `Cell.budget_error` says how far.
    """
    return tuple(
        Cell(at.spec(shape, Budget(flops=c, flops_convention=convention)), "grid", c, convention)
        for c, shape in product(budgets, shapes)
    )


def n_ladder(
    at: Setting,
    shapes: Iterable[Shape],
    *,
    tokens_per_param: float | None = None,
    tokens: int | None = None,
) -> tuple[Cell, ...]:
    """L(N): every size at one D, or at `tokens_per_param` times its N (total).

    Raises: SpecError: not exactly one of the two is given.
    """
    if (tokens is None) == (tokens_per_param is None):
        raise SpecError(
            f"tokens={tokens} and tokens_per_param={tokens_per_param}: give exactly one of them"
        )

    def n_tokens(shape: Shape) -> int:
        if tokens_per_param is None:
            assert tokens is not None
            return tokens
        return round(tokens_per_param * count_params(at.model(shape)).total)

    return tuple(Cell(at.spec(s, Budget(tokens=n_tokens(s))), "grid") for s in shapes)


def d_ladder(
    at: Setting,
    shapes: Iterable[Shape],
    tokens: Sequence[int],
    *,
    unique: Iterable[int | None] = (None,),
) -> tuple[Cell, ...]:
    """L(D): one or few sizes at every D, on each budget of unique tokens (None: the whole text).

    A budget that a run does not fill would repeat nothing and be the run on the whole text: these
    are left out, so that every cell is another run.

    Raises: SpecError: a budget of unique tokens that no D reaches.
    """
    shapes, cells = tuple(shapes), []
    for n_unique in unique:
        filled = [d for d in tokens if n_unique is None or d > n_unique]
        if not filled:
            raise SpecError(
                f"unique={n_unique} tokens are not seen twice by tokens={max(tokens)}; use fewer "
                "unique tokens, or a longer run"
            )
        cells += grid(at.unique(n_unique), shapes, filled)
    return tuple(cells)


def batch_and_rate(
    at: Setting,
    shapes: Iterable[Shape],
    tokens: Sequence[int],
    *,
    batches: Sequence[int],
    rate_factors: Sequence[float],
) -> tuple[Cell, ...]:
    """Every size and D at every batch (sequences) and at these multiples of the recipe's rate."""
    cells = []
    for shape, d, batch in product(shapes, tokens, batches):
        recipe = replace(at.recipe, batch_size=batch, batch_exponent=0.0)
        spec = replace(at, recipe=recipe).spec(shape, Budget(tokens=d))
        for factor in rate_factors:
            optimizer = replace(spec.optimizer, lr=spec.optimizer.lr * factor)
            cells.append(Cell(replace(spec, optimizer=optimizer), "grid"))
    return tuple(cells)


def with_seeds(cells: Iterable[Cell], n_more: int) -> tuple[Cell, ...]:
    """The cells again under the next `n_more` seeds of initialisation and data order, as seeds."""
    return tuple(
        replace(
            cell, role="seed",
            spec=replace(
                cell.spec,
                seed_init=cell.spec.seed_init + k, seed_data=cell.spec.seed_data + k,
            ),
        )
        for k in range(1, n_more + 1)
        for cell in cells
    )  # fmt: skip


def as_held_out(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """The cells as runs to predict: fitted by no law, trained after the prediction is written."""
    return tuple(Cell(cell.spec, "held_out") for cell in cells)


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
    at = Setting(recipe, data, vocab_size, seed)
    budgets = [isoflop(at, (flops,), sizes) for flops, sizes in staircase.budgets]
    replicated, held_out = (
        isoflop(at, (flops,), (size,)) for flops, size in (staircase.replicated, staircase.held_out)
    )
    seeds = with_seeds(replicated, staircase.n_seeds - 1)
    return (*(cell for cells in budgets for cell in cells), *seeds, *as_held_out(held_out))


def trunk_and_branch_cells(
    sizes: Sequence[Shape],
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
    at, cells = Setting(recipe, data, vocab_size, seed), []
    for size in sizes:
        plain = [at.spec(size, Budget(tokens=d)) for d in sorted(tokens)]
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
