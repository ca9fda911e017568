"""Trunk and branch: a run begins from the state that another left where both still did the same.

    runs/<trunk's run_id>/branch/step-<s>/    a branch point, laid out as a checkpoint

A branch point is a saving and no part of a result: without it, or with a damaged one, the branch
trains alone and ends in the same bits.
"""

import contextlib
import errno
import logging
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.accounting import train_flops
from train import checkpoint
from train.checkpoint import CheckpointError, Saved
from train.config import RunSpec
from train.jobs import shared_steps
from train.step import TrainState

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parent:
    """The trunk that a run began from, and after how many of its steps."""

    run_id: str
    step: int


def save_point(
    store: Path,
    run_id: str,
    state: TrainState,
    step: int,
    history: np.ndarray,
    notes: dict[str, Any],
) -> None:
    """Keep a trunk's state after `step` steps for its branches, whole or not at all.

    One that is there is replaced; of two that are written at once, one stays.
    """
    folder = _points(store, run_id) / f"step-{step}"
    made, replaced = (folder.with_name(f".{kind}-{uuid.uuid4().hex}") for kind in ("made", "old"))
    try:
        checkpoint.save(made, state, step, history, notes)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(replaced)
        made.rename(folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    finally:
        for left in (made, replaced):
            shutil.rmtree(left, ignore_errors=True)


def find_point(
    store: Path, trunk: RunSpec, branch: RunSpec, like: TrainState, mode: Mapping[str, str]
) -> tuple[Parent, Saved] | None:
    """The last good state of the trunk within the steps that it shares with a branch.

    One of another mode is passed over: the branch would not end in the bits of its spec alone.

    Args:
        like: a state of the branch, for structure, shapes and types.
        mode: notes on the runtime that the trunk must have had all the way.
    """
    shared = shared_steps(trunk, branch)
    folders = _points(store, trunk.run_id).glob("step-*")
    steps = sorted((int(path.name.removeprefix("step-")) for path in folders), reverse=True)
    for step in (step for step in steps if step <= shared):
        try:
            saved = checkpoint.read(_points(store, trunk.run_id) / f"step-{step}", like)
        except CheckpointError as error:
            _log.warning("%s; run %s takes these steps itself", error, branch.run_id)
            continue
        if saved is None:
            continue
        wanted = {**mode, "is_exact": True}
        if odd := [key for key, value in wanted.items() if saved.notes[key] != value]:
            _log.warning(
                "branch point %d of run %s was made under another %s; run %s takes these steps "
                "itself", step, trunk.run_id, " and ".join(odd), branch.run_id,
            )  # fmt: skip
            continue
        return Parent(trunk.run_id, step), saved
    return None


def remove_points(store: Path, run_id: str) -> None:
    """Remove all branch points of a trunk."""
    shutil.rmtree(_points(store, run_id), ignore_errors=True)


def describe_parent(spec: RunSpec, parent: Parent | None, n_steps: int) -> dict[str, Any]:
    """The columns of a record that say where a run of `n_steps` began and what was left to pay."""
    n_steps -= 0 if parent is None else parent.step
    return {
        "parent_run_id": None if parent is None else parent.run_id,
        "parent_step": None if parent is None else parent.step,
        "train_flops_charged": train_flops(spec.model, n_steps * spec.batch_tokens, "matmul_full"),
    }


def _points(store: Path, run_id: str) -> Path:
    return store / run_id / "branch"
