"""The only crossing between flax and plain JAX.

Outside `model/`, parameters are a nested dict with string keys and array leaves, an ordinary
pytree: `params["blocks"]["0"]["attention"]["qkv"]`. The compute dtype is the parameters' dtype.
"""

import dataclasses
import functools
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import Array, Float, Integer

from model.arrangement import POLICIES, UNROLLED, Arrangement, over_batch
from model.caching import Past
from model.config import ModelConfig
from model.kernels import PLAIN, Kernels
from model.own import check_own_parameters, initial_value, own_initial_values
from model.parametrization import UNSCALED, Multipliers, init_std, is_bias, is_gain, multipliers
from model.transformer import Transformer

Params = dict[str, Any]
Tokens = Integer[Array, "B T"] | Integer[np.ndarray, "B T"]


def _model(cfg: ModelConfig, kernels: Kernels = PLAIN, factors: Multipliers = UNSCALED):
    return nnx.eval_shape(lambda: Transformer(cfg, kernels, factors))


@functools.cache
def _split(cfg: ModelConfig, kernels: Kernels, factors: Multipliers) -> tuple[Any, dict[str, Any]]:
    model = _model(cfg, kernels, factors)
    graphdef, state = nnx.split(model)
    if cfg.parts:
        check_own_parameters(model)
    return graphdef, nnx.to_pure_dict(state)


def _merge(cfg: ModelConfig, params: Params, kernels: Kernels, parametrization: str) -> Transformer:
    return _merged(cfg, params, kernels, multipliers(cfg, parametrization))


def _merged(
    cfg: ModelConfig, params: Params, kernels: Kernels, factors: Multipliers
) -> Transformer:
    graphdef, state = _split(cfg, kernels, factors)
    return nnx.merge(graphdef, jax.tree.map(jnp.asarray, _keyed_as(state, params)))


def _keyed_as(state: Any, params: Any) -> Any:
    # flax matches leaves by sorted order, and "10" sorts before "2": layers must go back to ints.
    if not isinstance(state, dict):
        return params
    return {key: _keyed_as(inner, params[str(key)]) for key, inner in state.items()}


def _keyed_by_strings(state: Any) -> Any:
    if not isinstance(state, dict):
        return state
    return {str(key): _keyed_by_strings(inner) for key, inner in state.items()}


def abstract_params(cfg: ModelConfig) -> Params:
    """Shapes and dtypes of the parameters: a nested dict of jax.ShapeDtypeStruct, float32."""
    return _keyed_by_strings(_split(cfg, PLAIN, multipliers(cfg, "standard"))[1])


def init_params(cfg: ModelConfig, seed: int, parametrization: str = "standard") -> Params:
    """Initial parameters: a nested dict of float32 numpy arrays, the same on every device.

    Matrices are normal with the parametrization's std, gains are 1, biases 0, unless the module of
    a user's file says otherwise (model.own). Each array is drawn from a generator of its own, keyed
    by (seed, name), so no option changes the draw of another.

    Raises: ValueError: seed is negative, the parametrization is unknown, or the user's initial
        values have another shape or are not finite.
    """
    if seed < 0:
        raise ValueError(f"seed={seed} is negative; use an int of at least 0")
    leaves = {}
    own = own_initial_values(_model(cfg)) if cfg.parts else {}
    for name, leaf in flatten(abstract_params(cfg)).items():
        if name in own:
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            leaves[name] = initial_value(name, own[name], leaf.shape, rng)
            continue
        if is_gain(name):
            leaves[name] = np.ones(leaf.shape, np.float32)
            continue
        if is_bias(name):
            leaves[name] = np.zeros(leaf.shape, np.float32)
            continue
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        std = init_std(cfg, name, leaf.shape, parametrization)
        leaves[name] = rng.standard_normal(leaf.shape, np.float32) * np.float32(std)
    return unflatten(leaves)


def features(
    cfg: ModelConfig,
    params: Params,
    tokens_BT: Tokens,
    *,
    kernels: Kernels = PLAIN,
    parametrization: str = "standard",
    pasts: Sequence[Past] | None = None,
    arrangement: Arrangement = UNROLLED,
) -> tuple[Float[Array, "B T D"], Float[Array, "V D"]]:
    """The final norm's output x_BTD and the head w_VD; logits are their product, soft-capped.

    Args: tokens_BT: int, at most seq_len long.
        parametrization: the one that the parameters were made and are trained under; its output
            multiplier is in x_BTD.
        pasts: of each block the keys and values of earlier tokens (model.caching); it adds to them.
            Layers are then computed one by one.
        arrangement: how layers are computed; with scan_layers, params are those of stack_layers.
    Raises: ValueError: the tokens are more than seq_len long, or the parametrization is unknown.
    """
    tokens_BT = jnp.asarray(tokens_BT)
    if arrangement.in_layers:
        factors = multipliers(cfg, parametrization)
        return _in_layers(cfg, params, tokens_BT, kernels, factors, arrangement)
    return _merge(cfg, params, kernels, parametrization).features(tokens_BT, pasts)


def _in_layers(
    cfg: ModelConfig,
    params: Params,
    tokens_BT: jax.Array,
    kernels: Kernels,
    factors: Multipliers,
    arrangement: Arrangement,
) -> tuple[jax.Array, jax.Array]:
    """`features` by a function of one layer, which can be scanned, recomputed and sharded."""
    one = dataclasses.replace(cfg, n_layers=1)
    shell = {name: leaf for name, leaf in params.items() if name != "blocks"}

    def model(layer: Params) -> Transformer:
        return _merged(one, {**shell, "blocks": {"0": layer}}, kernels, factors)

    def through(x_BTD: jax.Array, layer: Params) -> jax.Array:
        return over_batch(model(layer).through(0, x_BTD), arrangement.mesh)

    if arrangement.remat != "none":
        # A scan keeps the compiler from merging the recomputed pass with the first by itself.
        through = jax.checkpoint(
            through, policy=POLICIES[arrangement.remat], prevent_cse=not arrangement.scan_layers
        )
    blocks = params["blocks"]
    first = jax.tree.map(lambda leaf: leaf[0], blocks) if arrangement.scan_layers else blocks["0"]
    x_BTD = over_batch(model(first).enter(tokens_BT), arrangement.mesh)
    if arrangement.scan_layers:
        x_BTD, _ = jax.lax.scan(lambda x, layer: (through(x, layer), None), x_BTD, blocks)
    else:
        for i in range(cfg.n_layers):
            x_BTD = through(x_BTD, blocks[str(i)])
    return model(first).leave(x_BTD)


def stream(
    cfg: ModelConfig,
    params: Params,
    tokens_BT: Tokens,
    *,
    kernels: Kernels = PLAIN,
    parametrization: str = "standard",
) -> list[Float[Array, "B T D"]]:
    """The residual stream x_BTD after each block, first block first.

    Args: tokens_BT: int, at most seq_len long.
    Raises: ValueError: the tokens are more than seq_len long, or the parametrization is unknown.
    """
    return _merge(cfg, params, kernels, parametrization).stream(jnp.asarray(tokens_BT))


def apply(
    cfg: ModelConfig,
    params: Params,
    tokens_BT: Tokens,
    *,
    kernels: Kernels = PLAIN,
    parametrization: str = "standard",
) -> Float[Array, "B T V"]:
    """Logits_BTV of the token after each position.

    Args: tokens_BT: int, at most seq_len long.
        parametrization: the one that the parameters were made and are trained under.
    Raises: ValueError: the tokens are more than seq_len long, or the parametrization is unknown.
    """
    return _merge(cfg, params, kernels, parametrization)(jnp.asarray(tokens_BT))


def flatten(params: Params) -> dict[str, Any]:
    """Leaves by dotted name, such as `blocks.0.attention.qkv`."""
    return traverse_util.flatten_dict(params, sep=".")


def unflatten(leaves: dict[str, Any]) -> Params:
    """The nested dict of leaves by dotted name: the inverse of `flatten`."""
    return traverse_util.unflatten_dict(leaves, sep=".")
