import dataclasses
import itertools
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.functional import flatten
from train import loop, records
from train.checkpoint import load_weights, read_spec
from train.config import EarlyStopping, ScheduleConfig, SpecError, from_json, to_json
from train.config import RunSpec as Spec
from train.loop import Interrupted
from train.stopping import Looks, count, is_over

N_STEPS = 200
CONSTANT = ScheduleConfig(kind="constant", warmup_steps=4)
NEVER = 10**6


@pytest.fixture(scope="module")
def overfitting(make_spec):
    """A run that repeats 40 windows until it knows them by heart; its schedule has no horizon."""

    def make(steps=N_STEPS, **changes):
        plain = make_spec(steps, schedule=CONSTANT)
        data = dataclasses.replace(plain.data, n_tokens_unique=40 * plain.model.seq_len)
        return dataclasses.replace(plain, data=data, **changes)

    return make


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """Train once a spec; gives its record, evaluations and weights."""
    store = tmp_path_factory.mktemp("stopping")

    def trained(spec, store=store, **options):
        row = loop.train(spec, corpus, store, device=jax.devices()[0], **options)
        return result_of(store, row)

    return trained


def result_of(store, row):
    attempt = records.committed_attempt(store, row)
    spec = read_spec(attempt.weights)
    weights = flatten(load_weights(attempt.weights, spec.model))
    rows = [{**r, "attempt": None} for r in records.read_evaluations(attempt)]
    points = [{**p, "attempt": None} for p in records.read_points(attempt)]
    return row, rows, weights, points


@pytest.fixture(scope="module")
def dense(overfitting, trained):
    """The whole run, looked at every 10 steps and never stopped."""
    return trained(overfitting(early_stopping=EarlyStopping(10, NEVER)))


@pytest.fixture(scope="module")
def stopped(overfitting, trained):
    return trained(overfitting(early_stopping=EarlyStopping(15, 3)))


def looks_of(rows):
    return {r["step"]: r["loss_nats"] for r in rows if not r["is_result"]}


def assert_same_weights(found, expected):
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)


def test_a_run_to_its_end_reports_its_best(dense):
    row, rows, _, points = dense
    losses = looks_of(rows)
    assert list(losses) == list(range(10, N_STEPS + 1, 10))
    best = min(losses, key=losses.get)
    assert 10 < best < N_STEPS / 2, "the planted run should overfit"
    assert losses[N_STEPS] > losses[best] + 0.3
    assert row["stopped_step"] is None and row["n_steps"] == N_STEPS == points[-1]["step"]
    (result,) = [r for r in rows if r["is_result"]]
    assert result["step"] == best and result["split"] == "validation"
    assert row["loss_nats"] == result["loss_nats"] == losses[best]
    for name in ("loss_se_iid", "loss_se_document", "bits_per_byte"):
        assert result[name] == row[name]


def test_stopping_ends_the_run_near_the_minimum_of_the_whole_one(stopped, dense, overfitting):
    row, rows, _, points = stopped
    losses, spec = looks_of(rows), overfitting()
    best = min(losses, key=losses.get)
    assert row["stopped_step"] == max(losses) == best + 3 * 15 < N_STEPS / 2
    assert row["loss_nats"] < min(looks_of(dense[1]).values()) + 0.03
    assert row["loss_nats"] < looks_of(dense[1])[N_STEPS] - 0.3
    done = row["stopped_step"]
    assert row["n_steps"] == done == points[-1]["step"]
    assert row["n_tokens"] == done * spec.batch_tokens == points[-1]["n_tokens"]
    assert row["n_epochs"] == row["n_tokens"] / (40 * spec.model.seq_len)
    assert row["n_tokens_unique"] == 40 * spec.model.seq_len
    assert row["train_flops_matmul_full"] == points[-1]["train_flops_matmul_full"]
    tail = [p["loss_nats"] for p in points if p["step"] > 0.95 * done]
    assert min(tail) <= row["train_loss_nats_final"] <= max(tail)


def test_looking_changes_no_bit_of_training(stopped, dense, overfitting, trained):
    """The best weights are those of a plain run of as many steps; curves agree up to the stop."""
    for row, rows, weights, points in (stopped, dense):
        (best,) = [r["step"] for r in rows if r["is_result"]]
        plain = trained(overfitting(best))
        assert_same_weights(weights, plain[2])
        assert plain[0]["loss_nats"] == row["loss_nats"]
        losses = {p["step"]: (p["loss_nats"], p["grad_norm"]) for p in points}
        for point in plain[3][:-1]:
            assert losses[point["step"]] == (point["loss_nats"], point["grad_norm"])


@pytest.mark.parametrize("stops", [(1,), (0, 0, 0)])
def test_interrupted_and_resumed_stops_where_it_would_have(
    stops, stopped, overfitting, trained, tmp_path
):
    spec = overfitting(early_stopping=EarlyStopping(15, 3))
    for n_questions in stops:
        questions = itertools.count(1)
        with pytest.raises(Interrupted):
            trained(spec, tmp_path, should_stop=lambda q=questions, n=n_questions: next(q) > n)
    row, rows, weights, points = trained(spec, tmp_path)
    assert row["resumed_from_step"] > 0 and row["attempt"] == len(stops) + 1
    changed = {"attempt", "seconds", "seconds_compile", "resumed_from_step"}
    assert {k: v for k, v in row.items() if k not in changed} == {
        k: v for k, v in stopped[0].items() if k not in changed
    }
    assert (rows, points) == (stopped[1], stopped[3])
    assert_same_weights(weights, stopped[2])
    assert not list(tmp_path.rglob("best-*"))


class Killed(BaseException):
    """Stands for a kill: nothing in the code under test handles it."""


@pytest.mark.parametrize("at", [40, 75])
def test_killed_after_checkpoints_stops_where_it_would_have(
    at, stopped, overfitting, trained, tmp_path
):
    """A checkpoint after every dispatch; killed past the best step, its weights must survive."""

    def kill(progress):
        if progress.step >= at:
            raise Killed

    spec = overfitting(early_stopping=EarlyStopping(15, 3))
    with pytest.raises(Killed):
        trained(spec, tmp_path, on_progress=kill, checkpoint_every_s=0.0)
    row, rows, weights, _ = trained(spec, tmp_path)
    assert row["attempt"] == 2 and row["resumed_from_step"] > 0
    assert rows == stopped[1]
    assert_same_weights(weights, stopped[2])


def test_looks_may_score_a_part_of_the_split(overfitting, trained, corpus, run):
    row, rows, _, _ = trained(overfitting(early_stopping=EarlyStopping(15, 3, n_tokens=600)))
    looks = [r for r in rows if not r["is_result"]]
    assert {r["split"] for r in looks} == {"validation[:600]"}
    assert {r["n_tokens"] for r in looks} == {49 * 12}
    assert {r["bits_per_byte"] for r in looks} == {None}
    (result,) = [r for r in rows if r["is_result"]]
    assert result["step"] == min(looks, key=lambda r: r["loss_nats"])["step"]
    assert result["n_tokens"] == row["n_validation_tokens"] > 5_000
    with pytest.raises(SpecError, match=r"early_stopping\.n_tokens=7000 .* 6000 tokens"):
        run(overfitting(early_stopping=EarlyStopping(15, 3, n_tokens=7000)))


@pytest.mark.slow
def test_an_average_is_stopped_by_its_own_loss(overfitting, trained):
    rule = EarlyStopping(15, 3)
    row, rows, weights, _ = trained(overfitting(early_stopping=rule, ema_decay=0.9))
    (best,) = [r["step"] for r in rows if r["is_result"]]
    plain = trained(overfitting(best, ema_decay=0.9))
    assert row["loss_nats"] == plain[0]["loss_nats"]
    assert_same_weights(weights, plain[2])


def test_a_run_that_diverges_is_diverged_whatever_was_best(overfitting, trained):
    wild = dataclasses.replace(overfitting().optimizer, lr=1e30, clip_norm=1e30)
    row, rows, *_ = trained(overfitting(early_stopping=EarlyStopping(2, 50), optimizer=wild))
    assert row["status"] == "diverged" and row["loss_nats"] is None
    assert row["stopped_step"] is None and not [r for r in rows if r["is_result"]]


@given(st.lists(st.one_of(st.floats(0, 3), st.just(math.nan)), max_size=12), st.integers(1, 4))
def test_looks_are_counted_as_their_definition_says(losses, patience):
    """Over after `patience` looks since the first of the lowest finite loss."""
    looks = Looks()
    for i, loss in enumerate(losses, start=1):
        looks = count(looks, i, loss)
    finite = [(loss, i) for i, loss in enumerate(losses, start=1) if not math.isnan(loss)]
    best_loss, best_step = min(finite, default=(None, 0))
    assert looks == Looks(best_step, best_loss, len(losses) - best_step)


def test_patience_is_needed_whole(overfitting):
    spec = overfitting(early_stopping=EarlyStopping(15, 3))
    assert [is_over(spec, Looks(15, 1.0, n)) for n in (0, 2, 3)] == [False, False, True]
    assert not is_over(overfitting(), Looks(15, 1.0, 99))


def test_the_rule_is_part_of_the_identity_only_where_there_is_one(overfitting):
    plain, spec = overfitting(), overfitting(early_stopping=EarlyStopping(15, 3))
    assert "early_stopping" not in plain.identity()
    assert spec.identity()["early_stopping"] == {
        "every_steps": 15, "patience": 3, "n_tokens": None,
    }  # fmt: skip
    assert len({plain.run_id, spec.run_id}) == 2
    assert spec.compile_key == plain.compile_key
    assert from_json(Spec, to_json(spec)) == spec
    assert from_json(Spec, to_json(plain)) == plain


@pytest.mark.parametrize(
    "values,words",
    [
        ((0, 3), r"early_stopping\.every_steps=0 must be positive"),
        ((15, -1), r"early_stopping\.patience=-1 must be positive"),
        ((15, 3, 12), r"early_stopping\.n_tokens=12 is less than one window of model.seq_len=12"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(values, words, overfitting):
    with pytest.raises(SpecError, match=words):
        overfitting(early_stopping=EarlyStopping(*values))
