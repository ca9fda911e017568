"""Gains from pairs: planted ones come back, and intervals hold them as often as they say."""

import numpy as np
import pytest
from scipy import stats

from analysis.table.points import points_from_columns
from analysis.validity.paired import mean_with_interval, paired_gain

N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e4, 1e6, 4), np.geomspace(1e6, 1e8, 4)))
CELLS = list(range(len(N)))


def loss(n, d):
    return 1.2 + 30 / n**0.4 + 60 / d**0.3


def sides(gain, *, shared=0.0, own=0.0, seed=0, cells=slice(None)):
    """Both tables: the new side's runs lie where the baseline's would with `gain` times compute."""
    rng = np.random.default_rng(seed)
    n, d = N[cells], D[cells]
    noise = shared * rng.standard_normal(len(n))
    losses = [loss(n, d), loss(n * gain**0.5, d * gain**0.5)]
    return [
        points_from_columns(
            {"N": n, "D": d, "L": x * np.exp(noise + own * rng.standard_normal(len(n)))}
        )
        for x in losses
    ]


def test_student_interval_is_that_of_scipy():
    values = np.random.default_rng(0).normal(1, 2, 9)
    found = mean_with_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert found.value == pytest.approx(values.mean())
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert np.isnan(mean_with_interval([1.0]).interval).all()
    wider = mean_with_interval(values, extra_variance=values.var(ddof=1) / 9).interval
    assert wider[1] - wider[0] == pytest.approx(2**0.5 * (expected.high - expected.low))


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.3, 3.0])
def test_a_planted_gain_comes_back(gain):
    found = paired_gain(*sides(gain), CELLS, n_bootstrap=50)
    assert found.ok
    assert found.ratio == pytest.approx(gain, rel=1e-3)
    np.testing.assert_allclose(found.cell_ratio, gain, rtol=1e-3)


def test_noise_common_to_a_pair_cancels():
    apart = paired_gain(*sides(1.2, own=0.01), CELLS, n_bootstrap=50)
    paired = paired_gain(*sides(1.2, shared=0.01), CELLS, n_bootstrap=50)
    assert np.diff(np.log(paired.interval)) < 0.5 * np.diff(np.log(apart.interval))
    assert paired.interval[0] <= 1.2 <= paired.interval[1] * 1.02


def test_the_same_losses_are_no_gain():
    baseline, _ = sides(1.0, shared=0.01)
    found = paired_gain(baseline, baseline, CELLS, n_bootstrap=50)
    assert found.ratio == 1 and found.interval == (1, 1) and found.difference.value == 0


def test_seeds_of_a_cell_are_one_observation():
    rows = [*CELLS, 5, 5]
    found = paired_gain(*sides(1.5, own=0.01, cells=rows), rows, n_bootstrap=50)
    assert len(found.cell_ratio) == found.difference.n == len(CELLS)
    one = paired_gain(*sides(1.5, cells=rows), rows, n_bootstrap=50)
    assert one.ratio == pytest.approx(1.5, rel=1e-3)


def test_what_cannot_be_stated_is_said():
    few = sides(1.2, cells=slice(0, 3))
    found = paired_gain(*few, CELLS[:3], n_bootstrap=50)
    assert not found.ok and found.status.startswith("baseline: ")
    assert np.isnan(found.ratio) and np.isfinite(found.difference.value)
    with pytest.raises(ValueError, match="are no pairs"):
        paired_gain(*few, CELLS, n_bootstrap=50)


@pytest.mark.slow
@pytest.mark.parametrize("gain", [1.0, 1.25])
def test_the_interval_holds_the_truth_as_often_as_it_says(gain):
    """Noise of both kinds; of 100 intervals at 90%, 82 to 97 (three standard errors) hold it."""
    held = 0
    for seed in range(100):
        pair = sides(gain, shared=0.008, own=0.006, seed=seed)
        low, high = paired_gain(*pair, CELLS, n_bootstrap=60).interval
        held += low <= gain <= high
    assert 81 <= held <= 98, held
