import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from model.functional import flatten, init_params
from train import checkpoint
from train.checkpoint import CheckpointError
from train.config import OptimizerConfig, canonical_json
from train.optimizer import hyperparameters, init_moments
from train.records import RecordError
from train.step import TrainState

NOTES = {"curve": {"step": 3, "pending": [0.1]}, "mode": "cpu"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoint"


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


HISTORY = np.random.default_rng(1).standard_normal((3, 20)).astype(np.float32)


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)


def test_state_comes_back_bit_by_bit(folder, states):
    fresh, used = states
    assert checkpoint.read(folder, fresh) is None
    checkpoint.save(folder, used, 3, HISTORY, NOTES)
    saved = checkpoint.read(folder, fresh)
    assert saved is not None and (saved.step, saved.notes) == (3, NOTES)
    assert_same_bits(saved.state, used)
    np.testing.assert_array_equal(saved.history, HISTORY[:, :3])


def test_the_newest_checkpoint_replaces_the_one_before(folder, states):
    fresh, used = states
    checkpoint.save(folder, fresh, 3, HISTORY, NOTES)
    checkpoint.save(folder, used, 7, HISTORY, NOTES)
    saved = checkpoint.read(folder, fresh)
    assert saved is not None and saved.step == 7
    assert {p.name for p in folder.iterdir()} == {"state-7", "latest.json"}
    assert_same_bits(saved.state, used)


def test_a_checkpoint_cut_off_in_writing_does_not_count(folder, states):
    fresh, used = states
    checkpoint.save(folder, used, 3, HISTORY, NOTES)
    (folder / "state-9").mkdir()
    newest = checkpoint.latest(folder)
    assert newest is not None and newest["step"] == 3
    checkpoint.save(folder, used, 12, HISTORY, NOTES)
    assert not (folder / "state-9").exists()


def change_header(folder, **changes):
    path = folder / "latest.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def seal_with(folder, **changes):
    change_header(folder, **changes)
    path = folder / "latest.json"
    path.write_text(json.dumps(checkpoint.seal(json.loads(path.read_text()))))


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def cut(folder):
    path = largest_file(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(folder):
    path = largest_file(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "cut": (cut, "state-3/.* is not as it was written"),
    "a bit": (flip, "state-3/.* is not as it was written"),
    "no state": (lambda folder: shutil.rmtree(folder / "state-3"), "state-3/.* is not as it was"),
    "no files": (
        lambda folder: [shutil.rmtree(folder / "state-3"), seal_with(folder, files={})],
        "state-3 cannot be restored",
    ),
    "no JSON": (lambda folder: (folder / "latest.json").write_text("{"), "latest.json is damaged"),
    "a list": (lambda folder: (folder / "latest.json").write_text("[]"), "has format None"),
    "older": (lambda folder: change_header(folder, format=None), "has format 1 and .* reads"),
    "newer": (lambda folder: change_header(folder, format=99), "has format 99 and .* reads"),
    "no step": (lambda folder: change_header(folder, step=None), "json is not as it was written"),
    "a note": (lambda folder: change_header(folder, notes={}), "json is not as it was written"),
    "a leaf": (lambda folder: seal_with(folder, arrays={}), "holds .* as nothing where"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_or_foreign_state_is_refused_by_name(kind, folder, states):
    fresh, used = states
    checkpoint.save(folder, used, 3, HISTORY, NOTES)
    damage, message = DAMAGE[kind]
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as error:
        checkpoint.read(folder, fresh)
    assert f"remove {folder}" in str(error.value) and "\n" not in str(error.value)


def test_a_state_of_another_shape_type_or_optimizer_is_refused(folder, states, make_spec):
    fresh, used = states
    checkpoint.save(folder, used, 3, HISTORY, NOTES)
    deeper = init_params(dataclasses.replace(make_spec().model, n_layers=3), 0)
    sgd = hyperparameters(OptimizerConfig(lr=0.1, kind="sgd"))
    others = [
        jax.tree.map(lambda leaf: np.zeros((*leaf.shape, 2), leaf.dtype), fresh),
        jax.tree.map(lambda leaf: np.asarray(leaf).astype(np.float16), fresh),
        TrainState(fresh.params, init_moments(fresh.params, sgd)),
        TrainState(deeper, init_moments(deeper, hyperparameters(make_spec().optimizer))),
        fresh._replace(ema=fresh.params),
    ]
    for other in others:
        with pytest.raises(CheckpointError, match="where this run has"):
            checkpoint.read(folder, other)


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
