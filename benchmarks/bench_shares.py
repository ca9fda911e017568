"""What share of a core's float32 product rate a training step reaches, by size and batch.

    python benchmarks/bench_shares.py [--rounds 20]

experiments.estimates predicts the speed of a machine that has trained nothing yet from these
shares and a probe of it. One process a core, all at once, as workers run; CPU seconds of a product
and of a dispatch of every shape in turns, so that whatever else the machine does falls out.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SHAPES = [
    *((size, 8) for size in ((1, 16), (2, 16), (2, 24), (2, 32), (3, 32), (3, 40), (3, 56))),
    *((size, 8) for size in ((4, 64), (4, 80), (6, 128), (8, 192))),
    *(((2, 24), batch) for batch in (1, 2, 4, 16, 32)),
    *(((4, 64), batch) for batch in (1, 2, 4, 16)),
]


def _measure(n_rounds: int) -> list[list[float]]:
    """Of every shape and round, the share of the product's rate; in one confined process."""
    from train.runtime import confine_to_one_core

    confine_to_one_core()
    import jax

    from experiments.estimates import product_rate
    from experiments.recipe import Recipe, Size
    from model.accounting import train_flops
    from train.config import Budget, DataConfig
    from train.inputs import STEPS_PER_DISPATCH
    from train.timing import stepper

    data = DataConfig("none", "0", "bytes", "0", "none")
    steppers, works = [], []
    for size, batch in SHAPES:
        recipe = Recipe(batch_size=batch)
        model = recipe.model(Size(*size), 256)
        spec = recipe.spec(model, data, Budget(steps=100), seed=0)
        steppers.append(stepper(spec, jax.local_devices()[0]))
        works.append(train_flops(model, STEPS_PER_DISPATCH * spec.batch_tokens, "matmul_full"))
    shares = [[] for _ in SHAPES]
    for _ in range(n_rounds):
        for found, step, work in zip(shares, steppers, works, strict=True):
            product = product_rate(0.03, time.process_time)
            started = time.process_time()
            step()
            found.append(work / (time.process_time() - started) / product)
    return shares


def main() -> None:
    """Measure on all cores at once; print medians and quartiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--as-worker", action="store_true")
    flags = parser.parse_args()
    if flags.as_worker:
        print(json.dumps(_measure(flags.rounds)))
        return
    import numpy as np

    from experiments.recipe import Recipe, Size
    from model.accounting import train_flops_per_token

    command = [sys.executable, __file__, "--as-worker", "--rounds", str(flags.rounds)]
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    n_cores = len(os.sched_getaffinity(0))
    workers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        for _ in range(n_cores)
    ]
    outputs = [json.loads(worker.communicate()[0]) for worker in workers]
    for k, (size, batch) in enumerate(SHAPES):
        found = np.concatenate([np.array(output[k]) for output in outputs])
        per_token = train_flops_per_token(Recipe().model(Size(*size), 256), "matmul_full")
        low, middle, high = np.quantile(found, (0.25, 0.5, 0.75))
        print(
            f"{size[0]}x{size[1]} batch {batch:3d}: {per_token:9,} FLOPs/token, "
            f"share {middle:.3f} [{low:.3f}, {high:.3f}]"
        )


if __name__ == "__main__":
    main()
