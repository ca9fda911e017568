"""What a user's part must do before it is worth training: tried on a few tokens, at its real size.

Built, run once forward and backward and through one step of the optimizer; its logits must not see
the future or other sequences. Every failure is one line that names the part.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.counting import jaxpr_flops
from model.functional import Params, apply, flatten, init_params, unflatten
from model.kernels import PLAIN
from train.config import RunSpec, SpecError
from train.loss import mean_loss
from train.optimizer import direction, hyperparameters, init_moments

N_SEQUENCES = 3
JITTER = 0.1
"""Added noise of weights for the test of causality: a branch that starts at zero must not hide."""
TOLERANCE = 1e-4
"""Of the largest logit: far above rounding, far below what a token does that is seen."""


def check_ideas(spec: RunSpec) -> None:
    """Try a spec's own parts at the spec's sizes; takes seconds, most of them of compilation.

    Raises: ValueError: a part cannot be built or fails, maps to another shape, sees the future or
        other sequences, has NaN in logits, loss, gradient or update; or the loss holds products.
    """
    cfg, rng = spec.model, np.random.default_rng(0)
    shape = (N_SEQUENCES, cfg.seq_len + 1)
    windows_BT1 = rng.integers(0, cfg.vocab_size, shape, np.int32)
    params = init_params(cfg, spec.seed_init)
    if cfg.parts:
        _check_logits(spec, params, windows_BT1[:, :-1], rng)
    _check_step(spec, params, windows_BT1)


def _check_logits(spec: RunSpec, params: Params, tokens_BT: np.ndarray, rng) -> None:
    cfg = spec.model
    logits_of = jax.jit(lambda params, tokens: apply(cfg, params, tokens))
    _require_finite(spec, "logits at its initial values", logits_of(params, tokens_BT))
    noisy = unflatten(
        {
            name: leaf + np.float32(JITTER) * rng.standard_normal(leaf.shape, np.float32)
            for name, leaf in flatten(params).items()
        }
    )
    before = np.asarray(logits_of(noisy, tokens_BT))
    _require_finite(spec, "logits", before)
    allowed = TOLERANCE * np.abs(before).max()
    for at in sorted({1, cfg.seq_len // 2, cfg.seq_len - 1} - {0}):
        changed = tokens_BT.copy()
        changed[:, at:] = (changed[:, at:] + 1) % cfg.vocab_size
        moved = np.abs(np.asarray(logits_of(noisy, changed)) - before)[:, :at].max(axis=(0, 2))
        if moved.max() > allowed:
            first = int(np.argmax(moved > allowed))
            raise SpecError(
                f"{spec.idea} is not causal: with other tokens from position {at} on, the logits "
                f"at position {first} move by {moved[first]:.3g}; let no position see a later one"
            )
    changed = tokens_BT.copy()
    changed[1:] = (changed[1:] + 1) % cfg.vocab_size
    if np.abs(np.asarray(logits_of(noisy, changed)) - before)[0].max() > allowed:
        raise SpecError(
            f"{spec.idea} mixes sequences: other tokens in one move the logits of another; "
            "normalize and attend within a sequence"
        )


def _check_step(spec: RunSpec, params: Params, windows_BT1: np.ndarray) -> None:
    hyper = hyperparameters(spec.optimizer)
    moments = init_moments(params, hyper)

    def loss_of(params, windows_BT1):
        return mean_loss(spec.model, params, windows_BT1, PLAIN, loss=spec.loss)

    if spec.loss is not None:
        _check_loss_has_no_products(spec, loss_of, params, windows_BT1)
    loss, grads = jax.jit(jax.value_and_grad(loss_of))(params, windows_BT1)
    _require_finite(spec, "training loss at its initial values", loss)
    _require_finite(spec, "gradient at its initial values", grads)
    with jax.numpy_dtype_promotion("standard"):
        updates, after = direction(hyper).update(grads, moments, params)
    kinds = [[(jnp.shape(x), jnp.result_type(x)) for x in jax.tree.leaves(t)]
             for t in (updates, params, after, moments)]  # fmt: skip
    if kinds[0] != kinds[1] or kinds[2] != kinds[3]:
        raise SpecError(
            f"{spec.idea}: updates or state of the optimizer change shape or dtype in a step; "
            "keep those of the parameters and of the first state"
        )
    _require_finite(spec, "first update", updates)


def _check_loss_has_no_products(spec: RunSpec, loss_of, params, windows_BT1) -> None:
    plain = dataclasses.replace(spec, loss=None)

    def plain_loss(params, windows_BT1):
        return mean_loss(plain.model, params, windows_BT1, PLAIN)

    own, usual = (
        jaxpr_flops(jax.make_jaxpr(f)(params, windows_BT1).jaxpr) for f in (loss_of, plain_loss)
    )
    if own != usual:
        raise SpecError(
            f"{spec.idea} forms matrix products of its own, which no count of FLOPs holds; "
            "put them into a block, or write them element by element"
        )


def _require_finite(spec: RunSpec, what: str, values: Any) -> None:
    if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(values)):
        raise SpecError(f"{spec.idea}: NaN or infinity in the {what}; check scales and divisions")
