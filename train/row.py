"""The columns of a run's record (train.records) that follow from its spec and its measurements."""

from typing import Any

from model.accounting import FLOPS_CONVENTIONS, count_params, train_flops
from train.columns import RECORD_VERSION
from train.config import RunSpec
from train.data.corpora import TokenizedCorpus
from train.evaluate import Evaluation, bits_per_byte
from train.inputs import Windows
from train.noise import NoiseScale, NoiseSums, noise_scale


def describe_spec(spec: RunSpec, windows: Windows, n_steps: int) -> dict[str, Any]:
    """Columns that follow from the spec and the steps taken."""
    counts = count_params(spec.model)
    n_tokens = n_steps * spec.batch_tokens
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
        "n_steps": n_steps,
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
        "n_tokens": n_tokens,
        "n_tokens_unique": min(n_tokens, available),
        "n_epochs": n_tokens / available,
        **{
            f"train_flops_{convention}": train_flops(spec.model, n_tokens, convention)
            for convention in FLOPS_CONVENTIONS
        },
        "train_flops_standalone": train_flops(spec.model, n_tokens, "matmul_full"),
        "record_version": RECORD_VERSION,
    }


def describe_evaluation(evaluation: Evaluation | None, corpus: TokenizedCorpus) -> dict[str, Any]:
    """Columns of the final loss; empty for a run without one."""
    if evaluation is None:
        names = ("loss_nats", "loss_se_iid", "loss_se_document", "bits_per_byte")
        return {**dict.fromkeys(names), "n_validation_tokens": None}
    return {
        "loss_nats": evaluation.loss_nats,
        "loss_se_iid": evaluation.loss_se_iid,
        "loss_se_document": evaluation.loss_se_document,
        "bits_per_byte": bits_per_byte(evaluation, corpus.n_validation_bytes),
        "n_validation_tokens": evaluation.n_tokens,
    }


def describe_noise(sums: NoiseSums, spec: RunSpec, n_microbatches: int) -> dict[str, Any]:
    """Columns of the gradient noise scale; empty where a batch is one microbatch."""
    found = NoiseScale(None, None)
    if n_microbatches > 1:
        found = noise_scale(sums, spec.batch_tokens // n_microbatches, spec.batch_tokens)
    return {"noise_scale_tokens": found.tokens, "noise_scale_se": found.se}
