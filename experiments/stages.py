"""A study from plan to score: each stage reads what the one before wrote, and can be run again.

plan (frozen) -> train the grid -> tables -> fits -> prediction (written once) -> train the held-out
run -> score -> figures and report. A second start finds what is done and does the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from rich.console import Console

from analysis.load import load_sweep
from analysis.study import Study, predict_held_out, study
from experiments import ending, summary
from experiments.branches import remove_spent_points
from experiments.compact import compact
from experiments.executors.local import execute
from experiments.plan import (
    Cell,
    Plan,
    calibrate,
    estimate_total_seconds,
    plan_from_json,
    plan_table,
)
from experiments.printing import print_tables
from experiments.workspace import (
    SweepFolder,
    Workspace,
    read_json,
    sole_launcher,
    write_json,
    write_json_once,
)
from model.accounting import count_params
from train.config import RunSpec, SpecError
from train.data.corpora import TokenizedCorpus, load, prepare
from train.records import progress, read_run, to_plain
from train.runtime import n_cores

OBJECTIVE = "ls_log"
"""Least squares in log loss: the residuals of a few dozen runs of one recipe have no outliers that
survive quality control, and a Huber delta far below their spread would discard information."""


@dataclass(frozen=True)
class Stage:
    """Where a study's stages write and print, and in how many rows they train (of `execute`)."""

    workspace: Workspace
    console: Console
    n_rows: int | None = None

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def make_plan(experiment: ModuleType, options: Any, stage: Stage) -> tuple[Plan, TokenizedCorpus]:
    """Prepare the corpus and plan the study on it; nothing is frozen yet."""
    corpus = prepare(
        options.corpus, stage.workspace.data, tokenizer=options.tokenizer, log=stage.say
    )
    return experiment.plan(options, corpus), corpus


def run(experiment: ModuleType, options: Any, stage: Stage, *, n_workers: int | None) -> None:
    """All stages of a study.

    Raises: SpecError: the sweep's folder holds another plan, or another launcher is at work.
    """
    plan, corpus = make_plan(experiment, options, stage)
    folder = stage.workspace.sweep(plan.name)
    with sole_launcher(folder):
        freeze_plan(plan, folder)
        wanted = ending.extended(experiment, plan, stage.workspace.runs)
        rows = all_rows(stage.workspace)
        left = missing(wanted, stage.workspace)
        seconds = estimate_total_seconds(wanted, left, calibrate(rows), n_workers or n_cores())
        stage.say(summary.plan_line(plan, seconds))
        train(wanted, wanted.of_role("trunk", "grid", "seed"), corpus, stage, n_workers)
        if hasattr(experiment, "conclude"):
            train_extensions(experiment, plan, corpus, stage, n_workers)
            conclude(plan.name, stage)
            return
        compact(plan, stage.workspace.runs, folder)
        fitted = fit_sweep(plan, folder)
        stage.console.print(summary.fit_tables(fitted))
        for cell in plan.of_role("held_out"):
            freeze_prediction(plan, cell, fitted, stage.workspace)
            stage.console.print(summary.prediction_table(written_prediction(folder)))
            if train(plan, [cell], corpus, stage, 1):
                compact(plan, stage.workspace.runs, folder)
                # The same numbers: only now the list of rows left out names the held-out run.
                fitted = fit_sweep(plan, folder)
        remove_spent_points(list(plan.jobs.values()), stage.workspace.runs)
        score(plan, stage.workspace, folder)
        draw(plan, fitted, folder, corpus)
        if folder.score.exists():
            stage.console.print(summary.score_table(read_json(folder.score)))
        stage.say(summary.where(folder))


def train(
    plan: Plan,
    cells: Sequence[Cell],
    corpus: TokenizedCorpus,
    stage: Stage,
    n_workers: int | None,
) -> int:
    """Train cells of a plan that have no record yet; returns how many there were."""
    jobs = [plan.jobs[cell.spec.run_id] for cell in cells]
    return execute(
        jobs, corpus, stage.workspace,
        n_workers=n_workers, n_rows=stage.n_rows, console=stage.console,
    )  # fmt: skip


def train_extensions(
    experiment: ModuleType,
    plan: Plan,
    corpus: TokenizedCorpus,
    stage: Stage,
    n_workers: int | None,
) -> None:
    """Train what the runs of a plan ask for, until they ask for no more."""
    store = stage.workspace.runs
    while left := missing(plan := ending.extended(experiment, plan, store), stage.workspace):
        train(plan, left, corpus, stage, n_workers)


def conclude(sweep: str, stage: Stage) -> ending.Ending:
    """Tables, figures, page and recipe of a sweep whose experiment has an ending of its own.

    Raises: SpecError: unknown sweep, one that is a study, or one with no finished run.
    """
    folder = stage.workspace.sweep(sweep)
    frozen = frozen_plan(folder)
    experiment = ending.of_plan(frozen)
    if experiment is None:
        raise SpecError(f"sweep {sweep} is a study of {frozen.experiment}; fit it as one")
    plan = ending.extended(experiment, frozen, stage.workspace.runs)
    if compact(plan, stage.workspace.runs, folder) == 0:
        raise SpecError(f"sweep {sweep} has no finished run yet; python launch.py run it first")
    found = experiment.conclude(frozen, load_sweep(folder.path))
    ending.write(found, frozen, folder, stage.workspace)
    print_tables(found.tables, found.sentences, "text")
    stage.say(f"figures: {folder.figures}\nreport:  {folder.report}\nfits:    {folder.fits}")
    return found


def has_ending(sweep: str, stage: Stage) -> bool:
    """Whether a sweep's experiment concludes by itself instead of fitting a loss surface."""
    return ending.of_plan(frozen_plan(stage.workspace.sweep(sweep))) is not None


def freeze_plan(plan: Plan, folder: SweepFolder) -> None:
    """Write the plan unless the same one is there.

    Raises: SpecError: another plan is there; its results would be mixed with this one's.
    """
    if write_json_once(folder.plan, plan.to_json()):
        return
    frozen = frozen_plan(folder).hash
    if frozen != plan.hash:
        raise SpecError(
            f"{folder.plan} holds plan {frozen}, not {plan.hash} (text, code or options "
            f"changed); move {folder.path} away, finished runs are kept elsewhere"
        )


def frozen_plan(folder: SweepFolder) -> Plan:
    """The plan of a sweep.

    Raises: SpecError: there is none, or it was edited.
    """
    if not folder.plan.exists():
        raise SpecError(f"sweep {folder.path.name} has no plan; run it first")
    return plan_from_json(read_json(folder.plan))


def fit_sweep(plan: Plan, folder: SweepFolder) -> Study:
    """Fit everything to the sweep's table and write fits.json."""
    fitted = study(load_sweep(folder.path).runs, OBJECTIVE)
    write_json(folder.fits, to_plain({"plan_hash": plan.hash, **fitted.to_json()}))
    return fitted


def freeze_prediction(plan: Plan, cell: Cell, fitted: Study, workspace: Workspace) -> None:
    """Write the prediction of a held-out run, once; a second call changes nothing.

    If another sweep has trained the run already, the prediction says that it was not blind.
    """
    counts = count_params(cell.spec.model)
    predictions = predict_held_out(
        fitted,
        n_params={"total": counts.total, "non_embedding": counts.non_embedding},
        n_tokens=cell.spec.n_tokens,
    )
    values = {
        "plan_hash": plan.hash,
        "table_hash": fitted.settled[0].fit.table_hash,
        "run_id": cell.spec.run_id,
        "is_blind": read_run(workspace.runs, cell.spec.run_id) is None,
        "n_tokens": cell.spec.n_tokens,
        "predictions": [prediction.to_json() for prediction in predictions],
    }
    write_json_once(workspace.sweep(plan.name).prediction, to_plain(values))


def written_prediction(folder: SweepFolder) -> dict[str, Any]:
    """The prediction of a sweep.

    Raises: SpecError: the file lacks a field, as one of an earlier version may.
    """
    prediction = read_json(folder.prediction)
    if absent := {"run_id", "is_blind", "predictions"} - set(prediction):
        raise SpecError(
            f"{folder.prediction} lacks {', '.join(sorted(absent))}: written by another version; "
            f"move {folder.path} away, finished runs are kept elsewhere"
        )
    return prediction


def score(plan: Plan, workspace: Workspace, folder: SweepFolder) -> None:
    """Hold the measured loss of the held-out run against its prediction, if both exist."""
    if not folder.prediction.exists():
        return
    prediction = written_prediction(folder)
    row = read_run(workspace.runs, prediction["run_id"])
    if row is None or row["status"] != "finished":
        return
    measured = row["loss_nats"]
    scored = []
    for entry in prediction["predictions"]:
        error = hit = None
        if entry["ok"]:
            low, high = entry["new_run_interval"]
            error = measured - entry["loss_nats"]
            hit = None if low is None or high is None else low <= measured <= high
        scored.append({**entry, "error_nats": error, "hit": hit})
    values = {
        "plan_hash": plan.hash,
        "run_id": row["run_id"],
        "measured_loss_nats": measured,
        "measured_loss_se_iid": row["loss_se_iid"],
        "measured_loss_se_document": row["loss_se_document"],
        "predictions": scored,
    }
    write_json(folder.score, to_plain(values))


def draw(plan: Plan, fitted: Study, folder: SweepFolder, corpus: TokenizedCorpus) -> None:
    """Figures (PNG, PDF) and the report."""
    from analysis.figures import draw_all
    from analysis.report import write_report
    from experiments.drawing import figure_inputs

    inputs = figure_inputs(plan, fitted, folder, corpus)
    paths = draw_all(inputs, folder.figures)
    write_report(inputs, paths, folder.report)


def refit(sweep: str, stage: Stage) -> Study:
    """Compact and fit a sweep anew from its records.

    Raises: SpecError: unknown sweep, or none of its runs is done.
    """
    folder = stage.workspace.sweep(sweep)
    plan = frozen_plan(folder)
    if compact(plan, stage.workspace.runs, folder) == 0:
        raise SpecError(f"sweep {sweep} has no finished run yet; python launch.py run it first")
    return fit_sweep(plan, folder)


def redraw(sweep: str, stage: Stage) -> SweepFolder:
    """Fit, score and draw a sweep anew from its records."""
    if has_ending(sweep, stage):
        conclude(sweep, stage)
        return stage.workspace.sweep(sweep)
    fitted = refit(sweep, stage)
    folder = stage.workspace.sweep(sweep)
    plan = frozen_plan(folder)
    score(plan, stage.workspace, folder)
    data = plan.cells[0].spec.data
    draw(plan, fitted, folder, load(data.corpus, stage.workspace.data, tokenizer=data.tokenizer))
    return folder


def missing(plan: Plan, workspace: Workspace) -> tuple[Cell, ...]:
    """Cells without a committed record."""
    return tuple(c for c in plan.cells if read_run(workspace.runs, c.spec.run_id) is None)


def all_rows(workspace: Workspace) -> list[dict[str, Any]]:
    """Every committed record of the workspace, of whatever sweep."""
    ids = sorted(path.parent.name for path in workspace.runs.glob("*/run.json"))
    return [row for run_id in ids if (row := read_run(workspace.runs, run_id)) is not None]


def planned(experiment: ModuleType, options: Any, stage: Stage, n_workers: int | None):
    """The plan, its table, the estimated seconds of what is missing, and where they come from."""
    plan, _ = make_plan(experiment, options, stage)
    calibration = calibrate(all_rows(stage.workspace))
    left = missing(plan, stage.workspace)
    seconds = estimate_total_seconds(plan, left, calibration, n_workers or n_cores())
    return plan, plan_table(plan, calibration), seconds, calibration


def states(sweep: str, stage: Stage) -> tuple[Plan, list[tuple[str, str, str]]]:
    """A sweep's plan, and of each run its state, loss and seconds as text."""
    plan = frozen_plan(stage.workspace.sweep(sweep))
    return plan, [_state(cell.spec, stage.workspace) for cell in plan.cells]


def _state(spec: RunSpec, workspace: Workspace) -> tuple[str, str, str]:
    row = read_run(workspace.runs, spec.run_id)
    if row is None:
        step = progress(workspace.runs, spec.run_id)
        return (f"step {step} of {spec.n_steps}" if step else "not begun", "", "")
    loss = "" if row["loss_nats"] is None else f"{row['loss_nats']:.4f}"
    return row["status"], loss, f"{row['seconds']:.0f}"
