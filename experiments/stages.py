"""A study from plan to score: each stage reads what the one before wrote, and can be run again.

plan (frozen) -> train the grid -> tables -> fits -> prediction (written once) -> train the held-out
run -> score -> figures and report. A second start finds what is done and does the rest.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from rich.console import Console

from analysis.load import load_sweep
from analysis.study import ConventionPrediction, Study, predict_held_out, study
from experiments import diverged, ending, floors, summary
from experiments.branches import remove_spent_points
from experiments.cells import write_cells
from experiments.compact import compact
from experiments.compacting import compacting
from experiments.estimates import estimate
from experiments.executors import How, check_how, execute
from experiments.executors.failures import RunsFailed
from experiments.halting import refuse_cancelled
from experiments.ladder_report import run_rows
from experiments.leftovers import remove_leftovers
from experiments.plan import Cell, Plan, frozen_plan
from experiments.planning import NO_LIMITS, Limits, calibration_of, limited, write_estimates
from experiments.printing import print_tables
from experiments.workspace import (
    SweepFolder,
    Workspace,
    read_json,
    write_json,
    write_json_once,
)
from model.accounting import count_params
from train.config import SpecError, canonical_json
from train.data.corpora import TokenizedCorpus, load, prepare
from train.records import read_run, read_sound_run, to_plain

OBJECTIVE = "ls_log"
"""Least squares in log loss: the residuals of a few dozen runs of one recipe have no outliers that
survive quality control, and a Huber delta far below their spread would discard information."""

PAGE_FORMATS = ("png",)
"""What a study draws by itself; `figures` draws PDF and SVG too."""


@dataclass(frozen=True)
class Stage:
    """Where a study's stages write and print, how they train, and the factor of the learning rate
    at which diverged runs are repeated (experiments.diverged).
    """

    workspace: Workspace
    console: Console
    how: How = How()
    retry_diverged: float | None = None

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def make_plan(experiment: ModuleType, options: Any, stage: Stage) -> tuple[Plan, TokenizedCorpus]:
    """Prepare the corpus and plan the study on it; nothing is frozen yet."""
    corpus = prepare(
        options.corpus, stage.workspace.data, tokenizer=options.tokenizer, log=stage.say
    )
    return experiment.plan(options, corpus), corpus


def run(experiment: ModuleType, options: Any, stage: Stage, *, limits: Limits = NO_LIMITS) -> None:
    """All stages of a study.

    Raises: SpecError: the sweep's folder holds another plan, the plan does not fit its limits, or
        it is to be trained on what is not there. RunsFailed: some runs failed.
    """
    check_how(stage.how)
    if stage.retry_diverged is not None:
        diverged.check(stage.retry_diverged, experiment)
    plan, corpus = make_plan(experiment, options, stage)
    n = stage.how.n_side_by_side
    calibration, n_validation = (
        calibration_of(stage.workspace, n),
        len(corpus.validation_tokens) - 1,
    )
    plan, _ = limited(plan, limits, calibration, corpus, n, stage.workspace)
    folder = stage.workspace.sweep(plan.name)
    freeze_plan(plan, folder)
    write_estimates(plan, estimate(plan, calibration, n, n_validation), calibration, n, folder)
    wanted = ending.extended(experiment, plan, stage.workspace.runs)
    left = {cell.spec.run_id for cell in missing(wanted, stage.workspace)}
    done = frozenset(set(wanted.jobs) - left)
    seconds = estimate(wanted, calibration, n, n_validation, done).wall_seconds
    stage.say(summary.plan_line(plan, seconds))
    train(wanted, wanted.of_role("trunk", "grid", "seed"), corpus, stage)
    if hasattr(experiment, "conclude"):
        train_extensions(experiment, plan, corpus, stage)
        train_held_out(experiment, plan, corpus, stage)
        remove_spent_points(list(wanted.jobs.values()), stage.workspace.runs)
        conclude(plan.name, stage)
        remove_leftovers((cell.spec.run_id for cell in wanted.cells), stage.workspace.runs, folder)
        return
    repeat_diverged(plan, corpus, stage)
    n_runs = compact(plan, stage.workspace.runs, folder)
    fitted = fit_sweep(plan, folder)
    show_fits(fitted, folder, stage)
    for cell in plan.of_role("held_out"):
        freeze_prediction(plan, cell, fitted, stage.workspace)
        stage.console.print(summary.prediction_table(written_prediction(folder)))
        train(plan, [cell], corpus, replace(stage, how=replace(stage.how, workers=1)))
        # Whoever trained it: another launcher may be at work on this sweep.
        if compact(plan, stage.workspace.runs, folder) > n_runs:
            # The same numbers: only now the list of rows left out names the held-out run.
            fitted = fit_sweep(plan, folder)
    remove_spent_points(list(plan.jobs.values()), stage.workspace.runs)
    remove_leftovers(plan.jobs, stage.workspace.runs, folder)
    score(plan, stage.workspace, folder)
    draw(plan, fitted, folder, corpus, stage)
    if folder.score.exists():
        stage.console.print(summary.score_table(read_json(folder.score)))
    tell_floors(plan, stage)
    stage.say(summary.where(folder))


def tell_floors(plan: Plan, stage: Stage) -> None:
    """Where the text is a generated language: how far above its floor the runs came."""
    rows = [read_sound_run(stage.workspace.runs, cell.spec.run_id) for cell in plan.cells]
    seq_lens = {cell.spec.run_id: cell.spec.model.seq_len for cell in plan.cells}
    there = [row for row in rows if row is not None]
    for sentence in floors.sentences(floors.at_floors(there, seq_lens, stage.workspace.data)):
        stage.say(sentence)


def train(
    plan: Plan,
    cells: Sequence[Cell],
    corpus: TokenizedCorpus,
    stage: Stage,
) -> int:
    """Train cells of a plan that have no record yet; returns how many have one now.

    Raises: RunsFailed: some runs failed, the others are done. Cancelled: some are cancelled.
    """
    store, folder = stage.workspace.runs, stage.workspace.sweep(plan.name)
    parents, ids = diverged.parents(folder), [cell.spec.run_id for cell in cells]
    jobs = [replace(plan.jobs[run_id], retry_of=parents.get(run_id)) for run_id in ids]
    refuse_cancelled(plan.name, ids, store, is_before=True)
    with compacting(plan, store, folder, stage.say):
        try:
            n_trained = execute(jobs, corpus, stage.workspace, how=stage.how, console=stage.console)
        except RunsFailed as failed:
            raise RunsFailed(failed.failures, plan.name) from None
    refuse_cancelled(plan.name, ids, store)
    return n_trained


def repeat_diverged(plan: Plan, corpus: TokenizedCorpus, stage: Stage) -> None:
    """Train diverged runs again at a lower rate, until none may be repeated once more."""
    folder, store = stage.workspace.sweep(plan.name), stage.workspace.runs
    whole = diverged.with_retries(plan, folder)
    while True:
        if stage.retry_diverged is not None:
            whole = diverged.add_retries(whole, folder, store, stage.retry_diverged)
        known = diverged.parents(folder)
        left = [cell for cell in missing(whole, stage.workspace) if cell.spec.run_id in known]
        if not left:
            return
        stage.say(f"repeating {len(left)} diverged runs at a lower learning rate")
        train(whole, left, corpus, stage)


def train_extensions(
    experiment: ModuleType,
    plan: Plan,
    corpus: TokenizedCorpus,
    stage: Stage,
) -> None:
    """Train what the runs of a plan ask for, until they ask for no more, or were cancelled."""
    store = stage.workspace.runs
    while True:
        plan = ending.extended(experiment, plan, store)
        left = [c for c in missing(plan, stage.workspace) if c.role != "held_out"]
        if not left or not train(plan, left, corpus, stage):
            return


def train_held_out(
    experiment: ModuleType, plan: Plan, corpus: TokenizedCorpus, stage: Stage
) -> None:
    """Write what an experiment with an ending of its own predicts of its held-out run, then train
    it, and hold the one against the other."""
    folder = stage.workspace.sweep(plan.name)
    for cell in plan.of_role("held_out"):
        compact(plan, stage.workspace.runs, folder)
        if not folder.prediction.exists():
            predictions = experiment.predict(plan, load_sweep(folder.path), cell)
            write_prediction(plan, cell, predictions, stage.workspace)
        stage.console.print(summary.prediction_table(written_prediction(folder)))
        train(plan, [cell], corpus, replace(stage, how=replace(stage.how, workers=1)))
        score(plan, stage.workspace, folder)
        if folder.score.exists():
            stage.console.print(summary.score_table(read_json(folder.score)))


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
        write_cells(plan, folder)
        return
    frozen = frozen_plan(folder).hash
    if frozen != plan.hash:
        raise SpecError(
            f"{folder.plan} holds plan {frozen}, not {plan.hash} (text, code or options "
            f"changed); move {folder.path} away, finished runs are kept elsewhere"
        )


def fit_sweep(plan: Plan, folder: SweepFolder) -> Study:
    """Fit everything to the sweep's table and write fits.json."""
    fitted = study(load_sweep(folder.path).runs, OBJECTIVE)
    write_json(folder.fits, to_plain({"plan_hash": plan.hash, **fitted.to_json()}))
    return fitted


def show_fits(fitted: Study, folder: SweepFolder, stage: Stage) -> None:
    """The tables of fits; of a sweep that no law of L(N, D) fits, its runs and the reason."""
    if any(row.fit.ok for row in fitted.all_cells):
        stage.console.print(summary.fit_tables(fitted))
        return
    print_tables({"Runs": run_rows(load_sweep(folder.path))}, (), "text")
    status = fitted.all_cells[0].fit.status
    stage.say(f"no law of L(N, D) is fitted to these runs: {status}")


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
    table_hash = fitted.settled[0].fit.table_hash
    write_prediction(plan, cell, predictions, workspace, table_hash=table_hash)


def write_prediction(
    plan: Plan,
    cell: Cell,
    predictions: Sequence[ConventionPrediction],
    workspace: Workspace,
    **labels: str,
) -> None:
    """Write predictions of a run, once and under their hash; a second call changes nothing."""
    values = {
        "plan_hash": plan.hash,
        **labels,
        "run_id": cell.spec.run_id,
        "is_blind": read_run(workspace.runs, cell.spec.run_id) is None,
        "n_tokens": cell.spec.n_tokens,
        "predictions": [prediction.to_json() for prediction in predictions],
    }
    plain = to_plain(values)
    write_json_once(workspace.sweep(plan.name).prediction, {**plain, "hash": _hash_of(plain)})


def written_prediction(folder: SweepFolder) -> dict[str, Any]:
    """The prediction of a sweep.

    Raises: SpecError: the file lacks a field, as one of an earlier version may, or was changed.
    """
    prediction = read_json(folder.prediction)
    if absent := {"run_id", "is_blind", "predictions"} - set(prediction):
        raise SpecError(
            f"{folder.prediction} lacks {', '.join(sorted(absent))}: written by another version; "
            f"move {folder.path} away, finished runs are kept elsewhere"
        )
    if prediction.get("hash", _hash_of(prediction)) != _hash_of(prediction):
        raise SpecError(
            f"{folder.prediction} is not as it was written; a prediction is made once, before its "
            f"run: move {folder.path} away, finished runs are kept elsewhere"
        )
    return prediction


def _hash_of(prediction: dict[str, Any]) -> str:
    """SHA-256 of a prediction without its own hash, which those of earlier versions lack."""
    content = {key: value for key, value in prediction.items() if key != "hash"}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


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


def draw(
    plan: Plan,
    fitted: Study,
    folder: SweepFolder,
    corpus: TokenizedCorpus,
    stage: Stage,
    formats: Sequence[str] = PAGE_FORMATS,
) -> None:
    """Figures, the report, and a line for each figure that the records do not support."""
    from analysis.figures import draw_all, not_drawn, processes_for
    from analysis.report import write_report
    from experiments.drawing import figure_inputs

    inputs = figure_inputs(plan, fitted, folder, corpus)
    n_processes = processes_for(len(inputs.runs))
    paths = draw_all(inputs, folder.figures, formats=formats, n_processes=n_processes)
    write_report(inputs, paths, folder.report)
    for name, reason in not_drawn(inputs).items():
        stage.say(f"figure {name} is not drawn: {reason}")


def refit(sweep: str, stage: Stage) -> Study:
    """Compact and fit a sweep anew from its records.

    Raises: SpecError: unknown sweep, or none of its runs is done.
    """
    folder = stage.workspace.sweep(sweep)
    plan = frozen_plan(folder)
    if compact(plan, stage.workspace.runs, folder) == 0:
        raise SpecError(f"sweep {sweep} has no finished run yet; python launch.py run it first")
    return fit_sweep(plan, folder)


def redraw(sweep: str, stage: Stage, formats: Sequence[str] = PAGE_FORMATS) -> SweepFolder:
    """Fit, score and draw a sweep anew from its records."""
    if has_ending(sweep, stage):
        conclude(sweep, stage)
        return stage.workspace.sweep(sweep)
    fitted = refit(sweep, stage)
    folder = stage.workspace.sweep(sweep)
    plan = frozen_plan(folder)
    score(plan, stage.workspace, folder)
    data = plan.cells[0].spec.data
    corpus = load(data.corpus, stage.workspace.data, tokenizer=data.tokenizer)
    draw(plan, fitted, folder, corpus, stage, formats)
    return folder


def missing(plan: Plan, workspace: Workspace) -> tuple[Cell, ...]:
    """Cells without a committed record that can be read."""
    return tuple(c for c in plan.cells if read_sound_run(workspace.runs, c.spec.run_id) is None)
