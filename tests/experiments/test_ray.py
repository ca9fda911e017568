"""The Ray executor on a real Ray of this machine (make test-ray)."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import threading
import time

import pytest
from rich.console import Console

from experiments.executors import How, Ray, execute
from train import records
from train.config import Budget, DataConfig, OptimizerConfig, RunSpec, SpecError
from train.jobs import Job

pytest.importorskip("ray", reason="Ray is not installed; make test-ray")
# Ray leaves sockets and processes to its own shutdown.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture
def jobs(prepared, tiny):
    """Twelve short runs, after two that are long enough to be caught under way."""
    corpus = prepared[1]
    data = DataConfig(
        corpus.name, corpus.content_hash, corpus.tokenizer, corpus.tokenizer_hash, corpus.split_rule
    )
    model = dataclasses.replace(tiny, vocab_size=256, n_layers=1)
    return [
        Job(
            RunSpec(
                model=model, data=data, optimizer=OptimizerConfig(lr=0.01),
                budget=Budget(steps=4000 if seed < 2 else 40), seed_init=seed,
            )
        )
        for seed in range(14)
    ]  # fmt: skip


@pytest.fixture
def trained(prepared, share, tmp_path):
    """Train jobs in a new workspace; give its runs' results and the console's text."""

    def trained(jobs, how, name, meanwhile=None):
        workspace = share(tmp_path / name)
        console = Console(record=True, width=300, file=io.StringIO())
        helper = threading.Thread(target=meanwhile or (lambda runs: None), args=(workspace.runs,))
        helper.start()
        try:
            execute(jobs, prepared[1], workspace, how=how, console=console)
        finally:
            helper.join()
        return results(workspace.runs, jobs), console.export_text()

    return trained


def results(store, jobs):
    """Of each run its losses and the bytes of its weights."""
    found = {}
    for job in jobs:
        row = records.read_run(store, job.spec.run_id)
        attempt = records.committed_attempt(store, row)
        curve = [point["loss_nats"] for point in records.read_points(attempt)]
        found[row["run_id"]] = row["loss_nats"], curve, attempt.weights.read_bytes()
    return found


def when_under_way(job, act):
    """What waits until a run has logged a point, and then acts on its holder's pid."""

    def wait_and_act(store):
        give_up = time.monotonic() + 300
        while time.monotonic() < give_up:
            for curve in (store / job.spec.run_id).glob("attempt-1/curve.jsonl"):
                if curve.stat().st_size:
                    act(json.loads((curve.parent / "holder.json").read_text())["pid"])
                    return
            time.sleep(0.05)

    return wait_and_act


def test_equal_bits_though_a_worker_was_killed(trained, jobs):
    kill = when_under_way(jobs[0], lambda pid: os.kill(pid, signal.SIGKILL))
    by_ray, told = trained(jobs, How("ray", workers=2), "ray", kill)
    assert f"ended under {jobs[0].spec.run_id}" in told
    by_local, _ = trained(jobs, How(workers=2), "local")
    assert by_ray == by_local


def test_ctrl_c_leaves_checkpoints(trained, jobs, tmp_path):
    interrupt = when_under_way(jobs[0], lambda pid: os.kill(os.getpid(), signal.SIGINT))
    # Of tests that run in the background Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        trained(jobs[:1], How("ray", workers=1), "ray", interrupt)
        pytest.fail("Ctrl-C did not reach the launcher")
    signal.signal(signal.SIGINT, before)
    (attempt,) = (tmp_path / "ray" / "runs" / jobs[0].spec.run_id).glob("attempt-*")
    assert (attempt / "checkpoint").is_dir() and (attempt / "ended").exists()


@pytest.mark.parametrize(
    "ray, told",
    [
        (Ray(gpus_per_task=1), "the cluster has .* 0 GPU; lower"),
        (Ray(address="127.0.0.1:1"), "--ray.address=127.0.0.1:1"),
    ],
)
def test_a_cluster_without_room_or_answer_is_told(trained, jobs, ray, told):
    with pytest.raises(SpecError, match=told):
        trained(jobs[:1], How("ray", ray=ray), "ray")
