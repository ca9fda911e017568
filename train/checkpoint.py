"""States of runs on disk (Orbax), and the weights a finished run leaves (safetensors).

The folder of a state, be it a checkpoint or a branch point, holds

    state-<step>/     weights, moments and average after `step` steps, and the metrics of each step
    latest.json       which step stands, the format, name, shape and type of each array, digests

and counts once latest.json is written.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from model.config import ModelConfig
from model.functional import Params, abstract_params, flatten, unflatten
from train.config import RunSpec, from_json
from train.records import RecordError, check_written, write_atomically
from train.step import StepMetrics, TrainState

Announce = Callable[..., None]
"""Hears what is computed or written next, and its details."""

Restore = Callable[[Path, dict[str, Any]], list[Any]]
"""Gives the arrays in a state's folder, one for each of a dict's by name, in its order."""

_log = logging.getLogger(__name__)

FORMAT = 2
"""Of a state's folder. What format 1 wrote had neither its number nor metrics nor a digest."""


class CheckpointError(RecordError):
    """A state on disk that cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Saved:
    """A state read back: after how many steps, the metrics of these, what was noted beside it."""

    step: int
    state: TrainState
    history: np.ndarray
    notes: dict[str, Any]


def no_history(n_steps: int) -> np.ndarray:
    """Room for the metrics of so many steps: float32 [fields of StepMetrics, n_steps]."""
    return np.zeros((len(StepMetrics._fields), n_steps), np.float32)


def save(
    folder: Path,
    state: TrainState,
    step: int,
    history: np.ndarray,
    notes: dict[str, Any],
    announce: Announce = lambda what, **details: None,
) -> None:
    """Write the state after `step` steps; the one before it is removed once this one stands.

    Args:
        history: float32 [fields of StepMetrics, at least step]; the first `step` are kept.
        notes: JSON values given back by `read`.
        announce: hears where, before arrays that are spread over processes are written.

    Raises: OSError: the disk would not take it. The state before still stands.
    """
    arrays = arrays_by_name(state, history[:, :step])
    try:
        announce("write", path=str((folder / f"state-{step}").absolute()), step=step)
        write_arrays(folder / f"state-{step}", arrays)
        header = {
            "format": FORMAT, "step": step, "arrays": _shapes(arrays), "notes": notes,
            "files": _file_digests(folder / f"state-{step}"),
        }  # fmt: skip
        write_atomically(folder / "latest.json", json.dumps(seal(header)))
    finally:
        _remove_all_but_latest(folder)


@contextlib.contextmanager
def going_on(run_id: str, what: str, step: int) -> Iterator[None]:
    """Warn of what the disk would not take; a run goes on without."""
    try:
        yield
    except OSError as error:
        _log.warning(
            "run %s goes on, but its %s at step %d could not be written (%s); what was written "
            "before stays", run_id, what, step, error,
        )  # fmt: skip


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write the arrays of a state's folder; of those that are spread, each process its part."""
    import orbax.checkpoint as ocp

    files = {f"{i:04d}": array for i, array in enumerate(arrays.values())}
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(path.absolute(), files)
    except ValueError as error:
        raise _as_os_error(error, path) from error


def _as_os_error(error: Exception, path: Path) -> Exception:
    """The OSError that a library has put into words of its own; the error itself if it is none."""
    code = re.search(r"os_error_code='(\d+)'|os error (\d+)", str(error))
    if code is None:
        return error
    number = int(code[1] or code[2])
    return OSError(number, os.strerror(number), str(path))


def _remove_all_but_latest(folder: Path) -> None:
    """What a newer state replaced, and what is left of one that could not be written."""
    with contextlib.suppress(CheckpointError):
        header = latest(folder)
        for path in folder.glob("state-*"):
            if header is None or path.name != f"state-{header['step']}":
                shutil.rmtree(path, ignore_errors=True)


def latest(folder: Path) -> dict[str, Any] | None:
    """Header of the newest whole state in a folder, None if there is none.

    Raises: CheckpointError: it is damaged, or of another format.
    """
    path = folder / "latest.json"
    try:
        header = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); remove {folder}") from error
    found = header.get("format", 1) if isinstance(header, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"{path} has format {found} and this version reads format {FORMAT}; "
            f"finish the run with the version that wrote it, or remove {folder}"
        )
    if seal(header) != header:
        raise CheckpointError(f"{path} is not as it was written; remove {folder}")
    return header


def seal(header: dict[str, Any]) -> dict[str, Any]:
    """A header with the digest of all that is in it."""
    content = {key: value for key, value in header.items() if key != "digest"}
    text = json.dumps(content, sort_keys=True)
    return {**content, "digest": hashlib.sha256(text.encode()).hexdigest()}


def read(folder: Path, like: TrainState, restore: Restore | None = None) -> Saved | None:
    """The newest state in a folder, in the structure of `like`; None if none.

    Args: restore: gives the arrays of a folder, one for each of `like` by name; numpy by default.

    Raises: CheckpointError: it is damaged, of another format, or no state of such a run.
    """
    header = latest(folder)
    if header is None:
        return None
    path = folder / f"state-{header['step']}"
    step, found = header["step"], header["arrays"]
    expected = arrays_by_name(like, no_history(step))
    if found != _shapes(expected):
        wanted = _shapes(expected)
        odd = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
        raise CheckpointError(
            f"{path} holds {odd[0]} as {found.get(odd[0], 'nothing')} where this run has "
            f"{wanted.get(odd[0], 'nothing')}; remove {folder}"
        )
    # Before the files are read as arrays: of damaged ones, threads would complain long after.
    written, there = header["files"], _file_digests(path)
    if odd := [name for name in {**written, **there} if written.get(name) != there.get(name)]:
        raise CheckpointError(f"{path / odd[0]} is not as it was written; remove {folder}")
    *leaves, history = (restore or restored_arrays)(path, expected)
    state = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return Saved(step, state, np.asarray(history), header["notes"])


def restored_arrays(
    path: Path, like: dict[str, Any], places: dict[str, Any] | None = None
) -> list[Any]:
    """The arrays of a state's folder, in the order of `like`, which has one by name for each.

    Args: places: the jax.sharding of each array by its name; without, they come as numpy.
    Raises: CheckpointError: a file is damaged.
    """
    import orbax.checkpoint as ocp

    names = [f"{i:04d}" for i in range(len(like))]
    wanted: list[Any] = [ocp.RestoreArgs(restore_type=np.ndarray)] * len(like)
    if places is not None:
        wanted = [
            ocp.ArrayRestoreArgs(sharding=places[name], global_shape=leaf.shape)
            for name, leaf in like.items()
        ]
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            saved = checkpointer.restore(
                path.absolute(), restore_args=dict(zip(names, wanted, strict=True))
            )
        found = [saved[name] for name in names]
        return found if places is not None else [np.asarray(array) for array in found]
    # Orbax and its storage layers raise nearly every type there is, each for some damage.
    except Exception as error:
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be restored ({reason}); remove {path.parent}"
        ) from error


def arrays_by_name(state: TrainState, history: np.ndarray) -> dict[str, Any]:
    """The arrays of a state's folder, in the order in which they are written."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    arrays = {jax.tree_util.keystr(path): _as_written(leaf) for path, leaf in leaves}
    return {**arrays, "history": history}


def _as_written(leaf: Any) -> Any:
    """What is spread over devices stays there: each process writes its own part."""
    is_spread = isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1
    return leaf if is_spread else np.asarray(leaf)


def _shapes(arrays: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [str(array.dtype), *array.shape] for name, array in arrays.items()}


def _file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file: Orbax reads a flipped bit as another number, without complaint."""
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digests[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return digests


def save_weights(path: Path, params: Params, metadata: dict[str, str]) -> None:
    """Write parameters by dotted name, float32, in one safetensors file, atomically."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    temporary = path.with_name(f".{path.name}.tmp")
    tensors = {name: np.asarray(leaf) for name, leaf in flatten(params).items()}
    try:
        save_file(tensors, temporary, metadata=metadata)
    except SafetensorError as error:
        raise _as_os_error(error, path) from error
    temporary.replace(path)


def read_spec(path: Path) -> RunSpec:
    """The spec of the run that left these weights.

    Raises: RecordError: the file is missing, damaged, or without a spec.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            identity = json.loads((file.metadata() or {})["spec"])
        return from_json(RunSpec, {k: v for k, v in identity.items() if k != "schema_version"})
    except (FileNotFoundError, SafetensorError, KeyError, ValueError) as error:
        raise RecordError(f"{path} holds no spec ({error!r}); train the run again") from error


def load_weights(path: Path, cfg: ModelConfig) -> Params:
    """Parameters of a finished run.

    Raises: RecordError: the file is missing, damaged, or holds another model than `cfg`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    check_written(path)
    try:
        tensors = load_file(path)
    except (FileNotFoundError, SafetensorError) as error:
        raise RecordError(
            f"{path} cannot be read as weights ({error}); train the run again"
        ) from error
    expected = {name: leaf.shape for name, leaf in flatten(abstract_params(cfg)).items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != expected:
        odd = sorted(set(expected.items()) ^ set(found.items()))[:3]
        raise RecordError(f"{path} holds weights of another model; differs first in {odd}")
    return unflatten(tensors)
