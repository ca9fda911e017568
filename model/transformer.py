"""The transformer: pre-norm, decoder-only, no biases.

Array names end in their axes: B batch, T position, S key position, D d_model, H heads, K d_head,
F d_ff, V vocabulary, N = B * T tokens in one row. Modules declare each parameter by shape only;
`model.functional` gives them their values. Products, norms, attention and look-ups come in as
`Kernels`, so every device runs the same modules.

Source: Vaswani et al. 2017, arXiv:1706.03762; pre-norm and learned positions as in GPT-2, Radford
    et al. 2019, section 2.3.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from model.config import ModelConfig
from model.kernels import Kernels


def _declare(*shape: int) -> nnx.Param:
    return nnx.Param(jnp.zeros(shape, jnp.float32))


def rotate(x_BTHK: jax.Array) -> jax.Array:
    """Turn each pair of features (k, k + d_head / 2) by an angle proportional to the position.

    The product of a turned query and a turned key depends on their distance alone.

    Source: Su et al. 2021 (RoPE), arXiv:2104.09864, eq. 15 and section 3.3, base 10,000.
    """
    _, seq_len, _, d_head = x_BTHK.shape
    frequencies = 10_000.0 ** (-np.arange(0, d_head, 2) / d_head)
    angles_TK = np.arange(seq_len)[:, None] * frequencies[None, :]
    cos = jnp.asarray(np.cos(angles_TK)[None, :, None, :], x_BTHK.dtype)
    sin = jnp.asarray(np.sin(angles_TK)[None, :, None, :], x_BTHK.dtype)
    a, b = jnp.split(x_BTHK, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Norm(nnx.Module):
    """LayerNorm or RMSNorm over d_model, with a gain and no bias.

    Source: Ba et al. 2016, arXiv:1607.06450; Zhang and Sennrich 2019, arXiv:1910.07467.
    """

    def __init__(self, cfg: ModelConfig, kernels: Kernels):
        self.gain = _declare(cfg.d_model)
        self.normalize = kernels.layernorm if cfg.norm == "layernorm" else kernels.rmsnorm

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        return self.normalize(x_BTD, self.gain[...])


class Attention(nnx.Module):
    """Causal multi-head self-attention."""

    def __init__(self, cfg: ModelConfig, kernels: Kernels):
        self.cfg = cfg
        self.dense, self.attend = kernels.dense, kernels.attention
        self.qkv = _declare(cfg.d_model, 3 * cfg.d_attn)
        self.out = _declare(cfg.d_attn, cfg.d_model)

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        cfg = self.cfg
        B, T, _ = x_BTD.shape
        # Split, not indexed: the gradient of a split is one concatenation.
        thirds = jnp.split(self.dense(x_BTD, self.qkv[...]), 3, axis=-1)
        q_BTHK, k_BTHK, v_BTHK = (x.reshape(B, T, cfg.n_heads, cfg.d_head) for x in thirds)
        if cfg.position == "rotary":
            q_BTHK, k_BTHK = rotate(q_BTHK), rotate(k_BTHK)
        y_BTHK = self.attend(q_BTHK, k_BTHK, v_BTHK)
        return self.dense(y_BTHK.reshape(B, T, cfg.d_attn), self.out[...])


class MLP(nnx.Module):
    """Two matrices around a GELU (its tanh form), or three in a SwiGLU.

    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415; Shazeer 2020, arXiv:2002.05202, eq. 6.
    """

    def __init__(self, cfg: ModelConfig, kernels: Kernels):
        self.dense = kernels.dense
        self.is_gated = cfg.activation == "swiglu"
        if self.is_gated:
            self.gate = _declare(cfg.d_model, cfg.d_ff)
        self.up = _declare(cfg.d_model, cfg.d_ff)
        self.down = _declare(cfg.d_ff, cfg.d_model)

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        h_BTF = self.dense(x_BTD, self.up[...])
        if self.is_gated:
            h_BTF = jax.nn.silu(self.dense(x_BTD, self.gate[...])) * h_BTF
        else:
            h_BTF = jax.nn.gelu(h_BTF, approximate=True)
        return self.dense(h_BTF, self.down[...])


class Block(nnx.Module):
    """One layer: attention, then MLP, each on a norm of the residual stream."""

    def __init__(self, cfg: ModelConfig, kernels: Kernels):
        self.attention_norm = Norm(cfg, kernels)
        self.attention = Attention(cfg, kernels)
        self.mlp_norm = Norm(cfg, kernels)
        self.mlp = MLP(cfg, kernels)

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD))
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class Transformer(nnx.Module):
    """Tokens to features, and to logits."""

    def __init__(self, cfg: ModelConfig, kernels: Kernels):
        self.cfg = cfg
        self.embed = kernels.embed
        self.token_embedding = _declare(cfg.vocab_size, cfg.d_model)
        if cfg.position == "learned":
            self.position_embedding = _declare(cfg.seq_len, cfg.d_model)
        self.blocks = nnx.List([Block(cfg, kernels) for _ in range(cfg.n_layers)])
        self.final_norm = Norm(cfg, kernels)
        if not cfg.tied_head:
            self.head = _declare(cfg.vocab_size, cfg.d_model)

    def features(self, tokens_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The final norm's output x_BTD, and the head w_VD that turns it into logits.

        Raises: ValueError: the tokens are more than seq_len long.
        """
        T = tokens_BT.shape[1]
        if T > self.cfg.seq_len:
            raise ValueError(f"tokens are {T} long, but seq_len={self.cfg.seq_len}; shorten them")
        x_BTD = self.embed(self.token_embedding[...], tokens_BT)
        if self.cfg.position == "learned":
            x_BTD = x_BTD + self.position_embedding[...][None, :T]
        for block in self.blocks:
            x_BTD = block(x_BTD)
        head = self.token_embedding if self.cfg.tied_head else self.head
        return self.final_norm(x_BTD), head[...]

    def __call__(self, tokens_BT: jax.Array) -> jax.Array:
        """Logits_BTV of the token after each position."""
        x_BTD, w_VD = self.features(tokens_BT)
        return x_BTD @ w_VD.T
