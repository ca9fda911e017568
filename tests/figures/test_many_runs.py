"""The figures of a large study."""

import pytest

from analysis.figures import DRAWINGS, draw_all, not_drawn


@pytest.mark.slow
def test_figures_of_a_thousand_runs_are_drawn_and_stay_small(inputs_of_many_runs, tmp_path):
    inputs = inputs_of_many_runs(1000)
    assert len(inputs.main_points) == 1000
    files = draw_all(inputs, tmp_path, formats=("png",))
    assert len(files) == len(DRAWINGS) - len(not_drawn(inputs))
    assert max(path.stat().st_size for path in files) < 1e6
