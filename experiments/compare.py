"""Compare: is an idea worth it? One file's block, attention, MLP, loss or optimizer, in pairs.

Question: how much more compute does the baseline need for the loss of the idea, in FLOPs and in
    seconds, at sizes and budgets of a laptop?
Source: paired differences as in any controlled trial; gain at equal loss as in Erdil & Besiroglu
    2022 (arXiv:2212.05153), there called effective compute.
Command: python launch.py compare --model.block my_idea.py:Block
Cost: at laptop scale 14 pairs of runs, 4.2e12 training FLOPs a side; 11 CPU minutes (measured).
Result: docs/new_idea.md shows one.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from experiments.comparison import (
    Pair,
    Timing,
    compared,
    comparison_json,
    tables_and_sentences,
    write_report,
)
from experiments.executors import How, check_how, execute
from experiments.ideas import Idea, OwnParts, adopt_all
from experiments.plan import Cell, Plan
from experiments.recipe import Recipe, Size
from experiments.workspace import SweepFolder, write_json
from model import custom
from train.config import Budget, DataConfig, RunSpec, SpecError, to_json
from train.data.corpora import TokenizedCorpus, prepare
from train.records import read_run, to_plain

if TYPE_CHECKING:
    from experiments.stages import Stage  # imports jax, which is configured only after the flags

Scale = Literal["laptop", "smoke"]
TUNING_SEED = 1000
"""Added to the seed of runs that only choose a learning rate: none of them is compared."""


@dataclass(frozen=True)
class Grid:
    """Budgets in FLOPs (matmul_full), each with its sizes; one cell is run with more seeds."""

    budgets: tuple[tuple[float, tuple[Size, ...]], ...]
    replicated: tuple[float, Size]
    n_seeds: int = 3

    def cells(self) -> list[tuple[float, Size]]:
        """Every cell once, then the replicated one for each further seed."""
        once = [(flops, size) for flops, sizes in self.budgets for size in sizes]
        return once + [self.replicated] * (self.n_seeds - 1)


def _sizes(*pairs: tuple[int, int]) -> tuple[Size, ...]:
    return tuple(Size(*pair) for pair in pairs)


GRIDS: dict[Scale, Grid] = {
    # Around each budget's optimum (of the quickstart), all runs of 900 steps or more.
    "laptop": Grid(
        budgets=(
            (1.3e11, _sizes((1, 16), (2, 16), (2, 24), (2, 32))),
            (2.6e11, _sizes((2, 16), (2, 24), (2, 32), (3, 40))),
            (5.2e11, _sizes((2, 24), (2, 32), (3, 40), (3, 56))),
        ),
        replicated=(2.6e11, Size(2, 24)),
    ),
    # Proves the loop; its runs are too short to mean anything.
    "smoke": Grid(
        budgets=tuple((c, _sizes((1, 8), (1, 16))) for c in (4e9, 8e9, 1.6e10)),
        replicated=(8e9, Size(1, 8)),
    ),
}


@dataclass(frozen=True)
class CompareFlags:
    """The idea, what it is tried on, and where results go."""

    model: OwnParts = field(default_factory=OwnParts)
    """The idea's modules."""
    loss: str | None = None
    """FILE.py:NAME of loss(logits_NV, targets_N), trained on in place of cross-entropy."""
    optimizer: str | None = None
    """FILE.py:NAME of optimizer(hyper), an optax.GradientTransformation without rate and decay."""
    scale: Scale = "laptop"
    """laptop: an evening's answer. smoke: the same loop in seconds, for tests."""
    corpus: str = "sotu"
    """The text, by a name of `launch.py data list`; lang:... generates it."""
    seed: int = 0
    """First seed of initialisation and data order; every cell has one of its own."""
    tokenizer: str = "bytes"
    """bytes, bpe:SIZE (trained on the corpus) or gpt2:FOLDER (with GPT-2's files)."""
    lr_factors: tuple[float, ...] = (1.0,)
    """Factors on the recipe's learning rate; of several, each side takes its best on one cell."""
    recipe: Recipe = field(default_factory=Recipe)
    """Rules from size to hyperparameters, for both sides."""
    how: Annotated[How, tyro.conf.arg(name="")] = How()
    """Where runs are trained."""
    out: Path = Path("out")
    """Folder of corpora, runs, ideas and comparisons."""


def run(flags: CompareFlags, stage: "Stage") -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Check the idea, train both sides, compare: tables and sentences, also written to disk.

    Raises: ValueError: the idea or a flag cannot be run; the message says why.
    """
    from experiments.stages import freeze_plan
    from train.jobs import Job

    _check_factors(flags.lr_factors)
    check_how(flags.how)
    folder = stage.workspace.ideas
    idea = adopt_all(flags.model, flags.loss, flags.optimizer, folder)
    corpus = prepare(flags.corpus, stage.workspace.data, tokenizer=flags.tokenizer, log=stage.say)
    smallest = _pairs(flags, idea, corpus, (1.0, 1.0))[0].new
    _check(smallest)
    stage.say(f"{smallest.idea}: built, causal, finite")

    def train(specs: list[RunSpec]) -> None:
        jobs = [Job(spec) for spec in specs]
        execute(jobs, corpus, stage.workspace, how=flags.how, console=stage.console)

    factors = _chosen_factors(flags, idea, corpus, stage, train)
    pairs = _pairs(flags, idea, corpus, factors)
    plan = _plan(flags, pairs)
    home = SweepFolder(stage.workspace.root / "compare" / plan.name)
    freeze_plan(plan, home)
    train([spec for pair in pairs for spec in (pair.baseline, pair.new)])
    result = compared(pairs, _rows(pairs, stage), _timings(pairs))
    tables, sentences = tables_and_sentences(result, factors)
    write_json(home.path / "compare.json", to_plain(comparison_json(result, factors)))
    page = write_report(result, plan, tables, sentences, home)
    return tables, (*sentences, f"report: {page}")


def _check_factors(factors: tuple[float, ...]) -> None:
    if not factors or not all(0 < f < float("inf") for f in factors):
        raise SpecError(f"--lr-factors={factors} must be positive numbers, such as 0.5 1 2")


def _check(spec: RunSpec) -> None:
    from train.checks import check_ideas

    check_ideas(spec)


def _pairs(
    flags: CompareFlags, idea: Idea, corpus: TokenizedCorpus, factors: tuple[float, float]
) -> tuple[Pair, ...]:
    """Both sides of every cell and seed; factors on the learning rate of baseline and idea."""
    cells = GRIDS[flags.scale].cells()
    return tuple(
        Pair(
            cell=cells.index(cell),
            size=cell[1],
            flops=cell[0],
            baseline=_spec(flags, None, corpus, cell, flags.seed + i, factors[0]),
            new=_spec(flags, idea, corpus, cell, flags.seed + i, factors[1]),
        )
        for i, cell in enumerate(cells)
    )


def _spec(
    flags: CompareFlags,
    idea: Idea | None,
    corpus: TokenizedCorpus,
    cell: tuple[float, Size],
    seed: int,
    factor: float,
) -> RunSpec:
    """One run; its tokens follow from the budget by the FLOPs of its own model."""
    data = DataConfig(
        corpus=corpus.name,
        corpus_hash=corpus.content_hash,
        tokenizer=corpus.tokenizer,
        tokenizer_hash=corpus.tokenizer_hash,
        split_rule=corpus.split_rule,
    )
    given = flags.recipe
    recipe = dataclasses.replace(
        given, lr_max=given.lr_max * factor, lr_times_d_model=given.lr_times_d_model * factor
    )
    flops, size = cell
    model = recipe.model(size, corpus.vocab_size)
    if idea is not None:
        model = dataclasses.replace(model, **dataclasses.asdict(idea.model))
    spec = recipe.spec(model, data, Budget(flops=flops), seed=seed)
    return spec if idea is None else idea.on(spec)


def _chosen_factors(flags, idea, corpus, stage: "Stage", train) -> tuple[float, float]:
    """The factor of least loss on the replicated cell, for each side; no run if there is one."""
    if len(flags.lr_factors) == 1:
        return flags.lr_factors[0], flags.lr_factors[0]
    cell, seed = GRIDS[flags.scale].replicated, flags.seed + TUNING_SEED
    tried = [
        [_spec(flags, side, corpus, cell, seed, factor) for factor in flags.lr_factors]
        for side in (None, idea)
    ]
    train([spec for specs in tried for spec in specs])
    best = []
    for name, specs in zip(("baseline", "idea"), tried, strict=True):
        losses = [_loss(read_run(stage.workspace.runs, spec.run_id)) for spec in specs]
        shown = ", ".join(
            f"x{f:g}: {loss:.4f}" for f, loss in zip(flags.lr_factors, losses, strict=True)
        )
        best.append(flags.lr_factors[losses.index(min(losses))])
        stage.say(f"learning rate of the {name} on {cell[1]}: {shown} nats; x{best[-1]:g} is taken")
    return best[0], best[1]


def _loss(row: dict[str, Any] | None) -> float:
    finished = row is not None and row["status"] == "finished"
    return row["loss_nats"] if row is not None and finished else float("inf")


def _plan(flags: CompareFlags, pairs: tuple[Pair, ...]) -> Plan:
    """Both sides in one plan, named by the idea and by the plan's hash."""
    cells = [Cell(s, "grid", p.flops) for p in pairs for s in (p.baseline, p.new)]
    options = {
        "idea": pairs[0].new.idea,
        "scale": flags.scale,
        "corpus": flags.corpus,
        "seed": flags.seed,
        "lr_factors": list(flags.lr_factors),
        "recipe": to_json(flags.recipe),
    }
    names = [custom.parse(slot, r).name for slot, r in pairs[0].new.ideas.items()]
    plan = Plan("", "compare", options, overrides={}, cells=tuple(cells))
    return dataclasses.replace(plan, name="-".join([*names, flags.scale, plan.hash[:8]]))


def _rows(pairs: tuple[Pair, ...], stage: "Stage") -> dict[str, dict[str, Any]]:
    ids = [spec.run_id for pair in pairs for spec in (pair.baseline, pair.new)]
    rows = {run_id: read_run(stage.workspace.runs, run_id) for run_id in ids}
    return {run_id: row for run_id, row in rows.items() if row is not None}


def _timings(pairs: tuple[Pair, ...]) -> tuple[Timing, ...]:
    """Seconds a step of both sides at the smallest, the middle and the largest size, in turns."""
    import jax

    from train.timing import step_seconds

    by_size = {pair.size: pair for pair in pairs}
    sizes = sorted(by_size, key=lambda size: (size.n_layers, size.d_model))
    chosen = dict.fromkeys((sizes[0], sizes[len(sizes) // 2], sizes[-1]))
    device = jax.local_devices()[0]
    return tuple(
        Timing(size, step_seconds((by_size[size].baseline, by_size[size].new), device))
        for size in chosen
    )
