import dataclasses
import json
import math

import jax
import numpy as np
import pytest
import same_run
from same_run import Killed, kill_at, result_of, stop_after

from model.accounting import FLOPS_CONVENTIONS, count_params, train_flops
from train import inputs, loop, records
from train.checkpoint import read_spec
from train.columns import CURVE_COLUMNS, RUN_COLUMNS
from train.config import Budget, OptimizerConfig, ScheduleConfig, SpecError
from train.loop import Interrupted

N_STEPS = 100


@pytest.fixture(scope="module")
def undisturbed(make_spec, corpus, tmp_path_factory):
    """A run nobody interrupted, and the store it lies in."""
    store = tmp_path_factory.mktemp("undisturbed")
    row = loop.train(make_spec(N_STEPS), corpus, store, device=jax.devices()[0])
    return row, store


def assert_same_run(store, row, undisturbed):
    same_run.assert_same_run(store, row, *reversed(undisturbed))


def test_record_says_what_was_run(undisturbed, make_spec, corpus):
    row, store = undisturbed
    spec = make_spec(N_STEPS)
    assert set(row) == set(RUN_COLUMNS)
    assert row["status"] == "finished" and row["diverged_step"] is None and row["is_exact"]
    counts = count_params(spec.model)
    for group in ("embedding", "non_embedding", "norm", "head", "total"):
        assert row[f"n_params_{group}"] == getattr(counts, group)
    assert row["n_tokens"] == N_STEPS * spec.batch_tokens
    for convention in FLOPS_CONVENTIONS:
        expected = train_flops(spec.model, row["n_tokens"], convention)
        assert row[f"train_flops_{convention}"] == expected
    assert row["run_id"] == spec.run_id and row["corpus_hash"] == corpus.content_hash
    # One token is one byte of this language, all but the first few are targets.
    share = row["n_validation_tokens"] / corpus.n_validation_bytes
    assert row["bits_per_byte"] == pytest.approx(row["loss_nats"] / math.log(2) * share)
    assert 0 < row["seconds_compile"] <= row["seconds"]
    json.dumps(row, allow_nan=False)
    assert read_spec(records.committed_attempt(store, row).weights).run_id == spec.run_id


def test_curve_is_that_of_the_run(undisturbed, make_spec):
    row, store = undisturbed
    spec = make_spec(N_STEPS)
    points = records.read_points(records.committed_attempt(store, row))
    assert all(set(point) == set(CURVE_COLUMNS) for point in points)
    assert points[0]["step"] == 1 and points[-1]["step"] == N_STEPS
    assert points[-1]["n_tokens"] == row["n_tokens"]
    assert points[-1]["train_flops_matmul_full"] == row["train_flops_matmul_full"]
    assert points[0]["lr"] == pytest.approx(spec.optimizer.lr / 4)
    assert max(point["lr"] for point in points) == pytest.approx(spec.optimizer.lr)
    assert points[0]["loss_nats"] == pytest.approx(math.log(17), rel=0.1)
    assert row["loss_nats"] < row["train_loss_nats_final"] + 0.2 < points[0]["loss_nats"]
    assert all(point["grad_norm"] > 0 for point in points)


def test_a_finished_run_leaves_one_record_and_no_checkpoint(undisturbed):
    row, store = undisturbed
    files = {p.relative_to(store / row["run_id"]).as_posix() for p in store.rglob("*.*")}
    inside = (
        "holder.json", "run.json", "curve.jsonl", "evaluations.jsonl", "weights.safetensors",
        "digests.json",
    )  # fmt: skip
    assert files == {"run.json", *(f"attempt-1/{name}" for name in inside)}
    assert not list(store.rglob("checkpoint"))


@pytest.mark.parametrize("stops", [(0,), (2,), (1, 1, 0)])
def test_interrupted_and_resumed_is_bit_identical(stops, make_spec, run, tmp_path, undisturbed):
    spec = make_spec(N_STEPS)
    for n_questions in stops:
        with pytest.raises(Interrupted):
            run(spec, should_stop=stop_after(n_questions))
        assert records.read_run(tmp_path / "runs", spec.run_id) is None
    row = run(spec)
    assert row["resumed_from_step"] >= 16 * len(stops)
    assert row["attempt"] == len(stops) + 1
    assert_same_run(tmp_path / "runs", row, undisturbed)


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_killed_and_resumed_is_bit_identical(has_checkpoint, make_spec, run, tmp_path, undisturbed):
    """The curve of a killed attempt runs past its checkpoint, and its last line may be torn."""
    spec, store = make_spec(N_STEPS), tmp_path / "runs"
    every = 0.0 if has_checkpoint else 1e9
    with pytest.raises(Killed):
        run(spec, on_progress=kill_at(60), checkpoint_every_s=every)
    (killed,) = records.attempts(store, spec.run_id)
    assert (killed.checkpoint_dir / "latest.json").exists() == has_checkpoint
    points = records.read_points(killed)
    assert points[-1]["step"] >= 60 > N_STEPS / 2
    with open(killed.directory / "curve.jsonl", "a") as file:
        file.write('{"run_id":"torn')
    row = run(spec)
    assert (row["resumed_from_step"] > 0) == has_checkpoint
    assert_same_run(store, row, undisturbed)


def test_an_attempt_killed_at_its_start_does_not_lose_the_checkpoint(
    make_spec, run, tmp_path, undisturbed
):
    spec, store = make_spec(N_STEPS), tmp_path / "runs"
    with pytest.raises(Interrupted):
        run(spec, should_stop=stop_after(1))
    records.begin_attempt(store, spec.run_id)
    with pytest.raises(Killed):
        run(spec, on_progress=kill_at(1))
    row = run(spec)
    assert row["attempt"] == 4 and row["resumed_from_step"] > 0
    assert_same_run(store, row, undisturbed)


def test_checkpoints_in_passing_change_no_bit(make_spec, run, tmp_path, undisturbed):
    row = run(make_spec(N_STEPS), checkpoint_every_s=0.0)
    assert row["resumed_from_step"] == 0
    assert_same_run(tmp_path / "runs", row, undisturbed)


@pytest.fixture(scope="module")
def with_everything(make_spec):
    """Momentum, averaged weights and z-loss, with batches in two parts."""
    return make_spec(
        N_STEPS, batch_size=84, ema_decay=0.95, z_loss=1e-4,
        optimizer=OptimizerConfig(lr=0.1, kind="sgd"),
    )  # fmt: skip


def test_all_options_together_are_resumed_bit_by_bit(
    with_everything, corpus, run, tmp_path, tmp_path_factory
):
    store = tmp_path_factory.mktemp("whole")
    whole = loop.train(with_everything, corpus, store, device=jax.devices()[0])
    with pytest.raises(Interrupted):
        run(with_everything, should_stop=stop_after(4))
    row = run(with_everything)
    assert N_STEPS > row["resumed_from_step"] > N_STEPS / 2, "in the part that noise is taken from"
    assert_same_run(tmp_path / "runs", row, (whole, store))
    assert row["noise_scale_tokens"] > 2 * row["noise_scale_se"] > 0
    last = run(dataclasses.replace(with_everything, ema_decay=None))
    assert row["loss_nats"] != last["loss_nats"]
    for name in ("train_loss_nats_final", "noise_scale_tokens", "noise_scale_se"):
        assert row[name] == last[name], "averaging has no part in training"


def test_a_batch_in_one_part_has_no_noise_scale(undisturbed):
    row, _ = undisturbed
    assert row["noise_scale_tokens"] is row["noise_scale_se"] is None


def test_resumed_under_another_mode_is_said(make_spec, run, monkeypatch):
    with pytest.raises(Interrupted):
        run(make_spec(N_STEPS), should_stop=stop_after(1))
    describe = loop.describe
    monkeypatch.setattr(
        loop, "describe", lambda *a: dataclasses.replace(describe(*a), mode="another pool")
    )
    row = run(make_spec(N_STEPS))
    assert row["resumed_from_step"] > 0 and row["is_exact"] is False


def test_a_second_run_of_one_spec_is_the_same_and_the_first_record_stays(
    make_spec, run, tmp_path, undisturbed
):
    first = run(make_spec(N_STEPS))
    assert_same_run(tmp_path / "runs", first, undisturbed)
    assert run(make_spec(N_STEPS)) == first


def test_a_longer_run_begins_as_a_shorter_one(make_spec, run, tmp_path, monkeypatch):
    seen = []
    gather = inputs.gather
    monkeypatch.setattr(inputs, "gather", lambda *a: seen.append(gather(*a)) or seen[-1])
    constant = ScheduleConfig("constant", warmup_steps=4)
    batches, curves = [], []
    for n_steps in (40, 90):
        row = run(make_spec(n_steps, schedule=constant))
        batches.append(np.concatenate(seen)[:n_steps])
        seen.clear()
        points = result_of(tmp_path / "runs", row)[1]
        curves.append([{**point, "run_id": None} for point in points if point["step"] < 40])
    np.testing.assert_array_equal(batches[0], batches[1][:40])
    assert curves[0] == curves[1] and len(curves[0]) > 30


def test_seeds_change_what_they_name(make_spec, run, tmp_path):
    firsts = {}
    for name in ("base", "seed_init", "seed_data"):
        row = run(make_spec(20, **({} if name == "base" else {name: 1})))
        firsts[name] = row["loss_nats"]
    assert len(set(firsts.values())) == 3


def test_loss_reaches_the_entropy_of_a_known_source(make_spec, run, source, corpus, tiny):
    """Against the floor, and against the source's own loss on the very validation text."""
    spec = make_spec(1500, optimizer=OptimizerConfig(lr=0.02, weight_decay=0.0))
    row = run(spec)
    floor = source.entropy_floor_nats(tiny.seq_len)
    log_p = np.log(np.asarray(source.transitions))
    tokens = corpus.validation_tokens[: row["n_validation_tokens"] + 1].astype(int)
    of_source = float(-log_p[tokens[:-1], tokens[1:]].mean())
    assert abs(of_source - floor) < 4 * row["loss_se_iid"]
    assert floor - 4 * row["loss_se_iid"] < row["loss_nats"] < 1.02 * floor + 4 * row["loss_se_iid"]
    assert of_source - 0.005 < row["loss_nats"] < 1.02 * of_source


@pytest.mark.parametrize("lr", [1e25, 3e38])
def test_divergence_is_a_record_and_no_error(lr, make_spec, run, tmp_path):
    spec = make_spec(N_STEPS, optimizer=OptimizerConfig(lr=lr), schedule=ScheduleConfig())
    row = run(spec)
    assert row["status"] == "diverged"
    assert 1 <= row["diverged_step"] <= N_STEPS
    assert row["loss_nats"] is row["loss_se_iid"] is row["bits_per_byte"] is None
    points = records.read_points(records.committed_attempt(tmp_path / "runs", row))
    assert all(point["step"] < row["diverged_step"] for point in points)
    assert all(point["loss_nats"] is not None for point in points)
    assert run(spec) == row


def test_divergence_in_the_last_step_shows_in_the_evaluation(make_spec, run):
    """The loss of step k is that of the weights before it; only the evaluation sees the last."""
    spec = make_spec(1, optimizer=OptimizerConfig(lr=3e38, eps=1e-30), schedule=ScheduleConfig())
    row = run(spec)
    assert (row["status"], row["diverged_step"], row["loss_nats"]) == ("diverged", 1, None)


def test_unique_budget_limits_the_tokens_seen(make_spec, run, monkeypatch, tiny):
    spec = make_spec(N_STEPS)
    data = dataclasses.replace(spec.data, n_tokens_unique=40 * tiny.seq_len + 3)
    seen = []
    window_ids = inputs.window_ids
    monkeypatch.setattr(
        inputs, "window_ids", lambda *a, **k: seen.append(window_ids(*a, **k)) or seen[-1]
    )
    row = run(dataclasses.replace(spec, data=data))
    ids = np.concatenate(seen)[:N_STEPS].reshape(-1)
    assert len(set(ids)) == 40
    assert row["n_tokens_unique"] == 40 * tiny.seq_len
    assert row["n_epochs"] == pytest.approx(N_STEPS * 8 / 40)


def test_a_spec_for_another_text_is_refused(make_spec, run, tmp_path):
    spec = make_spec()
    wrong = [
        (dataclasses.replace(spec.data, corpus_hash="c0ffee"), r"data\.corpus_hash=c0ffee"),
        (dataclasses.replace(spec.data, n_tokens_unique=11), r"n_tokens_unique=11 is 0 windows"),
        (dataclasses.replace(spec.data, n_tokens_unique=10**7), "n_tokens_unique=10000000"),
        (dataclasses.replace(spec.data, tokenizer_hash="0"), r"data\.tokenizer_hash=0"),
    ]
    for data, message in wrong:
        with pytest.raises(SpecError, match=message):
            run(dataclasses.replace(spec, data=data))
    model = dataclasses.replace(spec.model, vocab_size=18)
    with pytest.raises(SpecError, match=r"model\.vocab_size=18"):
        run(dataclasses.replace(spec, model=model))
    assert not (tmp_path / "runs").exists()


def test_a_budget_in_flops_trains_the_same_run(make_spec, run, undisturbed):
    n_tokens = N_STEPS * make_spec().batch_tokens
    flops = train_flops(make_spec().model, n_tokens, "matmul_full")
    row = run(make_spec(budget=Budget(flops=flops)))
    assert row["run_id"] == undisturbed[0]["run_id"]
    assert row["loss_nats"] == undisturbed[0]["loss_nats"]
