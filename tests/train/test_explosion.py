import dataclasses
import math

import numpy as np
import pytest

from train.config import OptimizerConfig
from train.explosion import MARGIN_NATS, exploded_at

N_STEPS = 1000
WINDOW = 250
WARMUP = 4


@pytest.fixture
def spec(make_spec):
    return make_spec(N_STEPS)


def losses(*parts):
    """Steps by level, each part (how many, nats above the line)."""
    line = math.log(17) + MARGIN_NATS
    return np.concatenate([np.full(n, line + above, np.float32) for n, above in parts])


def at(spec, values, first=0):
    return exploded_at(spec, values, first, len(values))


def test_a_blown_up_loss_that_stays_is_an_explosion(spec):
    assert at(spec, losses((100, -1), (WINDOW - 1, 1))) is None
    assert at(spec, losses((100, -1), (WINDOW, 1))) == 100 + WINDOW
    assert at(spec, losses((100, -1), (WINDOW + 50, 9))) == 100 + WINDOW


def test_the_step_does_not_depend_on_when_it_is_asked(spec):
    values = losses((100, -1), (WINDOW + 50, 9))
    whole = at(spec, values)
    assert whole is not None
    found = [exploded_at(spec, values, first, min(first + 16, 400)) for first in range(0, 400, 16)]
    assert [step for step in found if step is not None][0] == whole
    assert found.index(whole) == (whole - 1) // 16
    assert at(spec, values, first=whole) == whole + 1, "asked later it still is one"


@pytest.mark.parametrize(
    "parts",
    [
        ((N_STEPS, -0.1),),
        ((10, 50), (N_STEPS - 10, -1)),
        ((WINDOW - 1, 1e6), (1, -0.01), (WINDOW - 1, 1e6), (1, -0.01), (500, -1)),
        ((WARMUP, 1), (WINDOW - 1, 1), (747, -1)),
    ],
    ids=["healthy", "bad start", "spikes that pass", "warm-up does not count"],
)
def test_what_falls_again_is_none(spec, parts):
    assert at(spec, losses(*parts)) is None


def test_short_runs_need_a_hundred_steps(make_spec):
    short = make_spec(120)
    assert at(short, losses((WARMUP + 99, 5))) is None
    assert at(short, losses((WARMUP + 100, 5))) == WARMUP + 100


def test_other_objectives_are_not_held_against_the_uniform_loss(spec):
    values = losses((N_STEPS, 9))
    assert at(spec, values) is not None
    assert at(dataclasses.replace(spec, z_loss=1e-4), values) is None


def test_an_exploding_run_is_recorded_with_its_step_and_stops(make_spec, run):
    """Signs of gradients at an absurd rate: the loss stays finite, and far above the uniform."""
    wild = OptimizerConfig(lr=30.0, weight_decay=0.0)
    row = run(make_spec(600, optimizer=wild))
    assert (row["status"], row["loss_nats"]) == ("diverged", None)
    assert WARMUP + 150 <= row["diverged_step"] < 600
