"""Scaling laws: formulas only, one small object each.

A law predicts the log of the loss (nats) from the logs of its variables, written N (parameters), D
(training tokens) and C (training FLOPs) as in the papers. Which parameters and which FLOPs these
are is a convention of the points, never of the law.

The solver works in *centred* coordinates theta: every variable is divided by its geometric mean, so
that a coefficient is the size of its term in the middle of the data. That takes nearly all of the
correlation between a coefficient and its exponent away (the raw problem has a condition number
above 1e11). Terms and floors that are added stay linear and positive by their bounds: floor and
term trade off along a straight valley there, and along a sharply bent one in their logs. `unpack`
and `pack` go between theta and the parameters of the papers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

Variable = Literal["N", "D", "C"]
Array = np.ndarray

EXPONENT_BOUNDS = (1e-3, 3.0)
EXPONENT_STARTS = (0.15, 0.4, 1.0)
FLOOR_BOUND = 1e-6  # of the smallest loss: below it a floor is zero for every purpose
FLOOR_STARTS = (0.15, 0.6, 0.9)


@dataclass(frozen=True)
class LossRange:
    """Smallest, geometric-mean and largest loss of a table, nats: what starts and bounds need."""

    low: float
    middle: float
    high: float


@runtime_checkable
class Law(Protocol):
    """What `fit` needs to know of a law; P parameters, K variables.

    theta is the vector of centred, unconstrained coordinates (last axis P); `centre` holds the mean
    of the log of each variable (K). Bounds are in theta.
    """

    @property
    def name(self) -> str: ...
    @property
    def equation(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def variables(self) -> tuple[Variable, ...]: ...
    @property
    def parameter_names(self) -> tuple[str, ...]: ...

    @staticmethod
    def log_loss(theta: jax.Array, x_RK: jax.Array) -> jax.Array:
        """Log of the predicted loss at each of R rows of centred log variables."""
        ...

    def starts(self, loss: LossRange) -> Array: ...
    def bounds(self, loss: LossRange) -> tuple[Array, Array]: ...
    def unpack(self, theta: Array, centre: Array) -> Array: ...
    def pack(self, parameters: Array, centre: Array) -> Array: ...
    def allocation(self, parameters: Array) -> Array | None:
        """(a, b, G) on the last axis, of N* = G (C/6)^a, D* = (C/6)^b / G where C = 6ND."""
        ...


def _term_bounds(loss: LossRange) -> tuple[float, float]:
    return FLOOR_BOUND * loss.low, 1e3 * loss.high


@dataclass(frozen=True)
class PowerLaw:
    """L = A / x^alpha, x one of N, D, C; Kaplan's (x_c / x)^alpha has x_c = A^(1/alpha).

    Source: Kaplan et al. 2020, arXiv:2001.08361, eqs. 1.1-1.3.
    """

    variable: Variable
    parameter_names = ("A", "alpha")
    equation = "L = A / x^alpha"
    source = "Kaplan et al. 2020, arXiv:2001.08361, eqs. 1.1-1.3"

    @property
    def name(self) -> str:
        return f"power_{self.variable}"

    @property
    def variables(self) -> tuple[Variable, ...]:
        return (self.variable,)

    @staticmethod
    def log_loss(theta: jax.Array, x_RK: jax.Array) -> jax.Array:
        a, alpha = theta
        return a - alpha * x_RK[:, 0]

    def starts(self, loss: LossRange) -> Array:
        return np.array([(np.log(loss.middle), alpha) for alpha in EXPONENT_STARTS])

    def bounds(self, loss: LossRange) -> tuple[Array, Array]:
        return _columns((np.log(loss.low) - 7, np.log(loss.high) + 7), EXPONENT_BOUNDS)

    def unpack(self, theta: Array, centre: Array) -> Array:
        a, alpha = _split(theta)
        return np.stack([np.exp(a + alpha * centre[0]), alpha], -1)

    def pack(self, parameters: Array, centre: Array) -> Array:
        coefficient, alpha = _split(parameters)
        return np.stack([np.log(coefficient) - alpha * centre[0], alpha], -1)

    def allocation(self, parameters: Array) -> None:
        return None


@dataclass(frozen=True)
class PowerLawFloor:
    """L = E + A / x^alpha, x one of N, D, C.

    Source: Henighan et al. 2020, arXiv:2010.14701, eq. 1.1.
    """

    variable: Variable
    parameter_names = ("E", "A", "alpha")
    equation = "L = E + A / x^alpha"
    source = "Henighan et al. 2020, arXiv:2010.14701, eq. 1.1"

    @property
    def name(self) -> str:
        return f"power_floor_{self.variable}"

    @property
    def variables(self) -> tuple[Variable, ...]:
        return (self.variable,)

    @staticmethod
    def log_loss(theta: jax.Array, x_RK: jax.Array) -> jax.Array:
        floor, a, alpha = theta
        return jnp.log(floor + a * jnp.exp(-alpha * x_RK[:, 0]))

    def starts(self, loss: LossRange) -> Array:
        grid = product(FLOOR_STARTS, EXPONENT_STARTS)
        return np.array([(f * loss.low, loss.middle - f * loss.low, power) for f, power in grid])

    def bounds(self, loss: LossRange) -> tuple[Array, Array]:
        floor = (FLOOR_BOUND * loss.low, loss.high)
        return _columns(floor, _term_bounds(loss), EXPONENT_BOUNDS)

    def unpack(self, theta: Array, centre: Array) -> Array:
        floor, a, alpha = _split(theta)
        return np.stack([floor, a * np.exp(alpha * centre[0]), alpha], -1)

    def pack(self, parameters: Array, centre: Array) -> Array:
        floor, coefficient, alpha = _split(parameters)
        return np.stack([floor, coefficient * np.exp(-alpha * centre[0]), alpha], -1)

    def allocation(self, parameters: Array) -> None:
        return None


@dataclass(frozen=True)
class Chinchilla:
    """L = E + A / N^alpha + B / D^beta.

    Source: Hoffmann et al. 2022, arXiv:2203.15556, eq. 2 (approach 3); allocation: eq. 4.
    """

    name = "chinchilla"
    parameter_names = ("E", "A", "B", "alpha", "beta")
    equation = "L = E + A / N^alpha + B / D^beta"
    source = "Hoffmann et al. 2022, arXiv:2203.15556, eq. 2"

    @property
    def variables(self) -> tuple[Variable, ...]:
        return ("N", "D")

    @staticmethod
    def log_loss(theta: jax.Array, x_RK: jax.Array) -> jax.Array:
        floor, a, b, alpha, beta = theta
        of_size, of_data = jnp.exp(-alpha * x_RK[:, 0]), jnp.exp(-beta * x_RK[:, 1])
        return jnp.log(floor + a * of_size + b * of_data)

    def starts(self, loss: LossRange) -> Array:
        rows = []
        for floor, share, alpha, beta in product(
            FLOOR_STARTS, (0.15, 0.5, 0.85), EXPONENT_STARTS, EXPONENT_STARTS
        ):
            rest = loss.middle - floor * loss.low
            rows.append((floor * loss.low, share * rest, (1 - share) * rest, alpha, beta))
        return np.array(rows)

    def bounds(self, loss: LossRange) -> tuple[Array, Array]:
        floor = (FLOOR_BOUND * loss.low, loss.high)
        term = _term_bounds(loss)
        return _columns(floor, term, term, EXPONENT_BOUNDS, EXPONENT_BOUNDS)

    def unpack(self, theta: Array, centre: Array) -> Array:
        floor, a, b, alpha, beta = _split(theta)
        terms = (a * np.exp(alpha * centre[0]), b * np.exp(beta * centre[1]))
        return np.stack([floor, *terms, alpha, beta], -1)

    def pack(self, parameters: Array, centre: Array) -> Array:
        floor, a, b, alpha, beta = _split(parameters)
        terms = (a * np.exp(-alpha * centre[0]), b * np.exp(-beta * centre[1]))
        return np.stack([floor, *terms, alpha, beta], -1)

    def allocation(self, parameters: Array) -> Array:
        """a = beta/(alpha+beta), b = 1 - a, G = (alpha A/(beta B))^(1/(alpha+beta))."""
        _, a, b, alpha, beta = _split(parameters)
        both = alpha + beta
        return np.stack([beta / both, alpha / both, (alpha * a / (beta * b)) ** (1 / both)], -1)


@dataclass(frozen=True)
class KaplanND:
    """L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D.

    Under C = 6ND the optimum is that of Chinchilla's form with alpha = alpha_N/alpha_D, beta = 1.

    Source: Kaplan et al. 2020, arXiv:2001.08361, eq. 1.5.
    """

    name = "kaplan"
    parameter_names = ("N_c", "D_c", "alpha_N", "alpha_D")
    equation = "L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D"
    source = "Kaplan et al. 2020, arXiv:2001.08361, eq. 1.5"

    @property
    def variables(self) -> tuple[Variable, ...]:
        return ("N", "D")

    @staticmethod
    def log_loss(theta: jax.Array, x_RK: jax.Array) -> jax.Array:
        n_c, d_c, alpha_n, alpha_d = theta
        of_size = alpha_n / alpha_d * (n_c - x_RK[:, 0])
        return alpha_d * jnp.logaddexp(of_size, d_c - x_RK[:, 1])

    def starts(self, loss: LossRange) -> Array:
        rows = []
        for share, alpha_n, alpha_d in product((0.15, 0.5, 0.85), *2 * [(0.05, 0.1, 0.2, 0.4)]):
            inner = np.log(loss.middle) / alpha_d
            n_c = (inner + np.log(share)) * alpha_d / alpha_n
            rows.append((n_c, inner + np.log1p(-share), alpha_n, alpha_d))
        return np.array(rows)

    def bounds(self, loss: LossRange) -> tuple[Array, Array]:
        scale = (-1e3, 1e3)
        return _columns(scale, scale, EXPONENT_BOUNDS, EXPONENT_BOUNDS)

    def unpack(self, theta: Array, centre: Array) -> Array:
        n_c, d_c, alpha_n, alpha_d = _split(theta)
        return np.stack([np.exp(n_c + centre[0]), np.exp(d_c + centre[1]), alpha_n, alpha_d], -1)

    def pack(self, parameters: Array, centre: Array) -> Array:
        n_c, d_c, alpha_n, alpha_d = _split(parameters)
        return np.stack([np.log(n_c) - centre[0], np.log(d_c) - centre[1], alpha_n, alpha_d], -1)

    def allocation(self, parameters: Array) -> Array:
        """(a, b, G) of Chinchilla's form with alpha = alpha_N/alpha_D, beta = 1."""
        n_c, d_c, alpha_n, alpha_d = _split(parameters)
        alpha = alpha_n / alpha_d
        log_g = (np.log(alpha) + alpha * np.log(n_c) - np.log(d_c)) / (alpha + 1)
        return np.stack([1 / (alpha + 1), alpha / (alpha + 1), np.exp(log_g)], -1)


LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Chinchilla(),
        KaplanND(),
        *(PowerLaw(v) for v in ("N", "D", "C")),
        *(PowerLawFloor(v) for v in ("N", "D", "C")),
    )
}


def predict(
    law: Law,
    parameters: Mapping[str, float] | Array,
    *,
    n_params: Array | float | None = None,
    n_tokens: Array | float | None = None,
    train_flops: Array | float | None = None,
) -> Array:
    """Predicted loss, nats, float64; only the variables of the law need be given.

    Args:
        law: the formula.
        parameters: by name, or an array (..., P) in the order of `law.parameter_names` (such as
            bootstrap draws), which gives one prediction a leading row.
        n_params: model size in the convention of the fit; broadcasts with the other variables.
        n_tokens: training tokens.
        train_flops: training FLOPs in the convention of the fit.

    Returns: shape = leading shape of parameters + broadcast shape of the variables.
    Raises: ValueError: a variable of the law was not given.
    """
    given = {"N": n_params, "D": n_tokens, "C": train_flops}
    missing = [variable for variable in law.variables if given[variable] is None]
    if missing:
        raise ValueError(f"law {law.name} needs {', '.join(missing)}; give them to predict")
    columns = np.broadcast_arrays(*[np.asarray(given[v], np.float64) for v in law.variables])
    shape = columns[0].shape
    x_RK = np.log(np.stack([c.reshape(-1) for c in columns], -1))
    if isinstance(parameters, Mapping):
        parameters = np.array([parameters[name] for name in law.parameter_names])
    theta = law.pack(np.asarray(parameters, np.float64), np.zeros(len(law.variables)))
    with jax.enable_x64(True):
        log_loss = _log_loss(law.log_loss, theta.reshape(-1, theta.shape[-1]), x_RK)
        return np.exp(np.asarray(log_loss)).reshape((*theta.shape[:-1], *shape))


@partial(jax.jit, static_argnums=0)
def _log_loss(formula, theta_BP: jax.Array, x_RK: jax.Array) -> jax.Array:
    return jax.vmap(formula, (0, None))(theta_BP, x_RK)


def optimum(law: Law, parameters: Mapping[str, float], train_flops: float) -> tuple[float, float]:
    """Closed-form compute optimum (N*, D*) where C = 6ND: N* = G (C/6)^a, D* = (C/6)^b / G.

    Raises: ValueError: the law has no optimum (a law of one variable).
    Source: Hoffmann et al. 2022, arXiv:2203.15556, eq. 4.
    """
    allocation = law.allocation(np.array([parameters[name] for name in law.parameter_names]))
    if allocation is None:
        raise ValueError(f"law {law.name} has no allocation; use chinchilla or kaplan")
    a, b, coefficient = allocation
    return float(coefficient * (train_flops / 6) ** a), float((train_flops / 6) ** b / coefficient)


def _columns(*bounds: tuple[float, float]) -> tuple[Array, Array]:
    low, high = np.array(bounds, np.float64).T
    return low, high


def _split(values: Array) -> tuple[Array, ...]:
    return tuple(np.moveaxis(np.asarray(values, np.float64), -1, 0))
