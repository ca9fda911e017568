"""Columns of the three tables of records: what each means, since when, and what it holds.

A run writes its rows by them (train.records); docs/records.md is held to them. Needs no jax.
"""

from typing import Literal

RECORD_VERSION = 4
"""Version of the columns below; written into every record."""

RUN_COLUMNS = {
    "run_id": "hash of the spec's identity",
    "attempt": "which attempt was committed, from 1",
    "status": "finished, or diverged (loss not finite, or exploded: train.explosion)",
    "diverged_step": "first step with a loss that is not finite, or by which it had exploded; "
    "null if none",
    "retry_of": "diverged run that this one repeats at a lower learning rate; null if none",
    "corpus": "name",
    "corpus_hash": "of the documents' text and keys",
    "tokenizer": "name",
    "n_layers": "",
    "d_model": "",
    "n_heads": "",
    "d_head": "",
    "d_ff": "",
    "vocab_size": "",
    "seq_len": "tokens",
    "batch_size": "sequences",
    "batch_tokens": "target tokens a step",
    "n_steps": "optimizer steps taken, up to where early stopping ended the run",
    "optimizer": "kind",
    "lr": "peak learning rate",
    "weight_decay": "",
    "beta2": "",
    "schedule": "kind",
    "warmup_steps": "",
    "ema_decay": "of the weights that were evaluated; null if those are the trained ones",
    "z_loss": "coefficient",
    "idea": "user's parts of the model or trainer, each as slot=file:name@hash; null if none",
    "seed_init": "",
    "seed_data": "",
    "dtype": "",
    "parametrization": "",
    "n_params_embedding": "token and position embeddings",
    "n_params_non_embedding": "weight matrices of the blocks (Kaplan's N)",
    "n_params_norm": "gains and biases",
    "n_params_head": "output matrix if not tied",
    "n_params_total": "the sum (Chinchilla's N)",
    "n_tokens": "target tokens seen, repeats counted (D)",
    "n_tokens_unique": "distinct target tokens seen",
    "n_epochs": "n_tokens / distinct tokens available to the run",
    "train_flops_6n_non_embedding": "FLOPs of the run, by convention (model.accounting)",
    "train_flops_6n_total": "",
    "train_flops_matmul_causal": "",
    "train_flops_matmul_full": "",
    "train_flops_standalone": "matmul_full, as if trained alone: what laws use",
    "train_flops_charged": "matmul_full, without what a trunk had done already: what budgets use",
    "parent_run_id": "trunk whose state the run began from; null if it began at step 0",
    "parent_step": "step of that state",
    "stopped_step": "step at which early stopping ended the run; null if it ran to its end",
    "loss_nats": "final loss on the whole validation split, nats/token; null if diverged; with "
    "early stopping that of the best weights, a minimum over evaluations and so a little low",
    "loss_nats_raw": "the same of the trained weights, where loss_nats is of their average",
    "loss_se_iid": "its standard error, tokens independent",
    "loss_se_document": "its standard error, documents independent",
    "bits_per_byte": "the same loss per byte of text",
    "train_loss_nats_final": "mean training loss of the last twentieth of the steps taken",
    "n_validation_tokens": "",
    "noise_scale_tokens": "B_simple (train.noise) of the last half of the run, tokens; null if "
    "unknown, as where a batch is one microbatch",
    "noise_scale_se": "its standard error",
    "seconds": "wall time of the committed attempt, compilation included",
    "seconds_compile": "of which until the first dispatch was done",
    "resumed_from_step": "step of the checkpoint it continued; 0 if none",
    "is_exact": "false if it was resumed under another mode",
    "device": "name",
    "mode": "what the bits depend on besides spec and versions",
    "jax_version": "",
    "git_commit": "",
    "record_version": "",
}
"""Columns of a run record and their meaning; losses in nats/token, FLOPs by named convention."""

_SINCE = {
    2: ("noise_scale_tokens", "noise_scale_se"),
    3: (
        "optimizer", "ema_decay", "z_loss", "idea", "train_flops_standalone", "train_flops_charged",
        "parent_run_id", "parent_step", "stopped_step", "loss_nats_raw",
    ),
    4: ("retry_of",),
}  # fmt: skip
"""Columns by the version that brought them."""

CURVE_COLUMNS = {
    "run_id": "",
    "attempt": "",
    "step": "steps taken when the point was logged",
    "n_tokens": "target tokens seen by then",
    "train_flops_matmul_full": "FLOPs spent by then",
    "loss_nats": "mean training loss since the point before, nats/token",
    "lr": "learning rate of the last step",
    "grad_norm": "gradient norm of the last step, before clipping",
}

EVALUATION_COLUMNS = {
    "run_id": "",
    "attempt": "",
    "step": "steps that the evaluated weights were trained for",
    "is_result": "whether these are the weights that the run left",
    "corpus": "whose text was scored, the run's own or another",
    "corpus_hash": "of its documents' text and keys",
    "split": "validation, or validation[:n] for its first n tokens",
    "loss_nats": "mean over target tokens, nats/token; null if not finite",
    "loss_se_iid": "its standard error, tokens independent",
    "loss_se_document": "its standard error, documents independent",
    "bits_per_byte": "the same loss per byte of text; null for a part of a split",
    "n_tokens": "target tokens scored",
    "position_edges": "first position in the window of each bin, and one past the last; from 1",
    "position_loss_nats": "mean loss of each bin, nats/token",
    "position_se_document": "its standard error, documents independent",
}
"""Columns of an evaluation; a repeated one has the same step, is_result, corpus_hash and split."""

_TEXT = {
    "run_id", "status", "retry_of", "corpus", "corpus_hash", "tokenizer", "optimizer", "schedule",
    "idea", "dtype", "parametrization", "parent_run_id", "device", "mode", "jax_version",
    "git_commit", "split",
}  # fmt: skip
_TRUTH = {"is_exact", "is_result"}
_LISTS = {"position_edges", "position_loss_nats", "position_se_document"}
_REAL = {
    "lr", "weight_decay", "beta2", "ema_decay", "z_loss", "n_epochs", "bits_per_byte", "seconds",
    "seconds_compile", "noise_scale_tokens", "noise_scale_se", "grad_norm",
}  # fmt: skip


def columns_since(version: int) -> list[str]:
    """Columns of a run that records of this version do not have yet."""
    return [name for since, names in _SINCE.items() if since > version for name in names]


def column_type(name: str) -> Literal["text", "truth", "real", "reals", "whole"]:
    """What a column of any of the tables holds besides null; FLOPs are real, being past 2^63."""
    if name in _TEXT:
        return "text"
    if name in _TRUTH:
        return "truth"
    if name in _LISTS:
        return "reals"
    is_real = name in _REAL or name.startswith(("train_flops_", "loss_", "train_loss_"))
    return "real" if is_real else "whole"
