"""One large run on a mesh of simulated devices: the same losses, checkpoints from mesh to mesh."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from model.config import ModelConfig
from train.config import RunSpec, SpecError
from train.sharding import MeshShape, check_mesh, make_mesh, parse_mesh, sharding_of

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 2e-5
"""Of losses, relative: sums over devices are added in another order."""


@pytest.fixture
def spec(make_spec):
    return make_spec(batch_size=8)


@pytest.mark.parametrize(
    "text, n_devices, expected",
    [
        ("data=2,fsdp=4", 8, MeshShape(2, 4, 1)),
        ("fsdp=*", 8, MeshShape(1, 8, 1)),
        ("tensor=2, fsdp=*", 8, MeshShape(1, 4, 2)),
    ],
)
def test_a_mesh_is_read(text, n_devices, expected):
    assert parse_mesh(text, n_devices) == expected


@pytest.mark.parametrize(
    "text", ["", "data", "data=0", "data=3", "rows=8", "data=*,fsdp=*", "data=2,data=4", "fsdp=-8"]
)
def test_a_mesh_that_cannot_be_is_refused(text):
    with pytest.raises(SpecError, match="mesh"):
        parse_mesh(text, 8)


@pytest.mark.parametrize(
    "shape, n_microbatches, field",
    [
        (MeshShape(tensor=4), 1, "model.n_heads=2"),
        (MeshShape(data=16), 1, "batch_size=8"),
        (MeshShape(data=2), 8, "batch_size=8"),
        (MeshShape(fsdp=3), 1, "model.d_model=16"),
    ],
)
def test_a_mesh_that_does_not_divide_is_refused_by_name(spec, shape, n_microbatches, field):
    with pytest.raises(SpecError, match=field):
        check_mesh(spec, shape, n_microbatches)


def test_a_width_of_the_mlp_that_does_not_divide_is_refused(spec):
    model = ModelConfig(1, 16, 4, 4, 18, 17, 12)
    wide = RunSpec(model, spec.data, spec.optimizer, spec.budget, batch_size=8)
    with pytest.raises(SpecError, match="model.d_ff=18"):
        check_mesh(wide, MeshShape(tensor=4))


def test_moments_lie_where_their_weights_do():
    mesh = make_mesh(MeshShape(fsdp=2), jax.devices()[:2])
    weight = sharding_of(mesh, ".params['blocks']['0']['mlp']['up']", (16, 64))
    moment = sharding_of(mesh, ".moments[1].mu['blocks']['0']['mlp']['up']", (16, 64))
    stacked = sharding_of(mesh, ".params['blocks']['mlp']['up']", (3, 16, 64))
    assert weight.spec == moment.spec == jax.P("fsdp", None)
    assert stacked.spec == jax.P(None, "fsdp", None)
    assert sharding_of(mesh, ".moments[1].count", ()).is_fully_replicated
    assert sharding_of(mesh, ".params['token_embedding']", (17, 16)).is_fully_replicated


# In a process of its own, since it needs more devices than the tests have.
SCRIPT = """
import json, sys
from pathlib import Path
import jax
from train.config import RunSpec, from_json
from train.data.languages import MarkovSource, as_corpus
from train.loop import Interrupted, train
from train.placement import on_mesh
from train.records import attempts, committed_attempt, read_points
from train.sharding import MeshShape

corpus = as_corpus(
    MarkovSource.random(vocab_size=17, order=1, seed=3),
    n_train=200_000, n_validation=6_000, seed=1,
)
for case in json.loads(sys.argv[1]):
    spec, store = from_json(RunSpec, case["spec"]), Path(case["store"])
    if case["mesh"] is None:
        place = jax.devices()[0]
    else:
        shape = MeshShape(*case["mesh"])
        place = on_mesh(spec, shape, jax.devices()[: shape.n_devices], **case["how"])
    looks = iter(range(100))
    stop = lambda: next(looks) >= case["stop_after"]
    try:
        row = train(spec, corpus, store, device=place, should_stop=stop)
        points = read_points(committed_attempt(store, row))
    except Interrupted:
        row, points = {"loss_nats": None}, read_points(attempts(store, spec.run_id)[-1])
    losses = [p["loss_nats"] for p in points]
    print(json.dumps([row["loss_nats"], losses, row.get("mode"), row.get("is_exact")]))
"""


@pytest.fixture
def trained(tmp_path):
    """Train cases in order in a process with so many devices; a line of what came of each."""

    def trained(spec, cases, n_devices):
        from train.config import to_json

        known = {"spec": to_json(spec), "how": {}, "stop_after": 1000}
        full = [{**known, "store": str(tmp_path / str(k)), **case} for k, case in enumerate(cases)]
        flag = f"--xla_force_host_platform_device_count={n_devices}"
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(full)], cwd=ROOT, capture_output=True,
            env={**os.environ, "XLA_FLAGS": flag, "PYTHONPATH": str(ROOT)},
            text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return trained


def assert_same_losses(found, expected, tolerance=TOLERANCE):
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    assert found[1] == pytest.approx(expected[1], rel=tolerance)


def test_a_mesh_of_all_axes_gives_the_losses_of_one_device(spec, trained):
    """Also of scanned and recomputed layers, in microbatches."""
    how = {"scan_layers": True, "remat": "full", "n_microbatches": 2}
    alone, meshed = trained(spec, [{"mesh": None}, {"mesh": (1, 2, 2), "how": how}], 4)
    assert_same_losses(meshed, alone)
    assert "mesh=data=1,fsdp=2,tensor=2 microbatches=2 remat=full scanned" in meshed[2]


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(2, 1, 1), (1, 4, 1), (1, 1, 2), (8, 1, 1), (2, 2, 2)])
def test_every_mesh_gives_the_losses_of_one_device(mesh, spec, trained):
    """Pure data, fully sharded and tensor parallel, and all of them."""
    alone, meshed = trained(spec, [{"mesh": None}, {"mesh": mesh}], 8)
    assert_same_losses(meshed, alone)


@pytest.mark.slow
def test_a_checkpoint_goes_on_upon_another_mesh(spec, trained, tmp_path):
    """Written by two devices whole, gone on with by four cut and scanned, ended by one."""
    store = str(tmp_path / "moved")
    how = {"scan_layers": True, "remat": "dots"}
    alone, first, second, last = trained(
        spec,
        [
            {"mesh": None},
            {"store": store, "mesh": (2, 1, 1), "stop_after": 0},
            {"store": store, "mesh": (1, 2, 2), "how": how, "stop_after": 0},
            {"store": store, "mesh": None},
        ],
        4,
    )
    assert first[0] is second[0] is None  # stopped with a checkpoint
    assert_same_losses(last, alone)
    assert last[3] is False  # the record says that bits are those of several modes


@pytest.mark.slow
def test_a_state_comes_back_from_a_mesh_exactly(spec, tmp_path):
    """Through a checkpoint written in parts and read into other parts, stacked and not."""
    import numpy as np

    from train import checkpoint
    from train.placement import on_mesh
    from train.start import fresh_state

    state = fresh_state(spec)
    cut = on_mesh(spec, MeshShape(fsdp=2), jax.devices()[:2], scan_layers=True)
    spread = on_mesh(spec, MeshShape(tensor=2), jax.devices()[:2])
    history = checkpoint.no_history(3)
    checkpoint.save(tmp_path, cut.canonical(cut.put(state)), 3, history, {})
    for restore in (None, spread.restore):
        saved = checkpoint.read(tmp_path, state, restore)
        for a, b in zip(jax.tree.leaves(saved.state), jax.tree.leaves(state), strict=True):
            np.testing.assert_array_equal(np.asarray(a), b)
