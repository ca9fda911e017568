"""Several processes that compute one run: process 0 runs it, the others do the same work beside it.

Process 0 has the files, the lease, the record and the clocks; it says what is computed next, and
the others obey. A batch is a function of the spec and the step, so an order is a few numbers, and
goes through the key-value store that jax.distributed keeps for all processes.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train import checkpoint
from train.config import RunSpec, SpecError
from train.data.corpora import TokenizedCorpus
from train.inputs import training_windows
from train.loop import next_dispatch, score, train
from train.placement import OnMesh
from train.start import fresh_state
from train.step import train_steps

HEARTBEAT_S = 30
"""A process that is silent for so long is taken for dead, and so the run ends for all."""

_LOOK_S, _GRACE_S = 1.0, 10.0
_ORDERS, _FAILURES = "gpt_scaling_laws/orders", "gpt_scaling_laws/failures"


class TeamBroken(OSError):
    """Another process of the run failed or is gone; a checkpoint, if there is one, stands."""


@dataclass(frozen=True)
class Team:
    """Which process this is, of how many; where they meet. All None: as the cluster says.

    `coordinator`: HOST:PORT of process 0. SLURM, Open MPI and TPU pods need none of these.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None

    def __post_init__(self) -> None:
        given = [self.coordinator, self.num_processes, self.process_id]
        if any(g is None for g in given) and any(g is not None for g in given):
            raise SpecError(
                f"coordinator={self.coordinator}, num_processes={self.num_processes}, "
                f"process_id={self.process_id}: give all three, or none where the cluster knows"
            )
        n, k = self.num_processes, self.process_id
        if n is not None and k is not None and not 0 <= k < n:
            raise SpecError(f"process_id={k} is not in 0 to num_processes - 1 = {n - 1}")


def join(team: Team) -> None:
    """Meet the other processes; before anything asks jax for devices."""
    try:
        jax.distributed.initialize(
            team.coordinator, team.num_processes, team.process_id,
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )  # fmt: skip
    except ValueError as error:
        raise SpecError(
            f"this is no cluster that jax knows ({error}); give coordinator, num_processes and "
            "process_id"
        ) from error


class Channel:
    """Orders from process 0 to all others, and word of failure from any to all."""

    def __init__(self) -> None:
        from jax._src import distributed  # The store has no public name.

        self._store: Any = distributed.global_state.client
        self._n_orders = 0

    def tell(self, what: str, **details: Any) -> None:
        """Process 0: give the next order."""
        self._store.key_value_set(
            f"{_ORDERS}/{self._n_orders}", json.dumps({"what": what, **details})
        )
        self._n_orders += 1

    def orders(self) -> Iterator[dict[str, Any]]:
        """The others: orders as they come, to the last, `end`.

        Raises: TeamBroken: process 0 is gone.
        """
        while True:
            order = json.loads(self._next())
            if order["what"] == "end":
                return
            yield order

    def _next(self) -> str:
        key = f"{_ORDERS}/{self._n_orders}"
        while True:
            try:
                found = self._store.blocking_key_value_get(key, int(_GRACE_S * 1000))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise TeamBroken(f"process 0 is gone ({_first_line(error)})") from error
                continue
            self._n_orders += 1
            return found

    @contextlib.contextmanager
    def telling_failure(self) -> Iterator[None]:
        """Say why this process fails, if it does, to whoever still listens."""
        try:
            yield
        except TeamBroken:
            raise
        except BaseException as error:
            k = jax.process_index()
            reason = f"process {k}: {type(error).__name__}: {_first_line(error)}"
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self._store.key_value_set(f"{_FAILURES}/{k}", reason)
            raise

    def failure(self) -> str | None:
        """Why another process failed, if one did."""
        found = self._store.key_value_dir_get(_FAILURES)
        return found[0][1] if found else None


def lead(
    spec: RunSpec, corpus: TokenizedCorpus, store: Path, placement: OnMesh, **options: Any
) -> dict[str, Any]:
    """Process 0: train.loop.train, with the orders that let the others keep up.

    Raises: TeamBroken: another process failed; its reason is in the message.
        SpecError: the run asks for what several processes cannot do.
    """
    channel = placement.channel
    assert channel is not None
    ended = threading.Event()
    threading.Thread(target=_watch, args=(channel, ended), daemon=True).start()
    try:
        if spec.early_stopping is not None:
            raise SpecError("early_stopping is for runs of one process; leave it out")
        record = train(spec, corpus, store, device=placement, **options)
    except jax.errors.JaxRuntimeError as error:
        # What broke here is often the end of another process, which says why a moment later.
        deadline = time.monotonic() + _GRACE_S / 2
        while (reason := channel.failure()) is None and time.monotonic() < deadline:
            time.sleep(_LOOK_S / 4)
        reason = reason or f"a process of the run is gone ({_first_line(error)})"
        raise TeamBroken(reason) from error
    finally:
        ended.set()
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            channel.tell("end")
    return record


def _watch(channel: Channel, ended: threading.Event) -> None:
    """End a process that would wait for ever for one that failed: nothing else reaches XLA."""
    while not ended.wait(_LOOK_S):
        if (reason := channel.failure()) is None:
            continue
        if not ended.wait(_GRACE_S):
            print(f"launch.py: the run ends: {reason}", file=sys.stderr, flush=True)
            os._exit(1)


def follow(spec: RunSpec, corpus: TokenizedCorpus, placement: OnMesh) -> None:
    """The others: do what process 0 says, to the end of the run.

    Raises: TeamBroken: process 0 is gone.
    """
    channel = placement.channel
    assert channel is not None
    _Follower(spec, corpus, placement).obey(channel.orders())


class _Follower:
    """The state as this process holds its part of it, and what each order means."""

    def __init__(self, spec: RunSpec, corpus: TokenizedCorpus, placement: OnMesh):
        self._spec, self._corpus, self._placement = spec, corpus, placement
        self._windows = training_windows(spec, corpus)
        self._step, self._state, self._kept = 0, None, None

    def obey(self, orders: Iterator[dict[str, Any]]) -> None:
        does: dict[str, Callable[..., None]] = {
            "restore": self._restore, "put": self._put, "steps": self._take_steps,
            "keep": self._keep, "write": self._write, "score": self._score,
            "gather": self._gather,
        }  # fmt: skip
        for order in orders:
            does[order.pop("what")](**order)

    def _restore(self, path: str, step: int) -> None:
        fresh = fresh_state(self._spec)
        like = checkpoint.arrays_by_name(fresh, checkpoint.no_history(step))
        *leaves, _ = self._placement.restored(Path(path), like)
        self._kept = jax.tree.unflatten(jax.tree.structure(fresh), leaves)

    def _put(self, step: int) -> None:
        kept = fresh_state(self._spec) if self._kept is None else self._kept
        self._step, self._state = step, self._placement.put(kept)

    def _take_steps(self, n_valid: int) -> None:
        assert self._state is not None
        dispatch = next_dispatch(
            self._spec, self._corpus, self._windows, self._placement, self._state, self._step,
            n_valid,
        )  # fmt: skip
        self._state, _ = train_steps(*dispatch)
        self._step += n_valid

    def _keep(self) -> None:
        self._kept = self._placement.canonical(self._state)

    def _write(self, path: str, step: int) -> None:
        assert self._kept is not None
        history = np.zeros_like(checkpoint.no_history(step))
        checkpoint.write_arrays(Path(path), checkpoint.arrays_by_name(self._kept, history))

    def _score(self, is_result: bool) -> None:
        assert self._state is not None
        params = self._state.result if is_result else self._state.params
        score(self._spec, params, self._corpus, self._placement)

    def _gather(self) -> None:
        assert self._state is not None
        self._placement.on_host(self._state.result)


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0][:300]
