"""Checkpoints of a run under way (Orbax), and the weights a finished run leaves (safetensors)."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from model.config import ModelConfig
from model.functional import Params, abstract_params, flatten, unflatten
from train.config import RunSpec, from_json
from train.records import Attempt, RecordError, write_atomically
from train.step import TrainState


def save(attempt: Attempt, state: TrainState, step: int, provenance: dict[str, Any]) -> None:
    """Write the state after `step` steps; the checkpoint before it is removed once this one stands.

    Args: provenance: JSON values kept beside the state and given back by `restore`.
    """
    import orbax.checkpoint as ocp

    directory = attempt.checkpoint_dir
    leaves = {f"{i:04d}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save((directory / f"state-{step}").absolute(), leaves)
    write_atomically(directory / "latest.json", json.dumps({"step": step, **provenance}))
    for old in directory.glob("state-*"):
        if old.name != f"state-{step}":
            shutil.rmtree(old, ignore_errors=True)


def latest(attempt: Attempt) -> dict[str, Any] | None:
    """Step and provenance of an attempt's newest whole checkpoint, None if it has none."""
    try:
        return json.loads((attempt.checkpoint_dir / "latest.json").read_text())
    except FileNotFoundError:
        return None


def restore(attempt: Attempt, step: int, like: TrainState) -> TrainState:
    """The state saved after `step` steps, as numpy arrays in the structure of `like`."""
    import orbax.checkpoint as ocp

    leaves, structure = jax.tree.flatten(like)
    names = [f"{i:04d}" for i in range(len(leaves))]
    with ocp.PyTreeCheckpointer() as checkpointer:
        saved = checkpointer.restore(
            (attempt.checkpoint_dir / f"state-{step}").absolute(),
            restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names},
        )
    return jax.tree.unflatten(structure, [saved[name] for name in names])


def save_weights(path: Path, params: Params, metadata: dict[str, str]) -> None:
    """Write parameters by dotted name, float32, in one safetensors file, atomically."""
    from safetensors.numpy import save_file

    temporary = path.with_name(f".{path.name}.tmp")
    tensors = {name: np.asarray(leaf) for name, leaf in flatten(params).items()}
    save_file(tensors, temporary, metadata=metadata)
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
