"""Seconds of runs and plans: from records planted at known rates, from a probe, and their sum."""

import dataclasses
import json
import math
import time

import pytest

from experiments import estimates, grid, planning, quickstart
from experiments.estimates import (
    COMPILE_SECONDS,
    EVALUATION_COMPILE_SECONDS,
    RUN_SECONDS,
    START_SECONDS,
    Calibration,
    calibrate,
    estimate,
    of_this_machine,
    shape_of,
    share,
    work_flops,
)
from experiments.plan import Plan
from experiments.recipe import Recipe, Size
from model.accounting import train_flops, train_flops_per_token
from train.config import DataConfig, EarlyStopping
from train.jobs import Job
from train.runtime import cpu_name

AT = grid.Setting(Recipe(), DataConfig("x", "x", "x", "x", "x"), 256)
N_VALIDATION = 60_000


def never():
    raise AssertionError("records are enough")


def row_of(spec, seconds, *, compiling=0.1, **values):
    return {
        "run_id": spec.run_id, "status": "finished", "resumed_from_step": 0, "parent_step": None,
        "idea": None, "n_layers": spec.model.n_layers, "d_model": spec.model.d_model,
        "seq_len": spec.model.seq_len, "batch_size": spec.batch_size,
        "batch_tokens": spec.batch_tokens, "n_tokens": spec.n_tokens,
        "n_validation_tokens": N_VALIDATION, "seconds": seconds + compiling,
        "seconds_compile": compiling,
        "train_flops_matmul_full": train_flops(spec.model, spec.n_tokens, "matmul_full"),
        "device": cpu_name(), "mode": "cpu kernels=cpu pool=1", **values,
    }  # fmt: skip


def spec_of(size, n_tokens=1_000_000):
    return grid.grid(AT, [size], [n_tokens])[0].spec


def rows_at(speed, *specs):
    """Records of a machine whose float32 product runs at `speed`."""
    rows = []
    for spec in specs:
        per_token = train_flops_per_token(spec.model, "matmul_full")
        rate = speed * share(per_token, spec.batch_tokens)
        rows.append(row_of(spec, RUN_SECONDS + work_flops(Job(spec), N_VALIDATION) / rate))
    return rows


def test_planted_records_give_back_the_machine_and_its_seconds():
    specs = [spec_of(Size(1, 16)), spec_of(Size(2, 32)), spec_of(Size(4, 64))]
    rows = rows_at(4e10, *specs)
    found = calibrate(rows, never)
    assert found.speed == pytest.approx(4e10)
    unseen = spec_of(Size(3, 48), 2_000_000)
    plan = Plan("p", "none", {}, {}, tuple(grid.Cell(s, "grid") for s in (*specs, unseen)))
    told = estimate(plan, found, 1, N_VALIDATION)
    for row in rows:
        assert told.seconds[row["run_id"]] == pytest.approx(row["seconds"], abs=0.11)
    (new,) = rows_at(4e10, unseen)
    cold = COMPILE_SECONDS[0] + 3 * COMPILE_SECONDS[1] + EVALUATION_COMPILE_SECONDS
    assert told.seconds[unseen.run_id] == pytest.approx(new["seconds"] + cold, abs=0.11)
    assert told.wall_seconds == pytest.approx(sum(told.seconds.values()) + START_SECONDS)


def test_the_newest_runs_of_a_shape_count():
    spec = spec_of(Size(2, 24))
    old, new = rows_at(1e10, spec) * 20, rows_at(4e10, spec) * 3
    assert calibrate(new + old, never).by_shape[shape_of(spec)] == pytest.approx(
        calibrate(new, never).by_shape[shape_of(spec)]
    )
    assert calibrate(new + old, never).speed == pytest.approx(1e10), "the median of 23"


@pytest.mark.parametrize(
    "odd",
    [
        {"status": "diverged"}, {"resumed_from_step": 5}, {"parent_step": 5}, {"idea": "block=x"},
        {"seconds": 0.05},
    ],
)  # fmt: skip
def test_runs_whose_seconds_say_something_else_are_left_out(odd):
    spec = spec_of(Size(2, 24))
    (good,), (bad,) = rows_at(3e10, spec), rows_at(9e10, spec)
    assert calibrate([{**bad, **odd}, good], never).speed == pytest.approx(3e10)
    assert calibrate([{**bad, **odd}], lambda: 5e10).speed == 5e10


def test_records_of_another_kind_of_machine_say_nothing(monkeypatch):
    spec = spec_of(Size(2, 24))
    here, other = row_of(spec, 9.0), row_of(spec, 1.0, device="another")
    gpu = row_of(spec, 0.1, device="H200", mode="gpu kernels=gpu")
    monkeypatch.setattr(estimates, "has_accelerator", lambda: False)
    assert of_this_machine([here, other, gpu]) == [here]
    monkeypatch.setattr(estimates, "has_accelerator", lambda: True)
    assert of_this_machine([here, other, gpu]) == [gpu]


def test_a_probe_is_taken_where_no_run_has_finished_and_compiling_scales_with_it():
    slow, fast = calibrate([], lambda: 3e10), calibrate([], lambda: 9e10)
    assert "a probe of this machine, 30 GFLOP/s a worker" in slow.source
    assert slow.compile_factor == pytest.approx(3 * fast.compile_factor)
    spec = spec_of(Size(2, 24))
    assert fast.flops_per_second(spec) == pytest.approx(3 * slow.flops_per_second(spec))
    unknown = calibrate([], lambda: math.nan)
    assert not unknown.is_known
    plan = Plan("p", "none", {}, {}, (grid.Cell(spec, "grid"),))
    assert math.isnan(estimate(plan, unknown, 1, N_VALIDATION).wall_seconds)


def test_the_probe_measures_a_product_quickly(monkeypatch):
    monkeypatch.setattr(estimates, "has_accelerator", lambda: False)
    rate = estimates.probe(1)
    assert 1e8 < rate < 1e13
    started = time.process_time()
    assert 1e8 < estimates.product_rate(0.02, time.process_time) < 1e13
    assert time.process_time() - started < 2
    monkeypatch.setattr(estimates, "has_accelerator", lambda: True)
    assert math.isnan(estimates.probe(1))


def test_shares_rise_with_size_and_batch():
    by_size = [share(f, 512) for f in (1e3, 5.5e4, 3e5, 1e6, 1e7, 1e9)]
    assert by_size == sorted(by_size) and by_size[0] > 0 and by_size[-1] < 1
    by_batch = [share(3e5, b) for b in (16, 64, 128, 512, 2048, 10**6)]
    assert by_batch == sorted(by_batch)


def test_evaluations_are_work():
    spec = spec_of(Size(2, 24))
    per_pass = train_flops(spec.model, N_VALIDATION, "matmul_full") / 3
    plain = work_flops(Job(spec), N_VALIDATION)
    assert plain == pytest.approx(train_flops(spec.model, spec.n_tokens, "matmul_full") + per_pass)
    averaged = dataclasses.replace(spec, ema_decay=0.99)
    assert work_flops(Job(averaged), N_VALIDATION) == pytest.approx(plain + per_pass)
    looks = EarlyStopping(every_steps=500, patience=2)
    looking = dataclasses.replace(spec, early_stopping=looks)
    n_looks = math.ceil(spec.n_steps / 500)
    assert work_flops(Job(looking), N_VALIDATION) == pytest.approx(plain + n_looks * per_pass)


def test_workers_share_runs_as_the_queue_hands_them_out(plan):
    calibration = Calibration(1e11, {}, 1.0, "planted")
    one = estimate(plan, calibration, 1, N_VALIDATION)
    two = estimate(plan, calibration, 2, N_VALIDATION)
    (held_out,) = plan.of_role("held_out")
    alone = one.seconds[held_out.spec.run_id] + START_SECONDS
    assert one.wall_seconds == pytest.approx(sum(one.seconds.values()) + 2 * START_SECONDS)
    half = (one.wall_seconds - alone) / 2
    assert half < two.wall_seconds - alone < 1.2 * half
    none = estimate(plan, calibration, 2, N_VALIDATION, frozenset(plan.jobs))
    assert none.wall_seconds == 0 and none.seconds.keys() == two.seconds.keys()


def test_estimates_are_written_once_beside_the_plan(plan, workspace):
    folder = workspace.sweep(plan.name)
    calibration = Calibration(1e11, {}, 1.0, "planted")
    first = estimate(plan, calibration, 2, N_VALIDATION)
    planning.write_estimates(plan, first, calibration, 2, folder)
    later = estimate(plan, dataclasses.replace(calibration, speed=1e9), 2, N_VALIDATION)
    planning.write_estimates(plan, later, calibration, 2, folder)
    written = json.loads((folder.path / "estimates.json").read_text())
    assert written["seconds"] == first.seconds
    assert written["plan_hash"] == plan.hash
    assert written["total_seconds"] == first.wall_seconds


def test_a_workspace_calibrates_itself(corpus, workspace, commit, monkeypatch):
    plan = quickstart.plan(quickstart.Options(scale="smoke"), corpus)
    for row, cell in zip(rows_at(4e10, *(c.spec for c in plan.cells)), plan.cells, strict=True):
        commit(cell.spec, **row)
    found = planning.calibration_of(workspace, 2)
    assert found.speed == pytest.approx(4e10) and len(found.by_shape) == 5
    assert found.source == f"{len(plan.cells)} runs finished here"
