"""Train one spec to its end: restore or initialise, step, log, checkpoint, evaluate, commit."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from model.accounting import FLOPS_CONVENTIONS, count_params, train_flops, train_flops_per_token
from model.functional import Params
from model.kernels import Kernels, kernels_for
from train import branching, checkpoint, noise, records
from train.config import RunSpec, SpecError, canonical_json
from train.curve import extend
from train.data.batches import gather, n_windows, window_ids
from train.data.corpora import TokenizedCorpus
from train.evaluate import Evaluation, evaluate
from train.noise import NoiseScale, NoiseSums, noise_scale
from train.optimizer import hyperparameters
from train.runtime import describe
from train.schedule import averaging_rates, learning_rates
from train.start import Logged, begin, notes
from train.step import microbatches, train_steps

STEPS_PER_DISPATCH = 16
"""Optimizer steps in one call of the compiled step: dispatch costs little, progress stays fresh."""


class Interrupted(Exception):
    """The run was asked to stop and left a checkpoint."""


@dataclass(frozen=True)
class Progress:
    """Where a run is: steps done, of how many, the last logged training loss (nats/token)."""

    run_id: str
    step: int
    n_steps: int
    loss_nats: float


@dataclass(frozen=True)
class Windows:
    """The training windows that a spec may see."""

    total: int
    unique: int


def train(
    spec: RunSpec,
    corpus: TokenizedCorpus,
    store: Path,
    *,
    device: Any,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint_every_s: float = 60.0,
    branch_steps: Sequence[int] = (),
    trunk: RunSpec | None = None,
) -> dict[str, Any]:
    """Train a spec and commit its record; an interrupted run continues from its last checkpoint.

    A loss that is not finite ends the run with status "diverged": a record, not an error.

    Args:
        device: a jax.Device.
        branch_steps, trunk: of train.jobs.Job. They cost or save steps and change no bit.
    Returns: the committed record (of whichever attempt was first).
    Raises: SpecError: the corpus is not the one the spec names, or is too small for it.
        Interrupted: should_stop() was true; a checkpoint was left.
    """
    windows = _training_windows(spec, corpus)
    kernels = kernels_for(device.platform)
    runtime = describe(device, kernels.name)
    started = time.monotonic()
    attempt = records.begin_attempt(store, spec.run_id)
    step, state, logged, history, in_flight, origin = begin(spec, trunk, store, attempt, runtime)
    state = jax.device_put(state, device)
    seconds_compile, diverged_step = 0.0, None
    hyper = hyperparameters(spec.optimizer)
    n_microbatches = microbatches(spec.model.seq_len, spec.batch_size, device.platform)
    saved_at = time.monotonic()

    while diverged_step is None and (step < spec.n_steps or in_flight is not None):
        dispatched = None
        if step < spec.n_steps:
            n_valid = _n_steps_until_cut(spec.n_steps, branch_steps, step)
            batches, rates = _inputs(spec, corpus, windows, step)
            state, metrics = train_steps(
                spec.model, kernels, spec.parametrization, n_microbatches,
                state, batches, rates, np.int32(n_valid), hyper, *_extras(spec, step),
            )  # fmt: skip
            dispatched = (metrics, rates, n_valid)
            step += n_valid
        if in_flight is not None:
            logged, diverged_step = _log(spec, attempt, logged, history, in_flight, on_progress)
            seconds_compile = seconds_compile or time.monotonic() - started
        in_flight = dispatched
        if diverged_step is not None:
            break
        is_due = time.monotonic() - saved_at > checkpoint_every_s
        is_cut = step < spec.n_steps and (is_due or should_stop())
        is_branching = in_flight is not None and step in branch_steps
        if is_cut or is_branching:
            logged, diverged_step = _log(spec, attempt, logged, history, in_flight, on_progress)
            in_flight = None
            kept = (state, step, history, notes(logged, origin, runtime))
            if diverged_step is None and is_branching:
                branching.save_point(store, spec.run_id, *kept)
            if diverged_step is None and is_cut:
                checkpoint.save(attempt.checkpoint_dir, *kept)
                saved_at = time.monotonic()
            if is_cut and should_stop():
                raise Interrupted(spec.run_id)

    evaluation = raw = None
    if diverged_step is None:
        evaluation = _evaluate(spec, state.result, corpus, kernels)
        raw = None if state.ema is None else _evaluate(spec, state.params, corpus, kernels)
        if not math.isfinite(evaluation.loss_nats):
            evaluation, raw, diverged_step = None, None, spec.n_steps
    # One entry only: safetensors writes several in an arbitrary order, and equal runs would differ.
    metadata = {"spec": canonical_json(spec.identity())}
    checkpoint.save_weights(attempt.weights, state.result, metadata)
    outcome = {
        "attempt": attempt.number,
        "status": "finished" if diverged_step is None else "diverged",
        "diverged_step": diverged_step,
        "train_loss_nats_final": logged.curve.tail_mean,
        "seconds": time.monotonic() - started,
        "seconds_compile": seconds_compile,
        "resumed_from_step": origin.resumed_from,
        "is_exact": origin.is_exact,
    }
    row = {
        **_describe_spec(spec, windows),
        **branching.describe_parent(spec, origin.parent),
        **_describe_evaluation(evaluation, corpus),
        "loss_nats_raw": raw and raw.loss_nats,
        **_describe_noise(logged.noise, spec, n_microbatches),
        **dataclasses.asdict(runtime),
        **outcome,
    }
    records.commit(store, attempt, row)
    records.clean_up(store, spec.run_id)
    committed = records.read_run(store, spec.run_id)
    assert committed is not None
    return committed


def _training_windows(spec: RunSpec, corpus: TokenizedCorpus) -> Windows:
    data = spec.data
    prepared = {"corpus_hash": corpus.content_hash, "tokenizer_hash": corpus.tokenizer_hash}
    for name, found in prepared.items():
        if getattr(data, name) != found:
            raise SpecError(
                f"data.{name}={getattr(data, name)} but the prepared {corpus.name} has {found}; "
                "prepare the text that the plan was made for, or plan again"
            )
    if spec.model.vocab_size != corpus.vocab_size:
        raise SpecError(
            f"model.vocab_size={spec.model.vocab_size} but {corpus.tokenizer} has "
            f"{corpus.vocab_size} tokens; use {corpus.vocab_size}"
        )
    total = n_windows(len(corpus.train_tokens), spec.model.seq_len)
    wanted = data.n_tokens_unique
    unique = total if wanted is None else wanted // spec.model.seq_len
    if not 0 < unique <= total:
        raise SpecError(
            f"data.n_tokens_unique={wanted} is {unique} windows of {spec.model.seq_len} tokens; "
            f"{corpus.name} has {total}; use {spec.model.seq_len} to {total * spec.model.seq_len}"
        )
    return Windows(total, unique)


def _n_steps_until_cut(n_steps: int, branch_steps: Sequence[int], step: int) -> int:
    """Steps of the next dispatch, which ends where a branch point or the run does."""
    return min(STEPS_PER_DISPATCH, *(s - step for s in (*branch_steps, n_steps) if s > step))


def _inputs(spec: RunSpec, corpus: TokenizedCorpus, windows: Windows, step: int):
    steps = np.arange(step, step + STEPS_PER_DISPATCH)
    ids = window_ids(
        steps,
        batch_size=spec.batch_size,
        n_windows=windows.total,
        n_windows_unique=windows.unique,
        seed=spec.seed_data,
    )
    batches = gather(corpus.train_tokens, ids, spec.model.seq_len)
    return batches, learning_rates(spec, steps)


def _extras(spec: RunSpec, step: int) -> tuple[np.ndarray | None, np.float32 | None]:
    """Averaging rates and z-loss of a dispatch; None for what the spec does without."""
    steps = np.arange(step, step + STEPS_PER_DISPATCH)
    return (
        None if spec.ema_decay is None else averaging_rates(spec.ema_decay, steps),
        np.float32(spec.z_loss) if spec.z_loss else None,
    )


def _log(
    spec: RunSpec,
    attempt: records.Attempt,
    logged: Logged,
    history: np.ndarray,
    in_flight,
    on_progress,
):
    """Wait for a dispatch, log the points it completed; returns what is known, a diverged step.

    The metrics of its steps are entered in `history`.
    """
    metrics, rates, n_valid = in_flight
    losses = np.asarray(metrics.loss_nats)[:n_valid].astype(float)
    norms = np.asarray(metrics.grad_norm)[:n_valid]
    is_bad = ~np.isfinite(losses)
    first = logged.curve.step
    diverged_step = first + int(np.argmax(is_bad)) + 1 if is_bad.any() else None
    n_good = int(np.argmax(is_bad)) if is_bad.any() else n_valid
    history[:, first : first + n_good] = [np.asarray(column)[:n_good] for column in metrics]
    curve, points = extend(logged.curve, losses[:n_good].tolist(), spec.n_steps)
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
    return Logged(curve, sums), diverged_step


def _evaluate(
    spec: RunSpec, params: Params, corpus: TokenizedCorpus, kernels: Kernels
) -> Evaluation:
    tokens, documents = corpus.validation_tokens, corpus.validation_documents
    return evaluate(spec.model, params, tokens, documents, kernels, spec.parametrization)


def _describe_spec(spec: RunSpec, windows: Windows) -> dict[str, Any]:
    counts = count_params(spec.model)
    sizes = ("n_layers", "d_model", "n_heads", "d_head", "d_ff", "vocab_size", "seq_len")
    available = windows.unique * spec.model.seq_len
    return {
        "run_id": spec.run_id,
        **{name: getattr(spec.model, name) for name in sizes},
        "corpus": spec.data.corpus,
        "corpus_hash": spec.data.corpus_hash,
        "tokenizer": spec.data.tokenizer,
        "batch_size": spec.batch_size,
        "batch_tokens": spec.batch_tokens,
        "n_steps": spec.n_steps,
        "optimizer": spec.optimizer.kind,
        "lr": spec.optimizer.lr,
        "weight_decay": spec.optimizer.weight_decay,
        "beta2": spec.optimizer.beta2,
        "schedule": spec.schedule.kind,
        "warmup_steps": spec.schedule.warmup_steps,
        "ema_decay": spec.ema_decay,
        "z_loss": spec.z_loss,
        "idea": None,
        "seed_init": spec.seed_init,
        "seed_data": spec.seed_data,
        "dtype": spec.dtype,
        "parametrization": spec.parametrization,
        "n_params_embedding": counts.embedding,
        "n_params_non_embedding": counts.non_embedding,
        "n_params_norm": counts.norm,
        "n_params_head": counts.head,
        "n_params_total": counts.total,
        "n_tokens": spec.n_tokens,
        "n_tokens_unique": min(spec.n_tokens, available),
        "n_epochs": spec.n_tokens / available,
        **{
            f"train_flops_{convention}": train_flops(spec.model, spec.n_tokens, convention)
            for convention in FLOPS_CONVENTIONS
        },
        "train_flops_standalone": train_flops(spec.model, spec.n_tokens, "matmul_full"),
        "stopped_step": None,
        "record_version": records.RECORD_VERSION,
    }


def _describe_evaluation(evaluation: Evaluation | None, corpus: TokenizedCorpus) -> dict[str, Any]:
    if evaluation is None:
        names = ("loss_nats", "loss_se_iid", "loss_se_document", "bits_per_byte")
        return {**dict.fromkeys(names), "n_validation_tokens": None}
    bits = evaluation.loss_nats * evaluation.n_tokens / math.log(2)
    return {
        "loss_nats": evaluation.loss_nats,
        "loss_se_iid": evaluation.loss_se_iid,
        "loss_se_document": evaluation.loss_se_document,
        "bits_per_byte": bits / corpus.n_validation_bytes,
        "n_validation_tokens": evaluation.n_tokens,
    }


def _describe_noise(sums: NoiseSums, spec: RunSpec, n_microbatches: int) -> dict[str, Any]:
    found = NoiseScale(None, None)
    if n_microbatches > 1:
        found = noise_scale(sums, spec.batch_tokens // n_microbatches, spec.batch_tokens)
    return {"noise_scale_tokens": found.tokens, "noise_scale_se": found.se}
