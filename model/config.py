"""What a model is: sizes and options, validated once, free of jax."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from model import custom

Position = Literal["learned", "rotary", "none"]
Norm = Literal["layernorm", "rmsnorm"]
Activation = Literal["gelu", "relu2", "swiglu"]

_SIZES = ("n_layers", "d_model", "n_heads", "d_head", "d_ff", "vocab_size", "seq_len")
_OPTIONS = {"position": Position, "norm": Norm, "activation": Activation}
_SWITCHES = ("tied_head", "bias", "qk_norm")
PARTS = ("block", "attention", "mlp")
"""Slots of a model that a user's own module may take (model.custom)."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and options of a decoder-only transformer.

    The heads need not tile the model: `n_heads * d_head` may differ from `d_model`.

    Args:
        seq_len: context length in tokens, and the number of learned positions.
        d_ff: hidden width of the MLP; with swiglu, the width of the gate and of the value each.
        position: with none, the causal mask alone tells positions apart, from the second layer on.
        tied_head: whether the token embedding is also the output head.
        bias: whether the blocks' matrices and all norms have a bias, as in GPT-2; never the head.
        n_kv_heads: heads of keys and of values, each shared by n_heads / n_kv_heads queries
            (grouped-query attention); None, and as many as n_heads, mean one each.
        qk_norm: whether queries and keys are normalized over d_head before their product.
        logit_softcap: logits are bent into (-cap, cap) by cap tanh(logits / cap); None for not.
        block, attention, mlp: a module of a user's file in place of ours, as a reference of
            model.custom; None for ours. A block holds its own attention and MLP.

    Raises:
        ValueError: a size is no positive int, an option is unknown, n_kv_heads does not divide
            n_heads, logit_softcap is not positive, d_head is odd with rotary, or a part is no
            reference or stands beside a block.
    Source: Ainslie et al. 2023, arXiv:2305.13245 (grouped queries); Henry et al. 2020,
        arXiv:2010.04245, and Dehghani et al. 2023, arXiv:2302.05442, section 2 (query-key norm);
        Gemma Team 2024, arXiv:2408.00118, section 2 (soft cap); Haviv et al. 2022,
        arXiv:2203.16634 (no positions).
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_ff: int
    vocab_size: int
    seq_len: int
    position: Position = "learned"
    norm: Norm = "layernorm"
    activation: Activation = "gelu"
    tied_head: bool = True
    bias: bool = False
    n_kv_heads: int | None = None
    qk_norm: bool = False
    logit_softcap: float | None = None
    block: str | None = None
    attention: str | None = None
    mlp: str | None = None

    def __post_init__(self):
        for name in _SIZES:
            _check_size(name, getattr(self, name))
        for name, options in _OPTIONS.items():
            value, known = getattr(self, name), get_args(options)
            if value not in known:
                raise ValueError(f"{name}={value!r} is unknown; use one of {', '.join(known)}")
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} is no bool; use True or False")
        self._check_kv_heads()
        self._check_parts()
        cap = self.logit_softcap
        is_number = isinstance(cap, int | float) and not isinstance(cap, bool)
        if cap is not None and not (is_number and 0 < cap < math.inf):
            raise ValueError(
                f"logit_softcap={cap!r} is no finite number above 0; use None for none"
            )
        if self.position == "rotary" and self.d_head % 2:
            raise ValueError(
                f"d_head={self.d_head} is odd, but rotary positions turn pairs of features; "
                f"use d_head={self.d_head + 1} or position='learned'"
            )

    def _check_kv_heads(self) -> None:
        if self.n_kv_heads is None:
            return
        _check_size("n_kv_heads", self.n_kv_heads)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_kv_heads={self.n_kv_heads} does not divide n_heads={self.n_heads}; "
                "use a divisor, or None for one key head a query head"
            )
        if self.n_kv_heads == self.n_heads:
            # One model has one config, hence one run_id.
            object.__setattr__(self, "n_kv_heads", None)

    def _check_parts(self) -> None:
        for slot, reference in self.parts.items():
            custom.parse(f"model.{slot}", reference)
        if self.block is not None and len(self.parts) > 1:
            raise ValueError(
                f"model.block is given beside {', '.join(s for s in self.parts if s != 'block')}, "
                "but a block holds its own attention and MLP; give one or the other"
            )

    @property
    def parts(self) -> dict[str, str]:
        """References of the user's own modules by slot; empty for a model that is all ours."""
        given = {slot: getattr(self, slot) for slot in PARTS}
        return {slot: reference for slot, reference in given.items() if reference is not None}

    @property
    def d_attn(self) -> int:
        """Width of all heads side by side."""
        return self.n_heads * self.d_head

    @property
    def d_kv(self) -> int:
        """Width of all key heads side by side, and of all value heads."""
        return (self.n_kv_heads or self.n_heads) * self.d_head


def _check_size(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} is no size; use a Python int of at least 1")
