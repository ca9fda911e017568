"""RunSpec: everything that decides the outcome of one training run, and nothing else.

A spec is a tree of frozen dataclasses, JSON both ways. `run_id` hashes its identity: two specs that
would train the same weights share an id, whatever form their budget was given in. Executor, device
and packing are provenance; they live in the record, never here. No jax in this module.
"""

import dataclasses
import functools
import hashlib
import json
import math
import operator
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from model import custom
from model.accounting import FlopsConvention, train_flops_per_token
from model.config import ModelConfig

T = TypeVar("T")
SCHEMA_VERSION = 1
"""Of the identity JSON. A new field enters by ADDED; stored ids are never recomputed."""

ADDED: dict[str, Any] = {
    "model.bias": False,
    "model.n_kv_heads": None,
    "model.qk_norm": False,
    "model.logit_softcap": None,
    "model.block": None,
    "model.attention": None,
    "model.mlp": None,
    "optimizer.momentum": 0.9,
    "optimizer.custom": None,
    "ema_decay": None,
    "z_loss": 0.0,
    "early_stopping": None,
    "loss": None,
}
"""Fields that came after the first stored id, by dotted path, each with the value that means what
was done before there was such a field. Holding it, a field is left out of the identity. It must be
the field's default, which is what an identity without the field is read back with."""

_UNREAD = {"adamw": ("momentum",), "sgd": ("beta1", "beta2", "eps"), "muon": (), "custom": ()}


class SpecError(ValueError):
    """A spec, plan or flag that cannot be run; the message names field, value and remedy."""


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise SpecError(message)


@dataclass(frozen=True)
class DataConfig:
    """Which tokens: corpus and tokenizer by content hash, the split rule, the unique budget.

    `n_tokens_unique` limits the run to that many distinct training tokens (then they repeat);
    None means the whole training split.
    """

    corpus: str
    corpus_hash: str
    tokenizer: str
    tokenizer_hash: str
    split_rule: str
    n_tokens_unique: int | None = None

    def __post_init__(self) -> None:
        unique = self.n_tokens_unique
        _require(
            unique is None or unique > 0,
            f"data.n_tokens_unique={unique} must be positive; use none for the whole split",
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer by kind, after clipping by global norm (see train.optimizer).

    adamw reads beta1, beta2, eps; sgd reads momentum; muon reads momentum for the matrices of the
    blocks and the other three for the rest; custom hands all to the user's function that `custom`
    refers to (model.custom). Fields that a kind does not read are no part of a
    run's identity. Decay acts on weight matrices only and is multiplied by the learning rate.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    kind: Literal["adamw", "sgd", "muon", "custom"] = "adamw"
    momentum: float = 0.9
    custom: str | None = None

    def __post_init__(self) -> None:
        _require(0 < self.lr < math.inf, f"optimizer.lr={self.lr} must be positive and finite")
        for name in ("beta1", "beta2", "momentum"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"optimizer.{name}={value} must be in [0, 1)")
        for name in ("eps", "clip_norm"):
            value = getattr(self, name)
            _require(0 < value < math.inf, f"optimizer.{name}={value} must be positive and finite")
        decay = self.weight_decay
        _require(
            0 <= decay < math.inf, f"optimizer.weight_decay={decay} must be finite, at least 0"
        )
        _require(
            (self.custom is not None) == (self.kind == "custom"),
            f"optimizer.custom={self.custom} with optimizer.kind={self.kind}: give the reference "
            "of a function for kind custom and for no other",
        )
        if self.custom is not None:
            custom.parse("optimizer.custom", self.custom)


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over steps: linear warm-up, then the named form (see train.schedule).

    `decay_steps` belongs to wsd alone: the length of its final cooldown. inverse_sqrt falls from
    the end of the warm-up, which it cannot do without.
    """

    kind: Literal["constant", "cosine", "linear", "wsd", "inverse_sqrt"] = "linear"
    warmup_steps: int = 0
    decay_steps: int | None = None
    final_lr_fraction: float = 0.0

    def __post_init__(self) -> None:
        warmup = self.warmup_steps
        _require(warmup >= 0, f"schedule.warmup_steps={warmup} must not be negative")
        _require(
            warmup > 0 or self.kind != "inverse_sqrt",
            "schedule.warmup_steps=0 with schedule.kind=inverse_sqrt, whose decay is measured in "
            "warm-ups; give at least 1",
        )
        _require(
            (self.decay_steps is not None) == (self.kind == "wsd"),
            f"schedule.decay_steps={self.decay_steps} with schedule.kind={self.kind}: "
            "give decay_steps for wsd and for no other kind",
        )
        _require(
            self.decay_steps is None or self.decay_steps > 0,
            f"schedule.decay_steps={self.decay_steps} must be positive",
        )
        fraction = self.final_lr_fraction
        _require(0 <= fraction <= 1, f"schedule.final_lr_fraction={fraction} must be in [0, 1]")


@dataclass(frozen=True)
class Budget:
    """How long to train: exactly one of steps, tokens or FLOPs; the others are derived.

    Tokens and FLOPs are rounded to the nearest whole step, at least one.
    """

    steps: int | None = None
    tokens: int | None = None
    flops: float | None = None
    flops_convention: FlopsConvention = "matmul_full"

    def __post_init__(self) -> None:
        given = {k: getattr(self, k) for k in ("steps", "tokens", "flops")}
        given = {k: v for k, v in given.items() if v is not None}
        _require(
            len(given) == 1, f"budget gives {given or 'nothing'}; give one of steps, tokens, flops"
        )
        name, value = next(iter(given.items()))
        _require(0 < value < math.inf, f"budget.{name}={value} must be positive and finite")


@dataclass(frozen=True)
class EarlyStopping:
    """Keep the weights of lowest validation loss, and end the run when none lower come.

    The loss is looked at every `every_steps` steps and at the last one; the run ends once
    `patience` looks in a row brought no new lowest. `n_tokens` limits the looks (not the final
    loss) to the first tokens of the validation split; None takes all of it.

    Source: Kaplan et al. 2020, arXiv:2001.08361, section 4.2 (early-stopped test loss).
    """

    every_steps: int
    patience: int
    n_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("every_steps", "patience"):
            value = getattr(self, name)
            _require(value > 0, f"early_stopping.{name}={value} must be positive")


@dataclass(frozen=True)
class RunSpec:
    """One training run, completely. `batch_size` is in sequences of model.seq_len tokens.

    `dtype`: of activations and products; weights, moments, norms, softmax, loss and all sums of
    gradients are float32 either way.
    `ema_decay`: if given, the weights that are evaluated and saved are the exponential moving
    average of the trained ones with this decay a step (train.step). `z_loss`: coefficient of the
    mean square of log Z, added to the loss that is trained on (train.loss), not to the final one.
    `early_stopping`: if given, the run may end before its budget, and its result are its best
    weights (train.stopping).
    `loss`: a user's function that is trained on in place of the mean cross-entropy, as a reference
    of model.custom; runs are evaluated by the plain cross-entropy all the same.
    """

    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig
    budget: Budget
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    batch_size: int = 8
    seed_init: int = 0
    seed_data: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"
    parametrization: Literal["standard", "mup"] = "standard"
    ema_decay: float | None = None
    z_loss: float = 0.0
    early_stopping: EarlyStopping | None = None
    loss: str | None = None

    def __post_init__(self) -> None:
        _require(self.batch_size > 0, f"batch_size={self.batch_size} must be positive")
        for name in ("seed_init", "seed_data"):
            value = getattr(self, name)
            _require(0 <= value < 2**32, f"{name}={value} must be in [0, 2**32)")
        decay = self.ema_decay
        _require(
            decay is None or 0 < decay < 1,
            f"ema_decay={decay} must be in (0, 1); use none to keep the last weights",
        )
        _require(0 <= self.z_loss < math.inf, f"z_loss={self.z_loss} must be finite, at least 0")
        kind = self.optimizer.kind
        _require(
            self.parametrization == "standard" or kind == "adamw",
            f"parametrization={self.parametrization} with optimizer.kind={kind}: its multipliers "
            "are those of Adam; use adamw, or standard",
        )
        looked_at = self.early_stopping.n_tokens if self.early_stopping else None
        _require(
            looked_at is None or looked_at > self.model.seq_len,
            f"early_stopping.n_tokens={looked_at} is less than one window of "
            f"model.seq_len={self.model.seq_len} + 1; use more, or none for the whole split",
        )
        if self.loss is not None:
            custom.parse("loss", self.loss)
            _require(
                self.z_loss == 0, f"z_loss={self.z_loss} beside loss; put the term into the loss"
            )
        _require(
            self.parametrization == "standard" or not self.ideas,
            f"parametrization={self.parametrization} with {self.idea}: how width enters a part "
            "that is not ours is not known; use standard",
        )
        _require(
            self.dtype == "float32" or not self.ideas,
            f"dtype={self.dtype} with {self.idea}: a part that is not ours may mix types; use "
            "float32",
        )
        used = self.schedule.warmup_steps + (self.schedule.decay_steps or 0)
        _require(
            used <= self.n_steps,
            f"schedule: warm-up and cooldown take {used} steps but the budget has {self.n_steps}; "
            "shorten them or raise the budget",
        )

    @property
    def batch_tokens(self) -> int:
        """Target tokens per step."""
        return self.batch_size * self.model.seq_len

    @property
    def n_steps(self) -> int:
        """Optimizer steps of the whole run."""
        budget = self.budget
        if budget.steps is not None:
            return budget.steps
        tokens = budget.tokens
        if tokens is None:
            assert budget.flops is not None
            tokens = budget.flops / train_flops_per_token(self.model, budget.flops_convention)
        return max(1, round(tokens / self.batch_tokens))

    @property
    def n_tokens(self) -> int:
        """D: target tokens seen in training, repeats counted."""
        return self.n_steps * self.batch_tokens

    @property
    def compile_key(self) -> tuple[Any, ...]:
        """What the compiled step depends on: runs that share it share one executable."""
        return (
            self.model,
            self.batch_size,
            self.optimizer.kind,
            self.parametrization,
            self.dtype,
            self.ema_decay is not None,
            self.z_loss > 0,
            self.optimizer.custom,
            self.loss,
        )

    @property
    def ideas(self) -> dict[str, str]:
        """References of all that is a user's own, by slot: block, attention, mlp, loss, ..."""
        given = {"loss": self.loss, "optimizer": self.optimizer.custom}
        return {**self.model.parts, **{k: v for k, v in given.items() if v is not None}}

    @property
    def idea(self) -> str | None:
        """The ideas in one line, such as `block=my_idea.py:Block@<12 digits>`; None without."""
        short = (f"{k}={custom.parse(k, v).short}" for k, v in self.ideas.items())
        return ";".join(short) or None

    @functools.cached_property
    def run_id(self) -> str:
        """16 hex digits of the SHA-256 of the canonical identity JSON."""
        return hashlib.sha256(canonical_json(self.identity()).encode()).hexdigest()[:16]

    def identity(self) -> dict[str, Any]:
        """What run_id hashes: the spec as JSON values, the budget as the steps it comes to.

        Left out: fields of ADDED at their old value, and what the optimizer's kind does not read.
        """
        values = to_json(self)
        values["budget"] = {"steps": self.n_steps}
        for name in _UNREAD[self.optimizer.kind]:
            del values["optimizer"][name]
        return {"schema_version": SCHEMA_VERSION, **without_added(values)}


def without_added(values: dict[str, Any]) -> dict[str, Any]:
    """A spec's JSON values less the fields of ADDED at their old value; changes the argument."""
    for path, old in ADDED.items():
        *groups, name = path.split(".")
        group = functools.reduce(operator.getitem, groups, values)
        if name in group and group[name] == old:
            del group[name]
    return values


def canonical_json(value: Any) -> str:
    """The one text of a JSON value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def to_json(spec: Any) -> dict[str, Any]:
    """A config dataclass as JSON values, numbers in the type that their field declares."""
    hints = typing.get_type_hints(type(spec))
    values = {}
    for f in dataclasses.fields(spec):
        value = getattr(spec, f.name)
        if dataclasses.is_dataclass(value):
            value = to_json(value)
        elif value is not None and float in _options(hints[f.name]):
            value = float(value)
        values[f.name] = value
    return values


def from_json(cls: type[T], values: Any, path: str = "spec") -> T:
    """Rebuild a config dataclass from to_json's values.

    Raises: SpecError: an unknown, missing or wrongly typed field, by its dotted path.
    """
    _require(isinstance(values, dict), f"{path}={values!r} must be an object of fields")
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    _require(not unknown, f"{path} has unknown fields {unknown}; known are {sorted(known)}")
    hints = typing.get_type_hints(cls)
    decoded = {k: _decode(hints[k], v, f"{path}.{k}") for k, v in values.items()}
    missing = [
        name
        for name, f in known.items()
        if name not in decoded
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    _require(not missing, f"{path} lacks the fields {missing}")
    return cls(**decoded)


def _options(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _decode(hint: Any, value: Any, path: str) -> Any:
    # Plain types first: null of an optional group is None, not a group without fields.
    for option in sorted(_options(hint), key=dataclasses.is_dataclass):
        if dataclasses.is_dataclass(option):
            return from_json(typing.cast(type, option), value, path)
        if typing.get_origin(option) is Literal and value in typing.get_args(option):
            return value
        if option is float and type(value) in (int, float):
            return float(value)
        if option in (int, str, bool, type(None)) and type(value) is option:
            return value
    raise SpecError(f"{path}={value!r} is not of type {hint}")
