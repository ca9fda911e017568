"""Worker processes: what they train, and what becomes of it when one is killed or fails."""

import dataclasses
import io
import re
import signal
from pathlib import Path

import pytest
from rich.console import Console

from experiments.executors import local, worker_process
from experiments.executors.failures import RunsFailed
from experiments.executors.local import WorkerError, execute
from experiments.progress import SweepProgress
from train import records
from train.config import SpecError
from train.jobs import Job


@pytest.fixture
def trained(prepared, shared_workspace):
    """Train jobs in worker processes; give the console's text."""

    def trained(jobs, n_workers=2, n_rows=None):
        console = Console(record=True, width=200, file=io.StringIO())
        execute(
            jobs, prepared[1], shared_workspace,
            n_workers=n_workers, n_rows=n_rows, console=console,
        )  # fmt: skip
        return console.export_text()

    return trained


def weights(shared_workspace, spec):
    row = records.read_run(shared_workspace.runs, spec.run_id)
    assert row is not None
    return records.committed_attempt(shared_workspace.runs, row).weights.read_bytes()


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_run_goes_on(
    make_spec, shared_workspace, trained, monkeypatch
):
    """Of two runs side by side one loses its process; both end in the bits of a run alone."""
    specs = [make_spec(1200, seed_init=seed) for seed in range(2)]
    workers, killed = [], []

    class Watched(local.WorkerProcess):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            workers.append(self)

    def kill_once(self, progress):
        if not killed and progress.step > 50:
            killed.extend(w for w in workers if progress.run_id in w.running)
            killed[0].process.send_signal(signal.SIGKILL)
        return on_progress(self, progress)

    on_progress = SweepProgress.on_progress
    monkeypatch.setattr(local, "WorkerProcess", Watched)
    monkeypatch.setattr(SweepProgress, "on_progress", kill_once)
    told = trained(map_jobs(specs))
    assert "a worker was killed by SIGKILL under" in told and len(workers) == 3
    modes = {records.read_run(shared_workspace.runs, spec.run_id)["mode"] for spec in specs}
    assert modes == {"cpu kernels=cpu pool=1"}
    together = [weights(shared_workspace, spec) for spec in specs]
    for spec in specs:
        (shared_workspace.runs / spec.run_id).rename(shared_workspace.root / spec.run_id)
    monkeypatch.setattr(local, "WorkerProcess", Watched.__base__)
    trained(map_jobs(specs[:1]), n_workers=1)
    assert weights(shared_workspace, specs[0]) == together[0] != together[1]
    assert not list(shared_workspace.root.glob("logs/*")) or all(
        path.stat().st_size for path in shared_workspace.root.glob("logs/*")
    )


def test_a_killed_worker_gives_back_all_its_rows(make_spec, shared_workspace, trained, monkeypatch):
    """Three runs in two rows of one process; another goes on with them in two rows."""
    specs = [make_spec(steps, seed_init=seed) for seed, steps in enumerate((400, 300, 200))]
    workers, held = [], []

    class Watched(local.WorkerProcess):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            workers.append(self)

    def kill_once(self, progress):
        if not held and progress.step > 20:
            held.extend(workers[0].running)
            workers[0].process.send_signal(signal.SIGKILL)
        return on_progress(self, progress)

    on_progress = SweepProgress.on_progress
    monkeypatch.setattr(local, "WorkerProcess", Watched)
    monkeypatch.setattr(SweepProgress, "on_progress", kill_once)
    told = trained(map_jobs(specs), n_workers=1, n_rows=2)
    assert set(held) == {spec.run_id for spec in specs} and len(workers) == 2
    (line,) = (line for line in told.splitlines() if "a worker was killed" in line)
    assert {run_id in line for run_id in held} == {True, False}, "two of three were in rows"
    rows = [records.read_run(shared_workspace.runs, spec.run_id) for spec in specs]
    assert {row["mode"] for row in rows} == {"cpu kernels=cpu pool=1 rows=2"}
    assert all(row["is_exact"] and row["status"] == "finished" for row in rows)
    assert {row["attempt"] for row in rows} <= {1, 2}


def test_a_program_has_a_row_at_least(make_spec, trained):
    with pytest.raises(SpecError, match="rows=0 but a program has one at least; use 1 or more"):
        trained(map_jobs([make_spec(20)]), n_rows=0)


def map_jobs(specs):
    return [Job(spec) for spec in specs]


def test_a_run_that_cannot_be_is_told_and_the_other_is_trained(
    make_spec, shared_workspace, trained
):
    """Its complaint comes from the worker, is kept, and comes from there the next time."""
    good = make_spec(40)
    wrong = make_spec(60, data=dataclasses.replace(good.data, n_tokens_unique=10**9))
    with pytest.raises(RunsFailed) as failed:
        trained(map_jobs([good, wrong]))
    assert records.read_run(shared_workspace.runs, good.run_id) is not None
    (failure,) = failed.value.failures
    assert failure.run_id == wrong.run_id and not failure.is_machine
    assert re.match(r"data\.n_tokens_unique=1000000000 is \d+ windows", failure.reason)
    assert "SpecError" in Path(failure.log).read_text()
    with pytest.raises(RunsFailed) as again:
        trained(map_jobs([good, wrong]))
    (told,) = again.value.failures
    assert told.reason.startswith(failure.reason) and Path(told.log).exists()


def test_a_worker_that_cannot_start_is_named_with_its_log(make_spec, trained, monkeypatch):
    monkeypatch.setattr(worker_process.sys, "executable", "/bin/false")
    with pytest.raises(WorkerError, match="a worker ended with code 1 under no run; log: "):
        trained(map_jobs([make_spec(20)]), n_workers=1)
