"""Runs of one shape in lockstep on one device: a row each of one compiled program.

A small model leaves an accelerator idle between operations that each take microseconds; with R runs
stacked, every operation does the work of R. Rows are independent: batches, rates, decay and the
number of steps are a row's own, and what one computes, be it infinite, reaches no other.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.config import ModelConfig
from model.kernels import Kernels
from train.jobs import Job, JobQueue
from train.loop import Dispatch, Interrupted, Run
from train.optimizer import Hyperparameters
from train.step import StepMetrics, TrainState, train_steps


@functools.partial(
    jax.jit,
    static_argnames=("cfg", "kernels", "parametrization", "n_microbatches", "loss"),
    donate_argnames="states",
)
def row_steps(
    cfg: ModelConfig,
    kernels: Kernels,
    parametrization: str,
    n_microbatches: int,
    states: tuple[TrainState, ...],
    windows_RKBT1: np.ndarray,
    lr_RK: np.ndarray,
    n_valid_R: np.ndarray,
    hyper_R: Hyperparameters,
    ema_rate_RK: np.ndarray | None,
    z_loss_R: np.ndarray | None,
    loss: str | None,
) -> tuple[tuple[TrainState, StepMetrics], ...]:
    """train.step.train_steps for R runs at once; arguments as there, with an axis for the row.

    The loop goes on for the longest row; a row past its own n_valid keeps its values.

    Args:
        states: donated, one a row.
    Returns: state and metrics of each row.
    """

    def one(state: TrainState, *inputs: Any) -> tuple[TrainState, StepMetrics]:
        return train_steps(cfg, kernels, parametrization, n_microbatches, state, *inputs, loss)

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    results = jax.vmap(one)(
        stacked, windows_RKBT1, lr_RK, n_valid_R, hyper_R, ema_rate_RK, z_loss_R
    )

    def row(r: int) -> tuple[TrainState, StepMetrics]:
        return jax.tree.map(lambda leaf: jax.lax.index_in_dim(leaf, r, keepdims=False), results)

    return tuple(row(r) for r in range(len(states)))


def compute(dispatches: Sequence[Dispatch]) -> Sequence[tuple[TrainState, StepMetrics]]:
    """The results of dispatches that share a compile key; a single one is computed as ever."""
    if len(dispatches) == 1:
        return [train_steps(*dispatches[0])]
    first = dispatches[0]
    inputs = [(d.windows_KBT1, d.lr_K, d.n_valid, d.hyper, d.ema_rate_K, d.z_loss)
              for d in dispatches]  # fmt: skip
    return row_steps(
        first.cfg, first.kernels, first.parametrization, first.n_microbatches,
        tuple(d.state for d in dispatches),
        *jax.tree.map(lambda *leaves: np.stack(leaves), *inputs),
        first.loss,
    )  # fmt: skip


@dataclass
class _Row:
    """A place for a run, and what is computed in it next; without a run, zero steps of anything."""

    job: Job | None = None
    run: Run | None = None
    dispatch: Dispatch | None = None

    def advance(self, result: tuple[TrainState, StepMetrics] | Exception | None) -> Any:
        """Send the run what it asked for, or what came instead; the record if that was its end.

        None starts it.
        """
        assert self.run is not None
        run, self.run = self.run, None
        try:
            if isinstance(result, Exception):
                self.dispatch = run.throw(result)
            else:
                self.dispatch = run.send(result)  # pyright: ignore[reportArgumentType]
        except StopIteration as finished:
            return finished.value
        except Interrupted:
            return None
        self.run = run
        return None


def drive(
    batch: Sequence[Job],
    jobs: JobQueue,
    n_rows: int,
    *,
    start: Callable[[Job], Run],
    on_record: Callable[[dict[str, Any]], None],
    on_error: Callable[[Job, Exception], None],
    stop: threading.Event,
) -> None:
    """Train a batch of jobs of one shape in `n_rows` rows, and others of it in rows that free up.

    It returns when no row is taken any more: how many rows are best for the rest, its caller knows.

    Rows without a run are computed for no step: a shape costs one compilation, and a run's bits
    depend on `n_rows`, but not on how many rows are taken or by what.

    Args:
        batch: one to n_rows jobs. `jobs` is asked for more of their shape while a row is taken.
        start: gives the run of a job, which looks at `stop`.
        on_record: hears of every record.
        on_error: hears of every run that fails, or cannot be; the others go on. If the program of
            all rows fails, so does the run of each.
        stop: when set, no run begins, and those under way leave a checkpoint.

    Raises: the first failure of a callback; before that it sets `stop` and sees the runs to their
        end.
    """
    rows = [_Row() for _ in range(n_rows)]
    waiting = list(batch)
    failures: list[BaseException] = []

    def next_job() -> Job | None:
        if stop.is_set():
            return None
        is_working = any(row.run for row in rows)
        found = waiting or (jobs.take_more(batch[0].spec.compile_key, 1) if is_working else [])
        return found.pop(0) if found else None

    def advance(row: _Row, result: tuple[TrainState, StepMetrics] | Exception | None) -> None:
        assert row.job is not None
        try:
            try:
                record = row.advance(result)
            except Exception as error:
                on_error(row.job, error)
            else:
                if record is not None:
                    on_record(record)
        except BaseException as error:
            failures.append(error)
            stop.set()

    while True:
        for row in rows:
            while row.run is None and (job := next_job()) is not None:
                row.job, row.run = job, start(job)
                advance(row, None)
        if not any(row.run for row in rows):
            break
        try:
            results = _computed(rows)
        except Exception as error:
            for row in rows:
                row.dispatch = None  # its state was given away
                if row.run is not None:
                    advance(row, error)
            continue
        for row, result in zip(rows, results, strict=True):
            assert row.dispatch is not None
            row.dispatch = _idle(row.dispatch, result[0])
            if row.run is not None:
                advance(row, result)
    if failures:
        raise failures[0]


def _computed(rows: Sequence[_Row]) -> Sequence[tuple[TrainState, StepMetrics]]:
    """What all rows ask for, those that never had a run included."""
    some = next(row.dispatch for row in rows if row.run is not None)
    assert some is not None
    for row in rows:
        if row.dispatch is None:
            row.dispatch = _idle(some, jax.tree.map(jnp.zeros_like, some.state))
    return compute([row.dispatch for row in rows if row.dispatch is not None])


def _idle(dispatch: Dispatch, state: TrainState) -> Dispatch:
    """A dispatch that takes no step from a state."""
    return dispatch._replace(state=state, n_valid=np.int32(0))
