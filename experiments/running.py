"""What runs of a sweep will come to: the annealing law on their curves, as far as written."""

from dataclasses import dataclass

import numpy as np

from analysis.running import FinalLoss, end_of, predict_final
from experiments.plan import frozen_plan
from experiments.workspace import Workspace
from train.config import RunSpec, SpecError
from train.records import attempts, committed_attempt, read_points, read_run
from train.schedule import learning_rates

MAX_SIBLINGS = 24


@dataclass(frozen=True)
class RunEstimate:
    """A run, how far it was looked at, the estimate of its end, and its end where it is known.

    Losses are of the training curve, nats/token: smoothed, on text seen for the first time.
    """

    run_id: str
    step: int
    n_steps: int
    last_loss_nats: float
    found: FinalLoss
    measured_loss_nats: float | None


def estimates(
    workspace: Workspace, sweep: str, until: float | None = None
) -> tuple[RunEstimate, ...]:
    """Runs of a sweep that have begun and not finished; with `until`, the start of finished ones.

    Other finished runs of the sweep tell how strongly a decaying rate lowers the loss.

    Raises: SpecError: no such sweep, or a share that is not between 0 and 1.
    """
    if until is not None and not 0 < until < 1:
        raise SpecError(f"until={until} is a share of a run, between 0 and 1")
    specs = [cell.spec for cell in frozen_plan(workspace.sweep(sweep)).cells]
    done, going = [], []
    for spec in specs:
        row = read_run(workspace.runs, spec.run_id)
        if row is not None and row["status"] == "finished":
            done.append((spec, _curve(committed_attempt(workspace.runs, row))))
        elif row is None and (tried := attempts(workspace.runs, spec.run_id)):
            going.append((spec, _curve(tried[-1])))
    if until is None:
        return tuple(_estimate(spec, curve, done, None) for spec, curve in going if len(curve))
    return tuple(_from_start(spec, curve, done, until) for spec, curve in done)


def _from_start(spec: RunSpec, curve: np.ndarray, done, until: float) -> RunEstimate:
    others = [(s, c) for s, c in done if s.run_id != spec.run_id]
    seen = curve[curve[:, 0] <= until * spec.n_steps]
    return _estimate(spec, seen, others, end_of(curve))


def _estimate(spec: RunSpec, curve: np.ndarray, done, measured: float | None) -> RunEstimate:
    siblings = [(c, _rates(s)) for s, c in done[:MAX_SIBLINGS]]
    found = predict_final(curve, _rates(spec), siblings)
    step, loss = (int(curve[-1, 0]), float(curve[-1, 1])) if len(curve) else (0, float("nan"))
    return RunEstimate(spec.run_id, step, spec.n_steps, loss, found, measured)


def _rates(spec: RunSpec) -> np.ndarray:
    return learning_rates(spec, np.arange(spec.n_steps))


def _curve(attempt) -> np.ndarray:
    points = [(p["step"], p["loss_nats"]) for p in read_points(attempt)]
    finite = [(step, loss) for step, loss in points if loss is not None and np.isfinite(loss)]
    return np.array(finite, np.float64).reshape(-1, 2)
