"""How long runs may take here: from what finished runs took, or from a probe of the machine.

A run's work is its training FLOPs and those of its final evaluation, both matmul_full. Speed is
known by shape (layers, width, context, batch) where such a run has finished; elsewhere it is the
machine's speed times the share of it that a shape of so many FLOPs a token reaches (SHARES). The
machine's speed is that of the newest runs, and before there is one a float32 product on all cores
at once. On an accelerator nothing is said before a run has finished: no probe would tell.
"""

import functools
import heapq
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.branches import waves
from experiments.plan import Plan, charged_flops
from model.accounting import forward_flops_per_token, train_flops_per_token
from train.config import RunSpec
from train.jobs import Job, JobQueue
from train.runtime import cpu_name, has_accelerator

Row = Mapping[str, Any]
Shape = tuple[int, int, int, int]
"""n_layers, d_model, seq_len, batch_size."""

PROBE_WIDTH = 256
PROBE_SECONDS = 0.3
NEWEST_OF_SHAPE = 3
"""Runs of one shape that its rate is the median of."""
NEWEST = 30
"""Runs that the machine's speed is the median of."""

SHARES = (
    (5.5e4, 0.19), (8.6e4, 0.195), (1.6e5, 0.24), (2.5e5, 0.295), (3.4e5, 0.315), (5e5, 0.33),
    (9e5, 0.345), (1.5e6, 0.38), (2.2e6, 0.415), (7.9e6, 0.50), (2.3e7, 0.545),
)  # fmt: skip
"""Training FLOPs a token, and the share of a core's float32 product rate that a step of 512 tokens
reaches: 1x16 to 8x192 by benchmarks/bench_shares.py."""

BATCH_SHARES = ((64, 0.81), (128, 0.87), (256, 0.97), (512, 1.0), (1024, 1.03), (2048, 1.06))
"""Tokens a step, and the factor on the share (the same benchmark; means of 2x24 and 4x64)."""

START_SECONDS = 2.0
"""Until a fresh worker takes a step: its imports and the corpus (measured 1.7 to 2.1)."""
RUN_SECONDS = 0.3
"""Of every run: the executable from the cache, first weights, the record."""

COMPILE_SECONDS = (2.5, 0.6)
"""Of a shape that the cache does not know: once, and a layer; at REFERENCE_RATE."""

EVALUATION_COMPILE_SECONDS = 1.5
"""Of its evaluation, which a record does not count as compilation."""

REFERENCE_RATE = 9e10
"""FLOP/s of the float32 product on a core where the seconds above were measured."""

COLD_SECONDS = 1.0
"""A first dispatch that took longer was compiled; others came from the cache."""


@dataclass(frozen=True)
class Calibration:
    """What is known of this machine.

    Args:
        speed: FLOP/s of a float32 product on one worker, or what finished runs imply of it; NaN if
            nothing is known.
        by_shape: FLOP/s of runs by shape.
        compile_factor: seconds of a compilation over those of COMPILE_SECONDS.
        source: where it comes from, in words.
    """

    speed: float
    by_shape: Mapping[Shape, float]
    compile_factor: float
    source: str

    @property
    def is_known(self) -> bool:
        """Whether seconds can be told at all."""
        return math.isfinite(self.speed)

    def flops_per_second(self, spec: RunSpec) -> float:
        """FLOP/s (matmul_full) of a run's shape."""
        if (shape := shape_of(spec)) in self.by_shape:
            return self.by_shape[shape]
        per_token = train_flops_per_token(spec.model, "matmul_full")
        return self.speed * share(per_token, spec.batch_tokens)


def shape_of(spec: RunSpec) -> Shape:
    """What a run's speed is known by."""
    return spec.model.n_layers, spec.model.d_model, spec.model.seq_len, spec.batch_size


def share(flops_per_token: float, batch_tokens: int) -> float:
    """The share of a core's float32 product rate that training of a shape reaches (SHARES)."""
    x, y = np.log([pair[0] for pair in SHARES]), [pair[1] for pair in SHARES]
    batches, factors = zip(*BATCH_SHARES, strict=True)
    factor = np.interp(np.log(batch_tokens), np.log(batches), factors)
    return float(np.interp(np.log(flops_per_token), x, y) * factor)


def calibrate(rows: Sequence[Row], probe: Callable[[], float]) -> Calibration:
    """From records of this machine, the newest first; without any, from the probe (FLOP/s)."""
    usable = [row for row in rows if _is_usable(row)]
    if not usable:
        speed = probe()
        if not math.isfinite(speed):
            return Calibration(speed, {}, 1.0, "nothing known: no run has finished here")
        words = f"a probe of this machine, {speed / 1e9:.0f} GFLOP/s a worker in float32 products"
        return Calibration(speed, {}, REFERENCE_RATE / speed, words)
    rates: dict[Shape, list[float]] = {}
    for row in usable:
        rates.setdefault(_shape_of_row(row), []).append(_rate(row))
    speeds = [
        _rate(row) / share(_flops_per_token(row), row["batch_tokens"]) for row in usable[:NEWEST]
    ]
    compiles = [
        row["seconds_compile"] / _compile_seconds(row["n_layers"])
        for row in usable
        if row["seconds_compile"] > COLD_SECONDS
    ]
    return Calibration(
        statistics.median(speeds),
        {shape: statistics.median(found[:NEWEST_OF_SHAPE]) for shape, found in rates.items()},
        statistics.median(compiles[:NEWEST]) if compiles else 1.0,
        f"{len(usable)} runs finished here",
    )


def of_this_machine(rows: Sequence[Row]) -> list[Row]:
    """Records of the kind of device that would train here."""
    if has_accelerator():
        return [row for row in rows if not str(row["mode"]).startswith("cpu")]
    name = cpu_name()
    return [r for r in rows if str(r["mode"]).startswith("cpu") and r["device"] == name]


def _is_usable(row: Row) -> bool:
    is_whole = not row["resumed_from_step"] and not row["parent_step"]
    return (
        row["status"] == "finished"
        and is_whole
        and not row["idea"]
        and row["seconds"] > row["seconds_compile"]
    )


def _shape_of_row(row: Row) -> Shape:
    return row["n_layers"], row["d_model"], row["seq_len"], row["batch_size"]


def _flops_per_token(row: Row) -> float:
    return row["train_flops_matmul_full"] / row["n_tokens"]


def _rate(row: Row) -> float:
    """FLOP/s of a run with its final evaluation, which is a forward pass, a third of training."""
    evaluation = row["n_validation_tokens"] * _flops_per_token(row) / 3
    other = row["seconds_compile"] + RUN_SECONDS
    if row["seconds_compile"] > COLD_SECONDS:
        factor = row["seconds_compile"] / _compile_seconds(row["n_layers"])
        other += EVALUATION_COMPILE_SECONDS * factor
    # Of a run that took hardly longer than its compilation little is known; it must stay positive.
    seconds = max(row["seconds"] - other, 0.1 * (row["seconds"] - row["seconds_compile"]))
    return (row["train_flops_matmul_full"] + evaluation) / seconds


def _compile_seconds(n_layers: int) -> float:
    once, per_layer = COMPILE_SECONDS
    return once + per_layer * n_layers


def work_flops(job: Job, n_validation_tokens: int) -> float:
    """FLOPs (matmul_full) of a job's own steps and of every pass over the validation split."""
    spec = job.spec
    n_passes = 1 if spec.ema_decay is None else 2
    per_pass = forward_flops_per_token(spec.model, "matmul_full") * n_validation_tokens
    if (looks := spec.early_stopping) is not None:
        looked_at = min(looks.n_tokens or n_validation_tokens, n_validation_tokens)
        n_passes += math.ceil(spec.n_steps / looks.every_steps) * looked_at / n_validation_tokens
    return charged_flops(job) + n_passes * per_pass


@dataclass(frozen=True)
class Estimate:
    """Seconds of every run of a plan, by run_id, and of all of them on this machine's workers."""

    seconds: Mapping[str, float]
    wall_seconds: float


def estimate(
    plan: Plan, calibration: Calibration, n_workers: int, n_validation_tokens: int,
    done: frozenset[str] = frozenset(),
) -> Estimate:  # fmt: skip
    """Play the local executor: whole shapes first, branches after their trunk, the held-out last.

    A run's seconds are those that its record would state, with the compilation where it is the
    first of its shape. Fits and figures are left out. Runs in `done` count for nothing in the sum.
    """
    seconds: dict[str, float] = {}
    wall, compiled = 0.0, _compiled(plan, calibration)
    held_out = [c.spec.run_id for c in plan.of_role("held_out")]
    others = [run_id for run_id in plan.jobs if run_id not in held_out]
    run_seconds = functools.partial(_run_seconds, calibration, n_validation_tokens)
    for ids in (others, *([run_id] for run_id in held_out)):
        for part in ([i for i in ids if i not in done], [i for i in ids if i in done]):
            jobs = [plan.jobs[run_id] for run_id in part]
            took, ends = _play(jobs, run_seconds, n_workers, compiled)
            seconds |= took
            wall += ends if jobs and part[0] not in done else 0.0
    return Estimate(seconds, wall)


def _compiled(plan: Plan, calibration: Calibration) -> set[Any]:
    """Compile keys of which a run has finished here: the cache knows them."""
    specs = [cell.spec for cell in plan.cells]
    return {s.compile_key for s in specs if shape_of(s) in calibration.by_shape and not s.ideas}


def _run_seconds(
    calibration: Calibration, n_validation_tokens: int, job: Job, is_compiled: bool
) -> float:
    work = work_flops(job, n_validation_tokens) / calibration.flops_per_second(job.spec)
    compiling = _compile_seconds(job.spec.model.n_layers) + EVALUATION_COMPILE_SECONDS
    cold = 0.0 if is_compiled else compiling * calibration.compile_factor
    return RUN_SECONDS + work + cold


def _play(
    jobs: Sequence[Job],
    run_seconds: Callable[[Job, bool], float],
    n_workers: int,
    compiled: set[Any],
) -> tuple[dict[str, float], float]:
    """Seconds of each job, and when the last ends; `compiled` gains the compile keys met."""
    if not jobs:
        return {}, 0.0
    first, *later = waves(jobs)
    waiting = [job for wave in later for job in wave]
    queue, idle = JobQueue(first), list(range(min(n_workers, len(jobs))))
    shapes: list[Any] = [None] * len(idle)
    running: list[tuple[float, int, str]] = []
    took, now = {}, START_SECONDS
    while True:
        for worker in tuple(idle):
            if (job := queue.take(shapes[worker])) is None:
                break
            shapes[worker] = key = job.spec.compile_key
            took[job.spec.run_id] = run_seconds(job, key in compiled)
            compiled.add(key)
            idle.remove(worker)
            heapq.heappush(running, (now + took[job.spec.run_id], worker, job.spec.run_id))
        if not running:
            return took, now
        now, worker, run_id = heapq.heappop(running)
        idle.append(worker)
        queue.put(*(job for job in waiting if job.trunk and job.trunk.run_id == run_id))


def product_rate(seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """FLOP/s of float32 matrix products in this process, by a clock."""
    a = np.ones((PROBE_WIDTH, PROBE_WIDTH), np.float32)
    out = a @ a
    n, started = 0, clock()
    while clock() - started < seconds:
        np.matmul(a, a, out=out)
        n += 1
    return 2 * PROBE_WIDTH**3 * n / (clock() - started)


def probe(n_workers: int) -> float:
    """FLOP/s of a float32 product on a core while all workers' cores do the same; NaN unknown.

    Processes of one thread each, as workers are. Under a second.
    """
    if has_accelerator():
        return math.nan
    # Of a launcher that was killed nobody reads the answer; a probe ends without a word then.
    code = (
        "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL); "
        f"from experiments.estimates import product_rate; print(product_rate({PROBE_SECONDS}))"
    )
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
    paths = [p for p in sys.path if p]
    env = {**os.environ, **one_thread, "PYTHONPATH": os.pathsep.join(paths)}
    workers = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)
        for _ in range(n_workers)
    ]
    return statistics.fmean(float(worker.communicate()[0]) for worker in workers)
