"""A process that claims, counts and commits as train.loop does, without training.

    python holder.py STORE N_RUNS PATIENCE_S

It ends once every run is committed. Without jax it starts in a moment, so that what a kill can do
to leases and records is tried a thousand times where a sweep is killed a hundred times.
"""

import hashlib
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

N_STEPS = 20
BEAT_S = 0.02


def loss_at(run_id: str, step: int) -> float:
    """What stands for training: a number that depends on the run and the step alone."""
    digest = hashlib.sha256(f"{run_id} {step}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def run_ids(n_runs: int) -> list[str]:
    """The runs of a store."""
    return [f"run-{i:03d}" for i in range(n_runs)]


def main() -> int:
    store, n_runs, patience_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    from train import lease

    watch, left = lease.Watch(patience_s), run_ids(n_runs)
    while left:
        random.shuffle(left)
        for run_id in left:
            if not watch.is_available(store, run_id):
                continue
            try:
                attempt = lease.claim(store, run_id)
            except lease.Unavailable:
                continue
            with lease.held(attempt, every_s=BEAT_S) as is_lost:
                try:
                    _train(store, run_id, attempt, is_lost)
                except OSError:
                    # Whoever committed the run has removed the other attempts.
                    if not lease.is_fenced(attempt):
                        raise
        left = [run_id for run_id in left if not (store / run_id / "run.json").exists()]
        time.sleep(BEAT_S)
    return 0


def _train(store: Path, run_id: str, attempt: Any, is_lost: Any) -> None:
    from train import lease, records
    from train.columns import RUN_COLUMNS

    first = _resume(store, run_id, attempt) + 1
    attempt.checkpoint_dir.mkdir(exist_ok=True)
    for step in range(first, N_STEPS + 1):
        time.sleep(random.uniform(0, 0.004))
        point = {"step": step, "attempt": attempt.number, "loss_nats": loss_at(run_id, step)}
        records.append_points(attempt, [point])
        if is_lost() and lease.is_fenced(attempt):
            return
        if step % 4 == 0:
            records.write_atomically(attempt.checkpoint_dir / "latest.json", json.dumps(step))
    if lease.is_fenced(attempt):
        return
    row = {**dict.fromkeys(RUN_COLUMNS), "run_id": run_id, "attempt": attempt.number}
    records.commit(
        store, attempt, {**row, "status": "finished", "loss_nats": loss_at(run_id, N_STEPS)}
    )
    records.clean_up(store, run_id)


def _resume(store: Path, run_id: str, attempt: Any) -> int:
    """Copy the points up to the newest checkpoint of another attempt; the step of that."""
    from train import records

    for other in reversed(records.attempts(store, run_id)):
        try:
            step = json.loads((other.checkpoint_dir / "latest.json").read_text())
            points = [p for p in records.read_points(other) if p["step"] <= step]
        except FileNotFoundError:
            continue
        records.append_points(attempt, [{**p, "attempt": attempt.number} for p in points])
        return step
    return 0


if __name__ == "__main__":
    sys.exit(main())
