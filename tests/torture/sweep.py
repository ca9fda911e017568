"""The sweep that is tortured, as a script: `launch.py run` of an experiment small enough for it.

    python tests/torture/sweep.py OUT [--workers N] [--scale tiny|small] [--patience S]

Twelve runs: isoFLOP cells, another seed, one that may stop early, a trunk with two branches, and
a held-out one that is predicted before. Only what surrounds training is made smaller: the text, the
bootstrap, the time between checkpoints; figures are left out.
"""

import argparse
import dataclasses
import functools
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "torture"
N_RUNS = 12
SCALES = {"tiny": 1.5e8, "small": 1.5e9}
"""FLOPs of the smallest runs; others take up to eight times as many."""


@dataclass(frozen=True)
class Options:
    """The scale, and the text as every experiment names it."""

    scale: str = "small"
    corpus: str = "sotu"
    tokenizer: str = "bytes"
    recipe: dict[str, int] = field(default_factory=lambda: {"seq_len": 16, "batch_size": 4})


def plan(options, corpus):
    """The twelve runs."""
    from experiments.grid import Staircase, staircase_cells, trunk_and_branch_cells
    from experiments.options import data_config
    from experiments.plan import Cell, Plan
    from experiments.recipe import Recipe, Size
    from train.config import EarlyStopping, to_json

    small, middle, large = Size(1, 8), Size(1, 16), Size(1, 24)
    flops = SCALES[options.scale]
    staircase = Staircase(
        budgets=tuple((flops * n, (small, middle, large)) for n in (1, 2)),
        replicated=(2 * flops, middle),
        n_seeds=2,
        held_out=(8 * flops, large),
    )
    recipe = Recipe(**options.recipe)
    data, vocab_size = data_config(corpus), corpus.vocab_size
    *cells, held_out = staircase_cells(staircase, recipe, data, vocab_size=vocab_size, seed=0)
    longest = max((cell.spec for cell in cells), key=lambda spec: spec.n_steps)
    looks = EarlyStopping(every_steps=longest.n_steps // 8, patience=3)
    early = Cell(dataclasses.replace(longest, early_stopping=looks, seed_init=5), "seed")
    tokens = [longest.n_steps * longest.batch_tokens * n // 4 for n in (2, 4)]
    trunk = trunk_and_branch_cells(
        [middle], tokens, recipe, data, vocab_size=vocab_size, seed=7
    )  # fmt: skip
    return Plan(NAME, NAME, to_json(options), {}, (*cells, early, *trunk, held_out))


def install(checkpoint_every_s: float, patience_s: float) -> None:
    """Put this experiment, its text and its shorter times in the place of ours."""
    import tiny_study

    import experiments.catalog
    from analysis.study import study
    from analysis.table import flags
    from experiments import stages
    from experiments.executors import local
    from train.data import corpora
    from train.lease import Watch
    from train.worker import Setup

    experiments.catalog.EXPERIMENTS[NAME] = sys.modules[__name__]
    corpora._documents = lambda source, folder, log: tiny_study.documents
    flags.PRE_ASYMPTOTIC_STEPS = 1
    stages.study = functools.partial(study, n_bootstrap=4)
    stages.draw = lambda *arguments: None
    local.Setup = functools.partial(Setup, checkpoint_every_s=checkpoint_every_s)
    local.Watch = functools.partial(Watch, patience_s=patience_s)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--scale", default="small", choices=SCALES)
    parser.add_argument("--checkpoint-every", type=float, default=0.1, help="seconds")
    parser.add_argument("--patience", type=float, default=90.0, help="seconds")
    flags = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from train.runtime import configure

    configure(Path(flags.out) / "cache")
    install(flags.checkpoint_every, flags.patience)
    import launch
    from train import runtime

    # The code above has imported jax, after the same settings.
    runtime.configure = lambda cache_dir: None
    arguments = ["--scale", flags.scale, "--workers", flags.workers, "--out", flags.out]
    return launch.main(["run", NAME, *arguments])


if __name__ == "__main__":
    sys.exit(main())
