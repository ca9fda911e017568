import shutil

import jax
import numpy as np
import pytest

from experiments.sampling import END_OF_TEXT, TrainedRun, continued, load_run, next_tokens
from experiments.workspace import Workspace, read_json
from model.drawing import Draws
from train.config import SpecError
from train.data.tokenizers import BYTES
from train.records import RecordError


@pytest.fixture
def study(finished_study):
    return Workspace(finished_study)


def test_a_run_is_found_by_size_id_or_the_beginning_of_its_id(study):
    largest = load_run(study, "largest")
    (folder,) = study.sweeps.iterdir()
    held_out = read_json(folder / "prediction.json")["run_id"]
    for name in (held_out, held_out[:10]):
        found = load_run(study, name)
        assert found.model == largest.model
        same = jax.tree.map(np.array_equal, found.params, largest.params)
        assert all(jax.tree.leaves(same))


def test_an_unknown_or_ambiguous_name_lists_runs(study, workspace):
    some = sorted(path.name for path in study.runs.iterdir())[0]
    with pytest.raises(SpecError, match=f"run 'xyz' names 0 finished runs; try one of: {some}"):
        load_run(study, "xyz")
    with pytest.raises(SpecError, match="run '' names 11 finished runs; try one of"):
        load_run(study, "")
    with pytest.raises(SpecError, match="no finished run in"):
        load_run(workspace, "largest")


def test_a_diverged_run_is_not_asked(plan, workspace, commit):
    commit(plan.cells[0].spec, status="diverged")
    with pytest.raises(SpecError, match="no finished run in"):
        load_run(workspace, "largest")


def test_damaged_weights_are_said(study, workspace):
    shutil.copytree(study.runs, workspace.runs)
    for path in workspace.runs.glob("*/*/weights.safetensors"):
        path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RecordError, match="train the run again"):
        load_run(workspace, "largest")


def test_what_was_learned_comes_out(study):
    """After each letter of the made-up text only four may follow."""
    run = load_run(study, "largest")
    table = next_tokens(run, "abca", 8)
    assert len(table) == 8
    probabilities = [p for _, p in table]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities[:4]) > 0.8
    text = continuation(run, seed=0)
    assert len(text) == 40
    assert text == continuation(run, seed=0) != continuation(run, seed=1)


def continuation(run, seed):
    draws = Draws(1.0, top_k=4, seed=seed)
    return "".join(piece for (piece,) in continued(run, ["a"], n_tokens=40, draws=draws))


def test_an_empty_prompt_is_refused(study):
    with pytest.raises(SpecError, match="prompt is empty"):
        next_tokens(load_run(study, "largest"), "", 3)


@pytest.fixture
def spelled(monkeypatch):
    """A model that says the bytes given, whatever it is asked."""

    def spelled(*said):
        tokens = [list(step) for step in zip(*said, strict=True)]
        monkeypatch.setattr("experiments.sampling.generated", lambda *_, **__: iter(tokens))
        run = TrainedRun(None, {}, BYTES)  # pyright: ignore[reportArgumentType]
        return list(continued(run, ["x"] * len(said), n_tokens=1, draws=Draws()))

    return spelled


def test_pieces_are_whole_characters(spelled):
    """Joined they are the text, damaged bytes included, and no piece is ever taken back."""
    texts = ["aé€😀b".encode(), b"a\xe2\x82b\xff\xff\xffcd\xf0\x9f"]
    pieces = spelled(*texts)
    for said, told in zip(texts, zip(*pieces, strict=True), strict=True):
        assert "".join(told) == said.decode(errors="replace")
    assert [first for first, _ in pieces if first] == ["a", "é", "€", "😀", "b"]


def test_a_stopped_prompt_says_no_more(spelled):
    pieces = spelled(b"abc", [100, None, None])
    assert ["".join(told) for told in zip(*pieces, strict=True)] == ["abc", "d"]


@pytest.mark.parametrize(("stop", "token"), [("b", 98), (END_OF_TEXT, 0)])
def test_a_stop_is_a_token_of_the_model(monkeypatch, stop, token):
    seen = {}
    monkeypatch.setattr("experiments.sampling.generated", lambda *_, **how: seen.update(how) or [])
    run = TrainedRun(None, {}, BYTES)  # pyright: ignore[reportArgumentType]
    assert list(continued(run, ["x"], n_tokens=1, draws=Draws(), stop=stop)) == [[""]]
    assert seen["stop"] == token
    with pytest.raises(SpecError, match="stop='bc' is 2 tokens"):
        list(continued(run, ["x"], n_tokens=1, draws=Draws(), stop="bc"))
