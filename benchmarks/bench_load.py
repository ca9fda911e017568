"""How long does a large sweep, or a large CSV, take to load and tabulate, and in how much memory?

    python benchmarks/bench_load.py [N_RUNS] [POINTS_A_CURVE] [CSV_ROWS]

Writes a synthetic sweep (Parquet, with the columns and types of experiments.compact) and a CSV into
a temporary folder, then reads each in a fresh process and prints seconds and peak memory.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

DEFAULTS = (10_000, 1_000, 1_000_000)


def write_sweep(folder: Path, n_runs: int, n_points: int) -> None:
    import pandas as pd

    from train.columns import CURVE_COLUMNS, RUN_COLUMNS

    generator = np.random.default_rng(0)
    n_params = np.exp(generator.uniform(10, 18, n_runs)).round()
    n_tokens = np.exp(generator.uniform(16, 22, n_runs)).round()
    loss = 1.8 + 480 / n_params**0.35 + 2000 / n_tokens**0.37
    ids = np.array([f"{i:016x}" for i in generator.permutation(n_runs)])
    counts = {"n_layers": 4, "d_model": 64, "seed_init": 0, "seed_data": 0, "batch_tokens": 4096}
    known = counts | {
        "run_id": ids, "status": "finished", "corpus": "synthetic", "diverged_step": None,
        "n_params_total": n_params, "n_params_non_embedding": (0.6 * n_params).round(),
        "n_tokens": n_tokens, "n_tokens_unique": n_tokens, "n_epochs": 0.5, "lr": 1e-3,
        "n_steps": (n_tokens / 4096).round(), "warmup_steps": (n_tokens / 81920).round(),
        "loss_nats": loss, "loss_se_document": 0.003, "role": "grid", "isoflop_budget": np.nan,
    }  # fmt: skip
    flops = {name: 6 * n_params * n_tokens for name in RUN_COLUMNS if "train_flops" in name}
    columns = [*RUN_COLUMNS, "role", "isoflop_budget"]
    pd.DataFrame({**known, **flops}, columns=columns).to_parquet(folder / "runs.parquet")
    share = np.linspace(1 / n_points, 1, n_points)
    tokens = (n_tokens[:, None] * share).ravel()
    curves = {
        "run_id": np.repeat(ids, n_points),
        "attempt": 1,
        "step": (tokens / 4096).astype(np.int64),
        "n_tokens": tokens.astype(np.int64),
        "train_flops_matmul_full": 6 * np.repeat(n_params, n_points) * tokens,
        "loss_nats": np.repeat(loss, n_points) + 3 / np.sqrt(np.tile(share, n_runs)),
        "lr": 1e-3,
        "grad_norm": 1.0,
    }
    pd.DataFrame(curves, columns=list(CURVE_COLUMNS)).to_parquet(folder / "curves.parquet")


def write_csv(path: Path, n_rows: int) -> None:
    generator = np.random.default_rng(0)
    n_params, n_tokens = np.exp(generator.uniform(15, 25, (2, n_rows)))
    loss = 1.8 + 480 / n_params**0.35 + 2000 / n_tokens**0.37
    table = np.stack([n_params, n_tokens, loss], -1)
    np.savetxt(path, table, fmt="%.9g", delimiter=",", header="N,D,L", comments="")


def read_sweep(folder: Path) -> None:
    start = time.perf_counter()
    from analysis.frontier.loss_of_compute import curve_envelope
    from analysis.load import load_sweep, points_from_runs

    imported = time.perf_counter()
    sweep = load_sweep(folder)
    loaded = time.perf_counter()
    points = points_from_runs(sweep.runs)
    tabulated = time.perf_counter()
    envelope = curve_envelope(sweep.curves)
    end = time.perf_counter()
    print(f"sweep: {len(points)} runs, {len(sweep.curves)} points, {len(envelope.run_id)} on it")
    print(f"  import {imported - start:.2f} s, load {loaded - imported:.2f} s")
    print(f"  points_from_runs {tabulated - loaded:.3f} s, curve_envelope {end - tabulated:.2f} s")
    report(end - start, len(sweep.curves))


def read_table(path: Path) -> None:
    start = time.perf_counter()
    from analysis.load import points_from_csv

    imported = time.perf_counter()
    points = points_from_csv(path)
    end = time.perf_counter()
    print(f"CSV: {len(points)} rows, import {imported - start:.2f} s, read {end - imported:.3f} s")
    report(end - start, len(points))


def report(seconds: float, n_rows: int) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(
        f"  total {seconds:.2f} s, {n_rows / seconds:,.0f} rows/s, peak {peak:.2f} GiB", flush=True
    )


def main(n_runs: int, n_points: int, n_rows: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = [str(n) for n in (n_runs, n_points, n_rows)]
        step("--write", name, *sizes)  # a child starts with the peak of its parent: stay small here
        for target in (folder, folder / "large.csv", folder / "small.csv"):
            step("--read", str(target))


def step(*arguments: str) -> None:
    subprocess.run([sys.executable, __file__, *arguments], check=True)


def write(folder: Path, n_runs: int, n_points: int, n_rows: int) -> None:
    write_sweep(folder, n_runs, n_points)
    write_csv(folder / "large.csv", n_rows)
    write_csv(folder / "small.csv", 24)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        target = Path(sys.argv[2])
        read_sweep(target) if target.is_dir() else read_table(target)
    elif sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]), *map(int, sys.argv[3:]))
    else:
        given = [int(text) for text in sys.argv[1:]]
        main(*given, *DEFAULTS[len(given) :])
