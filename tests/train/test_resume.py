"""A run cut off anywhere, as often as may be, goes on in the bits of one that was not."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import same_run
from same_run import stop_after

from model.functional import init_params
from train import checkpoint, placement, records
from train.config import OptimizerConfig, ScheduleConfig
from train.loop import Interrupted, train
from train.optimizer import hyperparameters, init_moments
from train.step import TrainState

N_STEPS = 76
MUON = OptimizerConfig(lr=0.02, kind="muon")
IN_TWO_PARTS = {"optimizer": OptimizerConfig(lr=0.1, kind="sgd"), "batch_size": 84, "z_loss": 1e-4}
"""Shares its compilations with the tests of the loop."""

WSD = ScheduleConfig("wsd", warmup_steps=4, decay_steps=30)
OPTIONS = {
    "adamw wsd": {"schedule": WSD},
    "sgd ema z": {**IN_TWO_PARTS, "ema_decay": 0.9},
    "sgd z": IN_TWO_PARTS,
    "muon ema z": {"optimizer": MUON, "ema_decay": 0.9, "z_loss": 1e-3},
}
SLOW = {
    "muon": {"optimizer": MUON},
    "adamw ema": {"ema_decay": 0.9},
    "adamw z": {"z_loss": 1e-3},
}


@pytest.fixture(params=[*OPTIONS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def spec(request, make_spec):
    return make_spec(N_STEPS, **{**OPTIONS, **SLOW}[request.param])


def cut_off(spec, corpus, store, n_questions):
    with pytest.raises(Interrupted):
        train(spec, corpus, store, device=jax.devices()[0], should_stop=stop_after(n_questions))


def state_of(spec, store):
    """Header and arrays of the newest checkpoint, metrics of all steps included."""
    params = init_params(spec.model, spec.seed_init, spec.parametrization)
    moments = init_moments(params, hyperparameters(spec.optimizer))
    like = TrainState(params, moments, None if spec.ema_decay is None else params)
    saved = checkpoint.read(records.attempts(store, spec.run_id)[-1].checkpoint_dir, like)
    assert saved is not None
    return saved


def test_every_optimizer_goes_on_bit_by_bit(spec, corpus, tmp_path):
    """State, moments and metrics just before the end, then record, curve and weights."""
    once, often = tmp_path / "once", tmp_path / "often"
    cut_off(spec, corpus, once, 3)
    for n_questions in (0, 1, 0):
        cut_off(spec, corpus, often, n_questions)
    states = [state_of(spec, store) for store in (once, often)]
    assert states[0].step == states[1].step == 64
    jax.tree.map(np.testing.assert_array_equal, states[0].state, states[1].state)
    np.testing.assert_array_equal(states[0].history, states[1].history)
    assert np.all(states[0].history[0] > 0)
    for key in ("curve", "noise", "is_exact", "parent"):
        assert states[0].notes[key] == states[1].notes[key], key
    whole = train(spec, corpus, tmp_path / "whole", device=jax.devices()[0])
    row = train(spec, corpus, often, device=jax.devices()[0])
    assert row["resumed_from_step"] == 64 and row["attempt"] == 4
    same_run.assert_same_run(often, row, tmp_path / "whole", whole)


@pytest.fixture
def adamw(make_spec):
    return make_spec(N_STEPS)


def damage_checkpoint(attempt, kind):
    folder = attempt.checkpoint_dir
    if kind == "format":
        header = json.loads((folder / "latest.json").read_text())
        (folder / "latest.json").write_text(json.dumps({**header, "format": 1}))
    elif kind == "header":
        (folder / "latest.json").write_text("")
    else:
        shutil.rmtree(next(folder.glob("state-*")) / "d")


@pytest.mark.parametrize("kind", ["format", "header", "state"])
@pytest.mark.parametrize("n_damaged", [1, 2])
def test_a_bad_checkpoint_is_said_and_passed_over(kind, n_damaged, adamw, corpus, tmp_path, caplog):
    """One bad: on from the attempt before. Both bad: anew. The same bits either way."""
    store = tmp_path / "runs"
    cut_off(adamw, corpus, store, 0)
    cut_off(adamw, corpus, store, 1)
    for attempt in records.attempts(store, adamw.run_id)[2 - n_damaged :]:
        damage_checkpoint(attempt, kind)
    row = train(adamw, corpus, store, device=jax.devices()[0])
    assert row["resumed_from_step"] == {1: 16, 2: 0}[n_damaged]
    warnings = [r.getMessage() for r in caplog.records if r.name == "train.start"]
    assert len(warnings) == n_damaged
    assert all(str(store) in w and "remove" in w and "goes on" in w for w in warnings)
    whole = train(adamw, corpus, tmp_path / "whole", device=jax.devices()[0])
    same_run.assert_same_run(store, row, tmp_path / "whole", whole)


def test_once_under_another_mode_a_run_stays_inexact(adamw, corpus, tmp_path, monkeypatch):
    """The second attempt under the new mode resumes its own checkpoint, but not its own steps."""
    store = tmp_path / "runs"
    cut_off(adamw, corpus, store, 0)
    describe = placement.describe
    monkeypatch.setattr(
        placement, "describe", lambda *a: dataclasses.replace(describe(*a), mode="another pool")
    )
    cut_off(adamw, corpus, store, 0)
    row = train(adamw, corpus, store, device=jax.devices()[0])
    assert row["resumed_from_step"] == 32 and row["is_exact"] is False


def test_averaged_runs_say_the_loss_of_the_trained_weights_too(make_spec, corpus, tmp_path):
    """With an average over almost nothing, both are the same weights to rounding."""
    options = {"corpus": corpus, "store": tmp_path, "device": jax.devices()[0]}
    plain = train(make_spec(N_STEPS, **IN_TWO_PARTS), **options)
    assert plain["loss_nats_raw"] is None
    for decay, is_near in ((1e-6, True), (0.99, False)):
        row = train(make_spec(N_STEPS, ema_decay=decay, **IN_TWO_PARTS), **options)
        assert row["loss_nats_raw"] == pytest.approx(plain["loss_nats"], rel=1e-6)
        assert (row["loss_nats"] == pytest.approx(row["loss_nats_raw"], rel=1e-4)) == is_near
