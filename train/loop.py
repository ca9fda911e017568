"""Train one spec to its end: restore or initialise, step, log, checkpoint, evaluate, commit."""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from model import custom
from model.accounting import FLOPS_CONVENTIONS, count_params, train_flops, train_flops_per_token
from model.functional import init_params
from model.kernels import kernels_for
from train import checkpoint, noise, records
from train.config import RunSpec, SpecError, canonical_json
from train.curve import Curve, extend
from train.data.batches import gather, n_windows, window_ids
from train.data.corpora import TokenizedCorpus
from train.evaluate import Evaluation, evaluate
from train.noise import NoiseScale, NoiseSums, noise_scale
from train.optimizer import hyperparameters, init_moments
from train.runtime import Runtime, describe
from train.schedule import averaging_rates, learning_rates
from train.step import TrainState, train_steps

STEPS_PER_DISPATCH = 16
"""Optimizer steps in one call of the compiled step: dispatch costs little, progress stays fresh."""

CPU_MICROBATCH_TOKENS = 512
"""On a CPU, gradients are formed for at most this many tokens at once: attention stays in cache."""


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
class Logged:
    """What the host knows of a run under way; part of every checkpoint."""

    curve: Curve = Curve()
    noise: NoiseSums = NoiseSums()


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
) -> dict[str, Any]:
    """Train a spec and commit its record; an interrupted run continues from its last checkpoint.

    A loss that is not finite ends the run with status "diverged": a record, not an error.

    Files of a user's ideas are looked for in `ideas` beside the store.

    Args: device: a jax.Device.
    Returns: the committed record (of whichever attempt was first).
    Raises: SpecError: the corpus is not the one the spec names, or is too small for it.
        Interrupted: should_stop() was true; a checkpoint was left.
    """
    custom.look_in(store.parent / "ideas")
    windows = _training_windows(spec, corpus)
    kernels = kernels_for(device.platform)
    runtime = describe(device, kernels.name)
    started = time.monotonic()
    predecessor = _resumable(store, spec.run_id)
    attempt = records.begin_attempt(store, spec.run_id)
    state, logged, is_exact = _start(spec, predecessor, attempt, runtime)
    state = jax.device_put(state, device)
    resumed_from, seconds_compile, diverged_step = logged.curve.step, 0.0, None
    hyper = hyperparameters(spec.optimizer)
    n_microbatches = _n_microbatches(spec, device)
    saved_at = time.monotonic()

    in_flight = None
    step = logged.curve.step
    while diverged_step is None and (step < spec.n_steps or in_flight is not None):
        dispatched = None
        if step < spec.n_steps:
            batches, rates, n_valid = _inputs(spec, corpus, windows, step)
            state, metrics = train_steps(
                spec.model, kernels, spec.parametrization, n_microbatches,
                state, batches, rates, np.int32(n_valid), hyper, *_extras(spec, step),
                loss=spec.loss,
            )  # fmt: skip
            dispatched = (metrics, rates, n_valid)
            step += n_valid
        if in_flight is not None:
            logged, diverged_step = _log(spec, attempt, logged, in_flight, on_progress)
            seconds_compile = seconds_compile or time.monotonic() - started
        in_flight = dispatched
        is_due = time.monotonic() - saved_at > checkpoint_every_s
        if diverged_step is None and step < spec.n_steps and (is_due or should_stop()):
            logged, diverged_step = _log(spec, attempt, logged, in_flight, on_progress)
            in_flight = None
            if diverged_step is None:
                checkpoint.save(attempt, state, step, _provenance(logged, runtime))
            saved_at = time.monotonic()
            if should_stop():
                raise Interrupted(spec.run_id)

    evaluation = None
    if diverged_step is None:
        evaluation = evaluate(
            spec.model, state.result, corpus.validation_tokens, corpus.validation_documents,
            kernels, spec.parametrization,
        )  # fmt: skip
        if not math.isfinite(evaluation.loss_nats):
            evaluation, diverged_step = None, spec.n_steps
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
        "resumed_from_step": resumed_from,
        "is_exact": is_exact,
    }
    row = {
        **_describe_spec(spec, windows),
        **_describe_evaluation(evaluation, corpus),
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


def _resumable(store: Path, run_id: str) -> records.Attempt | None:
    tried = [a for a in records.attempts(store, run_id) if checkpoint.latest(a) is not None]
    return tried[-1] if tried else None


def _start(
    spec: RunSpec,
    predecessor: records.Attempt | None,
    attempt: records.Attempt,
    runtime: Runtime,
) -> tuple[TrainState, Logged, bool]:
    params = init_params(spec.model, spec.seed_init, spec.parametrization)
    moments = init_moments(params, hyperparameters(spec.optimizer))
    ema = None if spec.ema_decay is None else jax.tree.map(np.zeros_like, params)
    state = TrainState(params, moments, ema)
    saved = checkpoint.latest(predecessor) if predecessor is not None else None
    if saved is None or predecessor is None:
        return state, Logged(), True
    state = checkpoint.restore(predecessor, saved["step"], state)
    points = [p for p in records.read_points(predecessor) if p["step"] <= saved["step"]]
    records.append_points(attempt, [{**p, "attempt": attempt.number} for p in points])
    curve = Curve(**{**saved["curve"], "pending": tuple(saved["curve"]["pending"])})
    # A second cut-off before the first checkpoint of this attempt must not lose the first one.
    kept = {k: saved[k] for k in ("curve", "noise", *_EXACT) if k in saved}
    checkpoint.save(attempt, state, saved["step"], kept)
    is_exact = all(saved[k] == getattr(runtime, k) for k in _EXACT)
    # Another device may cut batches into other parts, whose norms cannot be added to these.
    sums = saved.get("noise", {}) if is_exact else {}
    return state, Logged(curve, NoiseSums(**{k: tuple(v) for k, v in sums.items()})), is_exact


_EXACT = ("mode", "device", "jax_version")


def _provenance(logged: Logged, runtime: Runtime) -> dict[str, Any]:
    return {**dataclasses.asdict(logged), **{k: getattr(runtime, k) for k in _EXACT}}


def _inputs(spec: RunSpec, corpus: TokenizedCorpus, windows: Windows, step: int):
    steps = np.arange(step, step + STEPS_PER_DISPATCH)
    n_valid = min(STEPS_PER_DISPATCH, spec.n_steps - step)
    ids = window_ids(
        steps,
        batch_size=spec.batch_size,
        n_windows=windows.total,
        n_windows_unique=windows.unique,
        seed=spec.seed_data,
    )
    batches = gather(corpus.train_tokens, ids, spec.model.seq_len)
    return batches, learning_rates(spec, steps), n_valid


def _extras(spec: RunSpec, step: int) -> tuple[np.ndarray | None, np.float32 | None]:
    """Averaging rates and z-loss of a dispatch; None for what the spec does without."""
    steps = np.arange(step, step + STEPS_PER_DISPATCH)
    return (
        None if spec.ema_decay is None else averaging_rates(spec.ema_decay, steps),
        np.float32(spec.z_loss) if spec.z_loss else None,
    )


def _n_microbatches(spec: RunSpec, device: Any) -> int:
    """The fewest equal parts of a batch that each fit the cache of a CPU; 1 elsewhere."""
    if device.platform != "cpu":
        return 1
    at_most = max(1, CPU_MICROBATCH_TOKENS // spec.model.seq_len)
    parts = range(math.ceil(spec.batch_size / at_most), spec.batch_size + 1)
    return next(n for n in parts if spec.batch_size % n == 0)


def _log(spec: RunSpec, attempt: records.Attempt, logged: Logged, in_flight, on_progress):
    """Wait for a dispatch, log the points it completed; returns what is known, a diverged step."""
    metrics, rates, n_valid = in_flight
    losses = np.asarray(metrics.loss_nats)[:n_valid].astype(float)
    norms = np.asarray(metrics.grad_norm)[:n_valid]
    is_bad = ~np.isfinite(losses)
    first = logged.curve.step
    diverged_step = first + int(np.argmax(is_bad)) + 1 if is_bad.any() else None
    n_good = int(np.argmax(is_bad)) if is_bad.any() else n_valid
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
        "idea": spec.idea,
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
        "train_flops_charged": train_flops(spec.model, spec.n_tokens, "matmul_full"),
        "parent_run_id": None,
        "parent_step": None,
        "stopped_step": None,
        "record_version": records.RECORD_VERSION,
    }


def _describe_evaluation(evaluation: Evaluation | None, corpus: TokenizedCorpus) -> dict[str, Any]:
    if evaluation is None:
        names = ("loss_nats", "loss_se_iid", "loss_se_document", "bits_per_byte")
        return {**dict.fromkeys(names), "loss_nats_raw": None, "n_validation_tokens": None}
    bits = evaluation.loss_nats * evaluation.n_tokens / math.log(2)
    return {
        "loss_nats": evaluation.loss_nats,
        "loss_nats_raw": None,
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
