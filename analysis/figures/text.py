"""Numbers, laws and names as the text of a figure."""

import math
import textwrap

from analysis.fit import Fit

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain(text: str) -> str:
    """Text from outside, so that a dollar sign in it does not begin a formula."""
    return text.replace("$", r"\$")


def wrapped(text: str, width: int = 52) -> str:
    """Plain text broken into lines that fit a legend."""
    return textwrap.fill(plain(text), width)


def short(number: float) -> str:
    """Three digits and a unit: 8.24k, 1.2M; powers of ten from 10^10 on."""
    if not math.isfinite(number):
        return "none"
    for divisor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if divisor <= abs(number) < 1e10:
            return f"{number / divisor:.3g}{unit}"
    return f"{number:.3g}"


def power_of_ten(number: float) -> str:
    """A number as m × 10 to a raised k, m left out where it is 1; a formula would cost a parser."""
    exponent = math.floor(math.log10(number) + 1e-9)
    mantissa = number / 10**exponent
    power = f"10{str(exponent).translate(RAISED)}"
    return power if abs(mantissa - 1) < 1e-6 else f"{mantissa:.3g}×{power}"


def with_interval(value: float, interval: tuple[float, float], digits: int = 2) -> str:
    """A number with its interval in brackets, or with the remark that it has none."""
    if not math.isfinite(value):
        return "none"
    low, high = interval
    if not math.isfinite(low + high):
        return f"{value:.{digits}f} (no interval)"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def optimal_text(variable: str, slope: float, interval: tuple[float, float]) -> str:
    """The power law of optimal size (variable "N") or data ("D") in compute, with its interval."""
    name, raised = {"N": ("a", "ᵃ"), "D": ("b", "ᵇ")}[variable]
    return f"{variable}* ∝ C{raised}, {name} = {with_interval(slope, interval)}"


def equation(fit: Fit) -> str:
    """The law's equation, with the name of its variable where the law leaves it open as x."""
    return fit.law.equation.replace("x^", f"{fit.law.variables[0]}^")


def law_text(fit: Fit) -> str:
    """The fitted law with the interval of every parameter, for a caption."""
    if not fit.ok:
        return f"no {equation(fit)}: {fit.status}"
    numbers = []
    for name, value in fit.parameters.items():
        low, high = fit.intervals[name]
        known = math.isfinite(low + high)
        span = f" [{short(low)}, {short(high)}]" if known else ""
        numbers.append(f"{name} {short(value)}{span}")
    return f"{equation(fit)}: {', '.join(numbers)} ({fit.interval_level:.0%} intervals)"
