"""Processes that pull runs from one queue: each run committed once, whoever of them is killed."""

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from train import checkpoint, lease, records
from train.config import ScheduleConfig
from train.jobs import Job
from train.lease import Halt
from train.pull import pull, shapes_of
from train.worker import Setup

ROOT = Path(__file__).parents[2]


@pytest.fixture
def queue_of(prepared, shared_workspace):
    """Write a queue of jobs; give its folder."""

    def queue_of(jobs):
        folder = shared_workspace.root / "queues" / "tiny"
        folder.mkdir(parents=True)
        corpus, workspace = prepared[1], shared_workspace
        setup = Setup(
            str(workspace.runs), str(workspace.data), str(workspace.cache),
            corpus.name, corpus.tokenizer,
        )  # fmt: skip
        (folder / "setup.json").write_text(json.dumps(asdict(setup)))
        (folder / "jobs.json").write_text(json.dumps([job.to_json() for job in jobs]))
        return folder

    return queue_of


def start(folder, share, n_shares=2):
    command = [sys.executable, "-m", "train.pull", folder, share, n_shares]
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True)


def step_of(store, run_id):
    """Steps that the newest attempt has logged."""
    tried = records.attempts(store, run_id)
    return records.last_point(tried[-1]).get("step", 0) if tried else 0


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def committed(store, jobs):
    return [records.read_run(store, job.spec.run_id) for job in jobs]


def test_shares_have_every_shape_once_and_the_costliest_apart(make_spec):
    jobs = [
        Job(make_spec(steps, batch_size=size))
        for size, steps in ((2, 90), (4, 20), (8, 10), (8, 12), (16, 3))
    ]
    shares = [shapes_of(jobs, share, 3) for share in range(3)]
    assert set().union(*shares) == {job.spec.compile_key for job in jobs}
    assert sum(map(len, shares)) == 4
    assert shapes_of(jobs, 0, 1) == set().union(*shares)
    assert [job for job in jobs if job.spec.compile_key in shares[0]] == jobs[:1]
    assert [job for job in jobs if job.spec.compile_key in shares[1]] == jobs[2:4]


@pytest.mark.slow
def test_two_processes_share_a_queue_and_one_takes_over_from_the_other(
    make_spec, queue_of, shared_workspace
):
    """The first is killed within its trunk: the other finishes that, then the branches."""
    wsd = ScheduleConfig("wsd", warmup_steps=2, decay_steps=10)
    trunk = make_spec(3000, schedule=ScheduleConfig("constant", warmup_steps=2))
    branches = [make_spec(steps, schedule=wsd) for steps in (40, 60)]
    jobs = [
        Job(trunk, branch_steps=(30, 50)),
        *(Job(branch, trunk=trunk) for branch in branches),
        *(Job(make_spec(40, batch_size=4, seed_init=seed)) for seed in range(3)),
    ]
    folder, store = queue_of(jobs), shared_workspace.runs
    with start(folder, 0) as first, start(folder, 1) as second:
        wait_for(lambda: step_of(store, trunk.run_id) > 60)
        by_pid = {first.pid: first, second.pid: second}
        (attempt,) = records.attempts(store, trunk.run_id)
        killed = by_pid.pop(lease.holder_of(attempt).pid)
        assert not records.attempts(store, branches[0].run_id), "it waits for its trunk"
        killed.kill()
        (other,) = by_pid.values()
        assert other.wait(300) == 0
        told = killed.stdout.read() + other.stdout.read()
    rows = committed(store, jobs)
    assert all(row is not None and row["status"] == "finished" for row in rows)
    assert rows[0]["attempt"] == 2, "the killed one's is the first"
    assert [row["parent_run_id"] for row in rows[1:3]] == [trunk.run_id] * 2
    assert sorted(line.split()[0] for line in told.splitlines()) == sorted(
        job.spec.run_id for job in jobs
    ), "committed once each"


def test_a_stop_leaves_a_checkpoint_and_the_next_goes_on(make_spec, queue_of, shared_workspace):
    job = Job(make_spec(100_000))
    folder, store = queue_of([job]), shared_workspace.runs
    with start(folder, 0, 1) as process:
        wait_for(lambda: step_of(store, job.spec.run_id) > 20)
        process.send_signal(signal.SIGUSR2)
        assert process.wait(120) == 0
    (attempt,) = records.attempts(store, job.spec.run_id)
    saved = checkpoint.latest(attempt.checkpoint_dir)
    assert saved is not None and saved["step"] > 20 and lease.is_over(attempt)


def test_what_cannot_be_trained_is_left_and_the_rest_is_done(make_spec, queue_of, shared_workspace):
    """One is cancelled, one has a damaged record, one is held by a process that shows life."""
    cancelled, damaged, held, free = (Job(make_spec(20, seed_init=seed)) for seed in range(4))
    store = shared_workspace.runs
    lease.halt(store, cancelled.spec.run_id, Halt("cancelled", "not wanted"))
    (store / damaged.spec.run_id).mkdir(parents=True)
    (store / damaged.spec.run_id / "run.json").write_text('{"run_id":')
    folder = queue_of([cancelled, damaged, held, free])
    with lease.held(lease.claim(store, held.spec.run_id), every_s=0.05):
        assert pull(folder, 0, 1) == 1
    assert records.read_run(store, free.spec.run_id) is not None
    assert not records.attempts(store, cancelled.spec.run_id)
    stop = threading.Event()
    stop.set()
    assert pull(folder, 0, 1, stop) == 0
    assert records.read_run(store, held.spec.run_id) is None
    assert pull(folder, 0, 1) == 1
    with pytest.raises(ValueError, match="share=3 of 2; use 0 to 1"):
        pull(folder, 3, 2)
