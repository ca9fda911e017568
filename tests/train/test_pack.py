import errno
import signal
import threading
from collections import Counter

import jax
import numpy as np
import pytest

from model.functional import flatten
from train import checkpoint, lease, pack, records
from train.checkpoint import load_weights
from train.config import SpecError
from train.jobs import Job, JobQueue
from train.lease import Lost, Unavailable
from train.loop import train
from train.pack import train_all


def devices(n):
    found = jax.local_devices()
    if len(found) < n:
        pytest.skip(f"needs {n} devices, XLA_FLAGS gave {len(found)}")
    return found[:n]


def weights_of(store, row):
    attempt = records.committed_attempt(store, row)
    return attempt.weights


def run_all(specs, corpus, store, **options):
    rows = []
    options = {
        "devices": devices(2),
        "on_progress": lambda p: None,
        "on_record": rows.append,
        "on_unfinished": lambda found: pytest.fail(str(found)),
    } | options
    train_all(JobQueue(map(Job, specs)), corpus, store, **options)
    return rows


def test_runs_side_by_side_have_the_bits_of_runs_alone(make_spec, corpus, tmp_path):
    specs = [make_spec(50, seed_init=seed) for seed in range(4)]
    rows = run_all(specs, corpus, tmp_path / "packed")
    assert {row["run_id"] for row in rows} == {spec.run_id for spec in specs}
    for spec in specs[:2]:
        alone = train(spec, corpus, tmp_path / "alone", device=jax.devices()[0])
        packed = records.read_run(tmp_path / "packed", spec.run_id)
        assert packed is not None
        assert packed["loss_nats"] == alone["loss_nats"]
        assert packed["mode"] == alone["mode"]
        leaves = [
            flatten(load_weights(weights_of(store, row), spec.model))
            for store, row in ((tmp_path / "packed", packed), (tmp_path / "alone", alone))
        ]
        for name in leaves[0]:
            np.testing.assert_array_equal(leaves[0][name], leaves[1][name], err_msg=name)


def test_what_keeps_runs_from_their_end_is_told_and_stops_no_other(
    make_spec, corpus, tmp_path, monkeypatch
):
    """Its own doing halts a run, the machine's does not; memory has a suggestion."""
    errors = {
        0: SpecError("too small a corpus"),
        1: OSError(errno.ENOSPC, "No space left on device", "runs"),
        2: MemoryError("std::bad_alloc"),
        3: Unavailable("r", "held"),
        4: Lost("r"),
    }

    def fake_run(spec, corpus, store, **options):
        yield from ()
        if spec.seed_init in errors:
            raise errors[spec.seed_init]
        return {"run_id": spec.run_id}

    monkeypatch.setattr(pack, "run", fake_run)
    specs = [make_spec(50, seed_init=seed) for seed in range(6)]
    told = {}
    rows = run_all(
        specs, corpus, tmp_path, on_unfinished=lambda found: told.update({found.run_id: found})
    )
    assert [row["run_id"] for row in rows] == [specs[5].run_id]
    too_small, full, memory, held, lost = (told[spec.run_id] for spec in specs[:5])
    assert too_small.reason == "too small a corpus" and not too_small.is_machine
    assert full.is_machine and "No space left on device: 'runs'" in full.reason
    assert memory.reason == "MemoryError: std::bad_alloc"
    assert "fewer workers" in memory.suggestion and "batch_size" in memory.suggestion
    assert (held.kind, held.reason, lost.kind) == ("unavailable", "held", "lost")
    why = [lease.halt_of(tmp_path, spec.run_id) for spec in specs]
    assert [halt and halt.reason for halt in why] == [
        too_small.reason, None, memory.reason, None, None, None,
    ]  # fmt: skip


def test_a_failing_callback_is_no_silent_end(make_spec, corpus, tmp_path):
    def on_record(row):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_all(
            [make_spec(20, seed_init=s) for s in range(3)], corpus, tmp_path, on_record=on_record
        )


def test_a_failing_callback_leaves_a_checkpoint_of_the_others(make_spec, corpus, tmp_path):
    specs = failing, other = [make_spec(20_000, seed_init=seed) for seed in range(2)]
    begun = set()

    def on_progress(progress):
        begun.add(progress.run_id)
        if progress.run_id == failing.run_id and other.run_id in begun:
            raise MemoryError

    def on_unfinished(found):
        raise OSError("nobody hears")

    with pytest.raises(OSError, match="nobody hears"):
        run_all(specs, corpus, tmp_path, on_progress=on_progress, on_unfinished=on_unfinished)
    assert records.read_run(tmp_path, other.run_id) is None
    (attempt,) = records.attempts(tmp_path, other.run_id)
    saved = checkpoint.latest(attempt.checkpoint_dir)
    assert saved is not None and 0 < saved["step"] < 20_000


@pytest.fixture
def ctrl_c_interrupts():
    """Python's own answer to SIGINT, which a job started in the background does not get."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_ctrl_c_waits_for_every_checkpoint(make_spec, corpus, tmp_path):
    specs = [make_spec(20_000, seed_init=seed) for seed in range(2)]
    begun, sent = set(), []

    def on_progress(progress):
        begun.add(progress.run_id)
        if len(begun) == 2 and progress.step > 50 and not sent:
            sent.append(progress)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_all(specs, corpus, tmp_path, on_progress=on_progress)
    for spec in specs:
        (attempt,) = records.attempts(tmp_path, spec.run_id)
        assert checkpoint.latest(attempt.checkpoint_dir) is not None


def test_progress_and_records_come_one_at_a_time(make_spec, corpus, tmp_path):
    inside, most = Counter(), []

    def watch(value):
        inside["now"] += 1
        most.append(inside["now"])
        inside["now"] -= 1

    specs = [make_spec(30, seed_init=seed) for seed in range(4)]
    run_all(specs, corpus, tmp_path, on_progress=watch, on_record=watch)
    assert set(most) == {1} and len(most) >= 8


def test_devices_share_out_a_shape_and_its_rows(make_spec, corpus, tmp_path, monkeypatch):
    """Two devices, eight jobs: four rows each, though the first could have had all."""
    together, asked = threading.Barrier(2, timeout=60), []

    def fake_run(spec, corpus, store, *, device, n_rows, **options):
        yield from ()
        together.wait()
        return {"device": device, "n_rows": n_rows}

    def choose(spec, device, n_max):
        asked.append(n_max)
        return n_max

    monkeypatch.setattr(pack, "run", fake_run)
    specs = [make_spec(20, seed_init=seed) for seed in range(8)]
    rows = run_all(specs, corpus, tmp_path, choose_n_rows=choose)
    assert asked == [4, 4] and {row["n_rows"] for row in rows} == {4}
    assert Counter(row["device"] for row in rows) == dict.fromkeys(devices(2), 4)


def test_linked_runs_have_one_row(make_spec, corpus, tmp_path, monkeypatch):
    def fake_run(spec, corpus, store, *, n_rows, **options):
        yield from ()
        return {spec.n_steps: n_rows}

    monkeypatch.setattr(pack, "run", fake_run)
    trunk = Job(make_spec(50), branch_steps=(30,))
    jobs = JobQueue([trunk, Job(make_spec(40), trunk=trunk.spec), Job(make_spec(20))])
    rows = []
    train_all(
        jobs, corpus, tmp_path, devices=devices(1), on_progress=lambda p: None,
        on_unfinished=lambda found: pytest.fail(str(found)), on_record=rows.append,
        choose_n_rows=lambda *_: 4,
    )  # fmt: skip
    assert rows == [{50: 1}, {40: 1}, {20: 4}]


def test_an_open_queue_is_worked_at_until_it_is_closed(make_spec, corpus, tmp_path, monkeypatch):
    """Jobs that come while runs are under way, and a shape that comes after another."""

    def fake_run(spec, corpus, store, **options):
        yield from ()
        return {"run_id": spec.run_id}

    monkeypatch.setattr(pack, "run", fake_run)
    first, *later = make_spec(40), make_spec(20, seed_init=1), make_spec(20, batch_size=4)
    jobs, rows = JobQueue([Job(first)], is_open=True), []

    def on_record(row):
        rows.append(row["run_id"])
        if len(rows) <= len(later):
            jobs.put(Job(later[len(rows) - 1]))
        else:
            jobs.close()

    train_all(
        jobs, corpus, tmp_path, devices=devices(1), on_progress=lambda p: None,
        on_unfinished=lambda found: pytest.fail(str(found)), on_record=on_record,
        choose_n_rows=lambda *_: 2,
    )  # fmt: skip
    assert rows == [spec.run_id for spec in (first, *later)]
