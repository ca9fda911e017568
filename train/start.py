"""Where an attempt at a run begins: at its newest checkpoint, at a trunk's state, or at step 0."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from model.functional import Params, init_params
from train import branching, checkpoint, integrity, records, stopping
from train.branching import Parent
from train.checkpoint import Saved
from train.config import RunSpec
from train.curve import Curve, is_logged
from train.noise import NoiseSums
from train.optimizer import hyperparameters, init_moments
from train.placement import Placement
from train.records import RecordError
from train.runtime import Runtime
from train.schedule import learning_rates
from train.step import StepMetrics, TrainState
from train.stopping import Looks

_log = logging.getLogger(__name__)
_EXACT = ("mode", "device", "jax_version")


@dataclass(frozen=True)
class Logged:
    """What the host knows of a run under way; part of every checkpoint."""

    curve: Curve = Curve()
    noise: NoiseSums = NoiseSums()
    looks: Looks = Looks()


@dataclass(frozen=True)
class Origin:
    """Where an attempt came from: the step of the run's own checkpoint, the trunk it branched from.

    `is_exact`: all steps before were taken in the mode of this attempt.
    """

    is_exact: bool = True
    resumed_from: int = 0
    parent: Parent | None = None


class Start(NamedTuple):
    """State after `step` steps; `in_flight` are steps among these that are not logged yet.

    `best` are the weights of lowest validation loss so far, if the run is stopped early (on host).
    `history` holds the metrics of the logged steps and has room for the whole run's.
    """

    step: int
    state: TrainState
    logged: Logged
    best: Params | None
    history: np.ndarray
    in_flight: tuple[StepMetrics, np.ndarray, int] | None
    origin: Origin


def fresh_state(spec: RunSpec) -> TrainState:
    """The state of a run at step 0, as numpy arrays."""
    params = init_params(spec.model, spec.seed_init, spec.parametrization)
    moments = init_moments(params, hyperparameters(spec.optimizer))
    ema = None if spec.ema_decay is None else jax.tree.map(np.zeros_like, params)
    return TrainState(params, moments, ema)


def begin(
    spec: RunSpec,
    trunk: RunSpec | None,
    store: Path,
    attempt: records.Attempt,
    runtime: Runtime,
    placement: Placement,
) -> Start:
    """Where this attempt begins; of a resumed run, the curve up to there is copied to it.

    What is damaged or of another format is passed over with a warning.
    """
    fresh = fresh_state(spec)
    if found := _newest_checkpoint(store, spec, fresh, placement.restore):
        return _resume(spec, *found, attempt, runtime, placement.announce)
    mode = {key: getattr(runtime, key) for key in _EXACT}
    if trunk is not None and (point := branching.find_point(store, trunk, spec, fresh, mode)):
        return _branch(spec, *point)
    return Start(0, fresh, Logged(), None, checkpoint.no_history(spec.n_steps), None, Origin())


def notes(logged: Logged, origin: Origin, runtime: Runtime) -> dict[str, Any]:
    """What is kept beside a state, as JSON values."""
    return {
        **dataclasses.asdict(logged),
        **dataclasses.asdict(origin),
        **{key: getattr(runtime, key) for key in _EXACT},
    }


def save_checkpoint(
    attempt: records.Attempt,
    state: TrainState,
    step: int,
    history: np.ndarray,
    kept: dict[str, Any],
    best: Params | None,
    announce: checkpoint.Announce,
) -> None:
    """Write a checkpoint, with the best weights it speaks of, and what its attempt wrote by then.

    Args: kept: notes of the state (notes). announce: as of checkpoint.save.
    """
    looks = Looks(**kept["looks"])
    stopping.save_best(attempt, looks, best)
    names = ["curve.jsonl", "evaluations.jsonl", stopping.best_file(looks)]
    files = integrity.digests(attempt.directory, names)
    checkpoint.save(
        attempt.checkpoint_dir, state, step, history, {**kept, "files": files}, announce
    )
    stopping.remove_others(attempt, looks)


def _check_files(attempt: records.Attempt, saved: Saved) -> None:
    """Whether curve, evaluations and best weights are still what a checkpoint was written with.

    Raises: RecordError: one is not. Checkpoints of earlier versions do not say.
    """
    if odd := integrity.changed(attempt.directory, saved.notes.get("files", {})):
        raise RecordError(f"{attempt.directory / odd[0]} is not as it was written")


def _newest_checkpoint(
    store: Path, spec: RunSpec, like: TrainState, restore: checkpoint.Restore | None
) -> tuple[records.Attempt, Saved, Params | None] | None:
    """The newest good checkpoint of a run, and the best weights that it speaks of."""
    for attempt in reversed(records.attempts(store, spec.run_id)):
        try:
            saved = checkpoint.read(attempt.checkpoint_dir, like, restore)
            if saved is not None:
                _check_files(attempt, saved)
                _check_curve(spec, attempt, saved.step)
                records.read_evaluations(attempt)
                looks = Looks(**saved.notes["looks"])
                return attempt, saved, stopping.load_best(attempt, looks, spec.model)
        # One that vanishes belongs to an attempt that was taken over and goes on for a moment.
        except (RecordError, OSError) as error:
            _log.warning("%s; the run goes on from an older checkpoint, or anew", error)
    return None


def _check_curve(spec: RunSpec, attempt: records.Attempt, step: int) -> None:
    """Raises: RecordError: the curve up to `step` is not all there."""
    found = [p["step"] for p in records.read_points(attempt) if p["step"] <= step]
    if found != [s for s in range(1, step + 1) if is_logged(s, spec.n_steps)]:
        raise RecordError(f"{attempt.directory / 'curve.jsonl'} is cut off before step {step}")


def _resume(
    spec: RunSpec,
    predecessor: records.Attempt,
    saved: Saved,
    best: Params | None,
    attempt: records.Attempt,
    runtime: Runtime,
    announce: checkpoint.Announce,
) -> Start:
    kept = saved.notes
    points = [p for p in records.read_points(predecessor) if p["step"] <= saved.step]
    records.append_points(attempt, [{**p, "attempt": attempt.number} for p in points])
    rows = records.read_evaluations(predecessor)
    rows = [r for r in rows if r["step"] <= saved.step and not r["is_result"]]
    records.add_evaluations(attempt, [{**r, "attempt": attempt.number} for r in rows])
    looks = Looks(**kept["looks"])
    with checkpoint.going_on(spec.run_id, "checkpoint", saved.step):
        save_checkpoint(attempt, saved.state, saved.step, saved.history, kept, best, announce)
    is_same = all(kept[key] == getattr(runtime, key) for key in _EXACT)
    # Another device may cut batches into other parts, whose norms cannot be added to these.
    sums = {k: tuple(v) for k, v in kept["noise"].items()} if is_same else {}
    curve = Curve(**{**kept["curve"], "pending": tuple(kept["curve"]["pending"])})
    history = checkpoint.no_history(spec.n_steps)
    history[:, : saved.step] = saved.history
    parent = kept["parent"] and Parent(**kept["parent"])
    origin = Origin(kept["is_exact"] and is_same, saved.step, parent)
    logged = Logged(curve, NoiseSums(**sums), looks)
    return Start(saved.step, saved.state, logged, best, history, None, origin)


def _branch(spec: RunSpec, parent: Parent, saved: Saved) -> Start:
    """The trunk's steps count as in flight: curve and noise scale depend on this run's length."""
    rates = learning_rates(spec, np.arange(saved.step))
    in_flight = (StepMetrics(*saved.history), rates, saved.step)
    history = checkpoint.no_history(spec.n_steps)
    return Start(saved.step, saved.state, Logged(), None, history, in_flight, Origin(parent=parent))
