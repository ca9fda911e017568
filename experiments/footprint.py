"""What a run takes in memory and on disk, from its shapes alone. No jax in this module.

Coefficients of memory are those of XLA's own count for the compiled step; those of the disk are
lengths of what train.records and safetensors write. Tests compare both with a run.
"""

from model.accounting import count_params
from train.config import RunSpec
from train.curve import n_points
from train.parts import EVALUATION_TOKENS, microbatches

FLOAT = 4
"""Bytes of a float32."""

PER_WIDTH, PER_FF, PER_SCORE, PER_LOGIT = 11, 2, 1.3, 2
"""Floats kept a token until the backward pass: of a layer by its width, its d_ff and the scores of
its heads, and of the logits. Within 20% of XLA's count from 1x16 to 6x128, contexts 64 to 512."""

POINT_BYTES, RECORD_BYTES, EVALUATION_BYTES = 196, 2_200, 350
"""Of a line of the curve, of run.json, of an evaluation before its losses by position."""

POSITION_BYTES, MAX_POSITIONS = 44, 128
"""Of one position of an evaluation: its edge, loss and error. Longer windows have bins."""

TENSOR_BYTES, HEAD_BYTES = 90, 1_000
"""Of an array's entry in the head of a safetensors file, and of the spec in it."""

CHECKPOINT_FILE_BYTES = 700
"""Of an array in a checkpoint, beside its values: Orbax's own files."""

MOMENTS = {"adamw": 2, "sgd": 1, "muon": 2, "custom": 2}
"""Arrays of the weights' shape that an optimizer keeps; of a user's own as many are assumed."""


def state_bytes(spec: RunSpec) -> int:
    """Weights, moments, and the average of weights if there is one."""
    n_copies = 1 + MOMENTS[spec.optimizer.kind] + (spec.ema_decay is not None)
    return FLOAT * count_params(spec.model).total * n_copies


def training_bytes(spec: RunSpec, platform: str) -> int:
    """State, gradients, and what a microbatch keeps for its backward pass."""
    cfg = spec.model
    n_parts = microbatches(cfg.seq_len, spec.batch_size, platform)
    kept = cfg.n_layers * (
        PER_WIDTH * cfg.d_model + PER_FF * cfg.d_ff + PER_SCORE * cfg.n_heads * cfg.seq_len
    )
    per_token = kept + PER_LOGIT * cfg.vocab_size
    gradients = FLOAT * count_params(cfg).total * 2
    return round(state_bytes(spec) + gradients + FLOAT * per_token * spec.batch_tokens / n_parts)


def evaluation_bytes(spec: RunSpec) -> int:
    """State, and the largest arrays of a forward pass."""
    cfg = spec.model
    scores = cfg.n_heads * cfg.seq_len + 4 * cfg.d_model
    per_token = max(cfg.vocab_size + cfg.d_model, scores)
    return state_bytes(spec) + FLOAT * EVALUATION_TOKENS * per_token


def device_bytes(spec: RunSpec, platform: str) -> int:
    """Arrays of a run on its device at their peak, in training or in its evaluation.

    Not in it: the process, which takes about 250 MB on a CPU, and rows of other runs.
    """
    return max(training_bytes(spec, platform), evaluation_bytes(spec))


def disk_bytes(spec: RunSpec) -> int:
    """What a finished run leaves: record (in two places, one file), curve, evaluation, weights."""
    positions = min(spec.model.seq_len, MAX_POSITIONS)
    weights = FLOAT * count_params(spec.model).total + HEAD_BYTES + TENSOR_BYTES * _n_arrays(spec)
    evaluation = EVALUATION_BYTES + POSITION_BYTES * positions
    return RECORD_BYTES + POINT_BYTES * n_points(spec.n_steps) + evaluation + weights


def checkpoint_bytes(spec: RunSpec) -> int:
    """A state on disk while a run is under way, or at a branch point: at its last step."""
    history = 3 * FLOAT * spec.n_steps
    n_arrays = _n_arrays(spec) * (1 + MOMENTS[spec.optimizer.kind])
    return state_bytes(spec) + history + CHECKPOINT_FILE_BYTES * n_arrays


def _n_arrays(spec: RunSpec) -> int:
    """Weight arrays of a model: about eight a layer."""
    cfg = spec.model
    return 8 * cfg.n_layers + 4 + (cfg.n_layers * 6 if cfg.bias else 0)
