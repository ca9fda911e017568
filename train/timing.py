"""Seconds of a training step of two specs, measured in turns in one process."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from model.functional import init_params
from model.kernels import kernels_for
from train.config import RunSpec
from train.inputs import STEPS_PER_DISPATCH
from train.optimizer import hyperparameters, init_moments
from train.parts import microbatches
from train.step import TrainState, train_steps

N_ROUNDS = 15


def step_seconds(specs: tuple[RunSpec, ...], device: Any, n_rounds: int = N_ROUNDS) -> np.ndarray:
    """Seconds a step, one row a round and one column a spec.

    A round takes one dispatch of every spec, so that whatever else the machine does falls on all:
    compare within rounds. Tokens are random, which costs the same; compilation is left out.
    """
    steppers = [stepper(spec, device) for spec in specs]
    return np.array([[_seconds(step) for step in steppers] for _ in range(n_rounds)])


def stepper(spec: RunSpec, device: Any) -> Callable[[], None]:
    """A spec's dispatch on random tokens, compiled: every call takes STEPS_PER_DISPATCH steps."""
    params = init_params(spec.model, spec.seed_init, spec.parametrization)
    hyper = hyperparameters(spec.optimizer)
    state = jax.device_put(TrainState(params, init_moments(params, hyper)), device)
    shape = (STEPS_PER_DISPATCH, spec.batch_size, spec.model.seq_len + 1)
    windows = np.random.default_rng(0).integers(0, spec.model.vocab_size, shape, np.int32)
    rates = np.full(STEPS_PER_DISPATCH, 1e-4, np.float32)
    kernels = kernels_for(device.platform, spec.dtype)
    parts = microbatches(spec.model.seq_len, spec.batch_size, device.platform)

    def step() -> None:
        nonlocal state
        state, _ = train_steps(
            spec.model, kernels, spec.parametrization, parts,
            state, windows, rates, np.int32(STEPS_PER_DISPATCH), hyper, loss=spec.loss,
        )  # fmt: skip
        jax.block_until_ready(state)

    step()
    return step


def _seconds(step) -> float:
    started = time.perf_counter()
    step()
    return (time.perf_counter() - started) / STEPS_PER_DISPATCH
