"""The quickstart experiment, so small that a test can run it whole.

As a script it is launch.py with that experiment:
python tests/tiny_study.py run quickstart ... --out DIR
"""

import functools
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGS = (
    "--scale", "smoke", "--seq-len", "16", "--batch-size", "4",
)  # fmt: skip
N_RUNS = 11
FIGURES = ("allocation", "isoflop", "residuals", "prediction", "position", "learning_curves")
"""Those drawn of it: all of them take longer than to train it."""


def documents():
    """Made-up text in which each letter is drawn from a few that may follow the one before."""
    import numpy as np

    from train.data.sources import Document

    rng = np.random.default_rng(0)
    follow = rng.integers(97, 123, (128, 4))
    for i in range(80):
        letters, draws = [97], rng.integers(0, 4, 1000)
        for draw in draws:
            letters.append(int(follow[letters[-1], draw]))
        yield Document(f"text-{i:02d}", bytes(letters).decode())


def install(setattr):
    """Replace the smoke scale, its text, and the threshold that its short runs would not pass."""
    from analysis.figures import draw
    from analysis.study import study
    from analysis.table import flags
    from experiments import quickstart, stages
    from experiments.grid import Staircase
    from experiments.recipe import Size
    from train import runtime
    from train.data import builders

    sizes = (Size(1, 8), Size(1, 16), Size(1, 24))
    tiny = Staircase(
        budgets=tuple((flops, sizes) for flops in (6e8, 1.2e9, 2.4e9)),
        replicated=(1.2e9, Size(1, 16)),
        n_seeds=2,
        held_out=(5e9, Size(1, 24)),  # a size of the grid, which saves a compilation
    )
    setattr(quickstart, "STAIRCASES", {**quickstart.STAIRCASES, "smoke": tiny})
    setattr(builders, "build_documents", lambda name, data_dir: list(documents()))
    setattr(flags, "PRE_ASYMPTOTIC_STEPS", 100)
    setattr(stages, "study", functools.partial(study, n_bootstrap=40))
    setattr(draw, "DRAWINGS", tuple(d for d in draw.DRAWINGS if d.name in FIGURES))
    # The code above has imported jax: whoever calls this has configured it.
    setattr(runtime, "configure", lambda cache_dir: None)
    setattr(runtime, "confine_to_one_core", lambda: None)


if __name__ == "__main__":
    import builtins

    sys.path.insert(0, str(ROOT))
    from train.runtime import configure

    configure(Path(sys.argv[-1]) / "cache")
    install(builtins.setattr)
    import launch

    sys.exit(launch.main())
