"""From a sweep's tables and fits to what the figures are drawn from."""

from analysis.figures.inputs import FigureInputs, HeldOut
from analysis.frontier.critical_batch import (
    CriticalLaw,
    critical_batches,
    critical_law,
    targets,
)
from analysis.frontier.loss_of_compute import curve_envelope
from analysis.intervals.uncertainty import Prediction
from analysis.load import load_sweep
from analysis.study import Study
from experiments.plan import Plan
from experiments.workspace import SweepFolder, Workspace, read_json
from model.accounting import train_flops
from train.data.corpora import TokenizedCorpus, language, ngram_entropies
from train.data.languages import floor_nats
from train.data.languages.names import is_language


def figure_inputs(
    plan: Plan, fitted: Study, folder: SweepFolder, corpus: TokenizedCorpus
) -> FigureInputs:
    """The inputs of every figure; predictions are those written before the run was trained."""
    sweep = load_sweep(folder.path)
    workspace = Workspace(folder.path.parent.parent)
    return FigureInputs(
        title=plan.name,
        corpus=corpus.name,
        runs=sweep.runs,
        curves=sweep.curves,
        points=fitted.points,
        conventions=fitted.settled,
        all_cells=fitted.all_cells,
        frontiers=fitted.frontiers,
        envelope=curve_envelope(sweep.curves),
        held_out=_held_out(plan, folder),
        ngram_entropies=ngram_entropies(corpus),
        entropy_floor_nats=floor_of(plan, corpus, workspace),
        evaluations=sweep.evaluations,
        critical=critical_law_on(corpus.content_hash, workspace),
        unit="nats/byte" if corpus.tokenizer == "bytes" else "nats/token",
    )


def floor_of(plan: Plan, corpus: TokenizedCorpus, workspace: Workspace) -> float | None:
    """The least expected loss in windows of this plan's length, of a text whose law is known."""
    if not is_language(corpus.name):
        return None
    seq_len = plan.cells[0].spec.model.seq_len
    return floor_nats(language(corpus.name, workspace.data), seq_len)


def critical_law_on(corpus_hash: str, workspace: Workspace) -> CriticalLaw | None:
    """B_crit against the loss by the last batch sweep of the workspace on this text, if any.

    A sweep of several sizes gives the law of its largest.
    """
    from experiments.critical_report import curves_of, points_of

    found = None
    for name in workspace.sweep_names():
        folder = workspace.sweep(name)
        plan = read_json(folder.plan)
        if plan.get("experiment") != "critical_batch" or not folder.runs_table.exists():
            continue
        sweep = load_sweep(folder.path)
        rows, points = sweep.runs.to_dict("records"), points_of(sweep.curves)
        largest = max(row["n_params_total"] for row in rows)
        own = [row for row in rows if row["n_params_total"] == largest]
        curves = curves_of(own, points)
        if curves and all(row["corpus_hash"] == corpus_hash for row in own):
            losses = targets(curves, int(plan["options"]["n_targets"]))
            found = critical_law(critical_batches(curves, losses))
    return found


def _held_out(plan: Plan, folder: SweepFolder) -> tuple[HeldOut, ...]:
    if not folder.prediction.exists():
        return ()
    written = read_json(folder.prediction)
    score = read_json(folder.score) if folder.score.exists() else {}
    spec = next(c.spec for c in plan.cells if c.spec.run_id == written["run_id"])
    return tuple(
        HeldOut(
            run_id=spec.run_id,
            n_convention=entry["n_convention"],
            c_convention="matmul_full",
            n_params=entry["n_params"],
            n_tokens=spec.n_tokens,
            train_flops=train_flops(spec.model, spec.n_tokens, "matmul_full"),
            prediction=prediction_from_json(entry),
            measured_loss_nats=score.get("measured_loss_nats"),
            measured_loss_se=score.get("measured_loss_se_document"),
        )
        for entry in written["predictions"]
        if entry["version"] == "settled"
    )


def prediction_from_json(entry: dict) -> Prediction:
    """A written prediction; null becomes NaN again."""

    def number(value: float | None) -> float:
        return float("nan") if value is None else value

    def pair(values: list) -> tuple[float, float]:
        return number(values[0]), number(values[1])

    return Prediction(
        loss_nats=number(entry["loss_nats"]),
        mean_interval=pair(entry["mean_interval"]),
        new_run_interval=pair(entry["new_run_interval"]),
        **{k: entry[k] for k in ("interval_level", "n_draws", "ok", "status")},
    )
