"""Several runs side by side in one process: one worker thread a device, one run at a time each.

The code drives the chips of a TPU host, several GPUs, or the one device of a CPU worker
(train.worker). A run's bits do not depend on what runs beside it.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from train.data.corpora import TokenizedCorpus
from train.jobs import Job, Progress
from train.loop import Interrupted, train


def train_all(
    take: Callable[[tuple[Any, ...] | None], Job | None],
    corpus: TokenizedCorpus,
    store: Path,
    *,
    devices: Sequence[Any],
    on_progress: Callable[[Progress], None],
    on_record: Callable[[dict[str, Any]], None],
    stop: threading.Event | None = None,
    checkpoint_every_s: float = 60.0,
) -> None:
    """Train what `take` gives until it gives None; callbacks come from threads, one at a time.

    Args:
        take: called with the compile_key of the device's last run, from the device's thread.
        devices: of jax.local_devices().
        stop: set by anybody, it stops every run at its next dispatch, with a checkpoint. So do
            Ctrl-C and the failure of a run.

    Raises: KeyboardInterrupt, or the first failure of a run.
    """
    lock = threading.Lock()
    stop = stop or threading.Event()
    failures: list[BaseException] = []

    def work(device: Any) -> None:
        shape = None
        while not stop.is_set() and (job := take(shape)) is not None:
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


def _locked(lock: threading.Lock, callback: Callable[[Any], None]) -> Callable[[Any], None]:
    def call(value: Any) -> None:
        with lock:
            callback(value)

    return call
