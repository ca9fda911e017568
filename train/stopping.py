"""Early stopping: keep the weights of lowest validation loss, end a run that finds none lower.

Looks happen between dispatches, on the host: the compiled step and the weights up to the stop are
those of the same run without early stopping. The result is the minimum over looks at the text that
it is then reported on, as there is no third split, and so slightly optimistic: by about the noise
that differs from look to look, which is small, since all looks score the same tokens.
"""

import math
from dataclasses import dataclass

import jax
import numpy as np

from model.config import ModelConfig
from model.functional import Params
from train.checkpoint import load_weights, save_weights
from train.config import EarlyStopping, RunSpec, SpecError
from train.data.corpora import TokenizedCorpus
from train.evaluate import WHOLE_SPLIT, evaluate, evaluation_row
from train.placement import Placement
from train.records import Attempt, add_evaluations


@dataclass(frozen=True)
class Looks:
    """What looks at the validation loss have found so far; part of every checkpoint.

    `best_step` is 0 and `best_loss_nats` None before any look with a finite loss.
    """

    best_step: int = 0
    best_loss_nats: float | None = None
    n_since_best: int = 0


def is_due(spec: RunSpec, step: int) -> bool:
    """Whether there is a look at the weights after `step` steps."""
    rule = spec.early_stopping
    return rule is not None and (step % rule.every_steps == 0 or step == spec.n_steps)


def steps_until_due(spec: RunSpec, step: int) -> int:
    """Steps from `step` to the next look, or to the end of a run without any."""
    left = spec.n_steps - step
    rule = spec.early_stopping
    return left if rule is None else min(left, rule.every_steps - step % rule.every_steps)


def count(looks: Looks, step: int, loss_nats: float) -> Looks:
    """Count one more look; a loss that is not finite, or equal to the lowest, is no new lowest."""
    lowest = math.inf if looks.best_loss_nats is None else looks.best_loss_nats
    if loss_nats < lowest:
        return Looks(step, loss_nats, 0)
    return Looks(looks.best_step, looks.best_loss_nats, looks.n_since_best + 1)


def is_over(spec: RunSpec, looks: Looks) -> bool:
    """Whether patience has run out."""
    rule = spec.early_stopping
    return rule is not None and looks.n_since_best >= rule.patience


def look(
    spec: RunSpec,
    corpus: TokenizedCorpus,
    attempt: Attempt,
    placement: Placement,
    params: Params,
    step: int,
    looks: Looks,
    best: Params | None,
) -> tuple[Looks, Params | None]:
    """Score the weights after `step` steps and record it; returns the best ones so far."""
    assert spec.early_stopping is not None
    tokens, documents, split = looked_at(spec.early_stopping, corpus)
    found = evaluate(
        spec.model, params, tokens, documents, placement.kernels(spec), spec.parametrization,
        placement.arrangement,
    )  # fmt: skip
    about = {"run_id": spec.run_id, "attempt": attempt.number, "step": step, "is_result": False}
    add_evaluations(attempt, [evaluation_row(found, corpus, split, **about)])
    looks = count(looks, step, found.loss_nats)
    return looks, _copied(placement.on_host(params)) if looks.best_step == step else best


def looked_at(rule: EarlyStopping, corpus: TokenizedCorpus) -> tuple[np.ndarray, np.ndarray, str]:
    """Tokens, document starts and the record's name of the part of a split that looks score.

    Raises: SpecError: the split is shorter than the part asked for.
    """
    tokens, documents = corpus.validation_tokens, corpus.validation_documents
    n = rule.n_tokens
    if n is None:
        return tokens, documents, WHOLE_SPLIT
    if n > len(tokens):
        raise SpecError(
            f"early_stopping.n_tokens={n} but the validation split of {corpus.name} has "
            f"{len(tokens)} tokens; use fewer, or none for the whole split"
        )
    return tokens[:n], documents[documents < n], f"{WHOLE_SPLIT}[:{n}]"


def save_best(attempt: Attempt, looks: Looks, best: Params | None) -> None:
    """Put the best weights beside an attempt's checkpoint, before the one that speaks of them."""
    if best is None:
        return
    path = _path(attempt, looks)
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        save_weights(path, best, {})


def remove_others(attempt: Attempt, looks: Looks) -> None:
    """Remove best weights that the newest checkpoint does not speak of."""
    for path in attempt.checkpoint_dir.glob("best-*.safetensors"):
        if path != _path(attempt, looks):
            path.unlink()


def load_best(attempt: Attempt, looks: Looks, cfg: ModelConfig) -> Params | None:
    """The best weights of a checkpoint.

    Raises: RecordError: their file is missing or damaged.
    """
    return load_weights(_path(attempt, looks), cfg) if looks.best_step else None


def best_file(looks: Looks) -> str:
    """Where in an attempt's folder its best weights lie."""
    return f"checkpoint/best-{looks.best_step}.safetensors"


def _path(attempt: Attempt, looks: Looks):
    return attempt.directory / best_file(looks)


def _copied(params: Params) -> Params:
    """On the host: the arrays of a state are gone once it is donated to the next step."""
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), params)
