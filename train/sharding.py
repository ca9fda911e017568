"""Where the arrays of one large run lie: a named mesh, and a rule for each parameter's name.

    data     copies of the model, each with rows of the batch of its own
    fsdp     rows of the batch likewise, and every weight matrix cut into as many parts, which are
             gathered when a layer needs them (fully sharded data parallel)
    tensor   heads, hidden units of the MLP and tokens of the vocabulary, cut within a layer

Moments and averages lie where their weights do. The compiler (GSPMD) adds the collectives; the
arrays that enter the step, and a few constraints within, decide which.

Source: Rajbhandari et al. 2020 (ZeRO), arXiv:1910.02054, section 5.3 (stage 3); Shoeybi et al. 2019
    (Megatron-LM), arXiv:1909.08053, section 3; Xu et al. 2021 (GSPMD), arXiv:2105.04663.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np

from model.arrangement import BATCH_AXES
from model.large import TABLE_AXES
from train.config import RunSpec, SpecError

AXES = ("data", "fsdp", "tensor")

_COLUMNS, _ROWS = ("fsdp", "tensor"), (TABLE_AXES, None)
_RULES: dict[str, tuple[Any, ...]] = {
    "qkv": _COLUMNS, "up": _COLUMNS, "gate": _COLUMNS,
    # By rows alone: thin columns would be padded to the 128 lanes of a TPU.
    "out": _ROWS, "down": _ROWS, "token_embedding": _ROWS, "head": _ROWS,
    "position_embedding": ("fsdp", None),
    "qkv_bias": ("tensor",), "up_bias": ("tensor",), "gate_bias": ("tensor",),
}  # fmt: skip
"""Mesh axes that each axis of a parameter is cut over, by the last part of its name. What is not
here is whole on every device: norms' gains, the other biases, and parts of a user's own."""


@dataclass(frozen=True)
class MeshShape:
    """How many devices along each axis of the mesh."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        for name, n in asdict(self).items():
            if n < 1:
                raise SpecError(f"mesh.{name}={n} must be at least 1")

    @property
    def n_devices(self) -> int:
        """Devices of the whole mesh."""
        return self.data * self.fsdp * self.tensor

    @property
    def n_batch_parts(self) -> int:
        """Parts that the rows of a batch are cut into."""
        return self.data * self.fsdp

    def __str__(self) -> str:
        return ",".join(f"{name}={n}" for name, n in asdict(self).items())


def parse_mesh(text: str, n_devices: int) -> MeshShape:
    """A mesh from `data=2,fsdp=4`; one axis may be `*`, for all devices that are left.

    Raises: SpecError: it cannot be read, or does not take exactly `n_devices`.
    """
    parts = [part.partition("=") for part in text.split(",")]
    sizes = {name.strip(): size.strip() for name, _, size in parts}
    is_read = all(size == "*" or (size.isdecimal() and int(size)) for size in sizes.values())
    if not is_read or not sizes.keys() <= set(AXES) or len(sizes) < len(parts):
        raise SpecError(f"mesh={text!r} cannot be read; write it like data=2,fsdp=4,tensor=1")
    given = {name: int(size) for name, size in sizes.items() if size != "*"}
    rest = [name for name in sizes if name not in given]
    left, surplus = divmod(n_devices, math.prod(given.values()))
    if len(rest) == 1 and not surplus and left:
        given[rest[0]] = left
    shape = MeshShape(**given)
    if len(rest) > 1 or shape.n_devices != n_devices:
        raise SpecError(
            f"mesh={text!r} is {shape.n_devices} devices and there are {n_devices}; their product "
            "must be the number of devices"
        )
    return shape


def check_mesh(spec: RunSpec, shape: MeshShape, n_microbatches: int = 1) -> None:
    """Refuse a mesh that does not cut a run into equal parts.

    Raises: SpecError: it names the field of the run and the axis of the mesh.
    """
    cfg = spec.model
    rows = shape.n_batch_parts * n_microbatches
    must_divide = [
        ("fsdp", shape.fsdp, "model.d_model", cfg.d_model),
        ("tensor", shape.tensor, "model.n_heads", cfg.n_heads),
        ("tensor", shape.tensor, "model.n_kv_heads", cfg.n_kv_heads or cfg.n_heads),
        ("tensor", shape.tensor, "model.d_ff", cfg.d_ff),
        ("fsdp x tensor", shape.fsdp * shape.tensor, "model.d_ff", cfg.d_ff),
        ("fsdp x tensor", shape.fsdp * shape.tensor, "n_heads * d_head of model", cfg.d_attn),
        ("data x fsdp x microbatches", rows, "batch_size", spec.batch_size),
    ]
    for axis, n, field, size in must_divide:
        if size % n:
            raise SpecError(
                f"{field}={size} cannot be cut into {n} equal parts ({axis} of mesh {shape}); "
                "use a mesh that divides it"
            )


def make_mesh(shape: MeshShape, devices: Sequence[Any]) -> jax.sharding.Mesh:
    """The mesh over devices, laid out along their interconnect where they have one."""
    from jax.experimental import mesh_utils

    sizes = (shape.data, shape.fsdp, shape.tensor)
    if devices[0].platform == "tpu":
        grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    else:
        grid = np.asarray(devices).reshape(sizes)
    return jax.sharding.Mesh(grid, AXES)


def shape_of(mesh: jax.sharding.Mesh) -> MeshShape:
    """The number of devices along each axis."""
    return MeshShape(**{name: mesh.shape[name] for name in AXES})


def sharding_of(mesh: jax.sharding.Mesh, path: str, shape: Sequence[int]) -> Any:
    """Where an array of a state lies, by its path (jax.tree_util.keystr) and its shape.

    The last part of the path that is a parameter's name decides, so that moments follow their
    weights. An axis that a mesh does not divide, such as an odd vocabulary, stays whole.
    """
    names = re.findall(r"\['(.*?)'\]", path)
    rule = next((_RULES[name] for name in reversed(names) if name in _RULES), ())
    if len(rule) > len(shape):
        rule = ()  # Of a scalar beside the parameters.
    rule = (None,) * (len(shape) - len(rule)) + rule  # Scanned layers have an axis before it.
    axes = [_fitting(mesh, names, size) for names, size in zip(rule, shape, strict=True)]
    return jax.NamedSharding(mesh, jax.P(*axes))


def _fitting(mesh: jax.sharding.Mesh, axes: Any, size: int) -> Any:
    names = () if axes is None else (axes,) if isinstance(axes, str) else axes
    parts = math.prod(mesh.shape[name] for name in names)
    return axes if parts > 1 and size % parts == 0 else None


def shardings(mesh: jax.sharding.Mesh, tree: Any) -> Any:
    """`sharding_of` every leaf."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: sharding_of(mesh, jax.tree_util.keystr(path), leaf.shape), tree
    )


def batch_sharding(mesh: jax.sharding.Mesh, axis: int) -> Any:
    """Of an array whose given axis is the rows of a batch."""
    return jax.NamedSharding(mesh, jax.P(*(None,) * axis, BATCH_AXES))


def kept_in_place(tree: Any, mesh: Any) -> Any:
    """Within a compiled function: a state or gradients, held to where they lie; as is without."""
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, shardings(mesh, tree))


def whole_everywhere(array: jax.Array, mesh: Any) -> jax.Array:
    """Within a compiled function: a small result that every process can read."""
    if mesh is None:
        return array
    return jax.lax.with_sharding_constraint(array, jax.NamedSharding(mesh, jax.P()))
