"""Optima of rate and batch, their laws, and exponents by way of tuning, on planted losses."""

import numpy as np
import pytest

from analysis.frontier.tuning import (
    Search,
    batch_law,
    best_cell,
    difference,
    loss_at,
    lowest,
    noise_draws,
    rate_law,
    rate_law_at_best,
    ways_of_tuning,
)
from analysis.intervals.uncertainty import percentile_interval

SIZES, DATA, BATCHES = (3e3, 1.4e4, 3.7e4), (1.3e5, 3.3e5, 8.2e5), (64, 128, 256, 512, 1024, 2048)


def best_rate(n, d, b):
    return 0.02 * (n / 1e4) ** -0.3 * (d / 3e5) ** -0.2 * (b / 512) ** 0.5


def best_batch(d):
    return 400 * (d / 3.3e5) ** 0.6


def loss_of(n, d, b, lr):
    floor = 1.2 + 80 / n**0.5 + 3e3 / d**0.7
    off_rate, off_batch = np.log(lr / best_rate(n, d, b)), np.log(b / best_batch(d))
    return floor * (1 + 0.03 * off_rate**2 + 0.01 * off_batch**2)


def planted(sd=0.0, n_degrees=0, batches=BATCHES):
    generator = np.random.default_rng(0)
    searches = []
    for n in SIZES:
        for d in DATA:
            for b in batches:
                middle = round(np.log2(best_rate(n, d, b) / 0.02))
                lr = 0.02 * 2.0 ** np.arange(middle - 2, middle + 3)
                losses = loss_of(n, d, b, lr)
                draws = [noise_draws(float(x), sd, n_degrees, generator) for x in losses]
                searches.append(Search(n, 1.5 * n, d, b, lr, np.stack(draws, -1)))
    return searches


def cells_of(searches):
    keys = sorted({(s.n_params_non_embedding, s.n_tokens) for s in searches})
    return [
        best_cell([s for s in searches if (s.n_params_non_embedding, s.n_tokens) == key])
        for key in keys
    ]


def test_planted_laws_of_rate_and_batch_come_back():
    searches = planted()
    found = rate_law(searches)
    assert found.ok
    expected = {"p_N": -0.3, "p_D": -0.2, "p_B": 0.5}
    assert {k: found.parameters[k] for k in expected} == pytest.approx(expected, abs=1e-6)
    at = found.predict(n_params=1e4, n_tokens=3e5, batch_tokens=512)
    assert float(at) == pytest.approx(0.02, rel=1e-6)

    cells = cells_of(searches)
    assert all(cell.batch.ok and cell.lr.ok for cell in cells)
    batch = batch_law(cells)
    assert batch.parameters["p_D"] == pytest.approx(0.6, abs=1e-6)
    # At the best batch the rate's exponents of D are its own and half of the batch's.
    best = rate_law_at_best(cells)
    assert best.parameters["p_N"] == pytest.approx(-0.3, abs=1e-6)
    assert best.parameters["p_D"] == pytest.approx(-0.2 + 0.5 * 0.6, abs=1e-6)


def test_an_optimum_at_an_edge_is_said_and_enters_no_law():
    rates = np.array([0.01, 0.02, 0.04])
    for losses, status in (([1.0, 1.1, 1.3], "lower edge"), ([1.3, 1.1, 1.0], "upper edge")):
        found = lowest(rates, np.array([losses]))
        assert not found.ok and status in found.status
        assert np.isnan(found.interval).all()
    diverged = lowest(rates, np.array([[1.2, 1.0, np.inf]]))
    assert not diverged.ok and diverged.status == "a neighbour diverged"
    one_batch = planted(batches=(512,))
    assert not batch_law(cells_of(one_batch)).ok
    assert "too few points" in batch_law(cells_of(one_batch)).status


def test_the_vertex_is_that_of_the_parabola_in_logs():
    rates = np.array([0.005, 0.01, 0.02, 0.04])
    losses = 2 + 0.1 * np.log(rates / 0.013) ** 2
    found = lowest(rates, losses[None])
    assert found.at[0] == pytest.approx(0.013) and found.loss_nats[0] == pytest.approx(2.0)
    doubled = loss_at(rates, losses[None], np.array([0.026]))
    assert doubled[0] == pytest.approx(2 + 0.1 * np.log(2) ** 2)
    assert np.isnan(loss_at(rates, losses[None], np.array([0.08]))[0])
    assert np.isnan(loss_at(rates[:2], losses[None, :2], np.array([0.01]))[0])


def test_draws_have_the_spread_of_seeds_and_t_for_few_of_them():
    draws = noise_draws(2.0, 0.01, 1000, np.random.default_rng(0))
    assert draws[0] == 2.0
    assert np.log(draws[1:] / 2).std() == pytest.approx(0.01, rel=0.15)
    few = noise_draws(2.0, 0.01, 2, np.random.default_rng(0))
    low, high = percentile_interval(np.log(few[1:] / 2))
    assert high - low > 2 * 1.645 * 0.01 * 1.3, "Student's t of 2 degrees is wider"
    for sd, n in ((float("nan"), 0), (0.01, 0)):
        assert (noise_draws(2.0, sd, n, np.random.default_rng(0)) == 2.0).all()


def test_exponents_are_those_planted_when_tuned_and_share_their_noise():
    searches = [s for s in planted(sd=0.003, n_degrees=6) if s.batch_tokens == 512]
    exact = [s for s in planted() if s.batch_tokens == 512]
    # The batch's own penalty moves with D: the plant holds where it is taken off.
    flat = [
        Search(s.n_params_non_embedding, s.n_params_total, s.n_tokens, s.batch_tokens, s.lr,
               s.loss_nats / (1 + 0.01 * np.log(512 / best_batch(s.n_tokens)) ** 2))
        for s in exact
    ]  # fmt: skip
    tuned = ways_of_tuning(flat, 1.2)[0]
    assert tuned.values["alpha"][0] == pytest.approx(0.5, abs=0.02)
    assert tuned.values["beta"][0] == pytest.approx(0.7, abs=0.02)
    assert tuned.values["slope_n"][0] < 0 and tuned.values["slope_d"][0] < 0

    ways = ways_of_tuning(searches, 1.2)
    assert [way.name for way in ways][:3] == ["tuned", "half of tuned", "twice tuned"]
    assert ways[3].name.endswith("for all")
    assert all(way.status == "all cells" for way in ways[:3])
    # Losses a constant factor above the optimum everywhere move alpha little.
    off, (low, high) = difference(ways[1], ways[0], "a")
    assert low < off < high
    own = np.subtract(*percentile_interval(ways[1].values["a"][1:])[::-1])
    assert own > 0


def test_a_rate_beyond_those_tried_leaves_a_cell_out():
    searches = [s for s in planted() if s.batch_tokens == 512]
    short = [Search(s.n_params_non_embedding, s.n_params_total, s.n_tokens, s.batch_tokens,
                    s.lr[:3], s.loss_nats[:, :3]) for s in searches]  # fmt: skip
    assert "of 9 cells have no run near that rate" in ways_of_tuning(short, 1.2)[2].status
