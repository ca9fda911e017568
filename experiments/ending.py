"""Experiments with an ending of their own: those that ask another question than a loss surface.

Such a module has, besides Options and plan, `conclude(plan, sweep) -> Ending`, which replaces fits,
prediction and figures of a study, and may have `extend(plan, rows) -> cells`: what the finished
runs ask for next, such as a learning rate beyond the best one tried. If its plan holds a run out,
`predict(plan, sweep, cell) -> predictions` says its loss before it is trained. All are functions of
the records, so a sweep can be concluded again from them. Any experiment may have `notes(options)`,
sentences that `plan` prints under its table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from analysis.tables import Row
from experiments.plan import Plan
from experiments.workspace import SweepFolder, Workspace, write_json
from train.records import read_run, to_plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.recipes import NamedRecipe


@dataclass(frozen=True)
class Ending:
    """What an experiment found: tables by title, sentences, all numbers, figures with captions.

    `recipe` is written to out/recipes, if there is one.
    """

    tables: Mapping[str, Sequence[Row]]
    sentences: tuple[str, ...]
    values: dict[str, Any]
    figures: Mapping[str, "tuple[Figure, str]"] = field(default_factory=dict)
    recipe: "NamedRecipe | None" = None


def of_plan(plan: Plan) -> ModuleType | None:
    """The module of a plan's experiment, if it has an ending of its own."""
    from experiments.catalog import EXPERIMENTS

    experiment = EXPERIMENTS.get(plan.experiment)
    return experiment if hasattr(experiment, "conclude") else None


def extended(experiment: ModuleType, plan: Plan, store: Path) -> Plan:
    """The plan with all cells that its finished runs ask for; the last ones may lack a record."""
    while hasattr(experiment, "extend"):
        ids = [cell.spec.run_id for cell in plan.cells if cell.role != "held_out"]
        rows = {run_id: read_run(store, run_id) for run_id in ids}
        known = {run_id: row for run_id, row in rows.items() if row is not None}
        if len(known) < len(ids):
            break
        more = experiment.extend(plan, known)
        if not more:
            break
        plan = replace(plan, cells=(*plan.cells, *more))
    return plan


def write(
    found: Ending, plan: Plan, folder: SweepFolder, workspace: Workspace
) -> None:  # fmt: skip
    """fits.json, figures, the page, and the named recipe."""
    from analysis.figures.style import save
    from analysis.page import write_page

    write_json(folder.fits, to_plain({"plan_hash": plan.hash, **found.values}))
    captions = {}
    for name, (figure, caption) in found.figures.items():
        save(figure, folder.figures / name)
        captions[folder.figures / f"{name}.png"] = caption
    write_page(plan.name, found.sentences, found.tables, captions, folder.report)
    if found.recipe is not None:
        found.recipe.save(workspace)
