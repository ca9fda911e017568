import shutil

import jax
import numpy as np
import pytest

from experiments.sampling import continuation, load_run, next_tokens
from experiments.workspace import Workspace, read_json
from train.config import SpecError
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
    text = continuation(run, "a", n_tokens=40, temperature=1.0, top_k=4, seed=0)
    assert len(text) == 41 and text.startswith("a")
    assert text == continuation(run, "a", n_tokens=40, temperature=1.0, top_k=4, seed=0)
    assert text != continuation(run, "a", n_tokens=40, temperature=1.0, top_k=4, seed=1)


def test_an_empty_prompt_is_refused(study):
    with pytest.raises(SpecError, match="prompt is empty"):
        next_tokens(load_run(study, "largest"), "", 3)
