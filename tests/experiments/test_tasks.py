"""Questions, their scoring by likelihood, and the table of it."""

import dataclasses
import json

import jax
import numpy as np
import pandas as pd
import pytest

from experiments import tasks
from experiments.sampling import TrainedRun
from experiments.task_sets import MADE, cloze, labelled
from model.functional import apply, init_params
from train.data.tokenizers import BYTES

SOLUTIONS = {
    "copy": lambda shown: shown,
    "reverse": lambda shown: shown[::-1],
    "sort": sorted,
}


def last_line(question):
    return question.prompt.splitlines()[-1]


@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("name", SOLUTIONS)
def test_orders_of_letters(name, shots):
    for question in tasks.asked(MADE[name], name, shots, 20, seed=1):
        *worked, asked = question.prompt.split("\n")
        assert len(worked) == shots and asked.endswith(" >")
        right = SOLUTIONS[name](asked.removesuffix(" >").split())
        assert question.candidates[question.right].split() == right
        assert len(set(question.candidates)) == 4
        for line in worked:
            shown, answer = line.split(" > ")
            assert answer.split() == SOLUTIONS[name](shown.split())


def test_addition_is_modulo_ten_and_shots_are_other_sums():
    for question in tasks.asked(MADE["addition"], "addition", 8, 20, seed=0):
        lines = question.solved.splitlines()
        assert len(set(lines)) == 9
        for line in lines:
            a, _, b, _, total = line.split()
            assert (int(a) + int(b)) % 10 == int(total)


@pytest.mark.parametrize("shots", [0, 1, 5])
def test_induction_shows_the_pair_as_often_as_there_are_shots(shots):
    """And every candidate as often, so that counting letters is of no use."""
    for question in tasks.asked(MADE["induction"], "induction", shots, 20, seed=0):
        letters = question.prompt.split()
        last, text = letters[-1], letters[:-1]
        pairs = list(zip(text[::2], text[1::2], strict=True))
        right = question.candidates[question.right].strip()
        assert pairs.count((last, right)) == shots and text.count(last) == shots
        counts = {text.count(candidate.strip()) for candidate in question.candidates}
        assert counts == {max(shots, 1)}


def test_cloze_asks_for_the_last_word():
    text = "\n".join(
        " ".join(f"word{chr(97 + i)}{chr(97 + j)}" for j in range(10)) for i in range(9)
    )
    make = cloze([text.replace("word", "")])
    question = make(np.random.default_rng(0), 0)
    assert question.solved in text.replace("word", "")
    assert len(set(question.candidates)) == 4
    with pytest.raises(ValueError, match="end in 1 words"):
        cloze(["one two three four five six seven eight nine ten"])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_labelled_files(tmp_path, suffix):
    path = tmp_path / f"reviews{suffix}"
    rows = [{"sentence": f"film, {i}", "label": "good" if i % 2 else "bad"} for i in range(8)]
    if suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for question in tasks.asked(labelled(path), "reviews", 3, 10, seed=0):
        texts = question.prompt.split("\n")[::2]
        assert len(set(texts)) == 4, "shots are other rows"
        number = int(texts[-1].removeprefix("film, "))
        assert question.candidates == (" bad", " good") and question.right == number % 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read"),
        ("a,b\n1,2\n", "no field text or"),
        ("text,label\nx,y\n", "1 value"),
    ],
)
def test_a_file_without_labels_is_refused(tmp_path, content, why):
    path = tmp_path / "reviews.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=why):
        labelled(path)


@pytest.fixture(scope="module")
def run(tiny):
    cfg = dataclasses.replace(tiny, vocab_size=256, seq_len=64, n_layers=1)
    params = jax.tree.map(lambda leaf: 3 * leaf, init_params(cfg, 0))
    return TrainedRun(cfg, params, BYTES)


def test_nats_are_those_of_the_logits(run):
    question = tasks.asked(MADE["copy"], "copy", 1, 1, seed=0)[0]
    (found,) = tasks.nats_of_candidates(run, [question])
    for nats, candidate in zip(found, question.candidates, strict=True):
        text = [BYTES.eot_id, *(question.prompt + candidate).encode()]
        log_p = jax.nn.log_softmax(apply(run.model, run.params, np.array([text[:-1]]))[0])
        n = len(candidate.encode())
        each = np.asarray(log_p)[np.arange(len(text) - 1), text[1:]]
        assert nats == pytest.approx(-float(each[-n:].sum()), rel=1e-4)


def test_scores_against_a_calculation_by_hand():
    p = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.3], [0.1, 0.2, 0.1], [0.2, 0.2, 0.6]])
    found = tasks.scores_of(-np.log(p), np.array([0, 0, 1, 2]))
    right, choice = np.array([0.5, 0.1, 0.2, 0.6]), np.array([0.5, 1 / 6, 0.5, 0.6])
    for (mean, se), values in (
        (found.accuracy, np.array([1, 0, 1, 1])),
        (found.answer_nats, -np.log(right)),
        (found.choice_nats, -np.log(choice)),
    ):
        assert mean == pytest.approx(values.mean())
        assert se == pytest.approx(np.sqrt(values.var(ddof=1) / 4))


def test_a_context_that_is_too_short_is_told(run):
    with pytest.raises(tasks.TooLong, match="more than the context of 64"):
        tasks.score(run, tasks.asked(MADE["copy"], "copy", 16, 2, seed=0))


def test_the_table_of_a_sweep_and_an_exported_run(told, finished_study, tmp_path):
    """The context of 16 has room for one sum and for no copy."""
    root, table = finished_study, tmp_path / "answers.csv"
    assert told("export", "largest", tmp_path / "gpt2", "--out", root)[0] == 0
    code, out, err = told(
        "tasks", "largest", "--pretrained", tmp_path / "gpt2", "--tasks", "addition", "copy",
        "--shots", 0, 4, "--questions", 9, "--output", table, "--out", root,
    )  # fmt: skip
    assert code == 0, err
    assert out.count("left out: ") == 6 and "addition after 4 shots" in out
    found = pd.read_csv(table)
    assert found["task"].tolist() == ["addition"] * 2 and found["shots"].tolist() == [0, 0]
    ours, theirs = found.to_dict("records")
    assert ours["n_params_total"] > 0 and ours["n_tokens"] > 0 and pd.isna(theirs["n_tokens"])
    for name in ("accuracy", "accuracy_se", "answer_nats", "choice_nats", "choice_nats_se"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
    assert ours["chance"] == 0.1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "no model is named"),
        (["largest", "--questions", "1"], "questions=1"),
        (["largest", "--shots", "-1"], "shots=(-1,)"),
        (["largest", "--tasks", "juggling"], "task 'juggling' is unknown"),
        (["largest", "--output", "x.txt"], "output=x.txt"),
    ],
)
def test_wrong_input_is_one_clear_line(told, finished_study, arguments, why):
    code, _, err = told("tasks", *arguments, "--out", finished_study)
    assert code == 2 and why in err and len(err.splitlines()) == 1
