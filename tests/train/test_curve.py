import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.curve import Curve, extend, is_logged, mean_of_tail

LOSSES = st.lists(st.floats(0, 10), min_size=1, max_size=300)


def points_of(losses, n_steps=None):
    return extend(Curve(), losses, n_steps or len(losses))[1]


@given(LOSSES, st.data())
def test_any_chunking_gives_the_same_curve(losses, data):
    cuts = data.draw(st.lists(st.integers(0, len(losses)), max_size=5).map(sorted))
    curve, points = Curve(), []
    for first, last in zip([0, *cuts], [*cuts, len(losses)], strict=True):
        curve, more = extend(curve, losses[first:last], len(losses))
        points += more
    assert (curve, points) == extend(Curve(), losses, len(losses))


@given(LOSSES)
def test_every_loss_is_in_exactly_one_point(losses):
    points = points_of(losses)
    starts = [0, *(point.step for point in points)]
    assert points[-1].step == len(losses)
    for first, point in zip(starts, points, strict=False):
        part = losses[first : point.step]
        assert part and point.loss_nats == pytest.approx(math.fsum(part) / len(part))
    total = sum(p.loss_nats * (p.step - s) for s, p in zip(starts, points, strict=False))
    assert total == pytest.approx(math.fsum(losses))


@given(LOSSES, st.integers(1, 300))
def test_a_longer_run_begins_with_the_points_of_a_shorter_one(losses, n_short):
    n_short = min(n_short, len(losses))
    short = points_of(losses[:n_short])
    assert points_of(losses)[: len(short) - 1] == short[:-1]


def test_points_are_dense_at_first_and_then_even_in_log_steps():
    steps = [step for step in range(1, 100_001) if is_logged(step, 100_000)]
    assert steps[:30] == list(range(1, 31))
    ratios = [b / a for a, b in zip(steps, steps[1:], strict=False) if a > 1000]
    assert max(ratios) < 1.031
    assert 250 < len(steps) < 400


def test_an_unfinished_curve_keeps_what_is_in_no_point():
    curve, points = extend(Curve(), [1.0] * 100, 1000)
    assert curve.step == 100
    assert len(curve.pending) == 100 - points[-1].step


def test_tail_mean_covers_the_last_twentieth():
    losses = [float(i) for i in range(1, 101)]
    curve, _ = extend(Curve(), losses, 100)
    assert curve.tail_mean == pytest.approx(sum(range(96, 101)) / 5)
    assert math.isnan(Curve().tail_mean)
    assert extend(Curve(), [2.5], 1)[0].tail_mean == 2.5


def test_the_tail_of_points_is_weighed_by_their_steps():
    """Points of single steps give the very tail; wider ones count for all steps they hold."""
    losses = [5.0 - 0.01 * step for step in range(1, 401)]
    singles = list(enumerate(losses, start=1))
    assert mean_of_tail(singles, 400) == pytest.approx(extend(Curve(), losses, 400)[0].tail_mean)
    assert mean_of_tail([(380, 9.0), (385, 3.0), (400, 1.0)], 400) == (5 * 3.0 + 15 * 1.0) / 20
    assert math.isnan(mean_of_tail([], 10))
