"""Train one spec to its end: restore or initialise, step, log, checkpoint, evaluate, commit."""

import dataclasses
import math
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from model import custom
from model.accounting import train_flops_per_token
from model.arrangement import Arrangement
from model.config import ModelConfig
from model.functional import Params
from model.kernels import Kernels
from train import branching, checkpoint, lease, noise, records, stopping
from train.config import RunSpec, canonical_json
from train.curve import extend, mean_of_tail
from train.data.corpora import TokenizedCorpus
from train.evaluate import Evaluation, evaluate, evaluation_row
from train.explosion import exploded_at
from train.inputs import STEPS_PER_DISPATCH, Windows, next_inputs, training_windows
from train.jobs import Progress
from train.lease import Lost, Unavailable
from train.optimizer import Hyperparameters, hyperparameters
from train.placement import Placement, as_placement
from train.records import Attempt
from train.row import describe_evaluation, describe_noise, describe_spec
from train.start import Logged, begin, notes, save_checkpoint
from train.step import StepMetrics, TrainState, train_steps


class Interrupted(Exception):
    """The run was asked to stop and left a checkpoint."""


class Dispatch(NamedTuple):
    """The arguments of train.step.train_steps for the next steps of one run."""

    cfg: ModelConfig
    kernels: Kernels
    parametrization: str
    n_microbatches: int
    state: TrainState
    windows_KBT1: np.ndarray
    lr_K: np.ndarray
    n_valid: np.int32
    hyper: Hyperparameters
    ema_rate_K: np.ndarray | None
    z_loss: np.float32 | None
    loss: str | None
    arrangement: Arrangement


Run = Generator[Dispatch, tuple[TrainState, StepMetrics], dict[str, Any]]
"""A run under way: it gives what is to be computed, is sent the result, and returns its record."""


def train(
    spec: RunSpec, corpus: TokenizedCorpus, store: Path, *, device: Any, **options: Any
) -> dict[str, Any]:
    """Train a spec and commit its record, alone on a device. Options are those of `run`."""
    placement = as_placement(device)
    under_way = run(spec, corpus, store, device=placement, **options)
    try:
        dispatch = next(under_way)
        while True:
            placement.announce("steps", n_valid=int(dispatch.n_valid))
            dispatch = under_way.send(train_steps(*dispatch))
    except StopIteration as finished:
        return finished.value


def run(
    spec: RunSpec,
    corpus: TokenizedCorpus,
    store: Path,
    *,
    device: Any,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint_every_s: float = 60.0,
    n_rows: int = 1,
    branch_steps: Sequence[int] = (),
    trunk: RunSpec | None = None,
    retry_of: str | None = None,
) -> Run:
    """Everything of a run but its compiled steps, which whoever drives it computes.

    An interrupted run continues from its last checkpoint. A loss that is not finite, or blew up for
    good (train.explosion), ends it with status "diverged": a record, not an error. Of a run that
    has its record nothing is trained. Files of a user's ideas are looked for in `ideas` beside the
    store.

    Args:
        device: a jax.Device, or a placement (train.placement).
        n_rows: in how many rows whoever drives the run computes (train.rows); for the record.
        branch_steps, trunk, retry_of: of train.jobs.Job. The first two cost or save steps, the last
            is for the record; none changes a bit.
    Returns: the committed record (of whichever attempt was first).
    Raises: SpecError: the corpus is not the one the spec names, or is too small for it.
        Interrupted: should_stop() was true; a checkpoint was left.
        Unavailable: the run is halted, or another process trains it.
        Lost: it was halted meanwhile, a checkpoint was left; or another process took it over.
    """
    custom.look_in(store.parent / "ideas")
    windows = training_windows(spec, corpus)
    try:
        attempt = lease.claim(store, spec.run_id)
    except Unavailable as error:
        if error.why != "committed":
            raise
    else:
        with lease.held(attempt) as is_lost:
            try:
                yield from _attempt(
                    spec, corpus, store, attempt, windows, as_placement(device), on_progress,
                    should_stop, is_lost, checkpoint_every_s, n_rows, branch_steps, trunk, retry_of,
                )  # fmt: skip
            except Lost:
                records.clean_up(store, spec.run_id)
                raise
            except OSError as error:
                # Whoever committed the run has removed the other attempts.
                if lease.is_fenced(attempt):
                    raise Lost(spec.run_id) from error
                raise
    committed = records.read_run(store, spec.run_id)
    assert committed is not None
    return committed


def _attempt(
    spec: RunSpec,
    corpus: TokenizedCorpus,
    store: Path,
    attempt: Attempt,
    windows: Windows,
    placement: Placement,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    is_lost: Callable[[], bool],
    checkpoint_every_s: float,
    n_rows: int,
    branch_steps: Sequence[int],
    trunk: RunSpec | None,
    retry_of: str | None,
) -> Generator[Dispatch, tuple[TrainState, StepMetrics], None]:
    """An attempt at a run from its start to the commit; arguments as of `run`."""
    kernels = placement.kernels(spec)
    runtime = placement.describe(kernels.name, n_rows)
    started = saved_at = time.monotonic()
    step, state, logged, best, history, in_flight, origin = begin(
        spec, trunk, store, attempt, runtime, placement
    )
    placement.announce("put", step=step)
    state = placement.put(state)
    seconds_compile, diverged_step, stopped_step = 0.0, None, None

    while stopped_step is None and (step < spec.n_steps or in_flight is not None):
        if is_lost() and lease.is_fenced(attempt):
            raise Lost(spec.run_id)
        dispatched = None
        if step < spec.n_steps:
            n_valid = _n_steps_until_cut(spec, branch_steps, step)
            dispatch = next_dispatch(spec, corpus, windows, placement, state, step, n_valid)
            state, metrics = yield dispatch
            dispatched = (metrics, dispatch.lr_K, n_valid)
            step += n_valid
        if in_flight is not None:
            logged, diverged_step = _log(spec, attempt, logged, history, in_flight, on_progress)
            seconds_compile = seconds_compile or time.monotonic() - started
        in_flight = dispatched
        if diverged_step is not None:
            break
        is_late = time.monotonic() - saved_at > checkpoint_every_s
        is_cut = step < spec.n_steps and (is_late or should_stop() or is_lost())
        is_branching = in_flight is not None and step in branch_steps
        is_looking = in_flight is not None and stopping.is_due(spec, step)
        if not (is_cut or is_branching or is_looking):
            continue
        if is_looking:
            looks, best = stopping.look(
                spec, corpus, attempt, placement, state.result, step, logged.looks, best
            )
            logged = dataclasses.replace(logged, looks=looks)
            if stopping.is_over(spec, looks) and step < spec.n_steps:
                stopped_step = step
        logged, diverged_step = _log(
            spec, attempt, logged, history, in_flight, on_progress, stopped_step
        )
        seconds_compile = seconds_compile or time.monotonic() - started
        in_flight = None
        if diverged_step is not None:
            break
        if lease.is_fenced(attempt):
            raise Lost(spec.run_id)
        placement.announce("keep")
        kept = (placement.canonical(state), step, history, notes(logged, origin, runtime))
        if is_branching:
            with checkpoint.going_on(spec.run_id, "branch point", step):
                branching.save_point(store, spec.run_id, *kept)
        if is_cut and stopped_step is None:
            with checkpoint.going_on(spec.run_id, "checkpoint", step):
                save_checkpoint(attempt, *kept, best, placement.announce)
            saved_at = time.monotonic()
            if is_lost():
                raise Lost(spec.run_id)
            if should_stop():
                raise Interrupted(spec.run_id)

    result, evaluation, raw = state.result, None, None
    if diverged_step is None:
        result = result if best is None else placement.put(best)
        placement.announce("score", is_result=True)
        evaluation = score(spec, result, corpus, placement)
        if state.ema is not None and best is None:
            placement.announce("score", is_result=False)
            raw = score(spec, state.params, corpus, placement)
        if not math.isfinite(evaluation.loss_nats):
            evaluation, raw, diverged_step = None, None, step
    # One entry only: safetensors writes several in an arbitrary order, and equal runs would differ.
    metadata = {"spec": canonical_json(spec.identity())}
    placement.announce("gather")
    checkpoint.save_weights(attempt.weights, placement.on_host(result), metadata)
    if evaluation is not None:
        of_step = step if best is None else logged.looks.best_step
        about = {"run_id": spec.run_id, "attempt": attempt.number, "step": of_step}
        row = evaluation_row(evaluation, corpus, is_result=True, **about)
        records.add_evaluations(attempt, [row])
    n_steps = stopped_step or spec.n_steps
    row = {
        **describe_spec(spec, windows, n_steps),
        **branching.describe_parent(spec, origin.parent, n_steps),
        **describe_evaluation(evaluation, corpus),
        "loss_nats_raw": raw and raw.loss_nats,
        **describe_noise(logged.noise, spec, placement.n_microbatches(spec)),
        **dataclasses.asdict(runtime),
        "attempt": attempt.number,
        "status": "finished" if diverged_step is None else "diverged",
        "diverged_step": diverged_step,
        "retry_of": retry_of,
        "stopped_step": stopped_step,
        "train_loss_nats_final": _final_train_loss(attempt, logged, stopped_step),
        "seconds": time.monotonic() - started,
        "seconds_compile": seconds_compile,
        "resumed_from_step": origin.resumed_from,
        "is_exact": origin.is_exact,
    }
    # One that was paused, and taken for dead, must not come before whoever goes on from it.
    if lease.is_fenced(attempt):
        raise Lost(spec.run_id)
    records.commit(store, attempt, row)
    records.clean_up(store, spec.run_id)


def next_dispatch(
    spec: RunSpec,
    corpus: TokenizedCorpus,
    windows: Windows,
    placement: Placement,
    state: TrainState,
    step: int,
    n_valid: int,
) -> Dispatch:
    """What a run asks for after `step` steps: the next `n_valid` ones."""
    batches, rates, ema_rates, z_loss = next_inputs(spec, corpus, windows, step)
    return Dispatch(
        spec.model, placement.kernels(spec), spec.parametrization, placement.n_microbatches(spec),
        state, placement.put_batches(batches), rates, np.int32(n_valid),
        hyperparameters(spec.optimizer), ema_rates, z_loss, spec.loss, placement.arrangement,
    )  # fmt: skip


def _n_steps_until_cut(spec: RunSpec, branch_steps: Sequence[int], step: int) -> int:
    """Steps of the next dispatch, which ends where a look, a branch point or the run does."""
    cuts = (s - step for s in branch_steps if s > step)
    return min(STEPS_PER_DISPATCH, stopping.steps_until_due(spec, step), *cuts)


def _log(
    spec: RunSpec,
    attempt: records.Attempt,
    logged: Logged,
    history: np.ndarray,
    in_flight,
    on_progress,
    ends_at: int | None = None,
):
    """Wait for a dispatch, log the points it completed; returns what is known, a diverged step.

    The metrics of its steps are entered in `history`. The last point is that of step `ends_at`, by
    default of the budget.
    """
    metrics, rates, n_valid = in_flight
    losses = np.asarray(metrics.loss_nats)[:n_valid].astype(float)
    norms = np.asarray(metrics.grad_norm)[:n_valid]
    is_bad = ~np.isfinite(losses)
    first = logged.curve.step
    diverged_step = first + int(np.argmax(is_bad)) + 1 if is_bad.any() else None
    n_good = int(np.argmax(is_bad)) if is_bad.any() else n_valid
    history[:, first : first + n_good] = [np.asarray(column)[:n_good] for column in metrics]
    diverged_step = diverged_step or exploded_at(spec, history[0], first, first + n_good)
    curve, points = extend(logged.curve, losses[:n_good].tolist(), ends_at or spec.n_steps)
    small = np.asarray(metrics.microbatch_square)[:n_good].tolist()
    big = [norm * norm for norm in norms[:n_good].tolist()]
    sums = noise.extend(logged.noise, first, small, big, spec.n_steps)
    per_token = train_flops_per_token(spec.model, "matmul_full")
    rows = [
        {
            "run_id": spec.run_id,
            "attempt": attempt.number,
            "step": point.step,
            "n_tokens": point.step * spec.batch_tokens,
            "train_flops_matmul_full": point.step * spec.batch_tokens * per_token,
            "loss_nats": point.loss_nats,
            "lr": rates[point.step - first - 1],
            "grad_norm": norms[point.step - first - 1],
        }
        for point in points
    ]
    records.append_points(attempt, rows)
    if points:
        on_progress(Progress(spec.run_id, curve.step, spec.n_steps, points[-1].loss_nats))
    return dataclasses.replace(logged, curve=curve, noise=sums), diverged_step


def score(
    spec: RunSpec, params: Params, corpus: TokenizedCorpus, placement: Placement
) -> Evaluation:
    """The loss of weights on the whole validation split."""
    tokens, documents = corpus.validation_tokens, corpus.validation_documents
    return evaluate(
        spec.model, params, tokens, documents, placement.kernels(spec), spec.parametrization,
        placement.arrangement,
    )  # fmt: skip


def _final_train_loss(attempt: records.Attempt, logged: Logged, stopped_step: int | None) -> float:
    if stopped_step is None:
        return logged.curve.tail_mean
    points = [(p["step"], p["loss_nats"]) for p in records.read_points(attempt)]
    return mean_of_tail(points, stopped_step)  # the curve has summed up another tail
