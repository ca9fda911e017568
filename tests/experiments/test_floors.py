"""Floors beside losses: said, and a loss below one is never passed over."""

import pytest

from experiments.floors import at_floors, sentences
from train.data import corpora

NAME = "lang:even:train=1000,validation=500"


def row(run_id, above, se=0.001, corpus=NAME):
    floor = corpora.floor_nats(NAME, None, 16)
    loss = None if above is None else floor + above
    return {
        "run_id": run_id, "corpus": corpus, "loss_nats": loss, "loss_se_iid": se / 2,
        "loss_se_document": se,
    }  # fmt: skip


def told(*rows):
    return sentences(at_floors(rows, {r["run_id"]: 16 for r in rows}, None))


def test_the_lowest_loss_is_told_with_its_distance():
    (said,) = told(row("a", 0.5), row("b", 0.25), row("diverged", None))
    assert f"floor of {NAME} in windows of 16 tokens" in said and "of 2 losses" in said
    assert "+0.25000; none lies below it" in said


@pytest.mark.parametrize(("above", "is_below"), [(-0.0009, False), (-0.0011, True)])
def test_a_loss_below_the_floor_by_more_than_its_error_is_named(above, is_below):
    (said,) = told(row("a", 0.1), row("lucky", above))
    assert (
        "BELOW it by more than their standard error, which cannot be: lucky" in said
    ) == is_below


def test_of_text_nothing_is_said():
    assert told(row("a", 0.1, corpus="sotu")) == ()
