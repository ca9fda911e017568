"""Launchers side by side, workers that die, two Ctrl-C, and what is told of failures."""

import dataclasses
import errno
import io
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from rich.console import Console

from analysis.load import load_sweep
from experiments.compact import compact
from experiments.executors import local, memory
from experiments.executors.failures import RunsFailed, describe, describe_os_error, failure_of
from experiments.executors.local import execute
from experiments.progress import SweepProgress
from experiments.stages import freeze_plan
from train import checkpoint, lease, records
from train.columns import RUN_COLUMNS
from train.jobs import Job
from train.lease import Halt
from train.parts import CPU_MICROBATCH_TOKENS

N_TOGETHER = 5


@pytest.fixture
def launch(prepared, shared_workspace):
    """Train specs in worker processes; give how many were trained, and what was told."""

    def launch(specs, n_workers=1):
        console = Console(record=True, width=200, file=io.StringIO())
        n = execute(
            [Job(spec) for spec in specs], prepared[1], shared_workspace,
            n_workers=n_workers, console=console,
        )  # fmt: skip
        return n, console.export_text()

    return launch


@pytest.fixture
def workers(monkeypatch):
    """Every worker process that a launcher has started."""
    found = []

    class Watched(local.WorkerProcess):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            found.append(self)

    monkeypatch.setattr(local, "WorkerProcess", Watched)
    return found


def on_every_point(monkeypatch, act):
    """Call act(progress) in the launcher for every point that it hears of."""
    heard = SweepProgress.on_progress

    def on_progress(self, progress):
        heard(self, progress)
        act(progress)

    monkeypatch.setattr(SweepProgress, "on_progress", on_progress)


def test_two_launchers_train_each_run_once(make_spec, shared_workspace, launch, workers):
    """Both end well; a run of nobody's is waited for until its holder is gone."""
    specs = [make_spec(120 + seed, seed_init=seed) for seed in range(N_TOGETHER)]
    store = shared_workspace.runs
    with ThreadPoolExecutor(2) as pool:
        ended = [pool.submit(launch, specs) for _ in range(2)]
        told = [future.result()[1] for future in ended]
    rows = [records.read_run(store, spec.run_id) for spec in specs]
    assert all(row is not None and row["status"] == "finished" for row in rows)
    assert all(len(records.attempts(store, spec.run_id)) == 1 for spec in specs)
    assert {row["attempt"] for row in rows} == {1}, "no attempt was in vain"
    assert all("training 5 runs" in text for text in told)
    assert len(workers) == 2 and not list(shared_workspace.root.glob("logs/*"))


def test_what_another_holds_is_waited_for(make_spec, shared_workspace, launch):
    """It ends its attempt: the run goes on here. Another is committed there: it counts as done.

    A third has a record that cannot be read, which fails it alone.
    """
    ours, theirs, damaged = (make_spec(30, seed_init=seed) for seed in range(3))
    store = shared_workspace.runs
    attempts = [lease.claim(store, spec.run_id) for spec in (ours, theirs)]
    path = store / damaged.run_id / "run.json"
    path.parent.mkdir()
    path.write_text('{"run_id": "')

    def others():
        lease.end(attempts[0])
        row = {**dict.fromkeys(RUN_COLUMNS), "run_id": theirs.run_id, "attempt": 1}
        row |= {"status": "diverged", "diverged_step": 7, "seconds": 1.0}
        records.commit(store, attempts[1], row)

    timer = threading.Timer(1.0, others)
    timer.start()
    with pytest.raises(RunsFailed) as failed:
        launch([ours, theirs, damaged])
    timer.join()
    (failure,) = failed.value.failures
    assert failure.run_id == damaged.run_id
    assert f"{path} is damaged" in failure.reason and "remove" in failure.reason
    assert records.read_run(store, ours.run_id)["attempt"] == 2
    assert records.read_run(store, theirs.run_id)["status"] == "diverged"


@pytest.mark.slow
def test_a_run_that_kills_its_workers_is_halted_and_the_other_is_trained(
    make_spec, shared_workspace, launch, workers, monkeypatch
):
    """The third death is the last; a suggestion comes where the kernel says out of memory."""
    deadly, good = make_spec(100_000), make_spec(30, seed_init=1)

    def kill(progress):
        if progress.run_id == deadly.run_id:
            for worker in workers:
                if deadly.run_id in worker.running and worker.process.poll() is None:
                    worker.process.kill()

    on_every_point(monkeypatch, kill)
    n_asked = []
    monkeypatch.setattr(memory, "oom_kills", lambda: n_asked.append(1) or len(n_asked))
    with pytest.raises(RunsFailed) as failed:
        launch([deadly, good])
    (failure,) = failed.value.failures
    assert failure.run_id == deadly.run_id and not failure.is_machine
    assert (
        "3 workers died under it" in failure.reason and "SIGKILL, out of memory" in failure.reason
    )
    assert "fewer workers" in failure.suggestion
    assert records.read_run(shared_workspace.runs, good.run_id) is not None
    halt = lease.halt_of(shared_workspace.runs, deadly.run_id)
    assert halt is not None and halt.kind == "failed" and halt.reason == failure.reason
    assert len(records.attempts(shared_workspace.runs, deadly.run_id)) == 3


def test_cancelled_runs_are_left_out(make_spec, shared_workspace, launch, workers, monkeypatch):
    """One before the start, one while it is trained, which leaves a checkpoint.

    There is a worker for every core, so each has one of its own.
    """
    before, during, *good = (make_spec(s, seed_init=s) for s in (30, 100_000, 31, 32, 33, 34))
    store, pinned = shared_workspace.runs, {}
    lease.halt(store, before.run_id, Halt("cancelled", "too dear"))

    def cancel(progress):
        running = [worker for worker in workers if worker.process.poll() is None]
        pinned.update({w.core: os.sched_getaffinity(w.process.pid) for w in running})
        if progress.run_id == during.run_id and lease.halt_of(store, during.run_id) is None:
            lease.halt(store, during.run_id, Halt("cancelled", "too long"))

    on_every_point(monkeypatch, cancel)
    n, told = launch([before, during, *good], n_workers=None)
    assert n == len(good)
    assert "was cancelled (too dear)" in told and "was cancelled (too long)" in told
    (attempt,) = records.attempts(store, during.run_id)
    assert checkpoint.latest(attempt.checkpoint_dir)["step"] > 0
    assert not records.attempts(store, before.run_id)
    if len(os.sched_getaffinity(0)) == len(workers):
        assert pinned == {core: {core} for core in os.sched_getaffinity(0)}


@pytest.fixture
def alarm_interrupts():
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm_interrupts")
def test_the_second_ctrl_c_kills_at_once(make_spec, launch, workers, monkeypatch):
    """The worker does not answer the first: it is stopped, and would be waited for forever."""

    def interrupt(progress):
        workers[0].process.send_signal(signal.SIGSTOP)
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        raise KeyboardInterrupt

    on_every_point(monkeypatch, interrupt)
    bars = []
    stop = SweepProgress.__exit__
    monkeypatch.setattr(SweepProgress, "__exit__", lambda *a: bars.append(stop(*a)))
    with pytest.raises(KeyboardInterrupt):
        launch([make_spec(100_000)])
    assert workers[0].process.returncode == -signal.SIGKILL
    assert len(bars) == 1, "the terminal is given back"


class Enough(Exception):
    """Stands for the end of a test at the first worker."""


def test_memory_bounds_the_workers(make_spec, launch, monkeypatch):
    small = make_spec(30)
    large = make_spec(30, model=dataclasses.replace(small.model, d_model=64, n_layers=4))
    need = memory.WORKER_BYTES + memory.run_bytes(large)
    assert memory.MICROBATCH_TOKENS == CPU_MICROBATCH_TOKENS
    assert memory.run_bytes(large) > memory.run_bytes(small)
    assert memory.workers_that_fit([small, large], 3 * need + 1) == 3
    assert memory.workers_that_fit([small], 1) == 1 and memory.workers_that_fit([], None) is None

    def no_worker(*arguments):
        raise Enough

    monkeypatch.setattr(local, "WorkerProcess", no_worker)
    monkeypatch.setattr(local, "n_cores", lambda: 2)
    told = []
    monkeypatch.setattr(local._Pool, "_say", lambda self, text: told.append(text))
    for n_bytes in (need, 3 * need):
        monkeypatch.setattr(memory, "available_bytes", lambda n=n_bytes: n)
        with pytest.raises(Enough):
            launch([small, large], n_workers=None)
    assert told == [
        "1 workers instead of 2: 0.5 GB of memory hold no more",
        "training 2 runs 1 at a time; 0 done before",
        "training 2 runs 2 at a time; 0 done before",
    ]


def test_a_cgroups_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_cgroups", lambda: [tmp_path])
    before = memory.available_bytes()
    assert before is not None and before > 1e6
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("900000\n")
    assert memory.available_bytes() == pytest.approx(before, rel=0.5)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 50000\n")
    assert memory.available_bytes() == 150_000
    (tmp_path / "memory.events").write_text("low 0\noom 9\noom_kill 1000000\n")
    assert memory.oom_kills() == 1_000_000


def test_what_failed_is_told_with_the_end_of_its_log(make_spec, tmp_path):
    spec, log = make_spec(30), tmp_path / "worker.log"
    log.write_text("".join(f"line {i}\n\n" for i in range(9)))
    own = failure_of(spec, "MemoryError", log=str(log), suggestion="use fewer rows")
    full = failure_of(spec, "disk full", is_machine=True, log=str(log))
    gone = failure_of(spec, "MemoryError", log=str(tmp_path / "gone"))
    text = "\n".join(describe(RunsFailed([own, full], "quickstart")))
    assert text.startswith("2 runs failed, the others are done:\n")
    assert f"  {spec.run_id} 1x16: MemoryError\n    use fewer rows\n" in text
    assert text.count("| line 4\n") == text.count("| line 8\n") == 1 and "line 3" not in text
    assert "tried again by the same run" in text
    assert text.endswith("python launch.py retry quickstart")
    assert "halt.json" in describe(RunsFailed([own]))[-1]
    assert "1 run failed" in describe(RunsFailed([full]))[0]
    assert "| line" not in "\n".join(describe(RunsFailed([full, gone])))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "--out"), (errno.EACCES, "permission")],
)
def test_the_machines_errors_are_one_line(number, remedy, told, monkeypatch, tmp_path):
    import launch as launcher

    error = OSError(number, os.strerror(number), str(tmp_path / "runs"))
    assert remedy in describe_os_error(error)

    def fails(args):
        raise error

    monkeypatch.setitem(launcher.COMMANDS, "list", fails)
    code, _, complaint = told("list")
    assert code == 1 and complaint.count("\n") == 1
    assert str(tmp_path / "runs") in complaint and remedy in complaint


def test_failed_runs_are_exit_code_1(told, monkeypatch, make_spec):
    import launch as launcher

    def fails(args):
        raise RunsFailed([failure_of(make_spec(30), "broken")], "quickstart")

    monkeypatch.setitem(launcher.COMMANDS, "list", fails)
    code, _, complaint = told("list")
    assert code == 1 and "1 run failed" in complaint and "retry quickstart" in complaint


def test_a_truncated_table_is_written_anew_from_the_records(plan, workspace, commit):
    folder = workspace.sweep(plan.name)
    freeze_plan(plan, folder)
    commit(plan.cells[0].spec)
    compact(plan, workspace.runs, folder)
    whole = pd.read_parquet(folder.runs_table)
    for path in (folder.runs_table, folder.curves_table, folder.evaluations_table):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match="is damaged .* python launch.py fit quickstart"):
            load_sweep(folder.path)
        assert compact(plan, workspace.runs, folder) == 1
        load_sweep(folder.path)
    pd.testing.assert_frame_equal(pd.read_parquet(folder.runs_table), whole)
    assert not list(folder.path.glob(".*"))
