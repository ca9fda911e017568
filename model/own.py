"""Parameters of modules from a user's file: what they may be, and where their values come from.

A parameter starts as its module's class attribute `initial` says, a dict from the parameter's name
to a number or to a function (rng, shape) -> array with a numpy generator keyed by seed and name.
Where that is silent our rule holds: gains 1, biases 0, matrices normal with 0.5 / sqrt(fan_in),
fan_in the first axis. What the file itself puts into an nnx.Param is read for its shape only.
"""

from typing import Any

import numpy as np
from flax import nnx

from model.parametrization import is_bias, is_gain


def check_own_parameters(model: nnx.Module) -> None:
    """Refuse what has no place among parameters.

    Raises: ValueError: a state that is no nnx.Param, a dtype other than float32, a scalar or a
        vector that is called neither gain nor bias, or an `initial` without its parameter.
    """
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        name = ".".join(map(str, path))
        if not isinstance(variable, nnx.Param):
            raise ValueError(
                f"{name} is of type {type(variable).__name__}; a part may hold nnx.Param alone "
                "(no dropout, no running statistics)"
            )
        leaf = variable.get_value()
        shape, dtype = leaf.shape, leaf.dtype
        if dtype != np.float32:
            raise ValueError(f"{name} is of dtype {dtype}; declare it as float32")
        if len(shape) < 2 and not (is_gain(name) or is_bias(name)):
            raise ValueError(
                f"{name} of shape {shape} is no matrix: end its name in gain (starts at 1) or in "
                "bias (starts at 0); `initial` may give it another value"
            )
    own_initial_values(model)


def own_initial_values(model: nnx.Module) -> dict[str, Any]:
    """What the classes of the model's modules say in `initial`, by the parameter's dotted name.

    Raises: ValueError: `initial` names no parameter of its module.
    """
    found = {}
    names = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model))}
    for path, module in nnx.iter_modules(model):
        for name, value in getattr(type(module), "initial", {}).items():
            full = ".".join(map(str, (*path, name)))
            if full not in names:
                raise ValueError(
                    f"{type(module).__name__}.initial names {name!r}, but there is no parameter "
                    f"{full}; name one of the module's own"
                )
            found[full] = value
    return found


def initial_value(
    name: str, value: Any, shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """A number as a whole array, or what a function makes of (rng, shape), as float32.

    Raises: ValueError: the function fails, gives another shape, or values that are not finite.
    """
    try:
        made = np.asarray(value(rng, shape) if callable(value) else value, np.float32)
    except Exception as error:
        raise ValueError(f"initial of {name}: {type(error).__name__}: {error}") from error
    if made.shape not in ((), shape) or not np.isfinite(made).all():
        raise ValueError(
            f"initial of {name} gives shape {made.shape} with {np.isnan(made).sum()} NaN; "
            f"give {shape}, all finite"
        )
    return np.array(np.broadcast_to(made, shape))
