import csv

import numpy as np
import planted
import pytest

from analysis.frontier.isoflop import exponents, minima
from analysis.laws import Chinchilla, optimum
from analysis.load import select

SYMMETRIC = {"E": 1.2, "A": 60.0, "B": 600.0, "alpha": 0.45, "beta": 0.45}
METHODS = ("parabola", "akima", "spline")

# Porian et al. 2024, arXiv:2406.19146: configuration -> a published, a by plain Akima and OLS, and
# a by a parabola through sizes within 5% of the lowest loss.
PORIAN = {
    "rw/base/long/kaplan/kaplan/train": (0.835, 0.834, 0.859),
    "rw/base/long/kaplan/standard/val": (0.707, 0.701, 0.685),
    "rw/base/short/kaplan/standard/val": (0.602, 0.606, 0.600),
    "rw/base/short/chinchilla/standard/val": (0.572, 0.572, 0.555),
    "rw/tuned/short/const/standard/val": (0.497, 0.497, 0.495),
}


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


def centred(law_parameters, *, width=2.0, sizes=7, noise=0.0, seed=0):
    """A staircase whose grids are centred on the true optimum of each budget."""
    middle = [optimum(Chinchilla(), law_parameters, c)[0] for c in planted.BUDGETS]
    n_params = np.concatenate([n * np.geomspace(1 / width, width, sizes) for n in middle])
    budget = np.repeat(planted.BUDGETS, sizes)
    n_tokens = budget / (6 * n_params)
    p = law_parameters
    loss = p["E"] + p["A"] / n_params ** p["alpha"] + p["B"] / n_tokens ** p["beta"]
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(loss)))
    return planted.table(n_params, n_tokens, loss, budget=budget), middle


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_optimum_of_a_symmetric_law(method):
    points, truth = centred(SYMMETRIC)
    found = minima(points, method)
    assert [m.n_params for m in found] == pytest.approx(truth, rel=1e-3)
    assert [m.train_flops for m in found] == pytest.approx(planted.BUDGETS, rel=1e-9)
    for m, n in zip(found, truth, strict=True):
        assert m.loss_nats == pytest.approx(
            1.2 + 60 / n**0.45 + 600 / (m.budget / (6 * n)) ** 0.45, rel=1e-3
        )
    fitted = exponents(found, n_bootstrap=50)
    assert fitted.ok and fitted.a == pytest.approx(0.5, abs=1e-3)
    assert fitted.at(1e13).n_tokens == pytest.approx(
        optimum(Chinchilla(), SYMMETRIC, 1e13)[1], rel=5e-3
    )


def test_interpolation_has_no_bias_of_shape_where_the_parabola_has():
    """alpha/beta = 3 and a wide grid: the parabola misses N*, the smooth curves do not."""
    lopsided = {"E": 1.2, "A": 60.0, "B": 60.0, "alpha": 0.6, "beta": 0.2}
    points, truth = centred(lopsided, width=8.0, sizes=15)
    error = {
        method: max(
            abs(m.n_params / n - 1) for m, n in zip(minima(points, method), truth, strict=True)
        )
        for method in METHODS
    }
    assert error["parabola"] > 0.1
    assert error["akima"] < 0.02 and error["spline"] < 0.002


@pytest.mark.parametrize("config", PORIAN)
def test_porian_ladder_of_exponents(published_data, config):
    with (published_data / "porian2024_refinedweb_isoflop_points.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["config"] == config]
    flops, n_params, loss = (np.array([float(row[k]) for row in rows]) for k in "CNL")
    points = planted.table(n_params, flops / (6 * n_params), loss, budget=flops)
    published, by_akima, by_parabola = PORIAN[config]
    akima = exponents(minima(points, "akima"), n_bootstrap=0)
    assert akima.a == pytest.approx(published, abs=0.01)
    assert akima.a == pytest.approx(by_akima, abs=0.001)
    window = exponents(minima(points, "parabola", 0.05), n_bootstrap=100)
    assert window.a == pytest.approx(by_parabola, abs=0.0006)
    low, high = window.intervals["a"]
    assert low < window.a < high


def test_a_convex_parabola_that_fits_badly_says_so():
    sizes = np.geomspace(1e3, 1e6, 7)
    basin = np.log(sizes / 3e4) ** 2
    good = minima(budget_of(2 + 0.05 * basin, sizes))[0]
    assert good.status == "converged: interior and convex" and good.rms_share < 1e-6
    hinge = minima(budget_of([2.1, 2.02, 2.0, 2.3, 2.9, 3.7, 4.6], sizes))[0]
    assert hinge.ok and "fits badly: RMS residual" in hinge.status and hinge.rms_share > 0.2
    flat = minima(budget_of([2.05, 2.2, 2.0, 1.9, 2.2, 2.0, 2.1], sizes))[0]
    assert flat.ok and "weak curvature: t=" in flat.status and abs(flat.curvature_t) < 2
    end_below = minima(budget_of([2.3, 3.0, 2.6, 2.1, 2.2, 2.4, 2.9], sizes))[0]
    assert end_below.ok and "RMS residual is over 10 times the basin's depth" in end_below.status


def test_curvature_t_is_that_of_the_regression():
    """Against the textbook formula, by numpy's covariance of the polynomial."""
    points, _ = centred(SYMMETRIC, noise=0.01)
    found = minima(points)[0]
    log_n = np.log(found.size_n_params)
    _, covariance = np.polyfit(log_n - log_n.mean(), found.size_loss_nats, 2, cov=True)
    assert found.coefficients is not None
    expected = found.coefficients[0] / np.sqrt(covariance[0, 0])
    assert found.curvature_t == pytest.approx(expected, rel=1e-6)


def test_one_sided_and_off_centre_minima_say_so():
    sizes = np.geomspace(1e3, 1e6, 8)
    off = minima(budget_of(2 + 0.05 * np.log(sizes / 3e3) ** 2, sizes))[0]
    assert off.ok and "off centre: N* at 16% of the grid's span" in off.status
    loss = [2.0, 2.001, 2.1, 2.3, 2.6, 3.0, 3.5, 4.1]
    one_sided = minima(budget_of(loss, sizes), "akima")[0]
    assert one_sided.ok and "one-sided: the smallest size" in one_sided.status
    refused = minima(budget_of(loss, sizes))[0]
    assert not refused.ok and refused.status.startswith("minimum at the edge: the smallest")


def test_the_window_keeps_the_sizes_near_the_lowest_loss():
    sizes = np.geomspace(1e3, 1e5, 7)
    loss = np.array([4.0, 2.05, 2.01, 2.0, 2.01, 2.05, 9.0])
    found = minima(budget_of(loss, sizes), "parabola", 0.03)[0]
    assert found.used.tolist() == [False, True, True, True, True, True, False]
    assert found.n_params == pytest.approx(1e4)
    narrow = minima(budget_of(loss, sizes), "parabola", 0.001)[0]
    assert narrow.status == "too few points: 1 sizes in the window, 3 needed"


def test_misuse_of_methods():
    points, _ = centred(SYMMETRIC)
    with pytest.raises(ValueError, match="method='cubic'; use one of parabola, akima, spline"):
        minima(points, "cubic")  # type: ignore[arg-type]
    for method, window in (("akima", 0.05), ("parabola", 0.0)):
        with pytest.raises(ValueError, match="window="):
            minima(points, method, window)


@pytest.mark.parametrize("method", METHODS)
def test_intervals_reach_tokens_and_shrink_with_the_noise(method):
    widths = []
    for noise in (0.004, 0.001):
        points, _ = centred(SYMMETRIC, width=3.0, sizes=9, noise=noise)
        found = exponents(minima(points, method), n_bootstrap=200)
        low, high = found.at(8e12).n_tokens_interval
        assert low < found.at(8e12).n_tokens < high
        assert low < optimum(Chinchilla(), SYMMETRIC, 8e12)[1] < high
        widths.append(np.log(high / low))
    assert widths[1] < 0.6 * widths[0]


def test_without_residual_freedom_there_is_no_interval():
    """Three sizes in every window: the parabola goes through them and nothing is left over."""
    sizes = np.tile(np.geomspace(1e3, 1e5, 5), 3)
    budget = np.repeat([1e11, 2e11, 4e11], 5)
    loss = np.tile([9.0, 2.05, 2.0, 2.05, 9.0], 3)
    points = planted.table(sizes, budget / (6 * sizes), loss, budget=budget)
    found = exponents(minima(points, "parabola", 0.05))
    assert found.ok and found.a == pytest.approx(0, abs=1e-9)
    assert np.isnan(found.intervals["a"]).all() and "1000 failed" in found.interval_method


def test_row_order_does_not_matter():
    points, _ = centred(SYMMETRIC, noise=0.003)
    shuffled = np.random.default_rng(1).permutation(len(points))
    other = planted.table(
        points.n_params[shuffled],
        points.n_tokens[shuffled],
        points.loss_nats[shuffled],
        budget=points.budget[shuffled],
    )
    for method in METHODS:
        assert exponents(minima(points, method), 0).a == exponents(minima(other, method), 0).a
