"""What the compiled step is fed: the batches, learning rates and averaging rates of a dispatch."""

from dataclasses import dataclass

import numpy as np

from train import stopping
from train.config import RunSpec, SpecError
from train.data.batches import gather, n_windows, window_ids
from train.data.corpora import TokenizedCorpus
from train.schedule import averaging_rates, learning_rates

STEPS_PER_DISPATCH = 16
"""Optimizer steps in one call of the compiled step: dispatch costs little, progress stays fresh."""


@dataclass(frozen=True)
class Windows:
    """The training windows that a spec may see."""

    total: int
    unique: int


def training_windows(spec: RunSpec, corpus: TokenizedCorpus) -> Windows:
    """How many windows the spec has on this corpus.

    Raises: SpecError: the corpus is not the one the spec names, or is too small for it.
    """
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
    if spec.early_stopping is not None:
        stopping.looked_at(spec.early_stopping, corpus)
    total = n_windows(len(corpus.train_tokens), spec.model.seq_len)
    wanted = data.n_tokens_unique
    unique = total if wanted is None else wanted // spec.model.seq_len
    if not 0 < unique <= total:
        raise SpecError(
            f"data.n_tokens_unique={wanted} is {unique} windows of {spec.model.seq_len} tokens; "
            f"{corpus.name} has {total}; use {spec.model.seq_len} to {total * spec.model.seq_len}"
        )
    return Windows(total, unique)


def next_inputs(
    spec: RunSpec, corpus: TokenizedCorpus, windows: Windows, step: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.float32 | None]:
    """Windows [K, B, T + 1], learning rates [K], averaging rates [K] and z-loss from a step on.

    The last two are None for a spec that does without.
    """
    steps = np.arange(step, step + STEPS_PER_DISPATCH)
    ids = window_ids(
        steps,
        batch_size=spec.batch_size,
        n_windows=windows.total,
        n_windows_unique=windows.unique,
        seed=spec.seed_data,
    )
    return (
        gather(corpus.train_tokens, ids, spec.model.seq_len),
        learning_rates(spec, steps),
        None if spec.ema_decay is None else averaging_rates(spec.ema_decay, steps),
        np.float32(spec.z_loss) if spec.z_loss else None,
    )
