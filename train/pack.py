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
from train.config import RunSpec
from train.data.corpora import TokenizedCorpus
from train.loop import Interrupted, Progress, train


def train_all(
    specs: Iterable[RunSpec],
    corpus: TokenizedCorpus,
    store: Path,
    *,
    devices: Sequence[Any],
    on_progress: Callable[[Progress], None],
    on_record: Callable[[dict[str, Any]], None],
    checkpoint_every_s: float = 60.0,
) -> None:
    """Train every spec; callbacks come from worker threads, one at a time.

    Args: devices: of jax.local_devices().

    Ctrl-C, or a failure of one run, stops the others at their next dispatch, with a checkpoint.

    Raises: KeyboardInterrupt, or the first failure of a run.
    """
    queue = _Queue(specs)
    lock = threading.Lock()
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(device: Any) -> None:
        shape = None
        while not stop.is_set() and (spec := queue.take(shape)) is not None:
            shape = spec.compile_key
            try:
                row = train(
                    spec, corpus, store, device=device, should_stop=stop.is_set,
                    on_progress=_locked(lock, on_progress), checkpoint_every_s=checkpoint_every_s,
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
    """Specs to hand out: whole shapes at first, so each compiles once; the largest work first."""

    def __init__(self, specs: Iterable[RunSpec]):
        self._lock = threading.Lock()
        self._by_shape: dict[tuple[Any, ...], list[RunSpec]] = {}
        self._claimed: set[tuple[Any, ...]] = set()
        for spec in sorted(specs, key=_work):
            self._by_shape.setdefault(spec.compile_key, []).append(spec)

    def take(self, shape: tuple[Any, ...] | None) -> RunSpec | None:
        """The largest run left of the worker's shape, else of the largest unclaimed, else any."""
        with self._lock:
            left = {s: specs for s, specs in self._by_shape.items() if specs}
            if not left:
                return None
            if shape not in left:
                unclaimed = {s: specs for s, specs in left.items() if s not in self._claimed}
                candidates = unclaimed or left
                shape = max(candidates, key=lambda s: sum(map(_work, candidates[s])))
                self._claimed.add(shape)
            return left[shape].pop()


def _work(spec: RunSpec) -> int:
    return train_flops(spec.model, spec.n_tokens, "matmul_full")


def _locked(lock: threading.Lock, callback: Callable[[Any], None]) -> Callable[[Any], None]:
    def call(value: Any) -> None:
        with lock:
            callback(value)

    return call
