"""A machine that fails under a run, and a holder that wakes up late: nothing is lost or doubled."""

import errno
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
import same_run

from train import checkpoint, lease, records
from train.lease import Halt, Lost, Unavailable
from train.loop import run as run_of
from train.loop import train
from train.outcomes import is_out_of_memory, settle
from train.step import train_steps

N_STEPS = 76
ROOM = 1 << 20
"""Bytes of the small disk."""


@pytest.fixture
def spec(make_spec):
    return make_spec(N_STEPS)


@pytest.fixture(scope="module")
def undisturbed(make_spec, corpus, tmp_path_factory):
    store = tmp_path_factory.mktemp("undisturbed")
    return store, train(make_spec(N_STEPS), corpus, store, device=jax.devices()[0])


def mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", folder):
        pytest.skip("needs the right to mount a small tmpfs (root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk, left=0):
    """Take all room of a disk but so many bytes."""
    with open(disk / "filler", "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC
        file.truncate(max(0, file.tell() - left))


@contextmanager
def as_nobody():
    """Without the rights of root, whom no mode holds back."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def once_at(step, act):
    """on_progress that acts at the first point logged at or after a step."""
    acted = []

    def on_progress(progress):
        if progress.step >= step and not acted:
            acted.append(progress)
            act()

    return on_progress


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_checkpoint_that_does_not_fit_is_a_warning(spec, corpus, small_disk, undisturbed, caplog):
    """There is room for the curve, then for the record; the state before stays good."""
    saved = []

    def leave_little():
        fill(small_disk, left=80_000)
        (attempt,) = records.attempts(small_disk, spec.run_id)
        saved.append((attempt, checkpoint.latest(attempt.checkpoint_dir)))

    def and_see(progress):
        on_progress(progress)
        if saved and progress.step < N_STEPS:
            attempt, before = saved[0]
            assert checkpoint.latest(attempt.checkpoint_dir) == before
            assert len(list(attempt.checkpoint_dir.glob("state-*"))) == 1, "no left-overs"

    on_progress = once_at(30, leave_little)
    row = train(
        spec, corpus, small_disk, device=jax.devices()[0],
        on_progress=and_see, checkpoint_every_s=0.0,
    )  # fmt: skip
    assert saved[0][1]["step"] >= 16
    same_run.assert_same_run(small_disk, row, *undisturbed)
    warnings = [r.getMessage() for r in caplog.records if r.name == "train.checkpoint"]
    assert warnings and all(f"run {spec.run_id} goes on" in text for text in warnings)
    assert "No space left on device" in warnings[0] and str(small_disk) in warnings[0]
    gc.collect()  # Orbax leaves threads' work that complains when it is collected


def test_a_record_that_does_not_fit_loses_nothing(spec, corpus, small_disk, undisturbed):
    """The commit fails and names its path; with room again the next attempt goes on."""
    commit = records.commit

    def full(*arguments):
        fill(small_disk)
        return commit(*arguments)

    options = {"device": jax.devices()[0], "checkpoint_every_s": 0.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "commit", full)
        with pytest.raises(OSError, match="No space left") as failed:
            train(spec, corpus, small_disk, **options)
    assert failed.value.filename.endswith("attempt-1/run.json")
    assert settle(small_disk, spec.run_id, failed.value, "cpu").is_machine
    assert lease.halt_of(small_disk, spec.run_id) is None
    assert records.read_run(small_disk, spec.run_id) is None
    with pytest.raises(OSError, match="No space left") as refused:
        lease.claim(small_disk, spec.run_id)
    assert str(small_disk / spec.run_id) in refused.value.filename
    assert len(records.attempts(small_disk, spec.run_id)) == 1
    (small_disk / "filler").unlink()
    row = train(spec, corpus, small_disk, **options)
    assert row["resumed_from_step"] > 0
    same_run.assert_same_run(small_disk, row, *undisturbed)
    assert not list(small_disk.rglob(".*")), "no left-overs"


def test_a_disk_that_becomes_read_only_ends_the_run_and_not_its_state(
    spec, corpus, small_disk, undisturbed
):
    options = {"device": jax.devices()[0], "checkpoint_every_s": 0.0}
    on_progress = once_at(40, lambda: mount("-o", "remount,ro", small_disk))
    with pytest.raises(OSError, match="Read-only file system"):
        train(spec, corpus, small_disk, on_progress=on_progress, **options)
    with pytest.raises(OSError, match="Read-only file system"):
        lease.claim(small_disk, "another")
    assert mount("-o", "remount,rw", small_disk)
    # This process lives on and could not say that it ended the attempt; a worker's would be gone.
    lease.end(records.attempts(small_disk, spec.run_id)[0])
    row = train(spec, corpus, small_disk, **options)
    assert row["resumed_from_step"] > 0
    same_run.assert_same_run(small_disk, row, *undisturbed)


def test_a_folder_that_may_not_be_written_is_named(tmp_path, spec):
    store = tmp_path / "runs"
    store.mkdir(mode=0o555)
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    with as_nobody(), pytest.raises(PermissionError) as refused:
        lease.claim(store, spec.run_id)
    assert refused.value.filename == str(store / spec.run_id)


@pytest.mark.parametrize("damage", ["middle", "digit", "cut off", "gone"])
def test_a_curve_that_is_damaged_is_passed_over_with_its_checkpoint(
    damage, spec, corpus, tmp_path, undisturbed, caplog
):
    """The attempt before has a whole one; its checkpoint is older."""
    store = tmp_path / "runs"
    for n_questions in (0, 1):
        with pytest.raises(Exception, match=spec.run_id):
            train(
                spec, corpus, store, device=jax.devices()[0],
                should_stop=same_run.stop_after(n_questions),
            )  # fmt: skip
    path = records.attempts(store, spec.run_id)[-1].directory / "curve.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    if damage == "middle":
        path.write_text("".join([*lines[:3], lines[3][:20] + "\n", *lines[4:]]))
    elif damage == "digit":
        path.write_text("".join([lines[0].replace("1", "2", 1), *lines[1:]]))
    elif damage == "cut off":
        path.write_text("".join(lines[:-2]) + lines[-2][:30])
    else:
        path.unlink()
    row = train(spec, corpus, store, device=jax.devices()[0])
    assert row["resumed_from_step"] == 16
    same_run.assert_same_run(store, row, *undisturbed)
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "train.start"]
    assert str(path) in warning and "goes on from an older checkpoint" in warning


def advance(under_way, n_dispatches):
    """Compute so many dispatches of a run; gives what it is to be sent next."""
    dispatch = next(under_way)
    for _ in range(n_dispatches):
        dispatch = under_way.send(train_steps(*dispatch))
    return train_steps(*dispatch)


@pytest.mark.parametrize("n_dispatches", [0, 2, 4])
@pytest.mark.parametrize("is_done", [False, True], ids=["taken over", "committed by another"])
def test_a_holder_that_wakes_up_late_harms_nobody(
    n_dispatches, is_done, spec, corpus, tmp_path, undisturbed
):
    """It was paused after any dispatch; another took its attempt for dead, and began or ended."""
    store, device = tmp_path / "runs", jax.devices()[0]
    late = run_of(spec, corpus, store, device=device, checkpoint_every_s=0.0)
    result = advance(late, n_dispatches)
    (paused,) = records.attempts(store, spec.run_id)
    lease.end(paused)
    other = run_of(spec, corpus, store, device=device)
    if is_done:
        row = train(spec, corpus, store, device=device)
    else:
        begun = advance(other, 0)
    before = {path: path.read_bytes() for path in (store / spec.run_id).rglob("*") if path.is_file()
              and paused.directory not in path.parents}  # fmt: skip
    with pytest.raises(Lost):
        while True:
            result = train_steps(*late.send(result))
    assert all(path.read_bytes() == content for path, content in before.items()
               if path.name != "heartbeat")  # fmt: skip
    if not is_done:
        assert records.read_run(store, spec.run_id) is None
        with pytest.raises(StopIteration) as finished:
            while True:
                begun = train_steps(*other.send(begun))
        row = finished.value.value
    assert row["attempt"] == 2
    same_run.assert_same_run(store, row, *undisturbed)
    assert [a.number for a in records.attempts(store, spec.run_id)] == [2]


def test_a_run_is_not_committed_behind_the_back_of_who_took_it_over(
    spec, corpus, tmp_path, monkeypatch
):
    """The pause came in the evaluation: the fence is looked at after it."""
    store, save_weights = tmp_path / "runs", checkpoint.save_weights

    def paused(*arguments):
        lease.end(records.attempts(store, spec.run_id)[-1])
        return save_weights(*arguments)

    monkeypatch.setattr(checkpoint, "save_weights", paused)
    with pytest.raises(Lost):
        train(spec, corpus, store, device=jax.devices()[0])
    assert records.read_run(store, spec.run_id) is None


def test_a_halted_run_leaves_a_checkpoint_and_is_left_alone(
    spec, corpus, tmp_path, undisturbed, monkeypatch
):
    store, options = tmp_path / "runs", {"device": jax.devices()[0]}
    monkeypatch.setattr(lease.held.__wrapped__, "__defaults__", (0.01,))
    halt = Halt("cancelled", "by the test")

    def stop():
        lease.halt(store, spec.run_id, halt)
        (attempt,) = records.attempts(store, spec.run_id)
        for thread in lease.threading.enumerate():
            if thread.name == f"heart of {attempt.directory}":
                thread.join()

    with pytest.raises(Lost):
        train(spec, corpus, store, on_progress=once_at(20, stop), **options)
    (attempt,) = records.attempts(store, spec.run_id)
    assert checkpoint.latest(attempt.checkpoint_dir)["step"] >= 16
    with pytest.raises(Unavailable, match="halted"):
        train(spec, corpus, store, **options)
    lease.lift(store, spec.run_id)
    row = train(spec, corpus, store, **options)
    assert row["resumed_from_step"] >= 16
    same_run.assert_same_run(store, row, *undisturbed)


def test_a_committed_run_is_given_back_as_it_is(spec, corpus, tmp_path, undisturbed):
    store = tmp_path / "runs"
    shutil.copytree(undisturbed[0], store)
    assert train(spec, corpus, store, device=jax.devices()[0]) == undisturbed[1]
    assert len(records.attempts(store, spec.run_id)) == 1


def test_memory_and_disk_are_told_apart():
    """Orbax and XLA have one word for both: a full disk is an OSError by the time it comes out."""
    xla = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")
    assert is_out_of_memory(xla) and is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("std::bad_alloc"))
    assert not is_out_of_memory(ValueError("RESOURCE_EXHAUSTED: No space left on device"))
    assert not is_out_of_memory(OSError(errno.ENOSPC, "No space left on device"))


def test_a_log_on_a_full_disk_does_not_hide_what_happened(tmp_path, monkeypatch):
    """The traceback has no room either; the run's failure is told all the same."""
    full = SimpleNamespace(write=refuse, flush=lambda: None)
    monkeypatch.setattr(sys, "stderr", full)
    found = settle(tmp_path, "run", OSError(errno.ENOSPC, "No space left"), "cpu")
    assert found.is_machine and "No space left" in found.reason


def refuse(text):
    raise OSError(errno.ENOSPC, "No space left on device")
