import numpy as np
import pandas as pd
import planted
import pytest

from analysis.allocation import Ladder, ladder_from_configs, ladder_from_points, optima
from analysis.conventions import CONVENTIONS, fit_conventions
from analysis.fit import fit
from analysis.frontier import curve_envelope, envelope, envelope_mask, fit_frontiers, limits
from analysis.isoflop import exponents, minima
from analysis.laws import Chinchilla, KaplanND, optimum
from analysis.load import points_from_runs, select
from analysis.uncertainty import percentile_interval, predict_run
from model.config import ModelConfig

SYMMETRIC = {"E": 1.2, "A": 60.0, "B": 600.0, "alpha": 0.45, "beta": 0.45}


def budget_of(loss, n_params=None):
    n_params = np.geomspace(1e3, 1e5, len(loss)) if n_params is None else n_params
    return planted.table(n_params, 1e11 / (6 * n_params), loss, budget=np.full(len(loss), 1e11))


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        ([3.0, 2.0, 3.0], "too few points: 3 sizes, 4 needed"),
        ([2.0, 2.5, 2.4, 2.5, 2.0], "concave"),
        ([2.0, 2.1, 2.3, 2.6, 3.0], "minimum at the edge: the smallest size"),
        ([3.0, 2.6, 2.3, 2.1, 2.0], "minimum at the edge: the largest size"),
        ([2.5, 2.45, 2.4, 2.35, 2.3, 2.24, 2.19, 2.2], "minimum outside of the sizes measured"),
    ],
)
def test_bad_isoflop_data_is_refused(loss, reason):
    (found,) = minima(budget_of(loss))
    assert not found.ok and found.status.startswith(reason)
    assert np.isnan([found.n_params, found.n_tokens, found.train_flops, found.loss_nats]).all()


def test_no_points_no_minima():
    points = planted.staircase(Chinchilla(), SYMMETRIC)
    none = select(points, ["test"] * len(points))
    assert minima(none) == []
    refused = exponents([])
    assert not refused.ok and refused.status.startswith("too few minima: 0 of 0")
    assert not exponents(minima(points)[:2]).ok


def test_replicates_of_a_size_are_averaged():
    sizes = np.geomspace(1e3, 1e5, 5)
    loss = np.array([3.0, 2.4, 2.0, 2.4, 3.0])
    twice = budget_of(np.concatenate([loss, loss + 0.2]), np.concatenate([sizes, sizes]))
    (found,) = minima(twice)
    assert found.ok
    np.testing.assert_allclose(found.size_loss_nats, loss + 0.1)
    assert found.n_params == pytest.approx(1e4)


def test_isoflop_exponents_on_a_symmetric_law():
    """alpha = beta and centred grids: the one case in which a parabola is not biased."""
    points = planted.staircase(Chinchilla(), SYMMETRIC, sizes=7)
    centred = [optimum(Chinchilla(), SYMMETRIC, c)[0] for c in planted.BUDGETS]
    n_params = np.concatenate([n * np.geomspace(0.5, 2, 7) for n in centred])
    n_tokens = np.repeat(planted.BUDGETS, 7) / (6 * n_params)
    loss = 1.2 + 60 / n_params**0.45 + 600 / n_tokens**0.45
    points = planted.table(n_params, n_tokens, loss, budget=np.repeat(planted.BUDGETS, 7))
    found = exponents(minima(points), n_bootstrap=200)
    assert found.ok, found.status
    assert found.a == pytest.approx(0.5, abs=1e-3) and found.b == pytest.approx(0.5, abs=1e-3)
    low, high = found.intervals["a"]
    assert low < found.a < high
    assert [m.n_params for m in minima(points)] == pytest.approx(centred, rel=1e-3)


def test_envelope_is_the_lower_left_staircase():
    flops, loss = np.array([1.0, 1.0, 2.0, 3.0, 4.0]), np.array([3.0, 2.9, 3.1, 2.5, 2.5])
    assert envelope_mask(flops, loss).tolist() == [False, True, False, True, False]
    points = planted.table(flops, np.ones(5), loss)
    assert envelope(points).run_id == ("r1", "r3")


def test_envelope_of_curves_names_the_winner():
    flops = np.geomspace(1e8, 1e10, 30)
    small = pd.DataFrame(
        {"run_id": "small", "train_flops_matmul_full": flops, "loss_nats": 9 - np.log10(flops) / 2}
    )
    large = small.assign(run_id="large", loss_nats=14 - np.log10(flops))
    large.loc[3, "loss_nats"] = np.nan
    found = curve_envelope(pd.concat([large, small]))
    assert found.run_id[0] == "small" or found.loss_nats[0] <= small.loss_nats[0]
    assert (np.diff(found.loss_nats) < 0).all()
    assert len(curve_envelope(small[:0]).loss_nats) == 0


def test_frontier_is_fitted_with_and_without_floor():
    points = planted.staircase(Chinchilla(), planted.CHINCHILLA, noise=0.002)
    for frontier in fit_frontiers(points, minima(points), n_bootstrap=60):
        assert frontier.power.law.name == "power_C"
        assert frontier.power_floor.law.name == "power_floor_C"
        assert frontier.power.ok, frontier.power.status
        assert 0 < frontier.power.parameters["alpha"] < 1
        assert "bootstrap" in frontier.power.interval_method
    empty = select(points, ["test"] * len(points))
    assert not any(f.power.ok or f.power_floor.ok for f in fit_frontiers(empty, []))


def test_limits_are_read_off_the_joint_fit():
    joint = fit(Chinchilla(), planted.staircase(Chinchilla(), planted.CHINCHILLA), n_bootstrap=0)
    of_size, of_data = limits(joint)
    assert "D -> infinity of the joint fit" in of_size.label
    assert of_size.parameters == pytest.approx({"E": 1.2, "A": 40.0, "alpha": 0.38}, rel=1e-6)
    assert of_data.parameters == pytest.approx({"E": 1.2, "A": 900.0, "alpha": 0.52}, rel=1e-6)
    kaplan = fit(KaplanND(), planted.staircase(KaplanND(), planted.KAPLAN), n_bootstrap=0)
    with pytest.raises(ValueError, match="limits of law 'kaplan' are not defined"):
        limits(kaplan)


def test_numeric_allocation_equals_the_closed_form_under_6nd():
    points = planted.staircase(Chinchilla(), planted.CHINCHILLA)
    sizes = np.geomspace(1e2, 1e7, 12)
    found = fit(Chinchilla(), points, n_bootstrap=30, ladder=Ladder(sizes, 6 * sizes))
    assert found.allocation["a_numeric"] == pytest.approx(found.allocation["a"], abs=1e-4)
    assert found.allocation["b_numeric"] == pytest.approx(found.allocation["b"], abs=1e-4)
    assert set(found.allocation_intervals) == {"a", "b", "a_numeric", "b_numeric"}
    vector = np.array([found.parameters[k] for k in found.law.parameter_names])
    n_star, d_star = optima(found.law, vector, Ladder(sizes, 6 * sizes), np.array([1e11, 1e40]))
    assert (n_star[0], d_star[0]) == pytest.approx(optimum(found.law, found.parameters, 1e11), 1e-3)
    assert np.isnan(n_star[1]), "an optimum beyond the ladder is none"


def test_ladders():
    config = ModelConfig(
        n_layers=1, d_model=16, n_heads=2, d_head=8, d_ff=64, vocab_size=256, seq_len=64
    )
    wide = ModelConfig(
        n_layers=2, d_model=32, n_heads=4, d_head=8, d_ff=128, vocab_size=256, seq_len=64
    )
    ladder = ladder_from_configs([wide, config], "non_embedding", "matmul_full")
    assert ladder.n_params.tolist() == [3072, 24576]
    assert ladder.flops_per_token.tolist() == [55_296, 245_760]
    with pytest.raises(ValueError, match="must be two or more, and increasing"):
        ladder_from_configs([config, config], "total", "matmul_full")
    with pytest.raises(ValueError, match="n_convention='all'"):
        ladder_from_configs([config, wide], "all", "matmul_full")
    points = points_from_runs(planted.runs(), "non_embedding", "matmul_full")
    measured = ladder_from_points(points)
    assert measured.flops_per_token[0] == pytest.approx(55_296)


def test_conventions_side_by_side():
    rows = fit_conventions(planted.runs(), n_bootstrap=40)
    assert tuple((r.n_convention, r.c_convention) for r in rows) == CONVENTIONS
    total, total_6n, body, body_6n = rows
    assert total.fit.parameters == pytest.approx(
        {"E": 1.2, "A": 40.0, "B": 900.0, "alpha": 0.38, "beta": 0.52}, rel=1e-5
    )
    assert body.fit.ok and body.fit.parameters["alpha"] != total.fit.parameters["alpha"]
    assert "a_numeric" in total.fit.allocation and "a_numeric" not in total_6n.fit.allocation
    assert body.fit.allocation["a"] > total.fit.allocation["a"], "Kaplan's side of the quarrel"
    assert body.fit.parameters == pytest.approx(body_6n.fit.parameters)
    kept = fit_conventions(planted.runs(), drop=("pre_asymptotic",), n_bootstrap=20)[0]
    assert kept.fit.n_rows < total.fit.n_rows
    assert any("pre_asymptotic" in reason for _, reason in kept.fit.rows_excluded)


def test_prediction_intervals():
    points = planted.staircase(Chinchilla(), planted.CHINCHILLA, noise=0.006)
    found = fit(Chinchilla(), points, "ls_log", n_bootstrap=100)
    predicted = predict_run(found, n_params=3e5, n_tokens=1e6)
    low, high = predicted.mean_interval
    assert low < predicted.loss_nats < high
    assert predicted.new_run_interval[0] < low and predicted.new_run_interval[1] > high
    assert "inflated by 1.124" in predicted.status  # sqrt(24 / 19)
    assert predicted == predict_run(found, n_params=3e5, n_tokens=1e6)
    failed = fit(Chinchilla(), select(points, ["test"] * len(points)))
    nothing = predict_run(failed, n_params=3e5, n_tokens=1e6)
    assert not nothing.ok and np.isnan(nothing.loss_nats)


def test_an_interval_needs_draws():
    assert np.isnan(percentile_interval(np.full(100, np.nan))).all()
    assert percentile_interval(np.linspace(0, 1, 101)) == pytest.approx((0.05, 0.95))
