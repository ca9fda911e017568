"""How a run is asked to go to a cluster, and what is understood of the cluster's answers."""

import importlib.util
import shutil

import pytest
from rich.console import Console

from experiments.executors import How, Ray, Slurm, execute, slurm
from train.config import SpecError
from train.jobs import Job


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: Slurm(minutes=0), "slurm.minutes=0 must be at least 1"),
        (lambda: Slurm(minutes=1), "slurm.notice_s=90 leaves nothing of slurm.minutes=1"),
        (lambda: Slurm(options=("qos",)), "slurm.options='qos' must be NAME=VALUE"),
        (lambda: Ray(cpus_per_task=-1), "ray.cpus_per_task=-1"),
    ],
)
def test_what_no_task_can_be_given_is_refused(make, told):
    with pytest.raises(SpecError, match=told):
        make()


@pytest.mark.parametrize("how, told", [(How(workers=0), "workers=0"), (How(rows=0), "rows=0")])
def test_no_worker_and_no_row_are_refused(how, told, corpus, workspace):
    with pytest.raises(SpecError, match=told):
        execute([], corpus, workspace, how=how, console=Console())


@pytest.mark.parametrize("executor, package", [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_extra_is_told_with_its_remedy(
    executor, package, plan, corpus, workspace, monkeypatch
):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == package else found(name)
    )
    with pytest.raises(SpecError, match=rf"pip install -e \.\[{executor}\]"):
        execute(
            [Job(plan.cells[0].spec)], corpus, workspace,
            how=How(executor), console=Console(),
        )  # fmt: skip


def test_a_machine_without_slurm_is_told(plan, corpus, workspace, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SpecError, match="sbatch, which is not on this machine"):
        execute(
            [Job(plan.cells[0].spec)], corpus, workspace,
            how=How("slurm"), console=Console(),
        )  # fmt: skip


def test_all_done_asks_for_no_cluster(plan, corpus, workspace, commit):
    commit(plan.cells[0].spec)
    for executor in ("slurm", "ray"):
        jobs = [Job(plan.cells[0].spec)]
        assert execute(jobs, corpus, workspace, how=How(executor), console=Console()) == 0


def test_tasks_are_found_by_the_name_of_their_queue():
    listed = "12_0|queue-ab|0\n12_1|queue-ab|1\n17|queue-ab-2|N/A\n18|queue-abc|N/A\n19|x|N/A\n"
    assert dict(slurm.tasks_of("queue-ab", listed)) == {"12_0": 0, "12_1": 1, "17": 2}


def test_a_task_has_the_name_that_squeue_lists():
    of_array = {"SLURM_JOB_ID": "13", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "1"}
    assert slurm.task_id(of_array) == "12_1"
    assert slurm.task_id({"SLURM_JOB_ID": "17"}) == "17"


@pytest.mark.parametrize(
    "ending, told",
    [
        (("COMPLETED", "0:0", "n1"), None),
        (("FAILED", "137:0", "n1"), "FAILED on n1, exit code 137:0"),
        (("OUT_OF_MEMORY", "0:125", "n1"), "OUT_OF_MEMORY on n1: .*--slurm.memory-gb"),
        (("TIMEOUT", "0:0", "n1"), "TIMEOUT on n1: no checkpoint within the notice"),
        (("CANCELLED by 0", "0:15", "(null)"), "CANCELLED, exit code 0:15"),
        (("", "", ""), "SLURM no longer knows how"),
    ],
)
def test_how_a_task_ended_is_told_in_a_sentence(ending, told):
    found = slurm.describe_ending(*ending)
    if told is None:
        assert found is None
    else:
        import re

        assert re.fullmatch(rf"{told}.*", found)


def test_what_is_asked_of_slurm_reaches_its_script(tmp_path, monkeypatch):
    """The script that submitit would hand to sbatch has every flag."""
    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    asked = Slurm(
        "gpu", minutes=30, notice_s=45, cpus_per_task=4, gpus_per_task=2, memory_gb=1.5,
        account="lab", options=("qos=low", "constraint=a100"),
    )  # fmt: skip
    executor = submitit.SlurmExecutor(tmp_path)
    executor.update_parameters(**slurm.sbatch_parameters(asked, "queue-ab"))
    script = executor._make_submission_file_text("true", "uid")
    for line in (
        "--partition=gpu", "--time=30", "--signal=USR2@45", "--cpus-per-task=4",
        "--gpus-per-task=2", "--mem=1536M", "--account=lab", "--qos=low", "--constraint=a100",
        "--requeue", "--open-mode=append", "--job-name=queue-ab",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in script
    assert "export PYTHONPATH=" in script
