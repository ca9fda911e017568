"""Which runs of a study are branches of which trunk, and in what order they can be trained."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from train.config import RunSpec
from train.jobs import Job, shared_steps
from train.records import read_run


def make_jobs(trunks: Sequence[RunSpec], others: Iterable[RunSpec]) -> tuple[Job, ...]:
    """The trunks, each with the steps that it is asked for, then the other runs in order.

    A run branches off the trunk that it shares most steps with, if any.
    """
    steps: dict[str, set[int]] = {trunk.run_id: set() for trunk in trunks}
    jobs = []
    for spec in others:
        shared = [shared_steps(trunk, spec) for trunk in trunks]
        if not any(shared):
            jobs.append(Job(spec))
            continue
        trunk = trunks[shared.index(max(shared))]
        steps[trunk.run_id].add(max(shared))
        jobs.append(Job(spec, trunk=trunk))
    return (*(Job(t, tuple(sorted(steps[t.run_id]))) for t in trunks), *jobs)


def waves(jobs: Sequence[Job]) -> list[tuple[Job, ...]]:
    """Jobs in the order to train them: within a wave nobody waits for another."""
    ids = {job.spec.run_id for job in jobs}
    waiting = [job.trunk is not None and job.trunk.run_id in ids for job in jobs]
    first = tuple(job for job, waits in zip(jobs, waiting, strict=True) if not waits)
    then = tuple(job for job, waits in zip(jobs, waiting, strict=True) if waits)
    return [wave for wave in (first, then) if wave]


def remove_spent_points(jobs: Sequence[Job], store: Path) -> None:
    """Remove the branch points of trunks whose branches all have their record."""
    from train.branching import remove_points

    is_done = {job.spec.run_id: read_run(store, job.spec.run_id) is not None for job in jobs}
    for trunk in (job for job in jobs if job.branch_steps):
        ids = [j.spec.run_id for j in jobs if j.trunk == trunk.spec]
        if is_done[trunk.spec.run_id] and all(is_done[run_id] for run_id in ids):
            remove_points(store, trunk.spec.run_id)
