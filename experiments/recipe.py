"""A recipe turns a size into a whole model and its hyperparameters: a frozen, named set of rules.

Opinionated choices live here, each with its reason and range, and nowhere in a loop. A study varies
a recipe's fields by name; a plan records every one of them.
"""

import math
from dataclasses import dataclass
from typing import Literal

from model.accounting import count_params, train_flops_per_token
from model.config import Activation, ModelConfig, Norm, Position
from model.parametrization import BASE_WIDTH
from train.config import (
    Budget,
    DataConfig,
    EarlyStopping,
    OptimizerConfig,
    RunSpec,
    ScheduleConfig,
    SpecError,
)


@dataclass(frozen=True)
class Size:
    """A rung of a ladder: layers by width."""

    n_layers: int
    d_model: int

    def __str__(self) -> str:
        return f"{self.n_layers}x{self.d_model}"


@dataclass(frozen=True)
class Recipe:
    """Rules from (size, budget) to a run. Lengths are in tokens, fractions of the run's steps."""

    position: Position = "learned"
    norm: Norm = "layernorm"
    activation: Activation = "gelu"
    tied_head: bool = True
    d_head: int = 8
    """Width of a head. 8 gives even the narrowest rung two heads."""
    queries_per_key: int = 1
    """Query heads that share one key head and one value head; above 1, grouped-query attention."""
    bias: bool = False
    qk_norm: bool = False
    logit_softcap: float | None = None
    """Bound of the logits; Gemma 2 took 30."""
    seq_len: int = 64
    """Context length. Short, so that attention stays small beside the matrices."""
    batch_size: int = 8
    """Sequences a step, at `at_n_tokens` where the batch follows the tokens of the run."""
    batch_exponent: float = 0.0
    """Batch = batch_size (D / at_n_tokens)^this, to the nearest power of two of sequences; Li et
    al. 2025 found 0.571. A budget in steps keeps batch_size."""
    parametrization: Literal["standard", "mup"] = "standard"
    optimizer: Literal["adamw", "sgd", "muon"] = "adamw"
    """Rates by width are those of adamw; give --lr with the others."""
    momentum: float = 0.9
    """Of sgd and muon."""
    clip_norm: float = 1.0
    """Largest norm of the whole gradient."""
    lr: float | None = None
    """Peak learning rate of every size, at `at_n_params`, `at_n_tokens` and batch_size where it
    follows them; none: the rule by width of the next two."""
    lr_max: float = 0.03
    """Cap of the rule by width, for the narrowest rungs."""
    lr_times_d_model: float = 0.48
    """Peak learning rate = min(lr_max, this / d_model); with mup, that of width 32 for all."""
    lr_n_exponent: float = 0.0
    """The rate is multiplied by (N / at_n_params)^this; `tune` measures these three."""
    lr_d_exponent: float = 0.0
    """... and by (D / at_n_tokens)^this."""
    lr_b_exponent: float = 0.0
    """... and by (batch / batch_size)^this."""
    at_n_params: float = 1e4
    """Non-embedding parameters at which `lr` holds, if it follows N."""
    at_n_tokens: float = 1e6
    """Training tokens at which `lr` and `batch_size` hold, if they follow D."""
    weight_decay: float = 0.1
    beta2: float = 0.98
    warmup_fraction: float = 0.05
    """Share of the steps that warm up."""
    schedule: Literal["constant", "cosine", "linear", "wsd", "inverse_sqrt"] = "linear"
    """What follows the warm-up."""
    cooldown_fraction: float = 0.2
    """Share of the steps in which wsd decays."""
    final_lr_fraction: float = 0.0
    """Share of the peak rate that the decay ends at."""
    z_loss: float = 0.0
    """Coefficient of the mean square of log Z in the training loss; PaLM took 1e-4."""
    ema_half_life: float = 0.0
    """Half-life of the average of weights that is evaluated, as a share of the steps; 0: none."""
    early_stopping_steps: int | None = None
    """Steps between looks at the validation loss; the best weights are kept. None: no looks."""
    patience: int = 3
    """Looks without a new lowest loss after which a run that is looked at ends."""

    def model(self, size: Size, vocab_size: int) -> ModelConfig:
        """The model of a rung: d_ff = 4 d_model (8/3 when gated: the same parameters), full heads.

        Raises: SpecError: the width is not a whole number of heads, or of groups of heads.
        """
        if size.d_model % self.d_head:
            raise SpecError(
                f"d_model={size.d_model} is not divisible by recipe.d_head={self.d_head}; "
                "choose a d_head that divides every width of the ladder"
            )
        n_heads = size.d_model // self.d_head
        if self.queries_per_key < 1 or n_heads % self.queries_per_key:
            raise SpecError(
                f"recipe.queries_per_key={self.queries_per_key} does not divide the {n_heads} "
                f"heads of d_model={size.d_model}; choose one that divides every rung's heads"
            )
        gated = self.activation == "swiglu"
        return ModelConfig(
            n_layers=size.n_layers,
            d_model=size.d_model,
            n_heads=n_heads,
            d_head=self.d_head,
            d_ff=round(8 * size.d_model / 3) if gated else 4 * size.d_model,
            vocab_size=vocab_size,
            seq_len=self.seq_len,
            position=self.position,
            norm=self.norm,
            activation=self.activation,
            tied_head=self.tied_head,
            bias=self.bias,
            n_kv_heads=n_heads // self.queries_per_key,
            qk_norm=self.qk_norm,
            logit_softcap=self.logit_softcap,
        )

    def spec(self, model: ModelConfig, data: DataConfig, budget: Budget, *, seed: int) -> RunSpec:
        """The run of a model under a budget; `seed` sets initialisation and data order alike."""
        batch_size = self._batch_size(model, budget)
        n_steps = RunSpec(
            model, data, OptimizerConfig(lr=1.0), budget, batch_size=batch_size
        ).n_steps  # fmt: skip
        optimizer = OptimizerConfig(
            lr=self.peak_lr(model, n_steps * batch_size * self.seq_len, batch_size),
            beta2=self.beta2,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            kind=self.optimizer,
            momentum=self.momentum,
        )
        half_life = self.ema_half_life * n_steps
        return RunSpec(
            model, data, optimizer, Budget(steps=n_steps),
            schedule=self._schedule(n_steps),
            batch_size=batch_size, seed_init=seed, seed_data=seed,
            parametrization=self.parametrization,
            ema_decay=0.5 ** (1 / half_life) if half_life else None,
            z_loss=self.z_loss, early_stopping=self._early_stopping(),
        )  # fmt: skip

    def peak_lr(self, model: ModelConfig, n_tokens: float, batch_size: int) -> float:
        """The rule's learning rate of a model trained on `n_tokens` tokens."""
        width = BASE_WIDTH if self.parametrization == "mup" else model.d_model
        base = min(self.lr_max, self.lr_times_d_model / width) if self.lr is None else self.lr
        return (
            base
            * (count_params(model).non_embedding / self.at_n_params) ** self.lr_n_exponent
            * (n_tokens / self.at_n_tokens) ** self.lr_d_exponent
            * (batch_size / self.batch_size) ** self.lr_b_exponent
        )

    def _batch_size(self, model: ModelConfig, budget: Budget) -> int:
        n_tokens = budget.tokens
        if budget.flops is not None:
            n_tokens = budget.flops / train_flops_per_token(model, budget.flops_convention)
        if n_tokens is None or not self.batch_exponent:
            return self.batch_size
        wanted = self.batch_size * (n_tokens / self.at_n_tokens) ** self.batch_exponent
        return 2 ** max(0, round(math.log2(wanted)))

    def _early_stopping(self) -> EarlyStopping | None:
        steps = self.early_stopping_steps
        return None if steps is None else EarlyStopping(steps, self.patience)

    def _schedule(self, n_steps: int) -> ScheduleConfig:
        is_wsd = self.schedule == "wsd"
        return ScheduleConfig(
            self.schedule,
            warmup_steps=round(self.warmup_fraction * n_steps),
            decay_steps=max(1, round(self.cooldown_fraction * n_steps)) if is_wsd else None,
            final_lr_fraction=self.final_lr_fraction,
        )
