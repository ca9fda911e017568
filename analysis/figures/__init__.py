"""Figures of a sweep: one function a figure, data in, matplotlib Figure out."""

from analysis.figures.draw import DRAWINGS, Drawing, draw_all
from analysis.figures.inputs import FigureInputs, HeldOut
from analysis.figures.style import save

__all__ = ["DRAWINGS", "Drawing", "FigureInputs", "HeldOut", "draw_all", "save"]
