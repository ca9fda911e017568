"""All figures of a sweep, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from analysis.figures.allocation import allocation
from analysis.figures.inputs import FigureInputs
from analysis.figures.isoflop import isoflop
from analysis.figures.kaplan import kaplan_panels
from analysis.figures.position import position
from analysis.figures.prediction import prediction
from analysis.figures.residuals import residuals
from analysis.figures.style import save
from analysis.figures.surface import surface


@dataclass(frozen=True)
class Drawing:
    """One figure: the name of its files, its function, and a caption that stands alone."""

    name: str
    draw: Callable[[FigureInputs], Figure]
    caption: str


DRAWINGS = (
    Drawing(
        "allocation",
        allocation,
        "The exponent a of compute-optimal model size, N* ~ C^a, from the same runs under each "
        "way of counting parameters and compute, with 90% intervals. Vertical lines: Kaplan et al. "
        "2020 and the three approaches of Hoffmann et al. 2022.",
    ),
    Drawing(
        "kaplan_panels",
        kaplan_panels,
        "Left: smoothed training loss of every run against compute, the lower envelope, and L(C) "
        "fitted along the frontier of final losses. Middle and right: final validation loss "
        "against data and against parameters; the black lines are limits of the joint fit, where "
        "the other variable is infinite, and nothing was measured there.",
    ),
    Drawing(
        "isoflop",
        isoflop,
        "Left: final loss against model size at each budget of compute, with the parabola in log N "
        "and its minimum; a hollow star is a budget whose minimum was refused. Right: optimal size "
        "and data against compute, with the fitted power laws.",
    ),
    Drawing(
        "surface",
        surface,
        "The fitted loss over model size and data, the runs on the same colour scale, the budgets "
        "of compute (dashed) and the compute-optimal path with its band.",
    ),
    Drawing(
        "residuals",
        residuals,
        "Measured over predicted loss of the joint fit. Structure here is what the law does not "
        "describe; hollow runs carry a quality flag or were not fitted.",
    ),
    Drawing(
        "prediction",
        prediction,
        "The larger run. Left: what each convention predicted before it was trained, and what it "
        "measured. Right: where that lies beyond the fitted runs.",
    ),
    Drawing(
        "position",
        position,
        "Loss by place in the window, which is the number of tokens of context: of each size the "
        "run of lowest loss. Left: with the law E + A/t^alpha; bands are standard errors by "
        "document, which all positions of a run share. Right: the same losses against size.",
    ),
)


def draw_all(inputs: FigureInputs, directory: Path | str) -> list[Path]:
    """Draw every figure into a directory, as NAME.png and NAME.pdf; returns the files."""
    folder = Path(directory)
    return [
        path for drawing in DRAWINGS for path in save(drawing.draw(inputs), folder / drawing.name)
    ]
