"""The SLURM executor on a real SLURM, which tests/slurm/run.sh starts (make test-slurm)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.workspace import Workspace
from train import records

pytestmark = [
    pytest.mark.slow,
    # Not SLURM_CONF: these tests cancel every job of theirs, and of nobody else's.
    pytest.mark.skipif("SLURM_OF_TESTS" not in os.environ, reason="its own SLURM: make test-slurm"),
]
ROOT = Path(__file__).resolve().parents[2]
SMOKE = ["run", "quickstart", "--scale", "smoke", "--workers", "2"]
TINY = [*SMOKE, "--seq-len", "16", "--batch-size", "4"]


class Launch:
    """A command of launch.py in a process of its own; `tiny`: with the tests' tiny quickstart."""

    def __init__(self, *arguments, out, tiny=False):
        self.log = out.parent / f"{out.name}-{time.monotonic_ns()}.txt"
        script = "tests/tiny_study.py" if tiny else "launch.py"
        with open(self.log, "w") as file:
            self.process = subprocess.Popen(
                [sys.executable, script, *arguments, "--out", str(out)],
                cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
                # As from a shell: the tests' own settings are not the command's.
                env={k: v for k, v in os.environ.items() if k not in ("NPROC", "XLA_FLAGS")},
                # Of tests that run in the background Ctrl-C is ignored, and it would be inherited.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip

    @property
    def text(self):
        return self.log.read_text()

    def wait(self, seconds=900):
        code = self.process.wait(seconds)
        print(self.text)
        return code


@pytest.fixture
def launch():
    """Launch, and end what is left of it and of SLURM's tasks after."""
    begun = []

    def launch(*arguments, **options):
        begun.append(Launch(*arguments, **options))
        return begun[-1]

    yield launch
    for command in begun:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait()
    slurm("scancel", "--user=root")
    until(lambda: not tasks(), "no task left")


def slurm(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def tasks(state="RUNNING,PENDING,COMPLETING"):
    return slurm("squeue", "--array", "--noheader", "--format=%i", f"--states={state}").split()


def until(is_so, what, seconds=600):
    give_up = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < give_up, f"waited {seconds} s for: {what}"
        time.sleep(0.1)


def under_way(out):
    """run_ids with a logged point and no record."""
    runs = Workspace(out).runs
    begun = {path.parents[1].name for path in runs.glob("*/attempt-*/curve.jsonl")}
    return {run_id for run_id in begun if not (runs / run_id / "run.json").exists()}


def holder(out, run_id):
    """Holder of a run's newest attempt."""
    newest = records.attempts(Workspace(out).runs, run_id)[-1]
    return json.loads((newest.directory / "holder.json").read_text())


def results(out):
    """Of each run its losses and the bytes of its weights."""
    store = Workspace(out).runs
    found = {}
    for path in store.glob("*/run.json"):
        row = records.read_run(store, path.parent.name)
        attempt = records.committed_attempt(store, row)
        curve = [point["loss_nats"] for point in records.read_points(attempt)]
        found[row["run_id"]] = row["loss_nats"], curve, attempt.weights.read_bytes()
    return found


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The tiny quickstart by the local executor; its corpus and compile cache serve the others."""
    out = tmp_path_factory.mktemp("local") / "out"
    assert Launch(*TINY, out=out, tiny=True).wait() == 0
    return out


@pytest.fixture
def out(local, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("data", "cache"):
        (out / name).symlink_to(local / name)
    return out


def test_the_smoke_study_with_a_task_killed(launch, tmp_path):
    """The whole loop with scancel --signal=KILL in its middle, against the local executor."""
    command = launch(*SMOKE, "--executor", "slurm", out=tmp_path / "slurm")
    until(lambda: under_way(tmp_path / "slurm"), "a run under way")
    victim = tasks("RUNNING")[0]
    slurm("scancel", "--signal=KILL", victim)
    assert command.wait() == 0
    assert f"task {victim} ended" in command.text and "CANCELLED" in command.text
    told = slurm("scontrol", "--oneliner", "show", "job", victim)
    assert "Restarts=1" in told and "JobState=COMPLETED" in told
    assert not tasks()
    for name in ("data", "cache"):
        (tmp_path / "local").mkdir(exist_ok=True)
        (tmp_path / "local" / name).symlink_to(tmp_path / "slurm" / name)
    assert launch(*SMOKE, out=tmp_path / "local").wait() == 0
    found = results(tmp_path / "slurm")
    assert len(found) == 14 and found == results(tmp_path / "local")


def test_a_launcher_that_died_finds_its_tasks(launch, local, out):
    first = launch(*TINY, "--executor", "slurm", out=out, tiny=True)
    until(lambda: tasks("RUNNING"), "tasks running")
    first.process.kill()
    before = tasks()
    second = launch(*TINY, "--executor", "slurm", out=out, tiny=True)
    until(lambda: "training" in second.text, "the second launcher")
    time.sleep(3)
    assert set(tasks()) <= set(before)
    assert second.wait() == 0
    assert results(out) == results(local)


def test_a_task_whose_process_is_killed_begins_again(launch, local, out):
    """kill -9 of the training process itself, which can leave no checkpoint."""
    command = launch(*TINY, "--executor", "slurm", out=out, tiny=True)
    until(lambda: under_way(out), "a run under way")
    (run_id, *_) = under_way(out)
    os.kill(holder(out, run_id)["pid"], signal.SIGKILL)
    assert command.wait() == 0
    assert "ended" in command.text and "FAILED on localhost, exit code" in command.text
    assert results(out) == results(local)


def test_at_the_time_limit_a_task_is_requeued_and_goes_on(launch, local, out):
    """The signal that SLURM sends before the limit; the requeued task waits for no two minutes."""
    command = launch(*TINY, "--executor", "slurm", "--workers", "1", out=out, tiny=True)
    until(lambda: under_way(out), "a run under way")
    (task,) = tasks("RUNNING")
    slurm("scancel", "--signal=USR2", task)
    until(lambda: tasks("PENDING") == [task], "the task requeued")
    slurm("scontrol", "update", f"JobId={task}", "StartTime=now")
    assert command.wait() == 0
    assert "ended" not in command.text
    assert results(out) == results(local)


def test_ctrl_c_ends_the_tasks_and_the_same_command_goes_on(launch, local, out):
    command = launch(*TINY, "--executor", "slurm", out=out, tiny=True)
    until(lambda: under_way(out), "a run under way")
    command.process.send_signal(signal.SIGINT)
    assert command.wait() == 130
    assert not tasks() and "they leave checkpoints" in command.text
    assert launch(*TINY, "--executor", "slurm", out=out, tiny=True).wait() == 0
    assert results(out) == results(local)


def test_what_slurm_refuses_is_told_in_a_line(launch, out):
    refused = launch(*TINY, "--executor", "slurm", "--slurm.partition", "none", out=out, tiny=True)
    assert refused.wait() == 2
    assert "SLURM refuses the tasks" in refused.text and "Traceback" not in refused.text


def test_a_failing_start_is_given_up(launch, out):
    """Tasks that end before they train, here as the corpus is gone."""
    command = launch(*TINY, "--executor", "slurm", out=out, tiny=True)
    until(lambda: tasks(), "tasks")
    hidden = out / "data"
    hidden.unlink()
    assert command.wait() == 1
    assert "without a step trained" in command.text
