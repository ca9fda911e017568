"""How well trained models do small tasks, after 0, 1, ... worked examples: scored by likelihood.

A model answers with the candidate to which it gives the fewest nats; nothing is generated, so a
model too small to spell its answer is measured all the same. Every model gets the same questions.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tyro.conf import Positional

from experiments.analyse import OutputFlags, Shown
from experiments.task_sets import MADE, Maker, Question, cloze, labelled
from experiments.workspace import Workspace
from train.config import SpecError

if TYPE_CHECKING:
    from experiments.sampling import TrainedRun

_SHORTEST = 32


@dataclass(frozen=True)
class TaskFlags(OutputFlags):
    """Whose answers, to which questions."""

    runs: Positional[tuple[str, ...]] = ()
    """Sweeps (all their finished runs) and runs: run_id, the beginning of one, or `largest`."""
    pretrained: tuple[Path, ...] = ()
    """Folders of GPT-2s in Hugging Face's layout."""
    tasks: tuple[str, ...] = tuple(MADE)
    """copy, reverse, sort, addition (modulo ten), induction, cloze (of --corpus), or a CSV or JSONL
    of labelled texts, such as --tasks copy reviews.csv."""
    shots: tuple[int, ...] = (0, 1, 4, 16)
    """Worked examples before each question; of induction, how often the pair was seen."""
    questions: int = 200
    """Questions of each task and number of shots."""
    corpus: str = "sotu"
    """Prepared corpus whose validation text cloze asks for."""
    seed: int = 0
    """Seed of the questions."""
    output: Path | None = None
    """Table to write, .csv or .parquet. Default: tasks.csv in the output folder."""


@dataclass(frozen=True)
class Scores:
    """What came of n questions: means, each with the standard error of independent questions.

    Args:
        accuracy: share in which the right candidate had the fewest nats.
        answer_nats: nats of the right answer given the prompt, all of its tokens.
        choice_nats: nats of the right one among the candidates alone; log n_candidates for a model
            that cannot tell them apart. Where accuracy stands still or jumps, this moves.
    """

    accuracy: tuple[float, float]
    answer_nats: tuple[float, float]
    choice_nats: tuple[float, float]


def tasks(flags: TaskFlags) -> Shown:
    """Score trained models on small tasks after 0, 1, ... shots, and write the table."""
    import pandas as pd

    from train.runtime import configure

    configure(flags.out / "cache")
    from experiments import table

    output = flags.output or flags.out / "tasks.csv"
    _check(flags, output)
    workspace = Workspace(flags.out)
    makers = {_name(task): _maker(task, flags, workspace) for task in flags.tasks}
    rows, sentences = [], []
    for about, run in _models(flags, workspace):
        for name, make in makers.items():
            for shots in flags.shots:
                found = asked(make, name, shots, flags.questions, flags.seed)
                try:
                    scores = score(run, found)
                except TooLong as error:
                    sentences.append(
                        f"left out: {about['run_id']}, {name} after {shots} shots, {error}"
                    )
                    continue
                rows.append({**about, **_row(name, shots, flags.seed, found, scores)})
    if not rows:
        raise SpecError("; ".join(sentences) or "there is no task; give --tasks and --shots")
    found = pd.DataFrame(rows).astype({"n_tokens": "Int64"})
    table.write(found, output.suffix[1:], output)
    sentences.append(f"wrote {output}: {len(rows)} rows")
    return Shown({"Tasks": [_shown(row) for row in rows]}, tuple(sentences), {"tasks": rows})


def asked(make: Maker, name: str, shots: int, n: int, seed: int) -> list[Question]:
    """The questions of a task; the same ones whoever is asked."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), shots])
    return [make(rng, shots) for _ in range(n)]


class TooLong(ValueError):
    """A question with its answer is longer than a model's context."""


def score(run: "TrainedRun", questions: Sequence[Question]) -> Scores:
    """A model's answers to questions that all have as many candidates.

    Raises: TooLong: one of them does not fit the model's context.
    """
    nats_QC = np.array(nats_of_candidates(run, questions))
    right = np.array([question.right for question in questions])
    return scores_of(nats_QC, right)


def scores_of(nats_QC: np.ndarray, right_Q: np.ndarray) -> Scores:
    """Means and errors from the nats of each question's candidates."""
    answers = np.take_along_axis(nats_QC, right_Q[:, None], axis=1)[:, 0]
    lowest = nats_QC.min(axis=1)
    choices = answers - lowest + np.log(np.exp(lowest[:, None] - nats_QC).sum(axis=1))
    is_right = (nats_QC.argmin(axis=1) == right_Q).astype(float)
    return Scores(*(_mean_and_se(values) for values in (is_right, answers, choices)))


def _mean_and_se(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def nats_of_candidates(run: "TrainedRun", questions: Sequence[Question]) -> list[list[float]]:
    """Nats of each candidate's tokens, given a document that begins with the prompt.

    Prompt and candidate become tokens apart, so that candidates of one question share all that
    stands before them.

    Raises: TooLong: a prompt with a candidate does not fit the model's context.
        SpecError: the model reads no text.
    """
    rows, tokenizer = [], run.text_tokenizer
    for question in questions:
        prompt = [tokenizer.eot_id, *tokenizer.encode(question.prompt).tolist()]
        for candidate in question.candidates:
            rows.append((len(prompt), [*prompt, *tokenizer.encode(candidate).tolist()]))
    longest = max(len(tokens) for _, tokens in rows)
    if longest > run.model.seq_len + 1:
        raise TooLong(
            f"whose {longest - 1} tokens are more than the context of {run.model.seq_len}"
        )
    nats = iter(_nats(run, rows, longest))
    return [[next(nats) for _ in question.candidates] for question in questions]


def _nats(run: "TrainedRun", rows: list[tuple[int, list[int]]], longest: int) -> Iterator[float]:
    import jax

    from model.kernels import kernels_for
    from train.evaluate import losses_of_windows
    from train.parts import EVALUATION_TOKENS

    # Few lengths, so that few are compiled for. Behind a text is padding, which it never sees.
    width = min(max(_SHORTEST, 1 << (longest - 2).bit_length()), run.model.seq_len) + 1
    per_batch = max(1, EVALUATION_TOKENS // width)
    params, kernels = jax.device_put(run.params), kernels_for(jax.local_devices()[0].platform)
    for start in range(0, len(rows), per_batch):
        some = rows[start : start + per_batch]
        windows = np.zeros((per_batch, width), np.int32)
        for window, (_, tokens) in zip(windows, some, strict=False):
            window[: len(tokens)] = tokens
        losses = np.asarray(
            losses_of_windows(run.model, kernels, run.parametrization, params, windows), np.float64
        )
        for row, (n_prompt, tokens) in zip(losses, some, strict=False):
            yield float(row[n_prompt - 1 : len(tokens) - 1].sum())


def _check(flags: TaskFlags, output: Path) -> None:
    if not flags.runs and not flags.pretrained:
        raise SpecError("no model is named; give a run, a sweep or --pretrained FOLDER")
    if flags.questions < 2 or min(flags.shots, default=0) < 0:
        raise SpecError(
            f"questions={flags.questions}, shots={flags.shots}: use at least 2 questions, and "
            "shots of at least 0"
        )
    if output.suffix not in (".csv", ".parquet"):
        raise SpecError(f"output={output} is neither .csv nor .parquet; name one of these")


def _name(task: str) -> str:
    return task if task in (*MADE, "cloze") else Path(task).stem


def _maker(task: str, flags: TaskFlags, workspace: Workspace) -> Maker:
    if task in MADE:
        return MADE[task]
    if task == "cloze":
        from train.data import corpora

        text = corpora.split_text(corpora.load(flags.corpus, workspace.data), "validation")
        return cloze([text])
    if Path(task).suffix not in (".csv", ".jsonl", ".json"):
        raise SpecError(
            f"task {task!r} is unknown; use {', '.join(MADE)}, cloze, or a CSV or JSONL"
        )
    return labelled(Path(task))


def _models(
    flags: TaskFlags, workspace: Workspace
) -> Iterator[tuple[dict[str, Any], "TrainedRun"]]:
    """Each model once, with the columns that say which it is."""
    from experiments.evaluating import chosen
    from experiments.sampling import load_pretrained, load_run
    from model.accounting import count_params

    rows = {row["run_id"]: row for name in flags.runs for row in chosen(workspace, name)[0]}
    for run_id, row in rows.items():
        sizes = {name: row[name] for name in ("n_params_total", "n_params_non_embedding")}
        yield {"run_id": run_id, **sizes, "n_tokens": row["n_tokens"]}, load_run(workspace, run_id)
    for folder in flags.pretrained:
        run = load_pretrained(folder)
        counts = count_params(run.model)
        about = {"n_params_total": counts.total, "n_params_non_embedding": counts.non_embedding}
        yield {"run_id": str(folder), **about, "n_tokens": None}, run


def _row(
    name: str, shots: int, seed: int, found: Sequence[Question], scores: Scores
) -> dict[str, Any]:
    values = {"task": name, "shots": shots, "seed": seed, "n_questions": len(found)}
    values["chance"] = 1 / len(found[0].candidates)
    for measure in ("accuracy", "answer_nats", "choice_nats"):
        values[measure], values[f"{measure}_se"] = getattr(scores, measure)
    return values


def _shown(row: dict[str, Any]) -> dict[str, str]:
    from analysis.tables import number

    shown = {"model": row["run_id"], "N": f"{row['n_params_total']:,}", "task": row["task"]}
    shown |= {"shots": str(row["shots"]), "chance": number(row["chance"], 2)}
    for measure, title in (
        ("accuracy", "accuracy"), ("answer_nats", "nats of the answer"),
        ("choice_nats", "nats of the choice"),
    ):  # fmt: skip
        shown[title] = f"{number(row[measure], 3)} ± {number(row[f'{measure}_se'], 1)}"
    return shown
