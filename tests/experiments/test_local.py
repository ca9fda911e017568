"""Worker processes: what they train, and what becomes of it when one is killed or fails."""

import dataclasses
import io
import signal

import pytest
import tiny_study
from rich.console import Console

from experiments.branches import make_jobs
from experiments.executors import local
from experiments.executors.local import WorkerError, execute
from experiments.progress import SweepProgress
from experiments.workspace import Workspace
from train import records
from train.config import Budget, DataConfig, OptimizerConfig, RunSpec, ScheduleConfig, SpecError
from train.data import builders, corpora
from train.jobs import Job


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """An output folder with a corpus on disk, where another process can find it."""
    out = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "build_documents", lambda *_: list(tiny_study.documents()))
        corpus = corpora.prepare("sotu", out / "data", log=lambda text: None)
    return out, corpus


@pytest.fixture
def workspace(prepared, tmp_path):
    """A workspace of the test's own on the shared corpus and compile cache."""
    found = Workspace(tmp_path / "out")
    found.root.mkdir()
    for shared in ("data", "cache"):
        (prepared[0] / shared).mkdir(exist_ok=True)
        (found.root / shared).symlink_to(prepared[0] / shared)
    return found


@pytest.fixture
def make_spec(prepared, tiny):
    corpus = prepared[1]
    data = DataConfig(
        corpus.name, corpus.content_hash, corpus.tokenizer, corpus.tokenizer_hash, corpus.split_rule
    )
    model = dataclasses.replace(tiny, vocab_size=256, n_layers=1)

    def make(steps=30, **changes):
        parts = {"model": model, "data": data, "optimizer": OptimizerConfig(lr=0.01)}
        return RunSpec(**{**parts, "budget": Budget(steps=steps), **changes})

    return make


@pytest.fixture
def trained(prepared, workspace):
    """Train jobs in worker processes; give the console's text."""

    def trained(jobs, n_workers=2):
        console = Console(record=True, width=200, file=io.StringIO())
        execute(jobs, prepared[1], workspace, n_workers=n_workers, console=console)
        return console.export_text()

    return trained


def weights(workspace, spec):
    row = records.read_run(workspace.runs, spec.run_id)
    assert row is not None
    return records.committed_attempt(workspace.runs, row).weights.read_bytes()


def test_a_killed_worker_is_replaced_and_its_run_goes_on(
    make_spec, workspace, trained, monkeypatch
):
    """Of two runs side by side one loses its process; both end in the bits of a run alone."""
    specs = [make_spec(1200, seed_init=seed) for seed in range(2)]
    workers, killed = [], []

    class Watched(local._Worker):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            workers.append(self)

    def kill_once(self, progress):
        if not killed and progress.step > 50:
            killed.extend(w for w in workers if progress.run_id in w.running)
            killed[0].process.send_signal(signal.SIGKILL)
        return on_progress(self, progress)

    on_progress = SweepProgress.on_progress
    monkeypatch.setattr(local, "_Worker", Watched)
    monkeypatch.setattr(SweepProgress, "on_progress", kill_once)
    told = trained(map_jobs(specs))
    assert "a worker ended with code -9" in told and len(workers) == 3
    modes = {records.read_run(workspace.runs, spec.run_id)["mode"] for spec in specs}
    assert modes == {"cpu kernels=cpu pool=1"}
    together = [weights(workspace, spec) for spec in specs]
    for spec in specs:
        (workspace.runs / spec.run_id).rename(workspace.root / spec.run_id)
    monkeypatch.setattr(local, "_Worker", Watched.__base__)
    trained(map_jobs(specs[:1]), n_workers=1)
    assert weights(workspace, specs[0]) == together[0] != together[1]
    assert not list(workspace.root.glob("logs/*")) or all(
        path.stat().st_size for path in workspace.root.glob("logs/*")
    )


def map_jobs(specs):
    return [Job(spec) for spec in specs]


def test_a_run_that_cannot_be_is_an_error_of_the_launcher(make_spec, workspace, trained):
    """The complaint of the worker comes through, and the other run leaves a checkpoint."""
    good = make_spec(200_000)
    wrong = make_spec(300_000, data=dataclasses.replace(good.data, n_tokens_unique=10**9))
    with pytest.raises(SpecError, match=r"data\.n_tokens_unique=1000000000 is \d+ windows"):
        trained(map_jobs([good, wrong]))
    assert records.read_run(workspace.runs, good.run_id) is None


def test_a_worker_that_cannot_start_is_named_with_its_log(make_spec, trained, monkeypatch):
    monkeypatch.setattr(local.sys, "executable", "/bin/false")
    with pytest.raises(WorkerError, match="a worker ended with code 1 under no run; log: "):
        trained(map_jobs([make_spec(20)]), n_workers=1)


def test_branches_wait_for_their_trunk(make_spec, workspace, trained):
    trunk = make_spec(48, schedule=ScheduleConfig("constant"))
    branches = [make_spec(n, schedule=ScheduleConfig("wsd", decay_steps=8)) for n in (24, 40)]
    trained(make_jobs([trunk], branches))
    rows = [records.read_run(workspace.runs, spec.run_id) for spec in branches]
    assert [row["parent_run_id"] for row in rows] == [trunk.run_id] * 2
    assert all(row["train_flops_charged"] < row["train_flops_standalone"] for row in rows)
