"""Where every run of a sweep stands, from files only: no launcher need be there to be asked.

Committed runs come from the compacted table where it is up to date, else from their records; the
others from their newest attempt (train.lease). Times are differences between files of one attempt,
written by one machine, so no two clocks are compared.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from experiments.cells import CellRow, SweepCells, read_cells
from experiments.compact import stamp_of, stored_runs
from experiments.executors.failures import last_lines
from experiments.workspace import SweepFolder, Workspace
from train import lease
from train.records import Attempt, RecordError, attempts, last_point, read_run

State = Literal[
    "finished", "diverged", "running", "waiting", "interrupted", "failed", "cancelled"
]  # fmt: skip
STATES: tuple[State, ...] = (
    "failed", "running", "interrupted", "cancelled", "diverged", "waiting", "finished",
)  # fmt: skip
"""In the order in which somebody wants to see them."""

OVER: tuple[State, ...] = ("finished", "diverged", "failed", "cancelled")
"""States that no launcher changes."""

FRESH_S = 30.0
"""A heartbeat of another host no older than this, by the file system's clock, is alive."""

_STORED = ["run_id", "status", "attempt", "loss_nats", "seconds", "diverged_step", "n_steps"]


@dataclass(frozen=True)
class RunStatus:
    """A run of a sweep. `seconds` of training so far, over all attempts; `estimated_seconds` by the
    plan, if it said; `loss_nats`: the final loss, or the newest logged training loss, nats/token.
    """

    cell: CellRow
    state: State
    step: int = 0
    loss_nats: float | None = None
    seconds: float | None = None
    eta_seconds: float | None = None
    estimated_seconds: float | None = None
    attempt: int | None = None
    host: str | None = None
    pid: int | None = None
    reason: str | None = None
    log: str | None = None
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepStatus:
    """A sweep: its runs in plan order and what they come to. FLOPs: matmul_full, shared once."""

    sweep: SweepCells
    runs: tuple[RunStatus, ...]
    n_workers: int | None

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are in each state that any is in."""
        found = Counter(run.state for run in self.runs)
        return {state: found[state] for state in STATES if found[state]}

    @property
    def train_flops(self) -> float:
        """Of all runs."""
        return sum(run.cell.train_flops_charged for run in self.runs)

    @property
    def train_flops_done(self) -> float:
        """Of the steps taken so far; all of a run that has its record."""
        return sum(run.cell.train_flops_charged * share_done(run) for run in self.runs)

    @property
    def is_over(self) -> bool:
        """Whether no launcher would train anything."""
        return all(run.state in OVER for run in self.runs)

    @property
    def eta_seconds(self) -> float | None:
        """Until all is trained at the pace of what runs now; by the estimates if nothing does.

        None: neither is known.
        """
        left = [run for run in self.runs if run.state not in OVER]
        flops = sum(run.cell.train_flops_charged * (1 - share_done(run)) for run in left)
        paces = [
            run.cell.train_flops_charged * (1 - share_done(run)) / run.eta_seconds
            for run in left
            if run.state == "running" and run.eta_seconds
        ]
        if paces:
            last = max(run.eta_seconds or 0.0 for run in left)
            return max(flops / sum(paces), last)
        if not left:
            return 0.0
        estimated = [
            None if run.estimated_seconds is None else run.estimated_seconds * (1 - share_done(run))
            for run in left
        ]
        known = [seconds for seconds in estimated if seconds is not None]
        if len(known) < len(left):
            return None
        return max(sum(known) / (self.n_workers or 1), max(known))


def share_done(run: RunStatus) -> float:
    """Share of a run's own steps that are taken; 1 for one with a record."""
    if run.state in ("finished", "diverged"):
        return 1.0
    shared = run.cell.n_steps - run.cell.n_steps_own
    return max(0, run.step - shared) / run.cell.n_steps_own if run.cell.n_steps_own else 1.0


def sweep_status(workspace: Workspace, name: str) -> SweepStatus:
    """The status of a sweep.

    Raises: SpecError: no such sweep.
    """
    folder = workspace.sweep(name)
    sweep = read_cells(folder, workspace.runs)
    estimates = _estimates(folder)
    seconds: Mapping[str, float] = estimates.get("seconds", {})
    stored = _stored_records(folder)
    found = [_status(workspace.runs, cell, stored) for cell in sweep.cells]
    doubtful = {
        run.cell.run_id: Attempt(_directory(workspace.runs, run), run.attempt or 0)
        for run in found
        if run.state == "running" and _is_elsewhere(workspace.runs, run)
    }
    silent = silent_attempts(doubtful, folder.path)
    runs = []
    for run in found:
        if run.cell.run_id in silent:
            reason = f"no sign of life from {run.host}"
            run = replace(run, state="interrupted", eta_seconds=None, reason=reason)
        estimate = seconds.get(run.cell.run_id)
        if run.state == "running" and run.eta_seconds is None and estimate is not None:
            run = replace(run, eta_seconds=estimate * (1 - share_done(run)))
        runs.append(replace(run, estimated_seconds=estimate))
    return SweepStatus(sweep, tuple(runs), estimates.get("n_workers"))


def _estimates(folder: SweepFolder) -> dict[str, Any]:
    try:
        return json.loads(folder.estimates.read_text())
    except (OSError, ValueError):
        return {}


def _stored_records(folder: SweepFolder) -> dict[str, tuple[str, dict[str, Any]]]:
    """Stamp and record of each run in the compacted table."""
    found = stored_runs(folder, _STORED)
    if found is None:
        return {}
    columns = [found.table.column(name).to_pylist() for name in _STORED]
    rows = (dict(zip(_STORED, values, strict=True)) for values in zip(*columns, strict=True))
    return {row["run_id"]: (found.stamps.get(row["run_id"], ""), row) for row in rows}


def _status(
    store: Path, cell: CellRow, stored: Mapping[str, tuple[str, dict[str, Any]]]
) -> RunStatus:
    stamp = stamp_of(store / cell.run_id / "run.json")
    if stamp is None:
        return _uncommitted(store, cell)
    kept_stamp, row = stored.get(cell.run_id, ("", {}))
    if kept_stamp != stamp:
        try:
            row = read_run(store, cell.run_id) or {}
        except RecordError as error:
            return RunStatus(cell, "failed", reason=str(error))
    is_diverged = row["status"] == "diverged"
    step = row["diverged_step"] if is_diverged else row["n_steps"]
    return RunStatus(
        cell, row["status"], step or 0, row["loss_nats"], row["seconds"], attempt=row["attempt"],
        reason=f"diverged at step {step}" if is_diverged else None,
    )  # fmt: skip


def _uncommitted(store: Path, cell: CellRow) -> RunStatus:
    tried = attempts(store, cell.run_id)
    run = _attempted(cell, tried) if tried else RunStatus(cell, "waiting")
    halt = lease.halt_of(store, cell.run_id)
    if halt is None:
        return run
    return replace(
        run, state=halt.kind, eta_seconds=None, reason=halt.reason, host=halt.host, log=halt.log,
        log_tail=tuple(last_lines(halt.log)),
    )  # fmt: skip


def _attempted(cell: CellRow, tried: Sequence[Attempt]) -> RunStatus:
    newest = tried[-1]
    point = last_point(newest)
    step = point.get("step", 0)
    seconds = sum(seconds_of(attempt) or 0.0 for attempt in tried)
    run = RunStatus(
        cell, "interrupted", step, point.get("loss_nats"), seconds or None, attempt=newest.number
    )
    holder = lease.holder_of(newest)
    if holder is None:
        return run
    run = replace(run, host=holder.host, pid=holder.pid)
    if lease.is_over(newest):
        return run
    own = step - (cell.n_steps - cell.n_steps_own)
    eta = (cell.n_steps - step) * seconds / own if own > 0 and seconds else None
    return replace(run, state="running", eta_seconds=eta)


def seconds_of(attempt: Attempt) -> float | None:
    """From an attempt's beginning to the last point it logged, None if it does not say.

    Both are times of files that its holder wrote.
    """
    try:
        begun = os.stat(attempt.directory / "holder.json").st_mtime
        logged = os.stat(attempt.directory / "curve.jsonl").st_mtime
    except OSError:
        return None
    return max(0.0, logged - begun)


def _directory(store: Path, run: RunStatus) -> Path:
    return store / run.cell.run_id / f"attempt-{run.attempt}"


def _is_elsewhere(store: Path, run: RunStatus) -> bool:
    """Whether the holder's machine is another, so that its process cannot be looked up."""
    holder = lease.holder_of(Attempt(_directory(store, run), run.attempt or 0))
    return holder is not None and holder.machine != lease.this_process().machine


def silent_attempts(held: Mapping[str, Attempt], folder: Path) -> set[str]:
    """Of runs held on other hosts, those whose holder shows no sign of life.

    A heartbeat is alive if it is young by the clock that the file system stamps a file of ours
    with. One that is not, as after a death or where hosts stamp files by clocks that differ, is
    looked at again two beats later: a live holder has counted on.
    """
    now = _time_on(folder) if held else None
    doubtful = {
        run_id: attempt
        for run_id, attempt in held.items()
        if now is None or not abs(now - _beaten_at(attempt)) < FRESH_S
    }
    before = {run_id: _count(attempt) for run_id, attempt in doubtful.items()}
    if doubtful:
        time.sleep(2 * lease.BEAT_S)
    return {run_id for run_id, attempt in doubtful.items() if _count(attempt) == before[run_id]}


def _time_on(folder: Path) -> float | None:
    """The time that the file system gives a file written now; None if nothing can be written."""
    path = folder / f".now-{os.getpid()}"
    try:
        path.write_text("")
        return os.stat(path).st_mtime
    except OSError:
        return None
    finally:
        path.unlink(missing_ok=True)


def _beaten_at(attempt: Attempt) -> float:
    try:
        return os.stat(attempt.directory / "heartbeat").st_mtime
    except OSError:
        return 0.0


def _count(attempt: Attempt) -> str:
    try:
        return (attempt.directory / "heartbeat").read_text()
    except OSError:
        return ""
