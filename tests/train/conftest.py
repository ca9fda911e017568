"""One Markov language and one shape of run, so that the tests of training share compilations."""

import jax
import pytest

from train.config import Budget, DataConfig, OptimizerConfig, RunSpec, ScheduleConfig
from train.data.languages import MarkovSource, as_corpus
from train.loop import train


@pytest.fixture(scope="session")
def source():
    return MarkovSource.random(vocab_size=17, order=1, seed=3)


@pytest.fixture(scope="session")
def corpus(source):
    return as_corpus(source, n_train=200_000, n_validation=6_000, seed=1)


@pytest.fixture(scope="session")
def make_spec(tiny, corpus):
    """A run of the tiny model on the Markov language; any part can be replaced."""
    data = DataConfig(
        corpus=corpus.name,
        corpus_hash=corpus.content_hash,
        tokenizer=corpus.tokenizer,
        tokenizer_hash=corpus.tokenizer_hash,
        split_rule=corpus.split_rule,
    )

    def make(steps=40, **changes):
        parts = {
            "model": tiny,
            "data": data,
            "optimizer": OptimizerConfig(lr=0.01),
            "budget": Budget(steps=steps),
            "schedule": ScheduleConfig(warmup_steps=4),
        }
        return RunSpec(**{**parts, **changes})

    return make


@pytest.fixture
def run(corpus, tmp_path):
    """Train a spec on the first device, into a store of the test's own."""

    def run(spec, store=tmp_path / "runs", **options):
        return train(spec, corpus, store, device=jax.devices()[0], **options)

    return run
