"""Draws the pictures of docs/figures.md from a finished quickstart.

`python docs/draw_gallery.py OUT [NAME ...] [--data FOLDER]`: OUT is the folder of results, FOLDER
that of the published points, which the two figures of papers need. Small PNGs of few colours.
"""

import argparse
import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from analysis.figures import named, not_drawn
from analysis.figures.draw import beside
from analysis.figures.published import published_inputs
from experiments import picturing, stages
from experiments.drawing import figure_inputs
from experiments.workspace import Workspace
from train.data.corpora import load

OUT = Path(__file__).parent / "figures" / "gallery"
DPI, WIDEST, N_COLORS = 110, 1200, 128
PAPERS = {"regions": "hoffmann", "repetition": "muennighoff"}
INSIDE = {"attention": "attention", "embeddings": "embeddings_plane",
          "next_tokens": "next_tokens", "training": "training"}  # fmt: skip
PROMPT = "The people of the United "


def small(image: Image.Image, name: str) -> None:
    """Write an image with few colours."""
    image = image.convert("RGB")
    image.thumbnail((WIDEST, WIDEST))
    image.quantize(N_COLORS, Image.Quantize.FASTOCTREE).save(OUT / f"{name}.png", optimize=True)


def picture(figure: Figure) -> Image.Image:
    """A figure as an image."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)  # type: ignore[attr-defined]
    return Image.open(file)


def main() -> None:
    """Draw all pictures, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of results, with a finished quickstart")
    parser.add_argument("names", nargs="*", help="figures; inside: those of one run")
    parser.add_argument("--data", type=Path, help="folder of the published points")
    flags = parser.parse_args()
    stage = stages.Stage(Workspace(flags.out), Console())
    folder = stage.workspace.sweep("quickstart")
    plan = stages.frozen_plan(folder)
    corpus = load(plan.cells[0].spec.data.corpus, stage.workspace.data)
    inputs = figure_inputs(plan, stages.refit("quickstart", stage), folder, corpus)
    OUT.mkdir(parents=True, exist_ok=True)
    left_out = not_drawn(inputs)
    for drawing in named([name for name in flags.names if name != "inside"]):
        if drawing.name not in left_out and (drawing.name in flags.names or not flags.names):
            small(picture(drawing.draw(inputs)), drawing.name)
        if flags.data and drawing.name in PAPERS:
            paper = PAPERS[drawing.name]
            theirs = published_inputs(flags.data, {paper})[paper]
            both = drawing.name not in left_out
            figure = beside(drawing, inputs, theirs) if both else drawing.draw(theirs)
            small(picture(figure), f"{drawing.name}-published")
    if not flags.names or "inside" in flags.names:
        for path in picturing.inspect(picturing.InspectFlags(prompt=PROMPT, out=flags.out)):
            if path.suffix == ".png":
                small(Image.open(path), INSIDE[path.stem])


if __name__ == "__main__":
    main()
