"""The numbers that figures draw, against what was planted."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.figures import curves
from analysis.figures.draw import beside, draw_all, named, not_drawn
from analysis.figures.embeddings import counts_missing
from analysis.figures.inputs import Step
from analysis.figures.ladder import ladder, own_steps, printed_steps
from analysis.figures.min_compute import power_of, winners
from analysis.figures.off_optimal import excess_tokens, kaplan_cost
from analysis.figures.regions import _column, _ellipse
from analysis.figures.repetition import implied
from analysis.figures.style import COLUMN
from analysis.figures.text import law_text
from analysis.fit import fit
from analysis.frontier.critical_batch import CriticalLaw
from analysis.laws import Chinchilla, DataConstrained, optimum, predict
from analysis.load import points_from_columns


def test_excess_tokens_are_those_of_the_law_itself():
    law = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.34, "beta": 0.37}
    n_star, d_star = optimum(Chinchilla(), law, 1e21)
    least = predict(Chinchilla(), law, n_params=n_star, n_tokens=d_star)
    ratio = np.array([0.5, 0.8, 1.0, 2.0, 5.0])
    tokens = d_star * excess_tokens(ratio, law["alpha"], law["beta"])
    reached = predict(Chinchilla(), law, n_params=ratio * n_star, n_tokens=tokens)
    assert np.allclose(reached, least, rtol=1e-12)
    assert excess_tokens(np.array([1e-3]), 0.34, 0.37) == np.inf, "no data will do"
    cost = ratio * excess_tokens(ratio, law["alpha"], law["beta"])
    assert cost.argmin() == 2 and cost[2] == pytest.approx(1)


def test_a_spike_does_not_stretch_the_axis_of_losses():
    starts, peaks = np.array([5.5, 5.6, 5.4]), np.array([5.6, 5.6, 80.0])
    high, beyond = curves.top(starts, peaks)
    assert high == pytest.approx(1.1 * 5.6) and beyond == "1 run goes beyond this axis, up to 80"
    at_once, beyond = curves.top(np.array([5.5, 5.6, 70.0]), np.array([5.6, 5.6, 80.0]))
    assert at_once == high and beyond.startswith("1 run")
    assert curves.top(starts, starts * 1.05) == (pytest.approx(5.6 * 1.05), "")


def test_kaplan_s_cost_is_twenty_percent_where_he_says():
    assert kaplan_cost(np.array([0.6, 1.0, 2.2])) == pytest.approx([1.2, 1.0, 1.2], abs=0.04)


def test_effective_data_of_planted_runs_are_the_law_s():
    truth = {"E": 1.8, "A": 500.0, "B": 1500.0, "alpha": 0.35, "R_D": 15.0, "R_N": 5.0}
    unique = 1e8
    epochs = np.array([1.0, 2.0, 4.0, 16.0, 60.0])
    columns = {"N": np.full(5, 1e8), "D": unique * epochs, "U": np.full(5, unique)}
    loss = predict(
        DataConstrained(), truth, n_params=1e8, n_tokens=columns["D"], n_tokens_unique=unique
    )
    points = points_from_columns(columns | {"L": loss})

    class Known:
        parameters = truth

        def predict(self, **variables):
            return predict(DataConstrained(), truth, **variables)

    expected = 1 + 15.0 * (1 - np.exp(-(epochs - 1) / 15.0))
    assert implied(points, Known()) == pytest.approx(expected, rel=1e-9)  # type: ignore[arg-type]


def test_a_curve_keeps_its_ends_and_its_run(inputs):
    drawn = {line.run_id: line for line in curves.lines(inputs, "n_tokens")}
    assert set(drawn) == set(inputs.runs["run_id"])
    for run_id, own in inputs.curves.groupby("run_id"):
        xy = drawn[str(run_id)].xy
        assert xy[0, 0] == pytest.approx(own["n_tokens"].min())
        assert xy[-1] == pytest.approx(
            own.sort_values("n_tokens").iloc[-1][["n_tokens", "loss_nats"]]
        )
        assert (np.diff(xy[:, 0]) > 0).all() and len(xy) <= len(own)


def test_many_curves_are_thinned_to_what_a_figure_shows(inputs):
    long = pd.DataFrame({"n_tokens": np.arange(1.0, 1001), "loss_nats": 2.0, "run_id": "r"})
    every = pd.concat([long.assign(run_id=f"r{i}") for i in range(500)], ignore_index=True)
    runs = pd.DataFrame({"run_id": [f"r{i}" for i in range(500)], "n_params_total": 1e5})

    class Only:
        headline = ("total", "matmul_full")

    only = Only()
    only.curves, only.runs = every, runs  # type: ignore[attr-defined]
    drawn = curves.lines(only, "n_tokens")  # type: ignore[arg-type]
    assert len(drawn) == 500
    assert sum(len(line.xy) for line in drawn) <= curves.MOST_POINTS
    gaps = np.diff(np.log(drawn[0].xy[:, 0]))
    assert gaps[len(gaps) // 2 :].max() < 0.2


def test_winners_in_least_compute_spend_less_than_in_compute(inputs):
    adjusted, naive = winners(inputs, inputs.critical), winners(inputs, None)
    known = np.isfinite(adjusted.n_steps[0])
    assert known.any() and adjusted.flops[0] < naive.flops[0]
    sizes = set(inputs.runs["n_params_total"])
    assert set(adjusted.n_params[0][known]) <= sizes
    level = adjusted.loss_nats[0][known]
    assert (np.diff(level) <= 0).all(), "an envelope only falls"


def test_a_power_law_with_gaps_is_recovered():
    flops = np.geomspace(1e9, 1e12, 20)
    values = np.stack([3 * flops**0.7, 2 * flops**0.4])
    values[0, 3:9] = np.nan
    values[1, 4:] = np.nan
    slope, offset = power_of(flops, values)
    assert slope[0] == pytest.approx(0.7) and offset[0] == pytest.approx(math.log(3))
    assert math.isnan(slope[1]), "four winners are too few"


def test_b_crit_of_other_losses_is_not_used(inputs):
    critical = CriticalLaw(np.full(5, 1e9), np.full(5, 0.06), (2.8, 3.4), "as fitted")
    elsewhere = replace(inputs, critical=critical)
    assert elsewhere.critical_here is None
    reason = not_drawn(elsewhere)["min_compute"]
    assert "measured at losses of 2.80 to 3.40, these runs end at" in reason
    nothing = replace(critical, b_star=np.full(5, np.nan), status="too few losses")
    reason = not_drawn(replace(inputs, critical=nothing))["min_compute"]
    assert reason == "no law of B_crit: too few losses"


def test_ellipses_hold_their_share_of_normal_draws():
    draws = np.random.default_rng(0).multivariate_normal((1, 2), [[1, 0.8], [0.8, 2]], 20_000)
    inverse = np.linalg.inv(np.cov(draws.T))
    x, y = _ellipse(draws, 0.8)
    edge = np.stack([x, y], -1) - draws.mean(0)
    radius = np.einsum("ki,ij,kj->k", edge, inverse, edge)
    assert np.allclose(radius, radius[0])
    off = draws - draws.mean(0)
    inside = np.einsum("ki,ij,kj->k", off, inverse, off) < radius[0]
    assert inside.mean() == pytest.approx(0.8, abs=0.01)


def test_the_objective_rises_from_the_fit_to_a_refit_with_floor_and_beta_held(inputs):
    joint, points = inputs.main.fit, inputs.main_points
    least = joint.parameters["E"]
    betas = joint.parameters["beta"] * np.array([0.9, 1.0, 1.1])
    for floor in (0.97 * least, least):
        column = _column(inputs, points, floor, betas)
        for value, beta in zip(column, betas, strict=True):
            held = {"E": floor, "beta": float(beta)}
            alone = fit(joint.law, points, joint.objective, n_bootstrap=0, fixed=held)
            assert value == pytest.approx(alone.objective_value, rel=1e-4)
    assert column[1] == pytest.approx(joint.objective_value, rel=1e-6) == column.min()


def test_ladders_go_from_kaplan_s_count_to_hoffmann_s(inputs, texts):
    steps = own_steps(inputs)
    assert [step.name.split("\n")[0] for step in steps] == [
        "as Kaplan: N and C = 6ND", "+ C of all matrix products", "+ N with embeddings",
    ]  # fmt: skip
    last = dict((method, a) for method, a, _ in steps[-1].found)
    assert last["joint fit, optimum under C"] == inputs.main.fit.allocation["a_numeric"]
    assert [step.printed[0] for step in printed_steps() if step.printed] == [
        0.835, 0.707, 0.602, 0.572, 0.497,
    ]  # fmt: skip
    paper = Step("a step", (("ours", math.nan, (math.nan, math.nan)),), (0.5, None))
    written = texts(ladder(replace(inputs, steps=(paper,))))
    assert "ours: no exponent" in written and "as the paper counts them" in written


def test_a_caption_has_the_law_and_its_intervals(inputs):
    text = law_text(inputs.main.fit)
    assert text.startswith("L = E + A / N^alpha + B / D^beta: E ")
    assert text.count("[") == 5 and text.endswith("(90% intervals)")
    failed = replace(inputs.main.fit, ok=False, status="too few points")
    assert law_text(failed) == "no L = E + A / N^alpha + B / D^beta: too few points"


def test_both_counts_of_parameters_are_needed(inputs):
    assert counts_missing(inputs) == ""
    one = replace(inputs, conventions=inputs.conventions[:1])
    assert counts_missing(one) == "no joint fit with N counted as non_embedding"


def test_a_column_of_print_stacks_the_panels(inputs, tmp_path):
    (drawing,) = named(["off_optimal"])
    figure = drawing.draw(inputs, COLUMN)
    width, height = figure.get_size_inches()
    assert width == 5.0 and height > 2 * width
    lefts = {round(ax.get_position().x0, 1) for ax in figure.axes}
    assert len(lefts) == 1
    (path, *_) = draw_all(inputs, tmp_path, only=("predicted",), page=COLUMN)
    assert path.name == "predicted-column.png"


def test_ours_and_the_paper_s_are_drawn_by_one_function(inputs, texts):
    (wide,), (narrow,) = named(["residuals"]), named(["predicted"])
    theirs = replace(inputs, title="A paper", corpus="its text")
    for drawing, is_row in ((wide, False), (narrow, True)):
        figure = beside(drawing, inputs, theirs)
        written = texts(figure)
        for text in ("Planted sweep", "A paper", "corpus planted-corpus", "corpus its text"):
            assert text in written
        alone = drawing.draw(inputs).get_size_inches()
        assert np.allclose(figure.get_size_inches() / alone, (2, 1) if is_row else (1, 2))
