"""Several runs side by side in one process: a thread a device, and rows of one program on a device.

The code drives the chips of a TPU host, several GPUs, or the one device of a CPU worker
(train.worker). A run's bits depend on the number of rows it is trained in (its record's mode), not
on what runs beside it.
"""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

from train.config import RunSpec
from train.data.corpora import TokenizedCorpus
from train.jobs import Job, JobQueue, Progress
from train.loop import Run, run
from train.outcomes import Unfinished, settle
from train.rows import drive


def train_all(
    jobs: JobQueue,
    corpus: TokenizedCorpus,
    store: Path,
    *,
    devices: Sequence[Any],
    on_progress: Callable[[Progress], None],
    on_record: Callable[[dict[str, Any]], None],
    on_unfinished: Callable[[Unfinished], None],
    choose_n_rows: Callable[[RunSpec, Any, int], int] = lambda spec, device, n_max: 1,
    stop: threading.Event | None = None,
    checkpoint_every_s: float = 60.0,
) -> None:
    """Train the jobs of a queue until it is closed and empty.

    A run that fails, or cannot be trained here, stops no other. Callbacks come from threads, one
    at a time.

    Args:
        devices: of jax.local_devices().
        choose_n_rows: asked for the rows of a spec's shape on a device that n_max jobs wait for;
            of jobs that are linked to others it is 1.
        stop: set by anybody, it stops every run at its next dispatch, with a checkpoint. So do
            Ctrl-C and the failure of a callback. Whoever sets it closes the queue as well.

    Raises: KeyboardInterrupt, or the first failure of a callback.
    """
    stop = stop or threading.Event()
    callbacks, choosing = threading.Lock(), threading.Lock()
    on_progress, on_record = _locked(callbacks, on_progress), _locked(callbacks, on_record)
    on_unfinished = _locked(callbacks, on_unfinished)
    busy: set[Any] = set()
    failures: list[BaseException] = []

    def on_error(device: Any, job: Job, error: Exception) -> None:
        on_unfinished(settle(store, job.spec.run_id, error, device.platform))

    def next_batch(device: Any, shape: Any) -> tuple[list[Job], int]:
        while (job := jobs.take(shape, wait=True)) is not None and not stop.is_set():
            share = math.ceil((jobs.n_left() + 1) / (len(devices) - len(busy)))
            n_max = 1 if job.is_linked else min(share, jobs.n_more(job.spec.compile_key) + 1)
            try:
                n_rows = 1 if job.is_linked else choose_n_rows(job.spec, device, n_max)
            except Exception as error:
                on_error(device, job, error)
                continue
            busy.add(device)
            return [job, *jobs.take_more(job.spec.compile_key, min(n_rows, n_max) - 1)], n_rows
        return [], 0

    def work(device: Any) -> None:
        shape = None
        while True:
            # One at a time: a shape is measured once, and no device takes another's share.
            with choosing:
                batch, n_rows = next_batch(device, shape)
            if not batch:
                return

            def start(job: Job, n_rows: int = n_rows) -> Run:
                return run(
                    job.spec, corpus, store, device=device, should_stop=stop.is_set,
                    on_progress=on_progress, checkpoint_every_s=checkpoint_every_s,
                    n_rows=n_rows, branch_steps=job.branch_steps, trunk=job.trunk,
                )  # fmt: skip

            drive(
                batch, jobs, n_rows, start=start, on_record=on_record,
                on_error=partial(on_error, device), stop=stop,
            )  # fmt: skip
            shape = batch[0].spec.compile_key
            busy.remove(device)

    def end() -> None:
        stop.set()
        jobs.close()

    def work_or_end(device: Any) -> None:
        try:
            work(device)
        except BaseException as error:
            failures.append(error)
            end()

    with ThreadPoolExecutor(len(devices)) as pool:
        workers = [pool.submit(work_or_end, device) for device in devices]
        try:
            # Not Thread.join: interrupted, it takes a running thread for a finished one.
            wait(workers)
        except KeyboardInterrupt:
            end()
            raise
    if failures:
        raise failures[0]


def _locked(lock: threading.Lock, callback: Callable[[Any], None]) -> Callable[[Any], None]:
    def call(value: Any) -> None:
        with lock:
            callback(value)

    return call
