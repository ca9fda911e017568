"""How long the figures of a large study take."""

import time

import pytest

from analysis.figures import draw_all, not_drawn

MOST_SECONDS = 20.0


@pytest.mark.slow
def test_figures_of_a_thousand_runs(inputs_of_many_runs, tmp_path):
    """Seconds of the processor, so that another process beside this one does not count."""
    inputs = inputs_of_many_runs(1000)
    assert len(inputs.main_points) == 1000
    start = time.process_time()
    files = draw_all(inputs, tmp_path, formats=("png",))
    seconds = time.process_time() - start
    assert len(files) == (23 - len(not_drawn(inputs)))
    largest = max(files, key=lambda path: path.stat().st_size)
    assert largest.stat().st_size < 4e6, largest.name
    assert seconds < MOST_SECONDS
