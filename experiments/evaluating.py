"""Trained weights on any prepared corpus: loss, its law on each text, and loss by token position.

An evaluation is a row beside the run's committed record, which stays as it is. One that is there is
not made again. JAX is imported late, once its compile cache is set up.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from experiments.analyse import OutputFlags, Rows, Shown
from experiments.floors import AtFloor, at_floors
from experiments.floors import sentences as floor_sentences

if TYPE_CHECKING:
    from analysis.fit import Fit
    from experiments.plan import Plan
    from experiments.workspace import Workspace
    from model.config import ModelConfig
    from train.data.corpora import TokenizedCorpus

Record = dict[str, Any]
_ERRORS = "standard errors: se iid takes tokens as independent, se document documents"


@dataclass(frozen=True)
class EvaluateFlags(OutputFlags):
    """Whose weights, on which text."""

    target: Positional[str] = "quickstart"
    """A sweep (all its finished runs), or a run: its run_id, the beginning of it, or `largest`."""
    corpus: tuple[str, ...] = ()
    """Prepared corpora whose validation split is scored, such as --corpus sotu python-code; they
    are tokenized as the run's own. Default: the corpus that the run was trained on."""
    pretrained: Path | None = None
    """Score a GPT-2 of Hugging Face's layout instead, on --corpus: folder with config.json,
    model.safetensors and the tokenizer's files."""
    by_position: bool = False
    """Show the loss by token position and the law L(t) = E + A / t^alpha through it."""


def evaluate(flags: EvaluateFlags) -> Shown:
    """Score trained weights on the validation split of any corpus, read in their tokens."""
    from train.runtime import configure

    configure(flags.out / "cache")
    from experiments import transfer
    from experiments.compact import compact
    from experiments.workspace import Workspace
    from model import custom

    workspace = Workspace(flags.out)
    if flags.pretrained is not None:
        return _of_pretrained(workspace, flags.pretrained, flags.corpus, flags.by_position)
    custom.look_in(workspace.ideas)
    runs, plan = chosen(workspace, flags.target)
    names = tuple(dict.fromkeys(flags.corpus or [row["corpus"] for row in runs]))
    found = scored(workspace, runs, names)
    floors = at_floors(found, {row["run_id"]: row["seq_len"] for row in runs}, workspace.data)
    tables: dict[str, Rows] = {"Validation loss (nats/token)": _loss_rows(runs, found, floors)}
    sentences = (_ERRORS, *floor_sentences(floors))
    values: dict[str, Any] = {"evaluations": found}
    if plan is not None:
        compact(plan, workspace.runs, workspace.sweep(flags.target))
        laws, words, fitted = transfer.laws(plan, runs, found, names)
        tables |= laws
        sentences += words
        values["law"] = fitted
    if len(names) > 1 and len(runs) > 1:
        tables["Loss on each corpus, best first"] = transfer.transfer_rows(runs, found, names)
        sentences += transfer.transfer_sentences(found, names)
    if flags.by_position:
        more, laws_of_t = _by_position(found)
        tables |= more
        values["by_position"] = laws_of_t
    return Shown(tables, sentences, values)


def chosen(workspace: "Workspace", target: str) -> tuple[list[Record], "Plan | None"]:
    """Records of the finished runs that a name stands for, and the plan if it is a sweep's.

    Raises: SpecError: a sweep without a finished run, or no (or several) runs of that name.
    """
    from experiments.plan import frozen_plan
    from experiments.sampling import find_run
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
    from train.checkpoint import load_weights, read_spec
    from train.config import SpecError

    spec = read_spec(attempt.weights)
    if spec.data.tokenizer_hash != corpus.tokenizer_hash:
        raise SpecError(
            f"run {spec.run_id} reads tokens of {spec.data.tokenizer} {spec.data.tokenizer_hash}, "
            f"but {corpus.name} was prepared with {corpus.tokenizer_hash}; prepare it again"
        )
    about = {"run_id": spec.run_id, "attempt": attempt.number, "step": step, "is_result": True}
    params = load_weights(attempt.weights, spec.model)
    return _measured(spec.model, params, spec.parametrization, corpus, about)


def _measured(
    cfg: "ModelConfig",
    params: Any,
    parametrization: str,
    corpus: "TokenizedCorpus",
    about: dict[str, Any],
) -> dict[str, Any]:
    """The evaluation of a model on a corpus of its tokens, as a row."""
    import jax

    from model.kernels import kernels_for
    from train.evaluate import evaluate as evaluate_split
    from train.evaluate import evaluation_row

    device = jax.local_devices()[0]
    found = evaluate_split(
        cfg, jax.device_put(params, device), corpus.validation_tokens,
        corpus.validation_documents, kernels_for(device.platform), parametrization,
    )  # fmt: skip
    return evaluation_row(found, corpus, **about)


def _of_pretrained(
    workspace: "Workspace", folder: Path, names: Sequence[str], is_by_position: bool
) -> Shown:
    """Loss of a model that no run of ours left; it has no record, so nothing is written."""
    from experiments.sampling import load_pretrained
    from model.accounting import count_params
    from train.config import SpecError
    from train.data.corpora import load

    if not names:
        raise SpecError(f"pretrained={folder}: name the prepared text to score, --corpus NAME")
    run = load_pretrained(folder)
    tokenizer = run.text_tokenizer
    found = []
    for name in dict.fromkeys(names):
        corpus = load(name, workspace.data, tokenizer=tokenizer.name)
        if corpus.tokenizer_hash != tokenizer.hash:
            raise SpecError(
                f"{folder} reads tokens of {tokenizer.hash}, but {name} was prepared with "
                f"{corpus.tokenizer_hash}; prepare it with this model's files"
            )
        about = {"run_id": str(folder), "attempt": None, "step": None, "is_result": True}
        found.append(_measured(run.model, run.params, run.parametrization, corpus, about))
    size = count_params(run.model).total
    record = {"run_id": str(folder), "n_params_total": size, "n_tokens": None}
    tables: dict[str, Rows] = {"Validation loss (nats/token)": _loss_rows([record], found, ())}
    values: dict[str, Any] = {"evaluations": found}
    if is_by_position:
        more, values["by_position"] = _by_position(found)
        tables |= more
    return Shown(tables, (_ERRORS,), values)


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
                "D": "-" if row["n_tokens"] is None else f"{row['n_tokens']:,}",
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
