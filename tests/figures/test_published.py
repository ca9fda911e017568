"""The papers' own figures, drawn by the functions that draw ours."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis import published
from analysis.figures import draw_all, named
from analysis.figures.published import inputs_of_points, published_inputs
from analysis.laws import DataConstrained, predict
from analysis.load import points_from_columns

PUBLISHED_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def papers():
    if not PUBLISHED_DATA.is_dir():
        pytest.skip(f"published points are not at {PUBLISHED_DATA.name}/")
    return published_inputs(PUBLISHED_DATA, {"hoffmann", "porian", "gadre"})


def test_the_points_are_fitted_as_the_papers_are(papers):
    joint = papers["hoffmann"].main.fit
    for name, value in published.BESIROGLU_2024_HUBER.items():
        found = joint.allocation["a"] if name == "a" else joint.parameters[name]
        assert found == pytest.approx(value, rel=1e-3)
    budgets = papers["hoffmann"].runs["isoflop_budget"].dropna()
    assert set(budgets) <= set(published.HOFFMANN_2022_BUDGETS) and len(budgets) > 120
    for step in papers["porian"].steps:
        akima = step.found[0][1]
        assert step.printed and akima == pytest.approx(step.printed[0], abs=0.01)


def test_hoffmann_s_constants_are_marked_in_the_regions(papers, texts):
    (drawing,) = named(["regions"])
    written = texts(drawing.draw(papers["hoffmann"]))
    assert "constants in the source of the paper" in written and "refitted constants" in written


def test_files_of_both_are_named_so(papers, inputs, tmp_path):
    files = draw_all(inputs, tmp_path, only=("ladder", "position"), published=papers)
    assert {p.stem for p in files} == {"ladder-published", "position"}
    lacking = replace(inputs, curves=inputs.curves.iloc[:0], evaluations=None)
    assert not draw_all(lacking, tmp_path, only=("position",), published=papers)


def test_no_such_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no folder; give the one that holds the published"):
        published_inputs(tmp_path / "none", {"gadre"})
    with pytest.raises(ValueError, match="does not exist; --data is the folder"):
        published_inputs(tmp_path, {"gadre"})


@pytest.mark.slow
def test_return_on_repetition_of_planted_runs(texts):
    """No sweep of this project repeats its data yet: the figure is drawn of planted ones here."""
    truth = {"E": 1.8, "A": 500.0, "B": 1500.0, "alpha": 0.35, "R_D": 15.0, "R_N": 5.0}
    n, u, e = (
        axis.ravel()
        for axis in np.meshgrid([1e7, 1e8, 1e9], [1e8, 3e8, 1e9], [1, 2, 5, 20, 60], indexing="ij")
    )
    loss = predict(DataConstrained(), truth, n_params=n, n_tokens=u * e, n_tokens_unique=u)
    loss = loss * np.exp(0.002 * np.random.default_rng(0).standard_normal(len(loss)))
    table = points_from_columns({"N": n, "D": u * e, "U": u, "L": loss})
    inputs = inputs_of_points("planted", "planted", table)
    (drawing,) = named(["repetition"])
    assert drawing.missing(inputs) == ""
    written = texts(drawing.draw(inputs))
    found = float(written.split("the law, R_D = ")[1].split()[0])
    assert found == pytest.approx(15, rel=0.25)
    assert "as good as new tokens" in written
