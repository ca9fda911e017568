"""Figures of a sweep: one function a figure, data in, matplotlib Figure out."""

from analysis.figures.catalog import DRAWINGS, Drawing
from analysis.figures.draw import draw_all, named, not_drawn, processes_for
from analysis.figures.inputs import FigureInputs, HeldOut
from analysis.figures.style import COLUMN, SCREEN, save

__all__ = [
    "COLUMN", "DRAWINGS", "SCREEN", "Drawing", "FigureInputs", "HeldOut", "draw_all", "named",
    "not_drawn", "processes_for", "save",
]  # fmt: skip
