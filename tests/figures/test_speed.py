"""How long the figures of a large study take."""

import time

import numpy as np
import pandas as pd
import pytest
from conftest import NOISE, curve_rows, make_inputs, run_row

from analysis.figures import draw_all, not_drawn

MOST_SECONDS = 20.0


def many_runs(n_runs: int):
    """Twenty budgets of 50 runs each over 25 shapes, two seeds a shape, with their curves."""
    generator = np.random.default_rng(0)
    shapes = [(1 + k // 6, 8 * (2 + k // 2)) for k in range(25)]
    budgets = np.geomspace(2e11, 2e13, n_runs // 50)
    rows = [
        run_row(f"{b}-{k}-{seed}", shape, budget, NOISE * generator.standard_normal(), seed=seed)
        for b, budget in enumerate(budgets)
        for k, shape in enumerate(shapes)
        for seed in (0, 1)
    ]
    curves = [point for row in rows for point in curve_rows(row, generator)]
    return pd.DataFrame(rows), pd.DataFrame(curves)


@pytest.mark.slow
def test_figures_of_a_thousand_runs(tmp_path):
    """Seconds of the processor, so that another process beside this one does not count."""
    inputs = make_inputs(*many_runs(1000), is_predicted=False)
    assert len(inputs.main_points) == 1000
    start = time.process_time()
    files = draw_all(inputs, tmp_path, formats=("png",))
    seconds = time.process_time() - start
    assert len(files) == (23 - len(not_drawn(inputs)))
    largest = max(files, key=lambda path: path.stat().st_size)
    assert largest.stat().st_size < 4e6, largest.name
    assert seconds < MOST_SECONDS
