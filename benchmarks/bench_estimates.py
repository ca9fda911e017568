"""Estimates against records: what would have been said of a sweep before it ran.

    python benchmarks/bench_estimates.py PLAN.json RUNS --from OTHER_RUNS
    python benchmarks/bench_estimates.py PLAN.json RUNS --product-rate 9e10

The machine is known by the records of another workspace, or by the rate of a float32 product. The
total is the wall time from the first worker's start to the last record.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def _rows(store: Path) -> list[tuple[float, dict]]:
    """Records with the time at which they were written, the newest first."""
    from train.records import read_run

    paths = sorted(store.glob("*/run.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [(p.stat().st_mtime, read_run(store, p.parent.name) or {}) for p in paths]


def main() -> None:
    """Print a row a run, estimated and actual, and the totals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--from", dest="known", type=Path)
    parser.add_argument("--product-rate", type=float)
    parser.add_argument("--workers", type=int, default=2)
    flags = parser.parse_args()
    from experiments.estimates import START_SECONDS, calibrate, estimate
    from experiments.plan import plan_from_json
    from model import custom

    custom.look_in(flags.runs.parent / "ideas")
    plan = plan_from_json(json.loads(flags.plan.read_text()))
    known = [row for _, row in _rows(flags.known)] if flags.known else []
    calibration = calibrate(known, lambda: flags.product_rate)
    written = {row["run_id"]: (at, row) for at, row in _rows(flags.runs)}
    n_validation = max(row["n_validation_tokens"] or 0 for _, row in written.values())
    found = estimate(plan, calibration, flags.workers, n_validation)
    print(f"speed {calibration.speed / 1e9:.0f} GFLOP/s, from {calibration.source}")
    for cell in plan.cells:
        spec, (_, row) = cell.spec, written[cell.spec.run_id]
        told = found.seconds[spec.run_id]
        size = f"{spec.model.n_layers}x{spec.model.d_model}"
        ratio = told / row["seconds"]
        print(f"{spec.run_id[:8]} {size:>5} {told:7.1f} {row['seconds']:7.1f} {ratio:6.2f}")
    begun = min(at - row["seconds"] for at, row in written.values())
    wall = max(at for at, _ in written.values()) - begun + START_SECONDS
    summed = sum(row["seconds"] for _, row in written.values())
    told = sum(found.seconds.values())
    print(f"sum of runs {told:.0f} s against {summed:.0f}: {told / summed:.2f}")
    print(f"wall {found.wall_seconds:.0f} s against {wall:.0f}: {found.wall_seconds / wall:.2f}")


if __name__ == "__main__":
    main()
