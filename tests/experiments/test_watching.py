"""What the launcher makes of tasks that end, die or find nothing, on a cluster in memory."""

import io
import json
from dataclasses import asdict

import pytest
from rich.console import Console

from experiments.executors import watching
from experiments.executors.task import make_queue, read_holder, write_holder
from experiments.executors.watching import Ended, TasksFailed, Watcher
from experiments.progress import SweepProgress
from train import lease, records
from train.jobs import Job, job_from_json


class Machines:
    """A cluster whose tasks each do the next of `acts`, a function of task and share; one that
    gives a reason has ended so, None lets it run on.
    """

    def __init__(self, *acts):
        self.acts, self.begun, self.stopped, self.n_tasks = list(acts), [], False, 1
        self.running, self._ended = {}, []

    def start(self, shares):
        for share in shares:
            assert share not in self.running.values()
            self.begun.append(share)
            self.running[f"task-{len(self.begun)}"] = share

    def live(self):
        for task, share in tuple(self.running.items()):
            act = self.acts.pop(0) if self.acts else lambda *_: None
            if (why := act(task, share)) is not None:
                del self.running[task]
                self._ended.append(Ended(task, share, why or None, f"{task}.log"))
        return set(self.running.values())

    def ended(self):
        ended, self._ended = self._ended, []
        return ended

    def stop(self):
        self.stopped = True

    def close(self):
        self.running.clear()


@pytest.fixture
def specs(plan):
    return [cell.spec for cell in plan.cells[:3]]


@pytest.fixture
def watched(workspace, corpus, specs, monkeypatch):
    """Watch a cluster train the specs; give the console's text."""
    monkeypatch.setattr(watching, "LOOK_EVERY_S", 0.0)
    jobs = [Job(spec) for spec in specs]
    folder = make_queue(jobs, corpus, workspace, None)

    def watched(machines):
        console = Console(record=True, width=200, file=io.StringIO())
        with SweepProgress(jobs, 0, console) as progress:
            watcher = Watcher(jobs, folder, workspace.runs, machines, progress, console)
            try:
                watcher.run()
            finally:
                watched.text, watched.failures = console.export_text(), watcher.failures
        return watched.text

    watched.folder = folder
    return watched


@pytest.fixture
def die(workspace, watched):
    """An act: a task begins these runs and is no more."""

    def die(*specs, why="FAILED on a-node, exit code 137:0"):
        def act(task, share):
            write_holder(watched.folder, task)
            for spec in specs:
                lease.claim(workspace.runs, spec.run_id)
            return why

        return act

    return die


@pytest.fixture
def finish(commit):
    """An act: a task trains these runs and ends by itself."""

    def finish(*specs):
        def act(task, share):
            for spec in specs:
                commit(spec, loss_se_iid=0.01)
            return ""

        return act

    return finish


def test_a_queue_is_found_again_whatever_is_done_by_then(workspace, corpus, specs, commit):
    jobs = [Job(spec) for spec in specs]
    folder = make_queue(jobs, corpus, workspace, None)
    commit(specs[0])
    assert make_queue(jobs[::-1], corpus, workspace, None) == folder
    read = [job_from_json(job) for job in json.loads((folder / "jobs.json").read_text())]
    assert sorted(job.spec.run_id for job in read) == sorted(spec.run_id for spec in specs)
    assert make_queue(jobs[1:], corpus, workspace, None) != folder


def test_a_task_that_died_is_started_again_and_its_run_is_free(
    watched, die, finish, specs, workspace
):
    machines = Machines(die(specs[0]), finish(*specs))
    text = watched(machines)
    assert machines.begun == [0, 0]
    assert f"task-1 ended under {specs[0].run_id}: FAILED on a-node, exit code 137:0" in text
    assert lease.halt_of(workspace.runs, specs[0].run_id) is None


def test_a_task_that_ended_by_itself_is_not_told(watched, finish, specs):
    text = watched(Machines(finish(specs[0]), finish(*specs[1:])))
    assert "ended" not in text and "[3/3]" in text


def test_the_run_that_tasks_die_under_is_halted_and_the_others_go_on(
    watched, die, finish, specs, workspace
):
    deaths = [die(specs[0], why="OUT_OF_MEMORY on a-node") for _ in range(3)]
    watched(Machines(*deaths[:2], finish(specs[1]), deaths[2], finish(specs[2])))
    halt = lease.halt_of(workspace.runs, specs[0].run_id)
    assert halt is not None and halt.kind == "failed" and halt.log == "task-4.log"
    assert halt.reason == "3 tasks died under it; the last: OUT_OF_MEMORY on a-node"
    (failure,) = watched.failures
    assert failure.run_id == specs[0].run_id and failure.log == "task-4.log"
    assert all(records.read_run(workspace.runs, spec.run_id) for spec in specs[1:])


def test_tasks_that_end_without_a_step_are_not_started_for_ever(watched):
    fail = [lambda *_: "FAILED, exit code 1:0"] * 9
    machines = Machines(*fail)
    with pytest.raises(TasksFailed, match="3 times without a step .* exit code 1:0; log: task-3"):
        watched(machines)
    assert machines.begun == [0, 0, 0]


def test_no_task_is_started_for_a_run_that_another_holds(
    watched, finish, specs, workspace, monkeypatch
):
    """A holder on a host that nobody can look into counts on until its record is there."""
    elsewhere = lease.Holder("far", "another machine", 1, "0")
    with monkeypatch.context() as patch:
        patch.setattr(lease, "this_process", lambda: elsewhere)
        lease.claim(workspace.runs, specs[0].run_id)
    looks = []

    class Patient(Machines):
        def live(self):
            looks.append(1)
            if len(looks) == 6:
                finish(specs[0])("", 0)
            return super().live()

    machines = Patient(finish(*specs[1:]))
    watched(machines)
    assert machines.begun == [0]


def test_ctrl_c_stops_the_tasks(watched):
    def interrupt(task, share):
        raise KeyboardInterrupt

    machines = Machines(interrupt)
    with pytest.raises(KeyboardInterrupt):
        watched(machines)
    assert machines.stopped and "they leave checkpoints" in watched.text


def test_the_last_point_of_a_curve_is_read_from_its_end(workspace):
    attempt = records.begin_attempt(workspace.runs, "run")
    assert attempt is not None and records.last_point(attempt) == {}
    records.append_points(attempt, [{"step": s, "loss_nats": s / 2} for s in range(1, 300)])
    with open(attempt.directory / "curve.jsonl", "a") as file:
        file.write('{"step": 300, "lo')
    assert records.last_point(attempt) == {"step": 299, "loss_nats": 149.5}


def test_a_task_says_which_process_it_is(watched):
    assert read_holder(watched.folder, "none") is None
    write_holder(watched.folder, "one")
    assert asdict(read_holder(watched.folder, "one")) == asdict(lease.this_process())
