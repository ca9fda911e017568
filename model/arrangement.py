"""How the layers of one model are computed: unrolled or scanned, kept or recomputed, on which mesh.

Same values whichever way (by test, to rounding); provenance of a run, never its identity.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

Remat = Literal["none", "dots", "full"]
"""What the backward pass finds: all that it needs; the products with weights; the block's input."""

POLICIES = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}


@dataclass(frozen=True)
class Arrangement:
    """One way to compute a model; static in a compiled step.

    Args:
        scan_layers: whether parameters of all layers are stacked and one compiled layer runs over
            them: the program's size, and the time to compile it, do not grow with depth.
        remat: what of a layer's forward pass is kept for the backward pass.
        mesh: a jax.sharding.Mesh with the axes of train.sharding; None for one device.
    """

    scan_layers: bool = False
    remat: Remat = "none"
    mesh: Any = None

    def __post_init__(self) -> None:
        if self.remat not in get_args(Remat):
            known = ", ".join(get_args(Remat))
            raise ValueError(f"remat={self.remat!r} is unknown; use one of {known}")

    @property
    def in_layers(self) -> bool:
        """Whether blocks are applied one by one as functions of their parameters."""
        return self != UNROLLED


UNROLLED = Arrangement()
"""The form for small models on one device."""


BATCH_AXES = ("data", "fsdp")
"""Axes of a mesh that the rows of a batch are spread over."""


def over_batch(x: jax.Array, mesh: Any, axis: int = 0) -> jax.Array:
    """x with its batch axis spread over the mesh and all other axes whole; x itself without."""
    if mesh is None:
        return x
    spec = jax.P(*(None,) * axis, BATCH_AXES)
    return jax.lax.with_sharding_constraint(x, jax.NamedSharding(mesh, spec))


def _is_model(node: Any) -> bool:
    return isinstance(node, dict) and "blocks" in node


def stack_layers(tree: Any) -> Any:
    """Parameters, or a state that holds trees like them, with one leading axis for all layers.

    `blocks.0.mlp.up`, `blocks.1.mlp.up`, ... of shape [D, F] become `blocks.mlp.up`, [L, D, F].
    """

    def stacked(node: Any) -> Any:
        if not _is_model(node):
            return node
        layers = [node["blocks"][key] for key in sorted(node["blocks"], key=int)]
        return {**node, "blocks": jax.tree.map(lambda *leaves: _stack(leaves), *layers)}

    return jax.tree.map(stacked, tree, is_leaf=_is_model)


def unstack_layers(tree: Any) -> Any:
    """The inverse of `stack_layers`."""

    def unstacked(node: Any) -> Any:
        if not _is_model(node):
            return node
        n_layers = len(jax.tree.leaves(node["blocks"])[0])
        layers = {
            str(i): jax.tree.map(lambda leaf, i=i: leaf[i], node["blocks"]) for i in range(n_layers)
        }
        return {**node, "blocks": layers}

    return jax.tree.map(unstacked, tree, is_leaf=_is_model)


def _stack(leaves: tuple[Any, ...]) -> Any:
    return np.stack(leaves) if isinstance(leaves[0], np.ndarray) else jnp.stack(leaves)
