"""The figures of a large study."""

import pytest

from analysis.figures import DRAWINGS, draw_all, not_drawn, processes_for


@pytest.mark.slow
def test_figures_of_a_thousand_runs_are_drawn_and_stay_small(inputs_of_many_runs, tmp_path):
    inputs = inputs_of_many_runs(1000)
    assert len(inputs.main_points) == 1000
    files = draw_all(inputs, tmp_path, formats=("png",), n_processes=2)
    left_out = not_drawn(inputs)
    assert [path.stem for path in files] == [d.name for d in DRAWINGS if d.name not in left_out]
    assert max(path.stat().st_size for path in files) < 1e6


def test_few_runs_are_not_worth_a_second_process():
    assert processes_for(26) == 1 <= processes_for(1000)


def test_two_processes_draw_what_one_does(inputs, tmp_path):
    names = ("residuals", "allocation", "predicted")
    alone, shared = (
        draw_all(inputs, tmp_path / str(n), only=names, formats=("png",), n_processes=n)
        for n in (1, 2)
    )
    assert [path.name for path in alone] == [path.name for path in shared]
    for one, other in zip(alone, shared, strict=True):
        assert one.read_bytes() == other.read_bytes()
