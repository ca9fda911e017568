"""What the experiments on the core papers share: scales, frozen recipes, and plans made of parts.

Runs are named by their content, so a run that two experiments ask for is trained once: the grid of
`hoffmann_2022` is the tuned end of `porian_2024`'s ladder and the cosine side of `wsd_2024`, whose
trunks are the constant-rate runs of `kaplan_2020`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from analysis.load import Sweep
from experiments.grid import Setting, Staircase, isoflop, with_seeds
from experiments.options import changes, sweep_name
from experiments.plan import Cell, Plan
from experiments.quickstart import STAIRCASES
from experiments.recipe import Recipe, Size
from train.config import ScheduleConfig, to_json

Frame = Any
"""A pandas table, whose stubs take a choice of rows for a dozen types."""

Scale = Literal["laptop", "smoke", "gpu", "pod"]

TUNED = Recipe(
    lr=0.01407, at_n_params=11_611.0, lr_n_exponent=-0.109, lr_b_exponent=0.415,
    batch_size=8, schedule="cosine", final_lr_fraction=0.1,
)  # fmt: skip
"""What `tune` found (docs/tuning.md: lr* ~ N^-0.11 B^0.42 through 33 searches), at 512 tokens a
step, frozen before any of these grids was trained. Its exponent of D, -0.01 [-0.18, 0.17], is held
at 0, so that runs of one size and many lengths share their steps."""

UNTUNED = Recipe()
"""The quickstart's rule by width, lr = min(0.03, 0.48 / d_model): one guess for all sizes."""


@dataclass(frozen=True)
class PaperScale:
    """A staircase of isoFLOP budgets, the sizes of long constant-rate runs, and the rest that the
    experiments scale by. Budgets are FLOPs (matmul_full), warm-ups steps, tokens D.

    Args:
        stairs: budgets with their sizes, a replicated cell, and the held-out run of hoffmann_2022.
        long_sizes: those of trunks (wsd_2024, kaplan_2020).
        ladder_sizes: those of the long runs of porian_2024, each up to `ladder_flops`.
        long_warmup: steps that all sizes of Kaplan's choices warm up for.
        shapes: models of nearly one N by depth and width, each with its width of a head.
        shape_tokens: D of each.
        held_out: by experiment, beyond its grid.
        seq_len, d_head, batch_size: of every run but those of the laptop's recipe.
    """

    stairs: Staircase
    long_sizes: tuple[Size, ...]
    ladder_sizes: tuple[Size, ...]
    ladder_flops: float
    long_warmup: int
    shapes: tuple[tuple[Size, int], ...]
    shape_tokens: int
    held_out: Mapping[str, tuple[float, Size]]
    setting: Mapping[str, int]


def _sizes(*pairs: tuple[int, int]) -> tuple[Size, ...]:
    return tuple(Size(*pair) for pair in pairs)


def _stairs(
    budgets: Sequence[float], sizes: Sequence[Size], width: int, held_out: tuple[float, Size]
) -> Staircase:
    """`width` sizes at each budget, one size further at each next one; the middle is replicated."""
    steps = [(c, tuple(sizes[k : k + width])) for k, c in enumerate(budgets)]
    middle, around = steps[len(steps) // 2]
    return Staircase(tuple(steps), (middle, around[width // 2]), 3, held_out)


_LAPTOP = replace(STAIRCASES["laptop"], held_out=(2.0e12, Size(4, 80)))
_SMOKE = _sizes((1, 8), (1, 16), (1, 24), (1, 32))
_GPU = _sizes(
    (4, 128), (4, 192), (6, 256), (6, 384), (8, 512), (10, 640), (12, 768), (16, 1024), (20, 1280)
)
_POD = _sizes(
    (8, 512), (10, 640), (12, 768), (16, 1024), (20, 1280), (24, 1536), (24, 2048), (32, 2560),
    (32, 3072), (36, 4096),
)  # fmt: skip

SCALES: dict[Scale, PaperScale] = {
    "laptop": PaperScale(
        stairs=_LAPTOP,
        long_sizes=_sizes((1, 16), (2, 16), (2, 24), (2, 32), (3, 32), (3, 40)),
        ladder_sizes=_sizes((1, 16), (2, 16), (2, 24), (2, 32), (3, 32), (3, 40), (3, 56)),
        ladder_flops=4.4e11,
        long_warmup=1000,
        shapes=(
            (Size(8, 16), 8), (Size(4, 24), 8), (Size(2, 32), 8), (Size(1, 48), 8),
            (Size(2, 32), 4), (Size(2, 32), 16), (Size(2, 32), 32),
        ),
        shape_tokens=1_500_000,
        held_out={
            "wsd_2024": (1.2e12, Size(3, 48)),
            "kaplan_2020": (1.0e12, Size(3, 56)),
            "porian_2024": (1.3e12, Size(3, 80)),
        },
        setting={},
    ),
    "smoke": PaperScale(
        stairs=_stairs((3e9, 6e9, 1.2e10), _SMOKE, 2, (2.4e10, Size(1, 40))),
        long_sizes=_SMOKE[:3],
        ladder_sizes=_SMOKE[:3],
        ladder_flops=6e9,
        long_warmup=40,
        shapes=((Size(4, 8), 8), (Size(1, 16), 8), (Size(1, 16), 16)),
        shape_tokens=32_768,
        held_out=dict.fromkeys(
            ("wsd_2024", "kaplan_2020", "porian_2024"), (2.4e10, Size(1, 40))
        ),
        setting={},
    ),
    "gpu": PaperScale(
        stairs=_stairs([1e16 * 4**k for k in range(5)], _GPU, 5, (1e19, Size(24, 1536))),
        long_sizes=_GPU[:7],
        ladder_sizes=_GPU[:7],
        ladder_flops=6.4e17,
        long_warmup=3000,
        shapes=tuple(
            (size, 64) for size in _sizes((2, 1024), (4, 704), (8, 512), (16, 384), (32, 256))
        ),
        shape_tokens=2_000_000_000,
        held_out=dict.fromkeys(
            ("wsd_2024", "kaplan_2020", "porian_2024"), (5e18, Size(24, 1536))
        ),
        setting={"seq_len": 1024, "d_head": 64, "batch_size": 64},
    ),
    "pod": PaperScale(
        stairs=_stairs([3e18 * 3.16**k for k in range(6)], _POD, 5, (4e21, Size(40, 5120))),
        long_sizes=_POD[:8],
        ladder_sizes=_POD[:8],
        ladder_flops=9.4e19,
        long_warmup=3000,
        shapes=tuple(
            (size, 64) for size in _sizes((4, 2880), (8, 2048), (16, 1472), (32, 1024), (64, 704))
        ),
        shape_tokens=20_000_000_000,
        held_out=dict.fromkeys(
            ("wsd_2024", "kaplan_2020", "porian_2024"), (2e21, Size(40, 5120))
        ),
        setting={"seq_len": 2048, "d_head": 64, "batch_size": 256},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What can be varied from the command line."""

    scale: Scale = "laptop"
    """laptop: the study. smoke: the same loop in about a minute, for tests. gpu, pod: for `plan`,
    on a larger corpus."""
    corpus: str = "sotu"
    """The text, by a name of `launch.py data list`; lang:... generates it."""
    seed: int = 0
    """First seed of initialisation and data order; replicates count up from it."""
    tokenizer: str = "bytes"
    """bytes, bpe:SIZE (trained on the corpus) or gpt2:FOLDER (with GPT-2's files)."""


def scaled(recipe: Recipe, scale: Scale) -> Recipe:
    """The recipe with the context, heads and batch of a scale."""
    return replace(recipe, **SCALES[scale].setting)


def staircase(at: Setting, stairs: Staircase) -> tuple[Cell, ...]:
    """Every size at every budget, under the recipe's schedule matched to D."""
    return tuple(cell for c, sizes in stairs.budgets for cell in isoflop(at, (c,), sizes))


def replicates(at: Setting, stairs: Staircase) -> tuple[Cell, ...]:
    """The further seeds of the replicated cell."""
    flops, size = stairs.replicated
    return with_seeds(isoflop(at, (flops,), (size,)), stairs.n_seeds - 1)


def long_runs(
    at: Setting, stairs: Staircase, sizes: Sequence[Size], cooldown_fraction: float
) -> tuple[tuple[Cell, ...], tuple[Cell, ...]]:
    """Of each size one run of constant rate to its largest budget, and at every budget a branch
    that cools down from it: (trunks, branches).

    D at each budget is that of `staircase`, and the warm-up that of the shortest run of the size.
    """
    trunks, branches = [], []
    for size in sizes:
        budgets = [c for c, of_budget in stairs.budgets if size in of_budget]
        cells = isoflop(at, sorted(budgets), (size,))
        warmup = cells[0].spec.schedule.warmup_steps
        constant = ScheduleConfig("constant", warmup_steps=warmup)
        longest = replace(cells[-1].spec, schedule=constant)
        trunks.append(replace(cells[-1], spec=longest, role="trunk"))
        for cell in cells:
            decay = max(1, round(cooldown_fraction * cell.spec.n_steps))
            wsd = ScheduleConfig("wsd", warmup_steps=warmup, decay_steps=decay)
            branches.append(replace(cell, spec=replace(cell.spec, schedule=wsd)))
    return tuple(trunks), tuple(branches)


def plan_of_parts(
    experiment: str, options: Any, parts: Mapping[str, Sequence[Cell]]
) -> Plan:  # fmt: skip
    """The plan of all parts. A run of several parts is planned once, as the first has it; which
    runs are of which part stands among the options, by run_id."""
    cells: dict[str, Cell] = {}
    for of_part in parts.values():
        for cell in of_part:
            cells.setdefault(cell.spec.run_id, cell)
    overrides = changes(options)
    name = sweep_name(experiment, overrides, ("scale", "corpus"))
    members = {part: [c.spec.run_id for c in of_part] for part, of_part in parts.items()}
    return Plan(
        name, experiment, {**to_json(options), "parts": members}, overrides, tuple(cells.values())
    )


def part_of(plan: Plan, sweep: Sweep, *parts: str) -> Frame:
    """The runs of some parts, in the order of the plan; a trunk's end is a run like any other."""
    ids = {run_id for part in parts for run_id in plan.options["parts"][part]}
    every: Frame = sweep.runs
    runs = every[every["run_id"].isin(ids)]
    return runs.assign(role=runs["role"].replace("trunk", "grid"))
