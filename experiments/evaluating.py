"""Trained weights on any prepared corpus: loss, its law on each text, and loss by token position.

An evaluation is a row beside the run's committed record, which stays as it is. One that is there is
not made again. JAX is imported late, once its compile cache is set up.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from experiments.analyse import OutputFlags, Rows, Shown
from experiments.floors import AtFloor, at_floors
from experiments.floors import sentences as floor_sentences

if TYPE_CHECKING:
    import pandas as pd

    from analysis.fit import Fit
    from experiments.plan import Plan
    from experiments.workspace import Workspace
    from train.data.corpora import TokenizedCorpus

Record = dict[str, Any]


@dataclass(frozen=True)
class EvaluateFlags(OutputFlags):
    """Whose weights, on which text."""

    target: Positional[str] = "quickstart"
    """A sweep (all its finished runs), or a run: its run_id, the beginning of it, or `largest`."""
    corpus: tuple[str, ...] = ()
    """Prepared corpora whose validation split is scored, such as --corpus sotu python-code; they
    are tokenized as the run's own. Default: the corpus that the run was trained on."""
    by_position: bool = False
    """Show the loss by token position and the law L(t) = E + A / t^alpha through it."""


def evaluate(flags: EvaluateFlags) -> Shown:
    """Score trained weights on the validation split of any corpus, read in their tokens."""
    from train.runtime import configure

    configure(flags.out / "cache")
    from experiments.compact import compact
    from experiments.workspace import Workspace
    from model import custom

    workspace = Workspace(flags.out)
    custom.look_in(workspace.ideas)
    runs, plan = chosen(workspace, flags.target)
    names = tuple(dict.fromkeys(flags.corpus or [row["corpus"] for row in runs]))
    found = scored(workspace, runs, names)
    floors = at_floors(found, {row["run_id"]: row["seq_len"] for row in runs}, workspace.data)
    tables: dict[str, Rows] = {"Validation loss (nats/token)": _loss_rows(runs, found, floors)}
    sentences = (
        "standard errors: se iid takes tokens as independent, se document documents",
        *floor_sentences(floors),
    )
    values: dict[str, Any] = {"evaluations": found}
    if plan is not None:
        compact(plan, workspace.runs, workspace.sweep(flags.target))
        laws, words, fitted = _laws(plan, runs, found, names)
        tables |= laws
        sentences += words
        values["law"] = fitted
    if len(names) > 1 and len(runs) > 1:
        tables["Loss on each corpus, best first"] = _transfer_rows(runs, found, names)
        sentences += _transfer_sentences(found, names)
    if flags.by_position:
        more, laws_of_t = _by_position(found)
        tables |= more
        values["by_position"] = laws_of_t
    return Shown(tables, sentences, values)


def chosen(workspace: "Workspace", target: str) -> tuple[list[Record], "Plan | None"]:
    """Records of the finished runs that a name stands for, and the plan if it is a sweep's.

    Raises: SpecError: a sweep without a finished run, or no (or several) runs of that name.
    """
    from experiments.sampling import find_run
    from experiments.stages import frozen_plan
    from train.config import SpecError
    from train.records import read_run

    folder = workspace.sweep(target)
    if not folder.plan.exists():
        return [find_run(workspace, target)], None
    plan = frozen_plan(folder)
    rows = [read_run(workspace.runs, cell.spec.run_id) for cell in plan.cells]
    finished = [row for row in rows if row is not None and row["status"] == "finished"]
    if not finished:
        raise SpecError(f"sweep {target} has no finished run yet; python launch.py run it first")
    return finished, plan


def scored(
    workspace: "Workspace", runs: Sequence[Record], names: Sequence[str]
) -> list[dict[str, Any]]:
    """One evaluation a run and corpus, corpora in the order of `names`; made where it is not there.

    A prepared corpus is tokenized with the tokenizer of the runs where that was not done before.

    Raises: ValueError: a corpus is not prepared, or cannot be read in the tokens of the runs.
    """
    from train.data.corpora import prepare_like

    ((of, tokenizer),) = {(row["corpus"], row["tokenizer"]) for row in runs}
    corpora = [
        prepare_like(name, workspace.data, of=of, tokenizer=tokenizer, log=_say) for name in names
    ]
    return [_evaluation(workspace, row, corpus) for corpus in corpora for row in runs]


def _say(words: str) -> None:
    print(words, file=sys.stderr)


def _evaluation(workspace: "Workspace", row: Record, corpus: "TokenizedCorpus") -> dict[str, Any]:
    from train.evaluate import WHOLE_SPLIT
    from train.records import add_evaluations, committed_attempt, read_evaluations

    attempt = committed_attempt(workspace.runs, row)
    of_result = [e for e in read_evaluations(attempt) if e["is_result"]]
    for there in of_result:
        if (there["corpus_hash"], there["split"]) == (corpus.content_hash, WHOLE_SPLIT):
            return there
    _say(f"scoring {row['run_id']} on {corpus.name}")
    # Weights of early stopping are older than the run's last step; its own evaluation says when.
    step = of_result[0]["step"] if of_result else row["n_steps"]
    made = _score(attempt, corpus, step)
    add_evaluations(attempt, [made])
    return made


def _score(attempt, corpus: "TokenizedCorpus", step: int) -> dict[str, Any]:
    import jax

    from model.kernels import kernels_for
    from train.checkpoint import load_weights, read_spec
    from train.config import SpecError
    from train.evaluate import evaluate as evaluate_split
    from train.evaluate import evaluation_row

    spec = read_spec(attempt.weights)
    if spec.data.tokenizer_hash != corpus.tokenizer_hash:
        raise SpecError(
            f"run {spec.run_id} reads tokens of {spec.data.tokenizer} {spec.data.tokenizer_hash}, "
            f"but {corpus.name} was prepared with {corpus.tokenizer_hash}; prepare it again"
        )
    device = jax.local_devices()[0]
    params = jax.device_put(load_weights(attempt.weights, spec.model), device)
    found = evaluate_split(
        spec.model, params, corpus.validation_tokens, corpus.validation_documents,
        kernels_for(device.platform), spec.parametrization,
    )  # fmt: skip
    about = {"run_id": spec.run_id, "attempt": attempt.number, "step": step, "is_result": True}
    return evaluation_row(found, corpus, **about)


def _loss_rows(
    runs: Sequence[Record], found: Sequence[dict[str, Any]], floors: Sequence[AtFloor]
) -> Rows:
    from analysis.tables import number

    by_id = {row["run_id"]: row for row in runs}
    floor_of = {(one.run_id, one.corpus): number(one.floor_nats, 5) for one in floors}
    shown = []
    for evaluation in found:
        row = by_id[evaluation["run_id"]]
        shown.append(
            {
                "run": row["run_id"],
                "N": f"{row['n_params_total']:,}",
                "D": f"{row['n_tokens']:,}",
                "corpus": evaluation["corpus"],
                "nats/token": number(evaluation["loss_nats"], 5),
                **({"floor": floor_of.get(_key(evaluation), "unknown")} if floors else {}),
                "se iid": number(evaluation["loss_se_iid"], 2),
                "se document": number(evaluation["loss_se_document"], 2),
                "bits/byte": number(evaluation["bits_per_byte"], 5),
                "tokens": f"{evaluation['n_tokens']:,}",
            }
        )
    return shown


def _key(evaluation: dict[str, Any]) -> tuple[str, str]:
    return evaluation["run_id"], evaluation["corpus"]


def _laws(
    plan: "Plan", runs: Sequence[Record], found: Sequence[dict[str, Any]], names: Sequence[str]
) -> tuple[dict[str, Rows], tuple[str, ...], dict[str, Any]]:
    """The law of shared exponents over the corpora, beside each corpus's own."""
    from analysis.fit import fit
    from analysis.laws import Chinchilla, PerCorpus
    from analysis.load import drop_flagged, points_from_runs
    from analysis.study import LEFT_OUT
    from analysis.tables import fit_rows

    table: Any = evaluated_runs(plan, runs, found)
    tables: dict[str, Rows] = {}
    words: list[str] = []
    values: dict[str, Any] = {}
    own: dict[str, Fit] = {}
    for name in names:
        points = drop_flagged(points_from_runs(table[table["corpus"] == name]), *LEFT_OUT)
        own[name] = fit(Chinchilla(), points, "ls_log")
    if len(names) == 1:
        shown = own[names[0]]
    else:
        points = drop_flagged(points_from_runs(table), *LEFT_OUT)
        shown = fit(PerCorpus(tuple(names)), points, "ls_log")
        words += [_own_sentence(name, law) for name, law in own.items()]
        values["own"] = {name: law.to_json() for name, law in own.items()}
    tables[f"{shown.law.equation} over {shown.n_rows} rows"] = fit_rows(shown)
    words.insert(0, f"law: {shown.status}; {shown.interval_method}")
    return tables, tuple(words), {"shown": shown.to_json(), **values}


def evaluated_runs(
    plan: "Plan", runs: Sequence[Record], found: Sequence[dict[str, Any]]
) -> "pd.DataFrame":
    """Runs of a plan once for each corpus, with the loss on it in place of their own."""
    import pandas as pd

    by_id = {row["run_id"]: row for row in runs}
    cells = {cell.spec.run_id: cell for cell in plan.cells}
    replaced = ("corpus", "corpus_hash", "loss_nats", "loss_se_iid", "loss_se_document")
    rows = []
    for evaluation in found:
        cell = cells[evaluation["run_id"]]
        budget = cell.isoflop_budget
        rows.append(
            {
                **by_id[evaluation["run_id"]],
                **{name: evaluation[name] for name in replaced},
                "role": cell.role,
                "isoflop_budget": float("nan") if budget is None else budget,
            }
        )
    return pd.DataFrame(rows).astype({"loss_nats": "float64", "isoflop_budget": "float64"})


def _own_sentence(name: str, law: "Fit") -> str:
    import numpy as np

    from analysis.tables import interval, number

    if not law.ok:
        return f"{name} on its own: no law, {law.status}"
    exponents = ", ".join(
        f"{key} {number(law.parameters[key], 3)} {interval(law.intervals[key], 3)}"
        for key in ("alpha", "beta")
    )
    spread = float(np.sqrt(np.mean(law.residuals**2)))
    return f"{name} on its own: {exponents}, residuals {spread:.2%}; {law.status}"


def _losses(found: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """By run, by corpus."""
    by_run: dict[str, dict[str, float]] = {}
    for evaluation in found:
        by_run.setdefault(evaluation["run_id"], {})[evaluation["corpus"]] = evaluation["loss_nats"]
    return {run: {name: losses[name] for name in names} for run, losses in by_run.items()}


def _transfer_rows(
    runs: Sequence[Record], found: Sequence[dict[str, Any]], names: Sequence[str]
) -> Rows:
    from analysis.tables import number

    by_id = {row["run_id"]: row for row in runs}
    losses = sorted(_losses(found, names).items(), key=lambda item: item[1][names[0]])
    return [
        {
            "run": run,
            "N": f"{by_id[run]['n_params_total']:,}",
            "D": f"{by_id[run]['n_tokens']:,}",
            **{name: number(loss, 5) for name, loss in on.items()},
        }
        for run, on in losses
    ]


def _transfer_sentences(found: Sequence[dict[str, Any]], names: Sequence[str]) -> tuple[str, ...]:
    """Loss on each further corpus as a straight line in the loss on the first one."""
    import numpy as np

    losses = list(_losses(found, names).values())
    first = np.array([on[names[0]] for on in losses])
    sentences = []
    for name in names[1:]:
        other = np.array([on[name] for on in losses])
        if len(first) < 3 or np.ptp(first) == 0:
            continue
        slope, offset = np.polyfit(first, other, 1)
        scatter = float(np.std(other - slope * first - offset, ddof=2))
        correlation = float(np.corrcoef(first, other)[0, 1])
        sentences.append(
            f"transfer: loss on {name} = {offset:.3g} + {slope:.3g} x loss on {names[0]} "
            f"(least squares, {len(first)} runs; correlation {correlation:.3f}, scatter "
            f"{scatter:.2g} nats); it describes these runs, it is no law"
        )
    return tuple(sentences)


def _by_position(
    found: Sequence[dict[str, Any]],
) -> tuple[dict[str, Rows], list[dict[str, Any]]]:
    """The law of each evaluation; where there is one run, also every position."""
    from analysis.positions import fit_position, position_loss
    from analysis.tables import interval, number

    laws, values, tables = [], [], {}
    for evaluation in found:
        positions = position_loss(evaluation)
        law = fit_position(positions)
        name = f"{evaluation['run_id']} on {evaluation['corpus']}"
        laws.append(
            {
                "run": evaluation["run_id"],
                "corpus": evaluation["corpus"],
                "first": number(positions.loss_nats[0], 4),
                "last": number(positions.loss_nats[-1], 4),
                **{
                    key: f"{number(law.parameters[key], 3)} {interval(law.intervals[key], 3)}"
                    for key in ("E", "A", "alpha")
                    if law.ok
                },
                "status": law.status,
            }
        )
        values.append({"run_id": evaluation["run_id"], "corpus": evaluation["corpus"],
                       "law": law.to_json()})  # fmt: skip
        if len({e["run_id"] for e in found}) == 1:
            tables[f"Loss by position of {name}"] = _position_rows(positions, law)
    tables["L(t) = E + A / t^alpha (90% intervals)"] = laws
    return tables, values


def _position_rows(positions, law: "Fit") -> Rows:
    from analysis.tables import number

    predicted = law.predict(position=positions.middle) if law.ok else [None] * len(positions.first)
    return [
        {
            "position": f"{a:.0f}" if a == b else f"{a:.0f}-{b:.0f}",
            "nats/token": number(loss, 5),
            "se document": number(se, 2),
            "law": number(expected, 5),
        }
        for a, b, loss, se, expected in zip(
            positions.first, positions.last, positions.loss_nats, positions.se_document, predicted,
            strict=True,
        )
    ]  # fmt: skip
