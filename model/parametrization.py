"""How width and depth enter initial scale, learning rate, weight decay and the forward pass.

Two parametrizations by name. `standard` changes nothing with size but the initial scale. `mup` is
the maximal update parametrization for Adam with a rule for depth: with it, the learning rate and
the decay that are best for a small model are meant for every larger one of the same family, in
which d_attn and d_ff grow in proportion to d_model. At the base size the two are one and the same:
same initial values, rates and forward pass.

With m = d_model / BASE_WIDTH and l = n_layers / BASE_DEPTH, `mup` is:

| | embeddings, head | gains, biases | matrices of the blocks |
|---|---|---|---|
| initial std | 0.5 / sqrt(BASE_WIDTH) | none | 0.5 / sqrt(fan_in) |
| learning rate | 1 | 1 | 1 / m |
| weight decay before the rate | 1 | none | m |

Logits are multiplied by 1 / m, attention scores by sqrt(BASE_D_HEAD) / d_head in place of
1 / sqrt(d_head), and each residual branch by 1 / l.

- Table 8 of the source, not its table 3, since it allows a tied head: the head is of the same kind
  as the embedding, with the width in the multiplier.
- Depth by CompleteP's 1 / l rather than the 1 / sqrt(l) of Yang et al. 2023 (arXiv:2310.02244),
  who derive theirs for branches of one matrix and find that it does not carry learning rates over
  for deeper ones such as a transformer's. Under 1 / l with Adam no learning rate depends on depth.
- Decay is independent of the learning rate's width factor: rate times decay, which sets over how
  many steps weights are averaged, is the same at every width. The learning rate's schedule still
  multiplies it. CompleteP's eps rule is left out: eps is 1e-8, far below the gradients here.

Parameters are named by their dotted path, as `model.functional.flatten` gives it.

Source: Yang et al. 2022 (Tensor Programs V), arXiv:2203.03466, table 8 and definition 4.1; Dey et
    al. 2025 (CompleteP), arXiv:2505.01618, table 1 (alpha = 1: residual multiplier, decay times m).
"""

import math
from typing import NamedTuple

from model.config import ModelConfig

PARAMETRIZATIONS = ("standard", "mup")
BASE_WIDTH = 32
"""d_model at which `mup` equals `standard`; a rung of the quickstart, as are the next two."""
BASE_DEPTH = 2
"""n_layers at which the residual branches are added as they are."""
BASE_D_HEAD = 8
"""d_head at which attention scores have their usual scale."""

_EMBEDDINGS_AND_HEAD = ("token_embedding", "position_embedding", "head")


class Multipliers(NamedTuple):
    """Factors in the forward pass: on queries, on each residual branch, and on the logits."""

    query: float
    residual: float
    output: float


UNSCALED = Multipliers(1.0, 1.0, 1.0)


def _is_mup(parametrization: str) -> bool:
    if parametrization not in PARAMETRIZATIONS:
        known = ", ".join(map(repr, PARAMETRIZATIONS))
        raise ValueError(f"parametrization={parametrization!r} is unknown; use one of {known}")
    return parametrization == "mup"


def is_gain(name: str) -> bool:
    """Whether the parameter is a norm's gain; it starts at 1."""
    return name.endswith("gain")


def is_bias(name: str) -> bool:
    """Whether the parameter is a bias; it starts at 0."""
    return name.endswith("bias")


def _is_block_matrix(name: str) -> bool:
    return name not in _EMBEDDINGS_AND_HEAD and weight_decay_mask(name)


def multipliers(cfg: ModelConfig, parametrization: str) -> Multipliers:
    """Factors in the forward pass; all 1 in the standard parametrization.

    The query's factor comes on top of the 1 / sqrt(d_head) of every attention.

    Raises: ValueError: the parametrization is unknown.
    """
    if not _is_mup(parametrization):
        return UNSCALED
    return Multipliers(
        query=math.sqrt(BASE_D_HEAD / cfg.d_head),
        residual=BASE_DEPTH / cfg.n_layers,
        output=BASE_WIDTH / cfg.d_model,
    )


def init_std(cfg: ModelConfig, name: str, shape: tuple[int, ...], parametrization: str) -> float:
    """Standard deviation of a matrix's normal initial values.

    0.5 / sqrt(fan_in) for the blocks' matrices (fan_in is the first axis), 0.5 / sqrt(width) for
    embeddings and head, where the width is d_model, or BASE_WIDTH under muP. A std that does not
    shrink with width, such as GPT-2's 0.02, leaves narrow models on the bigram plateau for most of
    a short run.

    Raises: ValueError: the parametrization is unknown.
    Source: ours, measured at d_model 24 to 40; the form is LeCun et al. 1998, "Efficient
        BackProp", section 4.6, at half its scale.
    """
    width = BASE_WIDTH if _is_mup(parametrization) else cfg.d_model
    fan_in = width if name in _EMBEDDINGS_AND_HEAD else shape[0]
    return 0.5 / math.sqrt(fan_in)


def lr_multiplier(cfg: ModelConfig, name: str, parametrization: str) -> float:
    """Factor on the learning rate of one parameter; 1 for all in the standard parametrization.

    Raises: ValueError: the parametrization is unknown.
    """
    if _is_mup(parametrization) and _is_block_matrix(name):
        return BASE_WIDTH / cfg.d_model
    return 1.0


def weight_decay_multiplier(cfg: ModelConfig, name: str, parametrization: str) -> float:
    """Factor on the weight decay of one parameter, before the learning rate multiplies it.

    0 where nothing decays; else the inverse of `lr_multiplier`, so that rate times decay is the
    same for all.

    Raises: ValueError: the parametrization is unknown.
    Source: Dey et al. 2025, arXiv:2505.01618, table 1; so does MuAdamW of Yang et al.'s package.
    """
    if not weight_decay_mask(name):
        return 0.0
    return 1 / lr_multiplier(cfg, name, parametrization)


def weight_decay_mask(name: str) -> bool:
    """Whether the parameter decays: all matrices, embeddings included, and no gain or bias."""
    return not (is_gain(name) or is_bias(name))
