"""What a law is: a formula of a few variables, with its parameters, starts, bounds and allocation.

A law predicts the log of a target (the loss in nats, unless it says otherwise) from the logs of its
variables, written N (parameters), D (training tokens), C (training FLOPs) and so on as in the
papers. Which parameters and which FLOPs these are is a convention of the points, never of the law.

The solver works in *centred* coordinates theta: every variable is divided by its geometric mean, so
that a coefficient is the size of its term in the middle of the data. That takes nearly all of the
correlation between a coefficient and its exponent away (the raw problem has a condition number
above 1e11). Terms and floors that are added stay linear and positive by their bounds: floor and
term trade off along a straight valley there, and along a sharply bent one in their logs. `unpack`
and `pack` go between theta and the parameters of the papers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray
Arrays = Any  # a sequence of arrays, or one array over its first axis; of NumPy or JAX

COLUMN_OF = {  # a variable's letter -> the column of a table
    "N": "n_params",
    "D": "n_tokens",
    "C": "train_flops",
    "L": "loss_nats",
    "U": "n_tokens_unique",
    "S": "n_steps",
    "B": "batch_tokens",
    "width": "d_model",
    "depth": "n_layers",
    "lr": "learning_rate",
    "acc": "accuracy",
    "area": "lr_area",
    "anneal": "annealing_area",
    "position": "position",
    "corpus": "corpus",
}
EXPONENT_BOUNDS = (1e-3, 3.0)
EXPONENT_STARTS = (0.15, 0.4, 1.0)
FLOOR_BOUND = 1e-6  # of the smallest target: below it a floor is zero for every purpose
FLOOR_STARTS = (0.15, 0.6, 0.9)


@dataclass(frozen=True)
class Range:
    """Smallest, geometric-mean and largest target of a table: what starts and bounds need."""

    low: float
    middle: float
    high: float


class Law:
    """What `fit` needs to know of a law; P parameters, K variables.

    theta holds the P centred coordinates, `centre` the K means of the inputs. `n_linear` parameters
    come first and enter the target linearly: variable projection solves for them inside. A law is a
    frozen dataclass, so that equal laws share a compiled program.
    """

    name: str
    equation: str
    source: str
    domain: str = "positive variables"
    variables: tuple[str, ...]
    target: str = "L"
    parameter_names: tuple[str, ...]
    n_linear: int = 0

    def log_value(self, theta: Arrays, x: Arrays, xp: Any) -> Any:
        """Log of the target: theta P arrays, x K centred inputs, elementwise; xp numpy or jnp."""
        raise TypeError(f"law {self.name} has no formula")

    def starts(self, y: Range) -> Array:
        """Coordinates to start from, (S, P)."""
        raise TypeError(f"law {self.name} has no starts")

    def bounds(self, y: Range) -> tuple[Array, Array]:
        """Lower and upper bound of every coordinate, (P,) each."""
        raise TypeError(f"law {self.name} has no bounds")

    def unpack(self, theta: Array, centre: Array) -> Array:
        """The papers' parameters of coordinates, both (..., P)."""
        del centre
        return np.asarray(theta, np.float64)

    def pack(self, parameters: Array, centre: Array) -> Array:
        """The coordinates of the papers' parameters, both (..., P)."""
        del centre
        return np.asarray(parameters, np.float64)

    def inputs(self, columns: Arrays) -> Array:
        """What the formula sees of the columns of its variables, (K, ...): their logs."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(np.stack([np.asarray(c, np.float64) for c in columns]))

    def centre(self, x_KR: Array) -> Array:
        """What is taken off the inputs of a table, (K,): their means."""
        return x_KR.mean(1)

    def allocation(self, parameters: Array) -> Array | None:
        """(a, b, G) on the last axis, of N* = G (C/6)^a, D* = (C/6)^b / G where C = 6ND."""
        del parameters
        return None

    @property
    def has_closed_form(self) -> bool:
        """Whether its derivatives are written out, so that fits need no JAX."""
        return type(self).derivatives is not Law.derivatives

    def derivatives(self, theta: Arrays, x: Arrays, xp: Any):
        """Log target, its P slopes, and a function from row weights to the summed second slopes.

        theta arrays are (1, B), rows run along the first axis of x (R, 1 or B); summed slopes are a
        P x P list of (1, B). Here by JAX; a law in closed form (PowerSum) needs none.
        """
        import jax

        def formula(*theta):
            return self.log_value(theta, x, xp)

        def along(index: int, function):
            tangents = tuple(
                xp.ones_like(t) if i == index else xp.zeros_like(t) for i, t in enumerate(theta)
            )
            return jax.jvp(function, tuple(theta), tangents)[1]

        def second(weight_RB):
            gradient = jax.grad(
                lambda *theta: xp.sum(weight_RB * formula(*theta)), tuple(range(len(theta)))
            )
            return [along(i, gradient) for i in range(len(theta))]

        return formula(*theta), [along(i, formula) for i in range(len(theta))], second


def dot(a: Arrays, b: Arrays, xp: Any) -> Any:
    """Sum over rows of a product of (R, B) arrays, shape (1, B); without a temporary in NumPy."""
    if xp is np:
        return np.einsum("rb,rb->b", a, b)[None]
    return (a * b).sum(0, keepdims=True)


def gram(weight: Arrays, slopes: Arrays, xp: Any) -> list[list]:
    """P x P sums over rows of weight * slope * slope, (1, B) each."""
    n = len(slopes)
    rows: list[list] = [[None] * n for _ in range(n)]
    for i in range(n):
        weighted = weight * slopes[i]
        for j in range(i, n):
            rows[i][j] = rows[j][i] = dot(weighted, slopes[j], xp)
    return rows


def predict(
    law: Law, parameters: Mapping[str, float] | Array, **variables: Array | float | None
) -> Array:
    """The law's target (loss in nats, unless the law says otherwise), float64.

    Args:
        law: the formula.
        parameters: by name, or an array (..., P) in the order of `law.parameter_names` (such as
            bootstrap draws), which gives one prediction a leading row.
        variables: by column name, n_params, n_tokens, train_flops and so on (COLUMN_OF), in the
            conventions of the fit; they broadcast, and those that the law lacks are not used.

    Returns: shape = leading shape of parameters + broadcast shape of the variables.
    Raises: ValueError: a variable of the law was not given.
    """
    given = [variables.get(COLUMN_OF[letter]) for letter in law.variables]
    missing = [v for v, value in zip(law.variables, given, strict=True) if value is None]
    if missing:
        names = ", ".join(f"{v} ({COLUMN_OF[v]}=)" for v in missing)
        raise ValueError(f"law {law.name} needs {names}; give them to predict")
    x = law.inputs(np.broadcast_arrays(*[np.asarray(g, np.float64) for g in given]))
    if isinstance(parameters, Mapping):
        parameters = np.array([parameters[name] for name in law.parameter_names])
    theta = law.pack(np.asarray(parameters, np.float64), np.zeros(len(law.variables)))
    spread = (..., *(None,) * (x.ndim - 1))
    with np.errstate(all="ignore"):
        return np.exp(law.log_value([t[spread] for t in split(theta)], x, np))


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


def columns_of_bounds(*bounds: tuple[float, float]) -> tuple[Array, Array]:
    """(low, high) pairs, one a parameter, as two arrays."""
    low, high = np.array(bounds, np.float64).T
    return low, high


def split(values: Array) -> tuple[Array, ...]:
    """The last axis as a tuple of arrays."""
    return tuple(np.moveaxis(np.asarray(values, np.float64), -1, 0))
