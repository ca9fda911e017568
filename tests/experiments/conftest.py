"""A plan of the laptop staircase on a language in memory, and records nobody trained for."""

import dataclasses

import pytest
import tiny_study

from experiments import quickstart
from experiments.workspace import Workspace
from train import records
from train.columns import RUN_COLUMNS
from train.config import Budget, DataConfig, OptimizerConfig, RunSpec
from train.data import builders, corpora
from train.data.languages import MarkovSource, as_corpus


@pytest.fixture(scope="session")
def corpus():
    source = MarkovSource.random(vocab_size=5, order=1, seed=0)
    found = as_corpus(source, n_train=500, n_validation=200, seed=0)
    return dataclasses.replace(found, vocab_size=256)


@pytest.fixture(scope="session")
def plan(corpus):
    return quickstart.plan(quickstart.Options(), corpus)


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "out")


@pytest.fixture
def commit(workspace):
    """Commit a record for a spec, with the columns given."""

    def commit(spec, **values):
        attempt = records.begin_attempt(workspace.runs, spec.run_id)
        sizes = {name: getattr(spec.model, name) for name in ("n_layers", "d_model")}
        columns = {
            **dict.fromkeys(RUN_COLUMNS), **sizes, "status": "finished", "loss_nats": 1.5,
            "seconds": 9.0, "seconds_compile": 4.0, "resumed_from_step": 0,
            "train_flops_matmul_full": 1e11, "run_id": spec.run_id, "attempt": attempt.number,
        }  # fmt: skip
        assert records.commit(workspace.runs, attempt, {**columns, **values})
        return attempt

    return commit


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """An output folder with made-up text as a corpus on disk, where worker processes find it."""
    out = tmp_path_factory.mktemp("prepared")
    (out / "cache").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "build_documents", lambda *_: list(tiny_study.documents()))
        corpus = corpora.prepare("sotu", out / "data", log=lambda text: None)
    return out, corpus


@pytest.fixture
def share(prepared):
    """Give a new workspace the prepared corpus and its compile cache."""

    def share(root):
        root.mkdir()
        for name in ("data", "cache"):
            (root / name).symlink_to(prepared[0] / name)
        return Workspace(root)

    return share


@pytest.fixture
def shared_workspace(share, tmp_path):
    """A workspace of the test's own on the prepared corpus."""
    return share(tmp_path / "out")


@pytest.fixture
def make_spec(prepared, tiny):
    """Make the spec of a tiny run on the prepared text."""
    corpus = prepared[1]
    data = DataConfig(
        corpus.name, corpus.content_hash, corpus.tokenizer, corpus.tokenizer_hash, corpus.split_rule
    )
    model = dataclasses.replace(tiny, vocab_size=256, n_layers=1)

    def make(steps=30, **changes):
        parts = {"model": model, "data": data, "optimizer": OptimizerConfig(lr=0.01)}
        return RunSpec(**{**parts, "budget": Budget(steps=steps), **changes})

    return make
