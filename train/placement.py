"""Where one run computes: a device, or a mesh of them. The one loop (train.loop) asks nothing else.

A state has two forms. The loop's own, canonical one has a leaf for each array of each layer; it is
what is initialised, written and restored, on every placement the same. The form that computes lies
on the devices, and has its layers stacked where they are scanned.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from model.arrangement import UNROLLED, Arrangement, Remat, stack_layers, unstack_layers
from model.kernels import Kernels, kernels_for
from train.config import RunSpec, SpecError
from train.parts import microbatches
from train.runtime import Runtime, describe
from train.sharding import MeshShape, batch_sharding, check_mesh, make_mesh, sharding_of, shardings

Restore = Callable[[Path, dict[str, Any]], list[Any]]


@dataclass(frozen=True)
class OneDevice:
    """A jax.Device."""

    device: Any
    arrangement = UNROLLED

    @property
    def platform(self) -> str:
        """jax's name of the platform, such as "cpu"."""
        return self.device.platform

    def kernels(self, spec: RunSpec) -> Kernels:
        """The forms of the operations here."""
        return kernels_for(self.platform, spec.dtype)

    def n_microbatches(self, spec: RunSpec) -> int:
        """Parts that a batch is computed in."""
        return microbatches(spec.model.seq_len, spec.batch_size, self.platform)

    def describe(self, kernels_name: str, n_rows: int) -> Runtime:
        """For the record."""
        return describe(self.device, kernels_name, n_rows)

    def put(self, tree: Any) -> Any:
        """A canonical state, or weights, in the form that computes."""
        return jax.device_put(tree, self.device)

    def put_batches(self, windows_KBT1: np.ndarray) -> Any:
        """Batches for the compiled step."""
        return windows_KBT1

    def canonical(self, tree: Any) -> Any:
        """The inverse of `put`, still on the devices."""
        return tree

    def on_host(self, tree: Any) -> Any:
        """A canonical tree of arrays that numpy can read."""
        return tree

    def announce(self, what: str, **details: Any) -> None:
        """Say what all devices compute next; there is nobody to hear it."""

    restore: Restore | None = None
    """Reads arrays of a checkpoint to where they belong; None for numpy arrays."""


@dataclass(frozen=True)
class OnMesh:
    """A mesh of devices, of this process or of several (train.team)."""

    arrangement: Arrangement
    shape: MeshShape
    n_parts: int = 1
    """Microbatches of each step, one after another."""
    channel: Any = None
    """A train.team.Channel, if other processes hold a part of the mesh."""

    def announce(self, what: str, **details: Any) -> None:
        """Say what all devices compute next, so that other processes do their part."""
        if self.channel is not None:
            self.channel.tell(what, **details)

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices, named along three axes."""
        return self.arrangement.mesh

    @property
    def platform(self) -> str:
        """jax's name of the platform, such as "cpu"."""
        return self.mesh.devices.flat[0].platform

    def kernels(self, spec: RunSpec) -> Kernels:
        """The forms of the operations here."""
        return kernels_for(self.platform, spec.dtype, self.mesh)

    def n_microbatches(self, spec: RunSpec) -> int:
        """Parts that a batch is computed in."""
        return self.n_parts

    def describe(self, kernels_name: str, n_rows: int) -> Runtime:
        """For the record: bits depend on the mesh and on the arrangement of layers."""
        found = describe(self.mesh.devices.flat[0], kernels_name, n_rows)
        how = self.arrangement
        mode = f"{found.mode} mesh={self.shape} microbatches={self.n_parts} remat={how.remat}"
        mode += " scanned" if how.scan_layers else ""
        return dataclasses.replace(found, mode=mode)

    def put(self, tree: Any) -> Any:
        """A canonical state, or weights, in the form that computes."""
        tree = jax.tree.map(_placed, tree, shardings(self.mesh, tree))
        return self._rearranged(stack_layers, tree) if self.arrangement.scan_layers else tree

    def put_batches(self, windows_KBT1: np.ndarray) -> Any:
        """Batches for the compiled step: to each device the rows that it computes."""
        return _placed(windows_KBT1, batch_sharding(self.mesh, 1))

    def canonical(self, tree: Any) -> Any:
        """The inverse of `put`, still on the devices."""
        return self._rearranged(unstack_layers, tree) if self.arrangement.scan_layers else tree

    def on_host(self, tree: Any) -> Any:
        """A canonical tree of numpy arrays, gathered one array at a time."""
        whole = jax.NamedSharding(self.mesh, jax.P())
        gather = jax.jit(lambda leaf: leaf, out_shardings=whole)
        return jax.tree.map(lambda leaf: np.array(gather(leaf)), self.canonical(tree))

    def restore(self, path: Path, like: dict[str, Any]) -> list[Any]:
        """Read the arrays of a checkpoint, each device its own part, whatever mesh wrote them."""
        self.announce("restore", path=str(path.absolute()), step=like["history"].shape[1])
        return self.restored(path, like)

    def restored(self, path: Path, like: dict[str, Any]) -> list[Any]:
        """`restore` as all processes do it together."""
        from train.checkpoint import restored_arrays

        places = {name: sharding_of(self.mesh, name, leaf.shape) for name, leaf in like.items()}
        return restored_arrays(path, like, places)

    def _rearranged(self, rearrange: Callable[[Any], Any], tree: Any) -> Any:
        places = shardings(self.mesh, jax.eval_shape(rearrange, tree))
        return jax.jit(rearrange, out_shardings=places)(tree)


Placement = OneDevice | OnMesh


def as_placement(device: Any) -> Placement:
    """A placement as it is; a jax.Device as one."""
    return device if isinstance(device, OneDevice | OnMesh) else OneDevice(device)


def on_mesh(
    spec: RunSpec,
    shape: MeshShape,
    devices: Sequence[Any],
    *,
    scan_layers: bool = False,
    remat: Remat = "none",
    n_microbatches: int = 1,
    channel: Any = None,
) -> OnMesh:
    """The placement of a run on devices.

    Raises: SpecError: the mesh does not cut the run into equal parts, or the run cannot be so.
    """
    check_mesh(spec, shape, n_microbatches)
    kind = spec.optimizer.kind
    if scan_layers and kind in ("muon", "custom"):
        raise SpecError(
            f"optimizer.kind={kind} knows matrices by their two axes, and scanned layers have "
            "three; leave scan_layers out, or use adamw or sgd"
        )
    mesh = make_mesh(shape, devices)
    return OnMesh(Arrangement(scan_layers, remat, mesh), shape, n_microbatches, channel)


def _placed(array: Any, place: Any) -> Any:
    if isinstance(array, jax.Array):
        return jax.device_put(array, place)
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, place, lambda index: array[index])
