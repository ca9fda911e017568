"""How width enters the initial scale, the learning rate and the weight decay of each parameter.

Parameters are named by their dotted path, as `model.functional.flatten` gives it.
"""

import math

from model.config import ModelConfig

_EMBEDDINGS_AND_HEAD = ("token_embedding", "position_embedding", "head")


def _check(parametrization: str) -> None:
    if parametrization != "standard":
        raise ValueError(f"parametrization={parametrization!r} is unknown; use 'standard'")


def is_gain(name: str) -> bool:
    """Whether the parameter is a norm's gain, the only kind that is no matrix."""
    return name.endswith(".gain")


def init_std(cfg: ModelConfig, name: str, shape: tuple[int, ...], parametrization: str) -> float:
    """Standard deviation of a matrix's normal initial values.

    0.5 / sqrt(fan_in) for the blocks' matrices (fan_in is the first axis), 0.5 / sqrt(d_model)
    for embeddings and head. A std that does not shrink with width, such as GPT-2's 0.02, leaves
    narrow models on the bigram plateau for most of a short run.

    Raises: ValueError: the parametrization is unknown.
    Source: ours, measured at d_model 24 to 40; the form is LeCun et al. 1998, "Efficient
        BackProp", section 4.6, at half its scale.
    """
    _check(parametrization)
    fan_in = cfg.d_model if name in _EMBEDDINGS_AND_HEAD else shape[0]
    return 0.5 / math.sqrt(fan_in)


def lr_multiplier(cfg: ModelConfig, name: str, parametrization: str) -> float:
    """Factor on the learning rate of one parameter; 1 for all in the standard parametrization.

    Raises: ValueError: the parametrization is unknown.
    """
    del cfg, name
    _check(parametrization)
    return 1.0


def weight_decay_mask(name: str) -> bool:
    """Whether the parameter decays: all matrices, embeddings included, and no gain."""
    return not is_gain(name)
