"""Runs in lockstep, a row each: what they share (a program) and what they do not (anything)."""

import dataclasses
import threading

import jax
import numpy as np
import pytest
import same_run
from same_run import result_of

from train import checkpoint, loop, records, rows
from train.config import OptimizerConfig, ScheduleConfig
from train.jobs import Job, JobQueue
from train.rows import compute, drive, row_steps

N_ROWS = 3
TOLERANCE = 1e-4
"""Relative difference of a validation loss between a row and the run alone (docs/engine.md)."""


def no_error(job, error):
    raise error


@pytest.fixture
def drive_all(corpus, tmp_path):
    """Train specs in rows of one program; returns the records in the order in which they came."""

    def drive_all(
        specs, n_rows=N_ROWS, store=tmp_path / "rows", stop=None, on_error=no_error, **options
    ):
        found, (device, *_) = [], jax.devices()
        stop = stop or threading.Event()
        jobs = JobQueue(map(Job, specs[n_rows:]))
        batch = [Job(spec) for spec in specs[:n_rows]]

        def start(job):
            return loop.run(
                job.spec, corpus, store, device=device, n_rows=n_rows,
                should_stop=stop.is_set, **options,
            )  # fmt: skip

        while batch and not stop.is_set():
            drive(
                batch, jobs, n_rows, start=start, on_record=found.append, on_error=on_error,
                stop=stop,
            )  # fmt: skip
            batch = jobs.take_more(specs[0].compile_key, n_rows)
        return found

    return drive_all


@pytest.fixture
def n_computed(monkeypatch):
    """Of every call of the compiled program: the steps of each row."""
    found = []

    def watched(dispatches):
        found.append([int(d.n_valid) for d in dispatches])
        return compute(dispatches)

    monkeypatch.setattr(rows, "compute", watched)
    return found


@pytest.fixture(scope="module")
def different(make_spec):
    """One shape; length, seeds, schedule, rate and decay differ."""
    return [
        make_spec(70, schedule=ScheduleConfig("linear", 8)),
        make_spec(40, seed_init=1, optimizer=OptimizerConfig(lr=0.003, weight_decay=0.3)),
        make_spec(100, seed_data=1, optimizer=OptimizerConfig(lr=0.02, beta2=0.99)),
        make_spec(25, seed_init=2, seed_data=2),
    ]


def weights(store, row):
    return result_of(store, row)[0]


def assert_equal_weights(store, row, other_store, other):
    others = weights(other_store, other)
    for name, leaf in weights(store, row).items():
        np.testing.assert_array_equal(leaf, others[name], err_msg=name)


def test_rows_are_the_runs_alone_within_the_tolerance(
    different, drive_all, corpus, tmp_path, n_computed
):
    n_compiled = row_steps._cache_size()
    together = {row["run_id"]: row for row in drive_all(different)}
    assert row_steps._cache_size() <= n_compiled + 1
    for spec in different:
        row = together[spec.run_id]
        alone = loop.train(spec, corpus, tmp_path / "alone", device=jax.devices()[0])
        assert row["loss_nats"] == pytest.approx(alone["loss_nats"], rel=TOLERANCE)
        assert row["mode"] == alone["mode"] + f" rows={N_ROWS}"
        for name in ("status", "n_tokens", "seed_data", "train_flops_charged"):
            assert row[name] == alone[name]
        kept = ((tmp_path / "rows", row), (tmp_path / "alone", alone))
        curves = [[(p["step"], p["loss_nats"]) for p in result_of(*each)[1]] for each in kept]
        np.testing.assert_allclose(*curves, rtol=TOLERANCE)
    assert all(len(steps) == N_ROWS for steps in n_computed)


def test_a_finished_run_frees_its_row_at_once(different, drive_all, n_computed):
    """40 steps are 3 dispatches of 16; the run of 25 follows them in their row."""
    found = drive_all(different)
    assert [row["n_tokens"] for row in found] == [
        different[i].n_steps * different[i].batch_tokens for i in (1, 0, 3, 2)
    ]
    assert n_computed == [
        [16, 16, 16], [16, 16, 16], [16, 8, 16], [16, 16, 16], [6, 9, 16], [0, 0, 16], [0, 0, 4],
    ]  # fmt: skip


def test_what_a_row_computes_reaches_no_other(make_spec, drive_all, tmp_path):
    """Bits of two runs depend neither on what the third row does nor on which rows are theirs."""
    kept = [make_spec(40, seed_init=1), make_spec(60, seed_init=2)]
    wild = make_spec(60, optimizer=OptimizerConfig(lr=1e30, clip_norm=1e30))
    beside = {"tame": [make_spec(50)], "wild": [wild], "nobody": []}
    found = {
        name: {r["run_id"]: r for r in drive_all(other + kept, store=tmp_path / name)}
        for name, other in beside.items()
    }
    assert found["wild"][wild.run_id]["status"] == "diverged"
    for name in ("wild", "nobody"):
        for spec in kept:
            row, tame = found[name][spec.run_id], found["tame"][spec.run_id]
            assert row["status"] == "finished" and row["loss_nats"] == tame["loss_nats"]
            assert_equal_weights(tmp_path / name, row, tmp_path / "tame", tame)


def test_any_number_of_runs_shares_one_compilation(make_spec, drive_all, tmp_path):
    drive_all([make_spec(20)])
    n_compiled = row_steps._cache_size()
    for n in (1, 2, 3, 5):
        specs = [make_spec(20 + n, seed_init=i) for i in range(n)]
        assert len(drive_all(specs, store=tmp_path / str(n))) == n
    assert row_steps._cache_size() == n_compiled


def test_one_row_is_the_run_alone_bit_by_bit(different, drive_all, corpus, tmp_path):
    spec, *_ = different
    (row,) = drive_all([spec], n_rows=1)
    alone = loop.train(spec, corpus, tmp_path / "alone", device=jax.devices()[0])
    same_run.assert_same_run(tmp_path / "rows", row, tmp_path / "alone", alone)


def test_interrupted_rows_leave_checkpoints_and_go_on_from_them(different, drive_all, tmp_path):
    whole = {r["run_id"]: r for r in drive_all(different, store=tmp_path / "whole")}
    stop = threading.Event()

    def on_progress(progress):
        if progress.step >= 1:
            stop.set()

    begun = different[:N_ROWS]
    assert drive_all(different, stop=stop, on_progress=on_progress) == []
    for spec in begun:
        (attempt,) = records.attempts(tmp_path / "rows", spec.run_id)
        assert (checkpoint.latest(attempt.checkpoint_dir) or {})["step"] >= 16
    assert not records.attempts(tmp_path / "rows", different[-1].run_id), "none begins after stop"
    for row in drive_all(different):
        assert (row["resumed_from_step"] > 0) == (row["run_id"] != different[-1].run_id)
        assert row["is_exact"]
        same_run.assert_same_run(tmp_path / "rows", row, tmp_path / "whole", whole[row["run_id"]])


def test_a_failing_run_leaves_the_others_alone(make_spec, drive_all):
    """Its row goes to the next run."""
    specs = [make_spec(60, seed_init=seed) for seed in range(4)]
    errors = []

    def on_progress(progress):
        if progress.run_id == specs[1].run_id and progress.step > 20:
            raise MemoryError

    found = drive_all(specs, on_progress=on_progress, on_error=lambda *e: errors.append(e))
    assert {row["run_id"] for row in found} == {specs[i].run_id for i in (0, 2, 3)}
    ((job, error),) = errors
    assert job.spec == specs[1] and isinstance(error, MemoryError)


def test_a_failing_program_fails_its_rows_and_no_others(make_spec, drive_all, monkeypatch):
    """Three rows are told of it; the run after them is trained in the same program."""
    specs = [make_spec(40, seed_init=seed) for seed in range(4)]
    errors, compute, calls = {}, rows.compute, []

    def fails_once(dispatches):
        calls.append(dispatches)
        if len(calls) == 2:
            raise MemoryError("std::bad_alloc")
        return compute(dispatches)

    monkeypatch.setattr(rows, "compute", fails_once)
    (row,) = drive_all(specs, on_error=lambda job, e: errors.update({job.spec.run_id: e}))
    assert set(errors) == {spec.run_id for spec in specs[:3]}
    assert row["run_id"] == specs[3].run_id and row["status"] == "finished"


def test_a_failing_callback_lets_the_others_leave_a_checkpoint(make_spec, drive_all, tmp_path):
    specs = [make_spec(4000, seed_init=seed) for seed in range(4)]

    def on_progress(progress):
        if progress.run_id == specs[1].run_id and progress.step > 20:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        drive_all(specs, on_progress=on_progress)
    for spec in (specs[0], specs[2]):
        (attempt,) = records.attempts(tmp_path / "rows", spec.run_id)
        assert (checkpoint.latest(attempt.checkpoint_dir) or {})["step"] < 200
    assert not records.attempts(tmp_path / "rows", specs[3].run_id)


def test_all_options_of_a_spec_have_rows(make_spec, drive_all, corpus, tmp_path):
    """Averaged weights, z-loss, momentum and batches in parts."""
    spec = make_spec(
        40, batch_size=84, ema_decay=0.95, z_loss=1e-4,
        optimizer=OptimizerConfig(lr=0.1, kind="sgd"),
    )  # fmt: skip
    other = dataclasses.replace(spec, ema_decay=0.8, z_loss=1e-2, seed_init=5)
    found = {r["run_id"]: r for r in drive_all([spec, other])}
    for each in (spec, other):
        alone = loop.train(each, corpus, tmp_path / "alone", device=jax.devices()[0])
        row = found[each.run_id]
        for name in ("loss_nats", "loss_nats_raw"):
            assert row[name] == pytest.approx(alone[name], rel=TOLERANCE)
        assert row["noise_scale_tokens"] == pytest.approx(alone["noise_scale_tokens"], rel=0.01)
