"""Trained models approach the entropy floor of their language and do not pass below it."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_floors.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_steps", "most_above"),
    [
        ("lang:markov:vocab=16,order=1", 600, 0.02),
        ("lang:dyck", 600, 0.15),
        ("lang:even", 600, 0.10),
        ("lang:zipf:vocab=20", 300, 0.02),
    ],
)
def test_losses_approach_the_floor_from_above(name, n_steps, most_above, tmp_path):
    found = runpy.run_path(str(SCRIPT))["measure"](name, tmp_path, n_steps)
    assert found.excess_in_se > -3
    assert abs(found.oracle - found.floor) < 4 * found.se
    assert -0.002 < found.loss - found.oracle < most_above
