"""Critical batch sizes from planted curves: the law, its draws, and the noise scale beside it."""

import numpy as np
import pytest

from analysis.frontier.critical_batch import (
    Curve,
    compare,
    critical_batches,
    critical_law,
    smoothed,
    steps_to,
    targets,
)
from analysis.intervals.uncertainty import percentile_interval

BATCHES = (64, 128, 256, 512, 1024, 2048, 4096)
B_STAR, ALPHA_B = 8000.0, 0.3


def critical(loss):
    return B_STAR / loss ** (1 / ALPHA_B)


def planted(sd=0.0):
    """Curves with S = S_min(L) (1 + B_crit(L) / B), at their best rate and at a slower one."""
    generator = np.random.default_rng(0)
    loss = np.linspace(4, 1.5, 4000)
    curves = []
    for batch in BATCHES:
        steps_of_loss = 60 * (loss - 1.2) ** -1.4 * (1 + critical(loss) / batch)
        steps = np.unique(np.ceil(1.03 ** np.arange(1, 400)).astype(int))
        steps = steps[steps < 400_000 / batch * (1 + batch / 1024)]
        # A point is the mean since the one before: it belongs to the middle of its steps.
        middle = (np.concatenate([[0], steps[:-1]]) + steps + 1) / 2
        values = np.interp(middle, steps_of_loss, loss) + generator.normal(0, sd, len(steps))
        curves += [Curve(batch, 0.01, steps, values), Curve(batch, 0.02, 2 * steps, values)]
    return curves


def test_planted_critical_batches_and_their_law_come_back():
    curves = planted(sd=0.01)
    losses = targets(curves, 4)
    assert len(losses) == 4 and (np.diff(losses) < 0).all()
    found = critical_batches(curves, losses)
    for size in found:
        assert size.b_crit[0] == pytest.approx(critical(size.loss_nats), rel=0.06)
        low, high = percentile_interval(size.b_crit[1:])
        assert low < size.b_crit[0] < high
        # McCandlish's form, at the hyperbola's own points.
        steps = size.s_min[0] + size.e_min[0] / 512
        assert (steps / size.s_min[0] - 1) * (512 * steps / size.e_min[0] - 1) == pytest.approx(1)
    law = critical_law(found)
    assert law.alpha_b[0] == pytest.approx(ALPHA_B, rel=0.1)
    low, high = percentile_interval(1 / law.alpha_b[1:])
    assert low < 1 / ALPHA_B < high
    assert law.at(2.0)[0] == pytest.approx(critical(2.0), rel=0.06)


def test_steps_are_read_off_a_falling_curve_and_never_made_up():
    steps = np.arange(1, 2001)
    curve = Curve(512, 0.01, steps, 4 * steps**-0.1)
    wanted = np.array([3.0, 2.5, 1.0, 5.0])
    found = steps_to(curve, wanted)
    assert found[:2] == pytest.approx((4 / wanted[:2]) ** 10, rel=0.03)
    assert np.isnan(found[2:]).all(), "below the last loss, and above the first"
    bumpy = Curve(512, 0.01, steps, 4 * steps**-0.1 + 0.1 * np.sin(steps / 7))
    fallen = smoothed(bumpy)[1]
    assert (np.diff(fallen) <= 0).all()


def test_two_losses_or_two_batches_are_no_law():
    curves = planted()
    found = critical_batches(curves, targets(curves, 2))
    law = critical_law(found)
    assert np.isnan(law.b_star).all() and "a law needs 3" in law.status
    few = critical_batches([c for c in curves if c.batch_tokens < 200], np.array([2.0]))
    assert np.isnan(few[0].b_crit).all() and "too few points" in few[0].status
    assert np.isnan(critical_law(few).at(2.0)).all()


def test_a_critical_batch_beyond_those_tried_is_said():
    curves = [c for c in planted() if c.batch_tokens <= 256]
    (found,) = critical_batches(curves, np.array([1.7]))
    assert "outside of the batches tried" in found.status


def test_the_ratio_holds_the_noise_of_both():
    curves = planted(sd=0.01)
    law = critical_law(critical_batches(curves, targets(curves, 4)))
    run = {"batch_tokens": 1024.0, "lr": 0.01, "noise_scale_tokens": critical(2.0) / 2,
           "noise_scale_se": 0.2 * critical(2.0) / 2, "loss_nats": 2.0}  # fmt: skip
    inside, outside = compare(law, [run, {**run, "loss_nats": 1.0}])
    assert inside.ratio[0] == pytest.approx(2.0, rel=0.06)
    assert (inside.is_extrapolated, outside.is_extrapolated) == (False, True)
    low, high = percentile_interval(inside.ratio[1:])
    assert low < 2 < high and high / low > np.exp(2 * 1.645 * 0.2) * 0.85
    assert inside.interval[0] < inside.b_simple < inside.interval[1]
