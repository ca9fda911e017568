"""What a model is: sizes and options, validated once, free of jax."""

from dataclasses import dataclass
from typing import Literal, get_args

Position = Literal["learned", "rotary"]
Norm = Literal["layernorm", "rmsnorm"]
Activation = Literal["gelu", "swiglu"]

_SIZES = ("n_layers", "d_model", "n_heads", "d_head", "d_ff", "vocab_size", "seq_len")
_OPTIONS = {"position": Position, "norm": Norm, "activation": Activation}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and options of a decoder-only transformer without biases.

    The heads need not tile the model: `n_heads * d_head` may differ from `d_model`.

    Args:
        seq_len: context length in tokens, and the number of learned positions.
        d_ff: hidden width of the MLP; with swiglu, the width of the gate and of the value each.
        tied_head: whether the token embedding is also the output head.

    Raises:
        ValueError: a size is no positive int, an option is unknown, or d_head is odd with rotary.
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

    def __post_init__(self):
        for name in _SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r} is no size; use a Python int of at least 1")
        for name, options in _OPTIONS.items():
            value, known = getattr(self, name), get_args(options)
            if value not in known:
                raise ValueError(f"{name}={value!r} is unknown; use one of {', '.join(known)}")
        if not isinstance(self.tied_head, bool):
            raise ValueError(f"tied_head={self.tied_head!r} is no bool; use True or False")
        if self.position == "rotary" and self.d_head % 2:
            raise ValueError(
                f"d_head={self.d_head} is odd, but rotary positions turn pairs of features; "
                f"use d_head={self.d_head + 1} or position='learned'"
            )

    @property
    def d_attn(self) -> int:
        """Width of all heads side by side."""
        return self.n_heads * self.d_head
