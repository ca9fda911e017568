"""The command `report`: the page of a sweep, or of two sweeps held against each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

if TYPE_CHECKING:
    from analysis.figures.inputs import FigureInputs
    from experiments.stages import Stage  # imports jax, which is configured only after the flags


@dataclass(frozen=True)
class ReportFlags:
    """Which sweep, and what it is to be held against."""

    sweep: Positional[str] = "quickstart"
    """Name of the sweep; `python launch.py list` shows them."""
    new: Positional[str] = ""
    """A second sweep: one page compares the two, with its compute-equivalent gain over SWEEP."""
    out: Path = Path("out")
    """Folder of corpora, runs and sweeps."""


def report(flags: ReportFlags, stage: "Stage") -> None:
    """Write the page of a sweep again from its records, or one that compares two sweeps.

    Raises: SpecError: unknown sweep, or one that no law of L(N, D) belongs to.
    """
    from experiments import stages, summary

    if flags.new:
        stage.say(f"report:  {compare(flags.sweep, flags.new, stage)}")
        return
    has_ending = stages.has_ending(flags.sweep, stage)
    folder = stages.redraw(flags.sweep, stage)
    if not has_ending:
        stage.say(summary.where(folder))


def compare(baseline: str, new: str, stage: "Stage") -> Path:
    """Write the page of two sweeps into the folder of the new one; returns its path.

    Raises: SpecError: the same sweep twice, an unknown one, or one without a law of L(N, D).
    """
    from analysis.report import Compared, write_comparison
    from train.config import SpecError

    if baseline == new:
        raise SpecError(f"report {baseline} {new} compares a sweep with itself; name two")
    compared = Compared(_inputs(baseline, stage), _inputs(new, stage))
    path = stage.workspace.sweep(new).path / f"report-against-{baseline}.html"
    return write_comparison(compared, path)


def _inputs(sweep: str, stage: "Stage") -> "FigureInputs":
    from experiments import stages
    from experiments.drawing import figure_inputs
    from train.config import SpecError
    from train.data.corpora import load

    if stages.has_ending(sweep, stage):
        raise SpecError(f"sweep {sweep} has tables of its own and no law of L(N, D) to compare")
    fitted = stages.refit(sweep, stage)
    folder = stage.workspace.sweep(sweep)
    plan = stages.frozen_plan(folder)
    stages.score(plan, stage.workspace, folder)
    data = plan.cells[0].spec.data
    corpus = load(data.corpus, stage.workspace.data, tokenizer=data.tokenizer)
    return figure_inputs(plan, fitted, folder, corpus)
