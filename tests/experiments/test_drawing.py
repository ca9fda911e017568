"""What a sweep hands to its figures besides its fits."""

from types import SimpleNamespace
from typing import Any

import pytest

from experiments.drawing import floor_of
from experiments.workspace import Workspace
from train.data import corpora


def plan(seq_len: int) -> Any:
    model = SimpleNamespace(seq_len=seq_len)
    return SimpleNamespace(cells=[SimpleNamespace(spec=SimpleNamespace(model=model))])


def test_the_floor_is_that_of_a_language_in_windows_of_the_plan(tmp_path):
    workspace = Workspace(tmp_path)
    name = "lang:markov:vocab=4,order=1,train=4000,validation=2000"
    corpus = corpora.prepare(name, workspace.data, log=lambda text: None)
    rate = corpora.language(name, workspace.data).entropy_rate_nats()
    for seq_len in (8, 64):  # all that an order of one depends on is in any window
        assert floor_of(plan(seq_len), corpus, workspace) == pytest.approx(rate)


def test_a_text_has_no_known_floor(tmp_path):
    text: Any = SimpleNamespace(name="sotu")
    assert floor_of(plan(8), text, Workspace(tmp_path)) is None
