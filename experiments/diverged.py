"""Repeats of diverged runs at a lower learning rate: runs of their own that name their parent.

A repeat is kept in `retries/<parent>.json` of the sweep's folder, written once: whoever asks, each
diverged run gets one repeat at most, and a plan's run at most MAX_RETRIES in a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.plan import Plan
from experiments.workspace import SweepFolder, read_json, write_json_once
from train.config import RunSpec, SpecError, from_json, to_json
from train.records import read_run

MAX_RETRIES = 2
RETRIED_ROLES = ("grid", "seed")
"""A trunk is no point of any law, and a held-out run has its prediction."""


def check(factor: float, experiment: ModuleType) -> None:
    """Raises: SpecError: a factor that lowers no rate, or an experiment that searches rates."""
    if not 0 < factor < 1:
        raise SpecError(f"retry_diverged={factor} must lie between 0 and 1, such as 0.5")
    if hasattr(experiment, "extend"):
        name = experiment.__name__.rpartition(".")[2]
        raise SpecError(f"retry_diverged={factor}: {name} looks for the best rates itself; drop it")


def parents(folder: SweepFolder) -> dict[str, str]:
    """The diverged run that each repeat of a sweep is of, by run_id of the repeat."""
    return {values["run_id"]: values["retry_of"] for values in _written(folder)}


def with_retries(plan: Plan, folder: SweepFolder) -> Plan:
    """The plan followed by the repeats that its sweep has added."""
    cells = {cell.spec.run_id: cell for cell in plan.cells}
    for parent, spec in repeats(tuple(cells), folder):
        cells[spec.run_id] = replace(cells[parent], spec=spec)
    return plan if len(cells) == len(plan.cells) else replace(plan, cells=tuple(cells.values()))


def repeats(run_ids: Sequence[str], folder: SweepFolder) -> list[tuple[str, RunSpec]]:
    """The repeats that are not among these runs, each with its parent and after it, in order."""
    found = {values["retry_of"]: values for values in _written(folder)}
    present = set(run_ids)
    more = []
    for parent in run_ids:
        while (values := found.get(parent)) is not None and values["run_id"] not in present:
            more.append((parent, from_json(RunSpec, values["spec"])))
            parent = values["run_id"]
            present.add(parent)
    return more


def add_retries(plan: Plan, folder: SweepFolder, store: Path, factor: float) -> Plan:
    """The plan with a repeat of every diverged run that may have one more.

    None is added where the run at the lower rate is part of the plan already.

    Args: plan: with the repeats so far.
    """
    known = parents(folder)
    repeated = set(known.values())
    present = {cell.spec.run_id for cell in plan.cells}
    for cell in plan.cells:
        run_id = cell.spec.run_id
        if cell.role not in RETRIED_ROLES or run_id in repeated:
            continue
        row = read_run(store, run_id)
        if row is None or row["status"] != "diverged" or _n_before(run_id, known) >= MAX_RETRIES:
            continue
        spec = _at_lower_rate(cell.spec, factor)
        if spec.run_id not in present:
            values = {"run_id": spec.run_id, "retry_of": run_id, "factor": factor}
            path = folder.retries / f"{run_id}.json"
            write_json_once(path, {**values, "spec": to_json(spec)})
    return with_retries(plan, folder)


def _at_lower_rate(spec: RunSpec, factor: float) -> RunSpec:
    optimizer = replace(spec.optimizer, lr=spec.optimizer.lr * factor)
    return replace(spec, optimizer=optimizer)


def _n_before(run_id: str, known: Mapping[str, str]) -> int:
    """How many runs this one is a repeat of, one after another."""
    n = 0
    while run_id in known:
        run_id, n = known[run_id], n + 1
    return n


def _written(folder: SweepFolder) -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted(folder.retries.glob("*.json"))]
