"""The pages of docs/results against the records that lie beside them."""

import re
from pathlib import Path

import pytest

from experiments import results

HOME = Path(__file__).resolve().parent.parent / results.HOME
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
NAMES = [name for name in results.EXPERIMENTS if results.kept(name, HOME).plan.exists()]
TOLERANCE = 0.02
"""Relative: bootstraps add in another order on another machine."""


def words_and_numbers(text):
    numbers = [float(found.replace(",", "")) for found in NUMBER.findall(text)]
    return NUMBER.sub("#", text), numbers


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_what_its_records_say(name, tmp_path):
    plan, sweep, ending = results.concluded(results.kept(name, HOME))
    text = results.page(
        name, plan, sweep, ending, results.prose_of(name, HOME), results.scores_of(name, HOME)
    )
    words, numbers = words_and_numbers(text)
    written, there = words_and_numbers((HOME / f"{name}.md").read_text())
    assert words == written
    assert there == pytest.approx(numbers, rel=TOLERANCE, abs=0.02)
    assert {path.stem for path in (HOME / "figures" / name).glob("*.png")} == set(ending.figures)


@pytest.mark.skipif(not NAMES, reason="no records are kept")
def test_the_score_of_predictions_is_that_of_the_records(tmp_path):
    text = (HOME / "predictions.md").read_text()
    for name in NAMES:
        for row in results.scores_of(name, HOME):
            assert f"| {' | '.join(row.values())} |" in text


def test_every_name_in_the_prose_of_an_unwritten_page_is_a_placeholder():
    for path in (HOME / "prose").glob("*.txt"):
        assert path.stem in results.EXPERIMENTS
        assert results.PLACEHOLDER.search(path.read_text())
