"""Every figure of the planted sweep against a small image of how it looked when it was looked at.

After a change that is meant: `GOLDEN=write python -m pytest tests/figures/test_golden.py`, look at
the images, and commit them. They are coarse (30 dots per inch, grey), so that fonts and versions of
matplotlib make no difference, while a panel, a curve or a legend that is gone does.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.figures.isoflop import isoflop
from analysis.figures.residuals import residuals

GOLDEN = Path(__file__).parent / "golden"
BLOCK = 4  # pixels a side whose mean is compared
TOLERANCE = 5.0  # of 255, RMS over blocks
MOST_BYTES = 12_000


def grey(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"), np.float64)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """RMS difference of block means over the common part; infinite where sizes differ by more."""
    if max(abs(a - b) for a, b in zip(one.shape, other.shape, strict=True)) > 1:
        return float("inf")
    height, width = (
        min(sides) // BLOCK * BLOCK for sides in zip(one.shape, other.shape, strict=True)
    )
    difference = (one[:height, :width] - other[:height, :width]).reshape(
        height // BLOCK, BLOCK, width // BLOCK, BLOCK
    )
    return float(np.sqrt((difference.mean((1, 3)) ** 2).mean()))


def test_figures_look_as_they_did(drawn):
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        for path in drawn:
            Image.open(path).convert("L").quantize(16).save(GOLDEN / path.name, optimize=True)
    assert {p.name for p in GOLDEN.iterdir()} == {p.name for p in drawn}
    off = {path.name: distance(grey(path), grey(GOLDEN / path.name)) for path in drawn}
    assert max(off.values()) < TOLERANCE, off


def test_golden_images_are_small():
    assert max(p.stat().st_size for p in GOLDEN.iterdir()) < MOST_BYTES


@pytest.mark.parametrize("draw", [isoflop, residuals])
def test_a_figure_of_other_runs_is_told_apart(draw, inputs, tmp_path):
    minima = tuple(replace(m, coefficients=None) for m in inputs.main.minima)
    rows = (replace(inputs.main, minima=minima[:2]), *inputs.conventions[1:])
    joint = replace(inputs.main.fit, parameters=inputs.main.fit.parameters | {"E": 0.8})
    rows = (replace(rows[0], fit=joint), *rows[1:])
    draw(replace(inputs, conventions=rows)).savefig(tmp_path / "other.png", dpi=30)
    golden = grey(GOLDEN / f"{draw.__name__}.png")
    assert distance(grey(tmp_path / "other.png"), golden) > TOLERANCE
