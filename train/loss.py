"""Next-token cross-entropy, in training and in evaluation form."""

import jax

from model.config import ModelConfig
from model.functional import Params, features
from model.kernels import Kernels


def mean_loss(cfg: ModelConfig, params: Params, windows_BT1: jax.Array, kernels: Kernels):
    """Mean nats per target token over windows of seq_len + 1 tokens, a float32 scalar."""
    x_BTD, w_VD = features(cfg, params, windows_BT1[:, :-1], kernels=kernels)
    targets_N = windows_BT1[:, 1:].reshape(-1)
    return kernels.cross_entropy(x_BTD.reshape(-1, cfg.d_model), w_VD, targets_N)


def token_losses(cfg: ModelConfig, params: Params, windows_BT1: jax.Array, kernels: Kernels):
    """Nats of every target token, float32 [B, T]."""
    x_BTD, w_VD = features(cfg, params, windows_BT1[:, :-1], kernels=kernels)
    targets_BT = windows_BT1[:, 1:]
    loss_N = kernels.token_losses(x_BTD.reshape(-1, cfg.d_model), w_VD, targets_BT.reshape(-1))
    return loss_N.reshape(targets_BT.shape)
