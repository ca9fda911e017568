"""Several runs side by side in one process: one worker thread a device, one run at a time each.

On a CPU the devices are virtual, one a core (train.runtime): small models fill a core each far
better than one of them fills them all. The same code drives the chips of a TPU host or several
GPUs. A run's bits do not depend on what runs beside it.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from model.accounting import train_flops
from train.data.corpora import TokenizedCorpus
from train.jobs import Job
from train.loop import Interrupted, Progress, train


def train_all(
    jobs: Iterable[Job],
    corpus: TokenizedCorpus,
    store: Path,
    *,
    devices: Sequence[Any],
    on_progress: Callable[[Progress], None],
    on_record: Callable[[dict[str, Any]], None],
    checkpoint_every_s: float = 60.0,
) -> None:
    """Train every job; callbacks come from worker threads, one at a time.

    No job waits for another: a branch of a trunk among them may begin before its trunk is there.

    Args: devices: of jax.local_devices().

    Ctrl-C, or a failure of one run, stops the others at their next dispatch, with a checkpoint.

    Raises: KeyboardInterrupt, or the first failure of a run.
    """
    queue = _Queue(jobs)
    lock = threading.Lock()
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(device: Any) -> None:
        shape = None
        while not stop.is_set() and (job := queue.take(shape)) is not None:
            shape = job.spec.compile_key
            try:
                row = train(
                    job.spec, corpus, store, device=device, should_stop=stop.is_set,
                    on_progress=_locked(lock, on_progress), checkpoint_every_s=checkpoint_every_s,
                    branch_steps=job.branch_steps, trunk=job.trunk,
                )  # fmt: skip
                _locked(lock, on_record)(row)
            except Interrupted:
                return
            except BaseException as error:
                failures.append(error)
                stop.set()
                return

    with ThreadPoolExecutor(len(devices)) as pool:
        workers = [pool.submit(work, device) for device in devices]
        try:
            # Not Thread.join: interrupted, it takes a running thread for a finished one.
            wait(workers)
        except KeyboardInterrupt:
            stop.set()
            raise
    if failures:
        raise failures[0]


class _Queue:
    """Jobs to hand out: whole shapes at first, so each compiles once; the largest work first."""

    def __init__(self, jobs: Iterable[Job]):
        self._lock = threading.Lock()
        self._by_shape: dict[tuple[Any, ...], list[Job]] = {}
        self._claimed: set[tuple[Any, ...]] = set()
        for job in sorted(jobs, key=_work):
            self._by_shape.setdefault(job.spec.compile_key, []).append(job)

    def take(self, shape: tuple[Any, ...] | None) -> Job | None:
        """The largest run left of the worker's shape, else of the largest unclaimed, else any."""
        with self._lock:
            left = {s: jobs for s, jobs in self._by_shape.items() if jobs}
            if not left:
                return None
            if shape not in left:
                unclaimed = {s: jobs for s, jobs in left.items() if s not in self._claimed}
                candidates = unclaimed or left
                shape = max(candidates, key=lambda s: sum(map(_work, candidates[s])))
                self._claimed.add(shape)
            return left[shape].pop()


def _work(job: Job) -> int:
    n_tokens = job.n_steps_own * job.spec.batch_tokens
    return train_flops(job.spec.model, n_tokens, "matmul_full")


def _locked(lock: threading.Lock, callback: Callable[[Any], None]) -> Callable[[Any], None]:
    def call(value: Any) -> None:
        with lock:
            callback(value)

    return call
