"""Token shift: every layer sees, channel by channel, a learned mix of a token and the one before.

Source: Peng et al. 2023 (RWKV), arXiv:2305.13048, section 3.1.1, here before our own attention and
    MLP. It costs no matrix product, hence no FLOPs by any convention, but it does cost time.
"""

import jax.numpy as jnp
from flax import nnx

from model.transformer import MLP, Attention, Norm


class Shift(nnx.Module):
    """x_t + gain * (x_{t-1} - x_t), with zeros before the first token."""

    # Where a parameter starts: a number, or a function of (rng, shape). Here: half and half.
    initial = {"mix_gain": 0.5}

    def __init__(self, cfg):
        self.mix_gain = nnx.Param(jnp.zeros(cfg.d_model))

    def __call__(self, x_BTD):
        before_BTD = jnp.pad(x_BTD, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        return x_BTD + self.mix_gain[...][None, None] * (before_BTD - x_BTD)


class Block(nnx.Module):
    """Our block, with a shift behind each norm."""

    def __init__(self, cfg, kernels):
        self.attention_norm = Norm(cfg, kernels)
        self.attention_shift = Shift(cfg)
        self.attention = Attention(cfg, kernels)
        self.mlp_norm = Norm(cfg, kernels)
        self.mlp_shift = Shift(cfg)
        self.mlp = MLP(cfg, kernels)

    def __call__(self, x_BTD):
        x_BTD = x_BTD + self.attention(self.attention_shift(self.attention_norm(x_BTD)))
        return x_BTD + self.mlp(self.mlp_shift(self.mlp_norm(x_BTD)))
