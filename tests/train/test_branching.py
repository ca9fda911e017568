"""A branch ends in the bits of its spec trained alone, whatever becomes of its branch point."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import same_run
from same_run import Killed, kill_at, stop_after

from model.accounting import train_flops
from train import branching, checkpoint, step
from train.config import OptimizerConfig, ScheduleConfig
from train.jobs import shared_steps
from train.loop import Interrupted, train

CONSTANT = ScheduleConfig("constant", warmup_steps=4)


@pytest.fixture(scope="module")
def make_any(make_spec):
    """Batches in two parts, so that there is a noise scale; averaging, momentum and z-loss."""

    def make(n_steps, schedule):
        return make_spec(
            n_steps, schedule=schedule, batch_size=84, ema_decay=0.95, z_loss=1e-4,
            optimizer=OptimizerConfig(lr=0.1, kind="sgd"),
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def trunk(make_any):
    return make_any(70, CONSTANT)


@pytest.fixture(scope="module")
def branches(make_any):
    """Cooldowns from 31 and 61 steps and one from the trunk's end; a shorter constant run."""

    def wsd(n_steps, decay_steps):
        schedule = ScheduleConfig("wsd", warmup_steps=4, decay_steps=decay_steps)
        return make_any(n_steps, schedule)

    return {31: wsd(45, 15), 61: wsd(80, 20), 70: wsd(140, 40), 37: make_any(37, CONSTANT)}


@pytest.fixture(scope="module")
def trained(trunk, branches, corpus, tmp_path_factory):
    """A store in which the trunk stands, with its points, and each run's record trained alone."""
    with_points, alone = (tmp_path_factory.mktemp(name) for name in ("trunk", "alone"))
    device = jax.devices()[0]
    row = train(trunk, corpus, with_points, device=device, branch_steps=sorted(branches))
    specs = (trunk, *branches.values())
    rows = {spec.run_id: train(spec, corpus, alone, device=device) for spec in specs}
    return row, with_points, rows, alone


@pytest.fixture
def store(trained, tmp_path):
    """A copy to damage."""
    return shutil.copytree(trained[1], tmp_path / "runs")


def assert_as_alone(store, row, trained, besides=same_run.ABOUT_ITS_PARENT):
    _, _, rows, alone = trained
    same_run.assert_same_run(store, row, alone, rows[row["run_id"]], besides)


def test_saving_points_changes_no_bit_of_the_trunk(trained, trunk, branches):
    row, store, *_ = trained
    assert_as_alone(store, row, trained, besides=frozenset())
    found = {p.name for p in (store / trunk.run_id / "branch").iterdir()}
    assert found == {f"step-{s}" for s in branches}


@pytest.mark.parametrize("shared", [31, 61, 70, 37])
def test_a_branch_has_the_bits_of_its_run_alone(shared, trunk, branches, trained, store, run):
    branch = branches[shared]
    assert shared_steps(trunk, branch) == shared
    n_compiled = step.train_steps._cache_size()
    row = run(branch, trunk=trunk)
    assert_as_alone(store, row, trained)
    assert row["noise_scale_tokens"] > 0 and row["loss_nats_raw"] != row["loss_nats"]
    assert step.train_steps._cache_size() == n_compiled
    assert (row["parent_run_id"], row["parent_step"]) == (trunk.run_id, shared)
    assert row["resumed_from_step"] == 0 and row["is_exact"]
    own = (branch.n_steps - shared) * branch.batch_tokens
    assert row["train_flops_charged"] == train_flops(branch.model, own, "matmul_full")
    whole = train_flops(branch.model, branch.n_tokens, "matmul_full")
    assert row["train_flops_standalone"] == row["train_flops_matmul_full"] == whole


def test_a_run_alone_is_charged_whole(trained, branches):
    row = trained[2][branches[61].run_id]
    assert row["parent_run_id"] is row["parent_step"] is None
    assert row["train_flops_charged"] == row["train_flops_standalone"]


def spoil(folder):
    largest = max((p for p in folder.rglob("d/*")), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


@pytest.mark.parametrize("damage", [spoil, lambda folder: shutil.rmtree(folder)])
def test_without_its_point_a_branch_begins_at_an_earlier_one(
    damage, trunk, branches, trained, store, run, caplog
):
    damage(store / trunk.run_id / "branch" / "step-61")
    row = run(branches[61], trunk=trunk)
    assert_as_alone(store, row, trained)
    assert row["parent_step"] == 37
    assert ("remove" in caplog.text) == (damage is spoil)


def test_without_any_point_a_branch_trains_alone(trunk, branches, trained, store, run):
    branching.remove_points(store, trunk.run_id)
    assert not (store / trunk.run_id / "branch").exists()
    branching.remove_points(store, trunk.run_id)
    row = run(branches[31], trunk=trunk)
    assert_as_alone(store, row, trained, besides=frozenset())
    assert row["parent_run_id"] is None


def test_a_point_of_another_mode_is_not_used(trunk, branches, trained, store, run, caplog):
    """Else the branch would not end in the bits of its run alone."""
    for path in (store / trunk.run_id / "branch").rglob("latest.json"):
        header = json.loads(path.read_text())
        header["notes"] |= {"is_exact": False} if "step-61" in str(path) else {"mode": "other"}
        path.write_text(json.dumps(checkpoint.seal(header)))
    row = run(branches[61], trunk=trunk)
    assert_as_alone(store, row, trained, besides=frozenset())
    assert "under another is_exact" in caplog.text and "under another mode" in caplog.text


def test_a_trunk_that_shares_nothing_is_no_parent(trunk, branches, store, run):
    other = dataclasses.replace(branches[31], seed_data=1)
    assert run(other, trunk=trunk)["parent_run_id"] is None


@pytest.mark.parametrize("stops", [(0,), (1, 1)])
def test_a_branch_cut_off_goes_on_and_keeps_its_parent(stops, trunk, branches, trained, store, run):
    branch = branches[70]
    for n_questions in stops:
        with pytest.raises(Interrupted):
            run(branch, trunk=trunk, should_stop=stop_after(n_questions))
    branching.remove_points(store, trunk.run_id)
    row = run(branch, trunk=trunk)
    assert row["resumed_from_step"] > 70
    assert (row["parent_run_id"], row["parent_step"]) == (trunk.run_id, 70)
    assert_as_alone(store, row, trained)


def test_a_trunk_cut_off_leaves_the_same_points(trunk, branches, trained, run, tmp_path):
    store, steps = tmp_path / "runs", sorted(branches)
    with pytest.raises(Killed):
        run(trunk, branch_steps=steps, on_progress=kill_at(40), checkpoint_every_s=0.0)
    with pytest.raises(Interrupted):
        run(trunk, branch_steps=steps, should_stop=stop_after(0))
    row = run(trunk, branch_steps=steps)
    assert row["resumed_from_step"] > 40
    assert_as_alone(store, row, trained, besides=frozenset())
    digests = [
        {path.parent.name: read_state(path) for path in folder.rglob("branch/*/latest.json")}
        for folder in (store, trained[1])
    ]
    assert digests[0].keys() == digests[1].keys() == {f"step-{s}" for s in steps}
    for name, (header, arrays) in digests[0].items():
        other_header, others = digests[1][name]
        assert {**header["notes"], "resumed_from": 0} == {
            **other_header["notes"],
            "resumed_from": 0,
        }
        jax.tree.map(np.testing.assert_array_equal, arrays, others)


def read_state(path):
    header = json.loads(path.read_text())
    arrays = checkpoint.restored_arrays(path.parent / f"state-{header['step']}", header["arrays"])
    return header, arrays


def test_a_half_written_point_is_none(trunk, branches, trained, store, run):
    (store / trunk.run_id / "branch" / "step-31" / "latest.json").unlink()
    row = run(branches[31], trunk=trunk)
    assert row["parent_run_id"] is None
    assert_as_alone(store, row, trained, besides=frozenset())


def test_a_trunk_that_begins_again_replaces_its_points(trunk, run, tmp_path, trained, branches):
    store = tmp_path / "runs"
    half = store / trunk.run_id / "branch" / "step-31" / "state-31"
    half.mkdir(parents=True)
    run(trunk, branch_steps=(31,))
    row = run(branches[31], trunk=trunk)
    assert row["parent_step"] == 31
    assert_as_alone(store, row, trained)
