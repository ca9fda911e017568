"""Robust nonlinear least squares for many small problems at once, in float64.

One program solves a whole batch: each problem has its own rows, weights and start, so multi-starts
and bootstrap resamples go side by side. Rows are padded to a power of two with weight zero and the
objective enters as traced numbers, so one compilation serves a law at a table size.

Method: two steps are tried and the better one taken, both damped by a Levenberg-Marquardt lambda:
Newton's, (H + lambda M) step = -gradient with the exact Hessian H, and that of iteratively
reweighted least squares, (M + lambda diag M) step = -gradient. M majorises the Huber loss, so the
second descends from anywhere; the first converges quadratically, where plain reweighting stalls
because Huber's delta is far below the residuals. For the same reason delta starts large and shrinks
to its final value as each stage settles (continuation). Box bounds are held by projection: a
coordinate on its bound with the gradient pointing outwards leaves the step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from analysis.laws import Law

Formula = Callable[[jax.Array, jax.Array], jax.Array]

CHUNK_PROBLEMS = 128
CHUNK_ELEMENTS = 2**17
STEPS_PER_CALL = 16
MAX_STEPS = 320
STAGE_STEPS = 12
STAGE_FACTOR = 4.0
DELTA_START = 0.1
NO_DELTA = 1e6  # a Huber delta above every residual: least squares
TOLERANCE = 1e-11  # of the objective: what one more step could still gain
STALL = 1e-7  # of the objective: less than this in one call is crawling along a kink, and ends
ROUND_OFF = 1e-27  # a row: below this a noise-free fit is exact


@dataclass(frozen=True)
class Objective:
    """How residuals are summed: in log loss or in loss, Huber's delta, and a constant factor.

    Huber's function is r^2/2 inside delta and delta (|r| - delta/2) outside; `scale` 2 with delta
    above every residual is the plain sum of squares.
    """

    in_log: bool
    delta: float
    scale: float


class Problems(NamedTuple):
    """A batch of B problems of R rows, K variables, P parameters: float64 arrays."""

    x_BRK: np.ndarray
    log_loss_BR: np.ndarray
    weight_BR: np.ndarray
    start_BP: np.ndarray


class Solutions(NamedTuple):
    """Where each problem of a batch ended."""

    theta_BP: np.ndarray
    value: np.ndarray
    converged: np.ndarray


class _State(NamedTuple):
    theta: jax.Array
    damping: jax.Array
    delta: jax.Array
    stage_steps: jax.Array
    value: jax.Array
    done: jax.Array


def solve(
    law: Law, problems: Problems, objective: Objective, bounds: tuple[np.ndarray, np.ndarray]
) -> Solutions:
    """Minimise the objective of every problem from its start.

    Unfinished problems are gathered again after every few steps, so that a slow one does not hold
    its whole chunk up.
    """
    n_problems, n_rows = problems.log_loss_BR.shape
    padded = _pad_rows(problems)
    n_padded = padded.log_loss_BR.shape[1]
    chunk = int(np.clip(CHUNK_ELEMENTS // n_padded, 16, CHUNK_PROBLEMS))
    low, high = bounds
    theta = np.clip(problems.start_BP, low, high)
    delta = np.full(n_problems, max(objective.delta, DELTA_START))
    value, done = np.full(n_problems, np.inf), np.zeros(n_problems, bool)
    stage_steps = np.zeros(n_problems, np.int64)
    state = [theta, np.ones(n_problems), delta, stage_steps, value, done]
    constants = (objective.in_log, objective.delta, low, high)
    pending = np.arange(n_problems)
    with jax.enable_x64(True):
        for _ in range(MAX_STEPS // STEPS_PER_CALL):
            before = value[pending]
            for begin in range(0, len(pending), chunk):
                rows = pending[begin : begin + chunk]
                some = np.resize(rows, chunk)
                batch = [array[some] for array in padded[:3]]
                given = _State(*(jnp.asarray(array[some]) for array in state))
                out = _advance(law.log_loss, given, *batch, *constants)
                for array, new in zip(state, out, strict=True):
                    array[rows] = np.asarray(new)[: len(rows)]
            # Values compare only where all of this call's steps had the final delta.
            same = (delta[pending] <= objective.delta) & (stage_steps[pending] >= STEPS_PER_CALL)
            same &= np.isfinite(before)
            gain = np.where(same, before, 0.0) - np.where(same, value[pending], 0.0)
            done[pending] |= same & (gain <= STALL * value[pending])
            pending = pending[~done[pending]]
            if not len(pending):
                break
    return Solutions(theta, value * objective.scale, done)


def _pad_rows(problems: Problems) -> Problems:
    n_rows = problems.log_loss_BR.shape[1]
    extra = max(32, 1 << (n_rows - 1).bit_length()) - n_rows
    return Problems(
        np.pad(problems.x_BRK, ((0, 0), (0, extra), (0, 0))),
        np.pad(problems.log_loss_BR, ((0, 0), (0, extra))),
        np.pad(problems.weight_BR, ((0, 0), (0, extra))),
        problems.start_BP,
    )


@partial(jax.jit, static_argnums=0)
def _advance(formula: Formula, state: _State, x, y, weight, in_log, delta, low, high) -> _State:
    step = partial(_step, formula, in_log=in_log, delta=delta, low=low, high=high)

    def body(_: Any, state: _State) -> _State:
        return jax.vmap(step)(state, x, y, weight)

    return jax.lax.fori_loop(0, STEPS_PER_CALL, body, state)


def _residual(formula: Formula, theta, x, y, in_log):
    log_loss = formula(theta, x)
    return jnp.where(in_log, log_loss - y, jnp.exp(log_loss) - jnp.exp(y))


def _huber_sum(residual, weight, delta):
    size = jnp.abs(residual)
    outside = delta * (size - 0.5 * delta)
    return jnp.sum(weight * jnp.where(size <= delta, 0.5 * residual**2, outside))


def _derivatives(formula: Formula, theta, x, y, weight, in_log, delta):
    """Value, gradient, Hessian, and the reweighted least-squares matrix of the Huber sum."""
    residual_of = partial(_residual, formula, x=x, y=y, in_log=in_log)
    residual, slope_RP = residual_of(theta), jax.jacfwd(residual_of)(theta)
    size = jnp.abs(residual)
    pull = weight * jnp.clip(residual, -delta, delta)
    inner = jnp.where(size <= delta, weight, 0.0)
    majorant = weight * jnp.minimum(1.0, delta / jnp.maximum(size, 1e-300))
    curvature = jax.jacfwd(jax.grad(lambda t: jnp.sum(pull * residual_of(t))))(theta)
    hessian = slope_RP.T @ (inner[:, None] * slope_RP) + curvature
    reweighted = slope_RP.T @ (majorant[:, None] * slope_RP)
    return _huber_sum(residual, weight, delta), slope_RP.T @ pull, hessian, reweighted


def _step(formula: Formula, state: _State, x, y, weight, *, in_log, delta, low, high) -> _State:
    """One damped, projected Newton step of one problem; a finished problem stays as it is."""
    theta, damping = state.theta, state.damping
    value, gradient, hessian, reweighted = _derivatives(
        formula, theta, x, y, weight, in_log, state.delta
    )
    held = ((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0))
    free = ~held
    gradient = jnp.where(free, gradient, 0.0)
    scale = jnp.diagonal(reweighted)
    scale = jnp.diag(scale + 1e-9 * jnp.max(scale) + 1e-300)

    def propose(matrix_PP):
        system = jnp.where(free[:, None] & free[None, :], matrix_PP, jnp.eye(len(theta)))
        move = _solve_positive(system, -gradient)
        candidate = jnp.clip(theta + move, low, high)
        reached = _huber_sum(_residual(formula, candidate, x, y, in_log), weight, state.delta)
        gain = -0.5 * jnp.dot(gradient, move)
        return jnp.where(jnp.isfinite(reached), reached, jnp.inf), candidate, gain

    newton = hessian + damping * (reweighted + 1e-6 * scale)
    majorised = reweighted + damping * scale
    reached, candidates, gains = jax.vmap(propose)(jnp.stack([newton, majorised]))
    best = jnp.argmin(reached)
    new_value, candidate, gain = reached[best], candidates[best], gains[best]
    better = new_value <= value
    good = better & (value - new_value > 0.5 * gain)
    next_damping = jnp.where(good, damping / 8, jnp.where(better, damping, damping * 6))

    round_off = ROUND_OFF * jnp.sum(weight)
    final = state.delta <= delta
    tolerance = jnp.where(final, TOLERANCE, 1e-3)
    # Damping hides what an undamped step would gain; (1 + damping) gives most of it back.
    settled = gain * (1 + damping) <= tolerance * value + round_off
    stage_over = ~final & (settled | (state.stage_steps >= STAGE_STEPS))
    return _keep_done(
        state,
        _State(
            jnp.where(better, candidate, theta),
            jnp.clip(next_damping, 1e-14, 1e12),
            jnp.where(stage_over, jnp.maximum(state.delta / STAGE_FACTOR, delta), state.delta),
            jnp.where(stage_over, 0, state.stage_steps + 1),
            jnp.where(better, new_value, value),
            final & settled,
        ),
    )


def _solve_positive(matrix_PP, vector):
    """Solve by Cholesky, written out so that a batch vectorises; NaN if not positive definite."""
    n = len(vector)
    factor = [[jnp.zeros(())] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = matrix_PP[i, j] - sum(factor[i][k] * factor[j][k] for k in range(j))
            factor[i][j] = jnp.sqrt(rest) if i == j else rest / factor[j][j]
    forward: list = []
    for i in range(n):
        known = sum(factor[i][k] * forward[k] for k in range(i))
        forward.append((vector[i] - known) / factor[i][i])
    solution: list = [None] * n
    for i in reversed(range(n)):
        known = sum(factor[k][i] * solution[k] for k in range(i + 1, n))
        solution[i] = (forward[i] - known) / factor[i][i]
    return jnp.stack(solution)


def _keep_done(old: _State, new: _State) -> _State:
    return _State(*(jnp.where(old.done, a, b) for a, b in zip(old, new, strict=True)))
