"""Laws of the loss: power laws, Kaplan's, Chinchilla's and variants, width and depth, breaks."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from analysis.laws.base import (
    EXPONENT_BOUNDS,
    FLOOR_BOUND,
    Array,
    Law,
    Range,
    columns_of_bounds,
    dot,
    split,
)
from analysis.laws.powersum import PowerSum, Term


@dataclass(frozen=True)
class PowerLaw(PowerSum):
    """L = A / x^alpha, x one of N, D, C; Kaplan's (x_c / x)^alpha has x_c = A^(1/alpha).

    Source: Kaplan et al. 2020, arXiv:2001.08361, eqs. 1.1-1.3.
    """

    variable: str
    equation = "L = A / x^alpha"
    source = "Kaplan et al. 2020, arXiv:2001.08361, eqs. 1.1-1.3"

    @property
    def name(self) -> str:  # type: ignore[override]
        """power_N and so on."""
        return f"power_{self.variable}"

    @property
    def terms(self) -> tuple[Term, ...]:  # type: ignore[override]
        """One term, no floor."""
        return (Term("A", {self.variable: "alpha"}),)


@dataclass(frozen=True)
class PowerLawFloor(PowerSum):
    """L = E + A / x^alpha, x one of N, D, C (or `position`, the tokens of context).

    Source: Henighan et al. 2020, arXiv:2010.14701, eq. 1.1; for the position in the context Kaplan
    et al. 2020, arXiv:2001.08361, appendix D.5, fig. 20.
    """

    variable: str
    equation = "L = E + A / x^alpha"
    source = "Henighan et al. 2020, arXiv:2010.14701, eq. 1.1"

    @property
    def name(self) -> str:  # type: ignore[override]
        """power_floor_N and so on."""
        return f"power_floor_{self.variable}"

    @property
    def terms(self) -> tuple[Term, ...]:  # type: ignore[override]
        """A floor and one term."""
        return Term("E"), Term("A", {self.variable: "alpha"})


@dataclass(frozen=True)
class Chinchilla(PowerSum):
    """L = E + A / N^alpha + B / D^beta.

    Source: Hoffmann et al. 2022, arXiv:2203.15556, eq. 2 (approach 3); allocation: eq. 4.
    """

    name = "chinchilla"
    equation = "L = E + A / N^alpha + B / D^beta"
    source = "Hoffmann et al. 2022, arXiv:2203.15556, eq. 2"
    terms = (Term("E"), Term("A", {"N": "alpha"}), Term("B", {"D": "beta"}))

    def allocation(self, parameters: Array) -> Array:
        """a = beta/(alpha+beta), b = 1 - a, G = (alpha A/(beta B))^(1/(alpha+beta))."""
        _, a, b, alpha, beta = split(parameters)
        both = alpha + beta
        return np.stack([beta / both, alpha / both, (alpha * a / (beta * b)) ** (1 / both)], -1)


@dataclass(frozen=True)
class SharedExponent(PowerSum):
    """L = E + A / N^alpha + B / D^alpha: Chinchilla's form with alpha = beta, hence a = b = 1/2.

    Source: Muennighoff et al. 2023, arXiv:2305.16264, sec. 6; Gadre et al. 2024, arXiv:2403.08540.
    """

    name = "chinchilla_shared"
    equation = "L = E + A / N^alpha + B / D^alpha"
    source = "Muennighoff et al. 2023, arXiv:2305.16264, sec. 6"
    terms = (Term("E"), Term("A", {"N": "alpha"}), Term("B", {"D": "alpha"}))

    def allocation(self, parameters: Array) -> Array:
        """a = b = 1/2, G = (A/B)^(1/(2 alpha))."""
        _, a, b, alpha = split(parameters)
        half = np.full_like(alpha, 0.5)
        return np.stack([half, half, (a / b) ** (0.5 / alpha)], -1)


@dataclass(frozen=True)
class KaplanND(Law):
    """L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D.

    Under C = 6ND the optimum is that of Chinchilla's form with alpha = alpha_N/alpha_D, beta = 1.

    Source: Kaplan et al. 2020, arXiv:2001.08361, eq. 1.5.
    """

    name = "kaplan"
    variables = ("N", "D")
    parameter_names = ("N_c", "D_c", "alpha_N", "alpha_D")
    equation = "L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D"
    source = "Kaplan et al. 2020, arXiv:2001.08361, eq. 1.5"

    def log_value(self, theta, x, xp):
        """Log loss; theta holds the logs of the centred scales."""
        n_c, d_c, alpha_n, alpha_d = theta
        return alpha_d * xp.logaddexp(alpha_n / alpha_d * (n_c - x[0]), d_c - x[1])

    def derivatives(self, theta, x, xp):
        """As Law.derivatives, in closed form: log L = alpha_D log(e^u + e^v), v linear in theta."""
        n_c, d_c, alpha_n, alpha_d = theta
        above = n_c - x[0]
        ratio = alpha_n / alpha_d
        u, v = ratio * above, d_c - x[1]
        value = xp.logaddexp(u, v)
        share, rest = xp.exp(u - value), xp.exp(v - value)
        zero = xp.zeros_like(value)
        u_slopes = [ratio + zero, zero, above / alpha_d + zero, -ratio * above / alpha_d + zero]
        u_bends = {
            (0, 2): 1 / alpha_d,
            (0, 3): -ratio / alpha_d,
            (2, 3): -above / alpha_d**2,
            (3, 3): 2 * ratio * above / alpha_d**2,
        }
        apart = [slope - (i == 1) for i, slope in enumerate(u_slopes)]  # slopes of u - v
        inner = [share * slope + rest * (i == 1) for i, slope in enumerate(u_slopes)]

        def second(weight_RB):
            rows = [[None] * 4 for _ in range(4)]
            for i in range(4):
                for j in range(i, 4):
                    bend = share * u_bends.get((i, j), 0.0) + share * rest * apart[i] * apart[j]
                    bend = alpha_d * bend + (i == 3) * inner[j] + (j == 3) * inner[i]
                    rows[i][j] = rows[j][i] = dot(weight_RB, bend, xp)
            return rows

        slopes = [alpha_d * slope + (i == 3) * value for i, slope in enumerate(inner)]
        return alpha_d * value, slopes, second

    def starts(self, y: Range) -> Array:
        """Shares of the two terms and both exponents on a grid."""
        rows = []
        for share, alpha_n, alpha_d in product((0.15, 0.5, 0.85), *2 * [(0.05, 0.1, 0.2, 0.4)]):
            inner = np.log(y.middle) / alpha_d
            n_c = (inner + np.log(share)) * alpha_d / alpha_n
            rows.append((n_c, inner + np.log1p(-share), alpha_n, alpha_d))
        return np.array(rows)

    def bounds(self, y: Range) -> tuple[Array, Array]:
        """Scales are free, exponents positive."""
        scale = (-1e3, 1e3)
        return columns_of_bounds(scale, scale, EXPONENT_BOUNDS, EXPONENT_BOUNDS)

    def unpack(self, theta: Array, centre: Array) -> Array:
        """Scales in units of N and D."""
        n_c, d_c, alpha_n, alpha_d = split(theta)
        return np.stack([np.exp(n_c + centre[0]), np.exp(d_c + centre[1]), alpha_n, alpha_d], -1)

    def pack(self, parameters: Array, centre: Array) -> Array:
        """Logs of the scales over the middle of the data."""
        n_c, d_c, alpha_n, alpha_d = split(parameters)
        return np.stack([np.log(n_c) - centre[0], np.log(d_c) - centre[1], alpha_n, alpha_d], -1)

    def allocation(self, parameters: Array) -> Array:
        """(a, b, G) of Chinchilla's form with alpha = alpha_N/alpha_D, beta = 1."""
        n_c, d_c, alpha_n, alpha_d = split(parameters)
        alpha = alpha_n / alpha_d
        log_g = (np.log(alpha) + alpha * np.log(n_c) - np.log(d_c)) / (alpha + 1)
        return np.stack([1 / (alpha + 1), alpha / (alpha + 1), np.exp(log_g)], -1)


@dataclass(frozen=True)
class KaplanNS(PowerSum):
    """L = (N_c/N)^alpha_N + (S_c/S_min)^alpha_S: n_steps is S_min (analysis.laws.batch).

    Source: Kaplan et al. 2020, arXiv:2001.08361, eq. 1.6.
    """

    name = "kaplan_ns"
    equation = "L = (N_c/N)^alpha_N + (S_c/S_min)^alpha_S"
    source = "Kaplan et al. 2020, arXiv:2001.08361, eq. 1.6"
    domain = "steps after the learning rate's warm-up, adjusted to S_min; data not repeated"
    terms = (
        Term("N_c", {"N": "alpha_N"}, as_scale=True),
        Term("S_c", {"S": "alpha_S"}, as_scale=True),
    )


@dataclass(frozen=True)
class WidthDepth(PowerSum):
    """L = E + A / d_model^alpha + B / n_layers^beta + C / D^gamma.

    Source: McLeish et al. 2025 (Gemstones), arXiv:2502.06857, the width-depth-token form.
    """

    name = "width_depth"
    equation = "L = E + A / width^alpha + B / depth^beta + C / D^gamma"
    source = "McLeish et al. 2025, arXiv:2502.06857"
    domain = "width and depth varied apart from each other"
    terms = (
        Term("E"),
        Term("A", {"width": "alpha"}),
        Term("B", {"depth": "beta"}),
        Term("C", {"D": "gamma"}),
    )


@dataclass(frozen=True)
class PerCorpus(PowerSum):
    """L = E_k + A_k / N^alpha + B_k / D^beta on corpus k: exponents shared, the rest its own.

    `corpora` names them in the order of the codes 0, 1, ... of the column `corpus`.

    Source: the form is Hoffmann et al. 2022, arXiv:2203.15556, eq. 2; sharing exponents is ours.
    """

    corpora: tuple[str, ...]
    equation = "L = E_k + A_k / N^alpha + B_k / D^beta"
    source = "Hoffmann et al. 2022, arXiv:2203.15556, eq. 2, exponents shared by the corpora"

    @property
    def name(self) -> str:  # type: ignore[override]
        """per_corpus_ and the names."""
        return "_".join(("per_corpus", *self.corpora))

    @property
    def terms(self) -> tuple[Term, ...]:  # type: ignore[override]
        """Three terms a corpus: E_k, A_k, B_k."""
        return tuple(
            Term(f"{letter}_{name}", powers, group=code)
            for code, name in enumerate(self.corpora)
            for letter, powers in (("E", {}), ("A", {"N": "alpha"}), ("B", {"D": "beta"}))
        )

    def on(self, corpus: str, parameters: Array) -> Array:
        """Chinchilla's parameters on one corpus (..., 5), for its predictions and allocation.

        Raises: ValueError: an unknown corpus.
        """
        if corpus not in self.corpora:
            raise ValueError(f"corpus={corpus!r}; use one of {', '.join(self.corpora)}")
        first = 3 * self.corpora.index(corpus)
        return np.asarray(parameters, np.float64)[..., [first, first + 1, first + 2, -2, -1]]


@dataclass(frozen=True)
class BrokenPowerLaw(Law):
    """L = E + A x^-c0 (1 + (x/d1)^(1/f1))^(-c1 f1): slope c0 before d1, c0 + c1 after it.

    For diagnosis: an interval of c1 that holds 0 says that the slope does not change, and then d1
    and f1 (the width of the break in log x) are not determined.

    Source: Caballero et al. 2022, arXiv:2210.14891, eq. 1 with one break; E and A are their a, b.
    """

    variable: str
    equation = "L = E + A x^-c0 (1 + (x/d1)^(1/f1))^(-c1 f1)"
    source = "Caballero et al. 2022, arXiv:2210.14891, eq. 1, n = 1"
    parameter_names = ("E", "A", "c0", "c1", "d1", "f1")

    @property
    def name(self) -> str:  # type: ignore[override]
        """bnsl_N and so on."""
        return f"bnsl_{self.variable}"

    @property
    def variables(self) -> tuple[str, ...]:  # type: ignore[override]
        """The one variable."""
        return (self.variable,)

    def log_value(self, theta, x, xp):
        """Log loss; theta holds the logs of the centred d1 and of f1."""
        floor, a, c0, c1, log_d, log_f = theta
        width = xp.exp(log_f)
        bend = width * xp.logaddexp(0.0, (x[0] - log_d) / width)
        return xp.log(floor + a * xp.exp(-c0 * x[0] - c1 * bend))

    def starts(self, y: Range) -> Array:
        """Floors, slopes that grow or shrink, and breaks left, amid and right of the middle.

        All are released: a floor and a slope that shrinks look alike, and the lowest points of a
        projected surface would all lie in one of the two basins.
        """
        grid = product((0.3, 0.8), (0.1, 0.4), (-0.3, 0.3), (-2.0, 0.0, 2.0))
        return np.array(
            [
                (share * y.low, y.middle - share * y.low, c0, c1, log_d, -1.0)
                for share, c0, c1, log_d in grid
            ]
        )

    def bounds(self, y: Range) -> tuple[Array, Array]:
        """The floor is positive; slopes may have either sign; f1 from a kink to a wide bend."""
        low = FLOOR_BOUND * y.low
        slope = (-3.0, 3.0)
        linear = ((low, y.high), (low, 1e3 * y.high))
        return columns_of_bounds(*linear, slope, slope, (-20.0, 20.0), (-4.0, 2.0))

    def unpack(self, theta: Array, centre: Array) -> Array:
        """A and d1 in units of x."""
        floor, a, c0, c1, log_d, log_f = split(theta)
        a, d = a * np.exp(c0 * centre[0]), np.exp(log_d + centre[0])
        return np.stack([floor, a, c0, c1, d, np.exp(log_f)], -1)

    def pack(self, parameters: Array, centre: Array) -> Array:
        """The inverse of unpack."""
        floor, a, c0, c1, d, f = split(parameters)
        a, log_d = a * np.exp(-c0 * centre[0]), np.log(d) - centre[0]
        return np.stack([floor, a, c0, c1, log_d, np.log(f)], -1)
