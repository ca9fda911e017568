import dataclasses

import jax
import numpy as np
import pytest

from model.functional import flatten, init_params
from train import checkpoint, records
from train.config import canonical_json
from train.optimizer import hyperparameters, init_moments
from train.records import RecordError
from train.step import TrainState

NOTES = {"curve": {"step": 3, "pending": [0.1]}, "mode": "cpu"}


@pytest.fixture
def attempt(tmp_path):
    return records.begin_attempt(tmp_path, "run")


@pytest.fixture(scope="module")
def states(make_spec):
    """A fresh state, and one of the same structure with other numbers in every leaf."""
    spec = make_spec()
    params = init_params(spec.model, 0)
    fresh = TrainState(params, init_moments(params, hyperparameters(spec.optimizer)))
    rng = np.random.default_rng(0)
    used = jax.tree.map(
        lambda leaf: np.asarray(100 * rng.standard_normal(leaf.shape)).astype(leaf.dtype), fresh
    )
    return fresh, used


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)


def test_state_comes_back_bit_by_bit(attempt, states):
    fresh, used = states
    assert checkpoint.latest(attempt) is None
    checkpoint.save(attempt, used, 3, NOTES)
    assert checkpoint.latest(attempt) == {"step": 3, **NOTES}
    assert_same_bits(checkpoint.restore(attempt, 3, fresh), used)


def test_the_newest_checkpoint_replaces_the_one_before(attempt, states):
    fresh, used = states
    checkpoint.save(attempt, fresh, 3, NOTES)
    checkpoint.save(attempt, used, 7, NOTES)
    newest = checkpoint.latest(attempt)
    assert newest is not None and newest["step"] == 7
    assert {p.name for p in attempt.checkpoint_dir.iterdir()} == {"state-7", "latest.json"}
    assert_same_bits(checkpoint.restore(attempt, 7, fresh), used)


def test_a_checkpoint_cut_off_in_writing_does_not_count(attempt, states):
    fresh, used = states
    checkpoint.save(attempt, used, 3, NOTES)
    (attempt.checkpoint_dir / "state-9").mkdir()
    newest = checkpoint.latest(attempt)
    assert newest is not None and newest["step"] == 3
    checkpoint.save(attempt, used, 12, NOTES)
    assert not (attempt.checkpoint_dir / "state-9").exists()


@pytest.fixture
def weights(make_spec, tmp_path):
    spec = make_spec()
    path, params = tmp_path / "weights.safetensors", init_params(spec.model, 5)
    checkpoint.save_weights(path, params, {"spec": canonical_json(spec.identity())})
    return spec, path, params


def test_weights_come_back_with_their_spec(weights):
    spec, path, params = weights
    assert checkpoint.read_spec(path).run_id == spec.run_id
    found = flatten(checkpoint.load_weights(path, spec.model))
    assert found.keys() == flatten(params).keys()
    for name, leaf in flatten(params).items():
        np.testing.assert_array_equal(found[name], leaf)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["cut", "empty", "header", "gone"])
def test_damaged_weights_are_refused_by_name(weights, damage):
    spec, path, _ = weights
    if damage == "gone":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes({"cut": data[:-100], "empty": b"", "header": b"\xff" * 64}[damage])
    for read in (checkpoint.read_spec, lambda p: checkpoint.load_weights(p, spec.model)):
        with pytest.raises(RecordError) as error:
            read(path)
        assert str(path) in str(error.value)
        assert "train the run again" in str(error.value)


def test_weights_of_another_model_are_refused(weights, make_spec):
    spec, path, _ = weights
    for change in ({"d_ff": 32}, {"n_layers": 1}, {"tied_head": False}):
        with pytest.raises(RecordError, match="weights of another model"):
            checkpoint.load_weights(path, dataclasses.replace(spec.model, **change))


def test_weights_without_a_spec_are_refused(tmp_path, weights):
    _, path, params = weights
    for metadata in ({}, {"spec": "{"}, {"spec": "{}"}):
        checkpoint.save_weights(path, params, metadata)
        with pytest.raises(RecordError, match=f"{path.name} holds no spec"):
            checkpoint.read_spec(path)
