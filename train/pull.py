"""Train what is left of a queue, in this process, without hearing from a launcher.

    FOLDER/setup.json    a train.worker.Setup        FOLDER/jobs.json    a list of jobs (train.jobs)

    python -m train.pull FOLDER SHARE N_SHARES

Any number of processes may do so at once, on any number of machines: who trains a run is told by
its attempts (train.lease), so a share says no more than where to look first.
"""

import contextlib
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model import custom
from train import lease
from train.jobs import Job, JobQueue, Shape, job_from_json, n_flops_own
from train.lease import Watch
from train.outcomes import Unfinished
from train.records import RecordError, attempts, committed_attempt, read_run
from train.runtime import configure, confine_to_one_core, has_accelerator
from train.worker import Setup, equip

POLL_S = 2.0
"""Between two looks at what others do, once nothing can be begun."""


def pull(folder: Path, share: int, n_shares: int, stop: threading.Event | None = None) -> int:
    """Train the jobs of a queue that have no record, first the shapes of this share.

    A branch waits for its trunk, which another process may train. It ends when every job is
    committed, halted, or held by a process that shows life and lets no branch wait.

    Args:
        share: of n_shares, from 0.
        stop: set by anybody, it stops the runs under way at their next dispatch, with a checkpoint.

    Returns: how many runs this process committed.
    Raises: SpecError, CorpusError: the queue or the corpus cannot be read. OSError: the machine, a
        full disk say, kept a run from its end; the others were trained.
    """
    if not 0 <= share < n_shares:
        raise ValueError(f"share={share} of {n_shares}; use 0 to {n_shares - 1}")
    setup = Setup(**json.loads((folder / "setup.json").read_text()))
    # A job's size is asked for as it is read, and that of a user's model is counted from its code.
    custom.look_in(Path(setup.store).parent / "ideas")
    jobs = [job_from_json(values) for values in json.loads((folder / "jobs.json").read_text())]
    if "jax" not in sys.modules:
        configure(Path(setup.cache_dir))
        if not has_accelerator():
            confine_to_one_core()
    return _Puller(setup, jobs, shapes_of(jobs, share, n_shares), stop or threading.Event()).run()


def shapes_of(jobs: Sequence[Job], share: int, n_shares: int) -> set[Shape]:
    """Shapes of one share: the costliest first, each to the share with the least to do so far."""
    cost: dict[Shape, int] = {}
    for job in jobs:
        cost[job.spec.compile_key] = cost.get(job.spec.compile_key, 0) + n_flops_own(job)
    load = [0] * n_shares
    mine = set()
    for shape in sorted(cost, key=lambda shape: (-cost[shape], repr(shape))):
        least = load.index(min(load))
        load[least] += cost[shape]
        if least == share:
            mine.add(shape)
    return mine


class _Puller:
    """What is left of a queue, and what stands in its way, told from files."""

    def __init__(self, setup: Setup, jobs: Sequence[Job], own: set[Shape], stop: threading.Event):
        self._setup, self._store, self._own, self._stop = setup, Path(setup.store), own, stop
        self._open = {job.spec.run_id: job for job in jobs}
        self._watch = Watch()
        self._n_committed = 0
        self._machine: str | None = None

    def run(self) -> int:
        """Rounds of training what can be begun, and waits between them."""
        self._close_settled()
        if not self._open:
            return 0
        train = self._trainer()
        while not self._stop.is_set() and self._open:
            free = [job for job in self._open.values() if self._can_begin(job)]
            own = [job for job in free if job.spec.compile_key in self._own]
            if free:
                train(own or free)
            elif self._others_do_the_rest():
                break
            else:
                self._stop.wait(POLL_S)
            self._close_settled()
        if self._machine is not None:
            raise OSError(self._machine)
        return self._n_committed

    def _trainer(self) -> Callable[[Sequence[Job]], None]:
        """A function that trains jobs; the corpus is read and the devices are found once."""
        from train.pack import train_all

        has = equip(self._setup)

        def train(jobs: Sequence[Job]) -> None:
            train_all(
                JobQueue(jobs), has.corpus, self._store,
                devices=has.devices, on_progress=lambda progress: None,
                on_record=self._on_record, on_unfinished=self._on_unfinished,
                choose_n_rows=has.choose_n_rows, stop=self._stop,
                checkpoint_every_s=self._setup.checkpoint_every_s,
            )  # fmt: skip

        return train

    def _can_begin(self, job: Job) -> bool:
        waits = job.trunk is not None and job.trunk.run_id in self._open
        return not waits and self._watch.is_available(self._store, job.spec.run_id)

    def _others_do_the_rest(self) -> bool:
        """Whether every open run is held by a process that was seen to live, and is no trunk."""
        trunks = {job.trunk.run_id for job in self._open.values() if job.trunk is not None}
        if trunks & set(self._open):
            return False
        newest = [attempts(self._store, run_id)[-1:] for run_id in self._open]
        return all(tried and self._watch.is_beating(tried[0]) for tried in newest)

    def _close_settled(self) -> None:
        """Drop what is committed or halted, or has a record that cannot be read."""
        for run_id in tuple(self._open):
            try:
                is_settled = (
                    read_run(self._store, run_id) is not None
                    or lease.halt_of(self._store, run_id) is not None
                )
            except RecordError as error:
                _say(str(error))
                is_settled = True
            if is_settled:
                del self._open[run_id]

    def _on_record(self, row: dict[str, Any]) -> None:
        # It is handed a record too where another process was faster.
        if lease.holder_of(committed_attempt(self._store, row)) == lease.this_process():
            self._n_committed += 1
        _say(f"{row['run_id']} {row['status']}")

    def _on_unfinished(self, found: Unfinished) -> None:
        if found.kind != "failed":
            return
        _say(f"{found.run_id} failed: {found.reason} {found.suggestion}".strip())
        if found.is_machine:
            # Not again in this process: the next one, here or elsewhere, may find it repaired.
            self._machine = found.reason
            self._open.pop(found.run_id, None)


def _say(text: str) -> None:
    # A log that can no longer be written must not end a run.
    with contextlib.suppress(OSError):
        print(text, flush=True)


def main() -> int:
    """Pull a share until it is done; a signal to end leaves checkpoints. Returns the exit code."""
    folder, share, n_shares = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, lambda *_: stop.set())
    try:
        pull(Path(folder), int(share), int(n_shares), stop)
    except (ValueError, OSError) as error:
        print(f"train.pull: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
