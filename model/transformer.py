"""The transformer: pre-norm, decoder-only.

Array names end in their axes: B batch, T position, S key position, D d_model, H heads, K d_head,
F d_ff, V vocabulary, N = B * T tokens in one row. Modules declare each parameter by shape only;
`model.functional` gives them their values. Products, norms, attention and look-ups come in as
`Kernels`, so every device runs the same modules. A user's own block, attention or MLP
(model.custom) takes the place of ours.

Source: Vaswani et al. 2017, arXiv:1706.03762; pre-norm and learned positions as in GPT-2, Radford
    et al. 2019, section 2.3.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from model import custom
from model.caching import Past
from model.config import ModelConfig
from model.kernels import Kernels, soft_cap
from model.parametrization import UNSCALED, Multipliers


def _declare(*shape: int) -> nnx.Param:
    return nnx.Param(jnp.zeros(shape, jnp.float32))


def _declare_bias(cfg: ModelConfig, width: int) -> nnx.Param | None:
    return _declare(width) if cfg.bias else None


def _rows(x: jax.Array) -> jax.Array:
    """One row a token. XLA:CPU computes element by element faster on two axes than on three."""
    return x.reshape(-1, x.shape[-1])


def _plus(bias: nnx.Param | None, y: jax.Array) -> jax.Array:
    if bias is None:
        return y
    return y + jnp.expand_dims(bias[...], range(y.ndim - 1)).astype(y.dtype)


def _scaled(x: jax.Array, factor: float) -> jax.Array:
    # A factor of one leaves no operation behind.
    return x if factor == 1 else factor * x


def rotate(x_BTHK: jax.Array, past: Past | None = None) -> jax.Array:
    """Turn each pair of features (k, k + d_head / 2) by an angle proportional to the position.

    The product of a turned query and a turned key depends on their distance alone.

    Args: past: has the positions; without one they count from 0.
    Source: Su et al. 2021 (RoPE), arXiv:2104.09864, eq. 15 and section 3.3, base 10,000.
    """
    _, seq_len, _, d_head = x_BTHK.shape
    frequencies = 10_000.0 ** (-np.arange(0, d_head, 2) / d_head)
    angles_TK = np.arange(past.capacity if past else seq_len)[:, None] * frequencies[None, :]
    wide = jnp.float32 if x_BTHK.dtype == jnp.bfloat16 else x_BTHK.dtype
    cos = jnp.asarray(np.cos(angles_TK)[None, :, None, :], wide)
    sin = jnp.asarray(np.sin(angles_TK)[None, :, None, :], wide)
    if past:
        cos, sin = cos[0, past.places_BT], sin[0, past.places_BT]
    a, b = jnp.split(x_BTHK.astype(wide), 2, axis=-1)
    turned_BTHK = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return turned_BTHK.astype(x_BTHK.dtype)


class Norm(nnx.Module):
    """LayerNorm or RMSNorm over d_model, with a gain and, if asked for, a bias.

    Source: Ba et al. 2016, arXiv:1607.06450; Zhang and Sennrich 2019, arXiv:1910.07467.
    """

    def __init__(self, cfg: ModelConfig, kernels: Kernels):
        self.gain = _declare(cfg.d_model)
        self.bias = _declare_bias(cfg, cfg.d_model)
        self.normalize = kernels.layernorm if cfg.norm == "layernorm" else kernels.rmsnorm

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        return _plus(self.bias, self.normalize(x_BTD, self.gain[...]))


class HeadNorm(nnx.Module):
    """RMSNorm of each head's query or key, with a gain that the heads share.

    Source: Dehghani et al. 2023, arXiv:2302.05442, section 2, whose norm is LayerNorm.
    """

    def __init__(self, cfg: ModelConfig, kernels: Kernels):
        self.gain = _declare(cfg.d_head)
        self.normalize = kernels.rmsnorm

    def __call__(self, x_BTHK: jax.Array) -> jax.Array:
        B, T, H, K = x_BTHK.shape
        return self.normalize(x_BTHK.reshape(B, T * H, K), self.gain[...]).reshape(B, T, H, K)


class Attention(nnx.Module):
    """Causal multi-head self-attention; n_heads / n_kv_heads queries share a key and a value."""

    def __init__(self, cfg: ModelConfig, kernels: Kernels, multipliers: Multipliers = UNSCALED):
        self.cfg = cfg
        self.query_scale = multipliers.query
        self.dense, self.attend = kernels.dense, kernels.attention
        self.qkv = _declare(cfg.d_model, cfg.d_attn + 2 * cfg.d_kv)
        self.qkv_bias = _declare_bias(cfg, cfg.d_attn + 2 * cfg.d_kv)
        self.out = _declare(cfg.d_attn, cfg.d_model)
        self.out_bias = _declare_bias(cfg, cfg.d_model)
        if cfg.qk_norm:
            self.q_norm, self.k_norm = HeadNorm(cfg, kernels), HeadNorm(cfg, kernels)

    def __call__(self, x_BTD: jax.Array, past: Past | None = None) -> jax.Array:
        cfg = self.cfg
        B, T, _ = x_BTD.shape
        attend = past.attend if past else self.attend
        qkv_NF = _plus(self.qkv_bias, self.dense(_rows(x_BTD), self.qkv[...]))
        # Split, not indexed: the gradient of a split is one concatenation.
        parts = jnp.split(qkv_NF, [cfg.d_attn, cfg.d_attn + cfg.d_kv], axis=-1)
        q_BTHK, k_BTHK, v_BTHK = (x.reshape(B, T, -1, cfg.d_head) for x in parts)
        if cfg.qk_norm:
            q_BTHK, k_BTHK = self.q_norm(q_BTHK), self.k_norm(k_BTHK)
        if cfg.position == "rotary":
            q_BTHK, k_BTHK = rotate(q_BTHK, past), rotate(k_BTHK, past)
        if cfg.n_kv_heads is not None:
            n_queries = cfg.n_heads // cfg.n_kv_heads
            k_BTHK, v_BTHK = (jnp.repeat(x, n_queries, axis=2) for x in (k_BTHK, v_BTHK))
        y_BTHK = attend(_scaled(q_BTHK, self.query_scale), k_BTHK, v_BTHK)
        y_ND = self.dense(y_BTHK.reshape(B * T, cfg.d_attn), self.out[...])
        return _plus(self.out_bias, y_ND).reshape(x_BTD.shape)


class MLP(nnx.Module):
    """Two matrices around a GELU (its tanh form) or a squared ReLU, or three in a SwiGLU.

    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415; So et al. 2021 (Primer), arXiv:2109.08668,
        section 3.1; Shazeer 2020, arXiv:2002.05202, eq. 6.
    """

    def __init__(self, cfg: ModelConfig, kernels: Kernels):
        self.dense = kernels.dense
        self.activation = cfg.activation
        if cfg.activation == "swiglu":
            self.gate = _declare(cfg.d_model, cfg.d_ff)
            self.gate_bias = _declare_bias(cfg, cfg.d_ff)
        self.up = _declare(cfg.d_model, cfg.d_ff)
        self.up_bias = _declare_bias(cfg, cfg.d_ff)
        self.down = _declare(cfg.d_ff, cfg.d_model)
        self.down_bias = _declare_bias(cfg, cfg.d_model)

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        x_ND = _rows(x_BTD)
        h_NF = _plus(self.up_bias, self.dense(x_ND, self.up[...]))
        if self.activation == "swiglu":
            h_NF = jax.nn.silu(_plus(self.gate_bias, self.dense(x_ND, self.gate[...]))) * h_NF
        elif self.activation == "relu2":
            h_NF = jnp.square(jax.nn.relu(h_NF))
        else:
            h_NF = jax.nn.gelu(h_NF, approximate=True)
        return _plus(self.down_bias, self.dense(h_NF, self.down[...])).reshape(x_BTD.shape)


def _own(slot: str, cfg: ModelConfig, kernels: Kernels) -> nnx.Module | None:
    """The user's module of a slot, built from (cfg, kernels); None where the slot is ours."""
    if slot not in cfg.parts:
        return None
    field, reference = f"model.{slot}", cfg.parts[slot]
    part = custom.load(field, reference)
    try:
        built = part(cfg, kernels)
    except Exception as error:
        doing = "cannot be built from (cfg, kernels)"
        raise custom.complaint(field, reference, doing, error) from error
    if not isinstance(built, nnx.Module):
        raise ValueError(
            f"{field}={custom.parse(field, reference).short} gives a {type(built).__name__}, not "
            "an nnx.Module; name a class of nnx.Module"
        )
    return built


def _checked(slot: str, cfg: ModelConfig, part, x_BTD: jax.Array, *past: Past) -> jax.Array:
    """part(x_BTD, *past); of a user's part part(x_BTD), only if it maps x_BTD to its like."""
    if slot not in cfg.parts:
        return part(x_BTD, *past)
    field, reference = f"model.{slot}", cfg.parts[slot]
    try:
        y_BTD = part(x_BTD)
    except Exception as error:
        doing = f"fails on x_BTD of shape {x_BTD.shape}"
        raise custom.complaint(field, reference, doing, error) from error
    if (jnp.shape(y_BTD), jnp.result_type(y_BTD)) != (x_BTD.shape, x_BTD.dtype):
        raise ValueError(
            f"{field}={custom.parse(field, reference).short} maps x_BTD of shape {x_BTD.shape}, "
            f"{x_BTD.dtype}, to {jnp.shape(y_BTD)}, {jnp.result_type(y_BTD)}; return its like"
        )
    return y_BTD


class Block(nnx.Module):
    """One layer: attention, then MLP, each on a norm of the residual stream."""

    def __init__(self, cfg: ModelConfig, kernels: Kernels, multipliers: Multipliers = UNSCALED):
        self.cfg = cfg
        self.branch_scale = multipliers.residual
        self.attention_norm = Norm(cfg, kernels)
        self.attention = _own("attention", cfg, kernels) or Attention(cfg, kernels, multipliers)
        self.mlp_norm = Norm(cfg, kernels)
        self.mlp = _own("mlp", cfg, kernels) or MLP(cfg, kernels)

    def __call__(self, x_BTD: jax.Array, *past: Past) -> jax.Array:
        x_BTD = self._joined(x_BTD, "attention", self.attention, self.attention_norm, *past)
        return self._joined(x_BTD, "mlp", self.mlp, self.mlp_norm)

    def _joined(
        self, x_BTD: jax.Array, slot: str, part: nnx.Module, norm: Norm, *past: Past
    ) -> jax.Array:
        y_BTD = _checked(slot, self.cfg, part, norm(x_BTD), *past)
        x_ND = _rows(x_BTD) + _scaled(_rows(y_BTD), self.branch_scale)
        return x_ND.reshape(x_BTD.shape)


class Transformer(nnx.Module):
    """Tokens to features, and to logits."""

    def __init__(self, cfg: ModelConfig, kernels: Kernels, multipliers: Multipliers):
        self.cfg = cfg
        self.output_scale = multipliers.output
        self.embed, self.dtype = kernels.embed, kernels.dtype
        self.token_embedding = _declare(cfg.vocab_size, cfg.d_model)
        if cfg.position == "learned":
            self.position_embedding = _declare(cfg.seq_len, cfg.d_model)
        self.blocks = nnx.List(
            _own("block", cfg, kernels) or Block(cfg, kernels, multipliers)
            for _ in range(cfg.n_layers)
        )
        self.final_norm = Norm(cfg, kernels)
        if not cfg.tied_head:
            self.head = _declare(cfg.vocab_size, cfg.d_model)

    def enter(self, tokens_BT: jax.Array, pasts: Sequence[Past] | None = None) -> jax.Array:
        """The residual stream x_BTD before the first block.

        Args: pasts: of each block the keys and values of the tokens before, which it adds to.
        Raises: ValueError: the tokens are more than seq_len long.
        """
        T = tokens_BT.shape[1]
        if T > self.cfg.seq_len:
            raise ValueError(f"tokens are {T} long, but seq_len={self.cfg.seq_len}; shorten them")
        x_BTD = self.embed(self.token_embedding[...], tokens_BT)
        if self.cfg.position == "learned":
            positions = self.position_embedding[...]
            x_BTD = x_BTD + (positions[pasts[0].places_BT] if pasts else positions[None, :T])
        return x_BTD if self.dtype is None else x_BTD.astype(self.dtype)

    def through(self, layer: int, x_BTD: jax.Array, pasts: Sequence[Past] | None = None):
        """The residual stream x_BTD after a block, from that before it."""
        own = pasts[layer : layer + 1] if pasts else ()
        return _checked("block", self.cfg, self.blocks[layer], x_BTD, *own)

    def stream(self, tokens_BT: jax.Array, pasts: Sequence[Past] | None = None) -> list[jax.Array]:
        """The residual stream x_BTD after each block.

        Args: pasts: of each block the keys and values of the tokens before, which it adds to.
        Raises: ValueError: the tokens are more than seq_len long.
        """
        x_BTD, stream = self.enter(tokens_BT, pasts), []
        for layer in range(self.cfg.n_layers):
            x_BTD = self.through(layer, x_BTD, pasts)
            stream.append(x_BTD)
        return stream

    def leave(self, x_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`features` from the residual stream after the last block."""
        head = self.token_embedding if self.cfg.tied_head else self.head
        return _scaled(self.final_norm(x_BTD), self.output_scale), head[...]

    def features(
        self, tokens_BT: jax.Array, pasts: Sequence[Past] | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The final norm's output x_BTD, and the head w_VD: x w^T, soft-capped, are logits.

        The parametrization's output multiplier is in x_BTD.

        Raises: ValueError: the tokens are more than seq_len long.
        """
        return self.leave(self.stream(tokens_BT, pasts)[-1])

    def __call__(self, tokens_BT: jax.Array) -> jax.Array:
        """Logits_BTV of the token after each position."""
        x_BTD, w_VD = self.features(tokens_BT)
        return soft_cap(x_BTD @ w_VD.T, self.cfg.logit_softcap)
