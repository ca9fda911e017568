"""Next-token cross-entropy, in training and in evaluation form."""

import jax
import jax.numpy as jnp

from model import custom
from model.arrangement import UNROLLED, Arrangement
from model.config import ModelConfig
from model.functional import Params, features
from model.kernels import Kernels, soft_cap


def mean_loss(
    cfg: ModelConfig,
    params: Params,
    windows_BT1: jax.Array,
    kernels: Kernels,
    z_loss: float | jax.Array = 0.0,
    parametrization: str = "standard",
    loss: str | None = None,
    arrangement: Arrangement = UNROLLED,
):
    """Mean nats per target token over windows of seq_len + 1 tokens, a float32 scalar.

    Args:
        z_loss: coefficient of the mean square of log Z, which is added. The float 0.0 leaves no
            trace of it; other values may be traced, so that they share a compilation.
        loss: reference of a user's function of (logits_NV, targets_N), to train on in its place.
        arrangement: how layers are computed.
    Raises: ValueError: the user's function fails, or gives no float32 scalar.
    Source: Chowdhery et al. 2022 (PaLM), arXiv:2204.02311, section 5, for the z-loss.
    """
    x_BTD, w_VD = features(
        cfg, params, windows_BT1[:, :-1],
        kernels=kernels, parametrization=parametrization, arrangement=arrangement,
    )  # fmt: skip
    targets_N = windows_BT1[:, 1:].reshape(-1)
    x_ND = x_BTD.reshape(-1, cfg.d_model)
    if loss is not None:
        return _own_loss(loss, soft_cap(x_ND @ w_VD.T, cfg.logit_softcap), targets_N)
    return kernels.cross_entropy(x_ND, w_VD, targets_N, cfg.logit_softcap, z_loss)


def _own_loss(reference: str, logits_NV: jax.Array, targets_N: jax.Array) -> jax.Array:
    function = custom.load("loss", reference)
    try:
        found = function(logits_NV, targets_N)
    except Exception as error:
        doing = "fails on (logits_NV, targets_N)"
        raise custom.complaint("loss", reference, doing, error) from error
    if (jnp.shape(found), jnp.result_type(found)) != ((), jnp.float32):
        raise ValueError(
            f"loss={custom.parse('loss', reference).short} gives shape {jnp.shape(found)}, "
            f"{jnp.result_type(found)}; return one float32, the mean over tokens"
        )
    return found


def token_losses(
    cfg: ModelConfig,
    params: Params,
    windows_BT1: jax.Array,
    kernels: Kernels,
    parametrization: str = "standard",
    arrangement: Arrangement = UNROLLED,
):
    """Nats of every target token, float32 [B, T], no z-loss among them."""
    x_BTD, w_VD = features(
        cfg, params, windows_BT1[:, :-1],
        kernels=kernels, parametrization=parametrization, arrangement=arrangement,
    )  # fmt: skip
    targets_BT = windows_BT1[:, 1:]
    x_ND = x_BTD.reshape(-1, cfg.d_model)
    loss_N = kernels.token_losses(x_ND, w_VD, targets_BT.reshape(-1), cfg.logit_softcap)
    return loss_N.reshape(targets_BT.shape)
