"""The figures of a study: what each shows, after which paper, and what it needs."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.figures.allocation import allocation
from analysis.figures.approaches import approaches, table_2
from analysis.figures.embeddings import counts_missing, embeddings
from analysis.figures.envelope import envelope
from analysis.figures.inputs import FigureInputs
from analysis.figures.isoflop import isoflop
from analysis.figures.kaplan import kaplan_panels
from analysis.figures.ladder import ladder
from analysis.figures.learning import data_and_steps, learning_curves
from analysis.figures.min_compute import min_compute, no_critical_batch
from analysis.figures.off_optimal import off_optimal
from analysis.figures.overtraining import overtraining
from analysis.figures.position import NO_EVALUATIONS, best_of_sizes, position
from analysis.figures.prediction import NOTHING_YET, prediction
from analysis.figures.regions import LEAST_DRAWS, regions, ridge
from analysis.figures.repetition import repetition, unrepeated
from analysis.figures.residuals import residuals
from analysis.figures.scores import N_FOLDS, coverage, extrapolation, predicted
from analysis.figures.surface import surface


def _nothing(inputs: FigureInputs) -> str:
    del inputs
    return ""


def _no_fit(inputs: FigureInputs) -> str:
    joint = inputs.main.fit
    return "" if joint.ok else f"the joint fit failed: {joint.status}"


def _no_curves(inputs: FigureInputs) -> str:
    return "" if len(inputs.curves) else "no training curves were recorded"


def _no_curves_or_fit(inputs: FigureInputs) -> str:
    return _no_curves(inputs) or _no_fit(inputs)


def _too_few_for_folds(inputs: FigureInputs) -> str:
    n = len(inputs.main_points)
    return _no_fit(inputs) or (
        "" if n >= 2 * N_FOLDS else f"{n} runs are too few to leave some out"
    )


def _no_draws(inputs: FigureInputs) -> str:
    few = len(inputs.main.fit.draws) < LEAST_DRAWS
    return _no_fit(inputs) or ("the fit has no bootstrap draws" if few else "")


def _no_prediction(inputs: FigureInputs) -> str:
    return "" if inputs.held_out else NOTHING_YET


def _no_positions(inputs: FigureInputs) -> str:
    return "" if best_of_sizes(inputs) else NO_EVALUATIONS


def _one_count(inputs: FigureInputs) -> str:
    few = len(inputs.conventions) < 3 and not inputs.steps
    return "runs are counted in one convention only" if few else ""


@dataclass(frozen=True)
class Drawing:
    """One figure: the name of its files, its function, and a caption that stands alone.

    `paper` names the figure that it follows; `missing` says why a study's records do not support it
    (empty: they do); `published` is the set of published points (analysis.figures.published) that
    the same function draws, if there is one; `is_narrow` figures stand side by side with it.
    """

    name: str
    draw: Callable[..., Figure]
    caption: str
    paper: str = ""
    missing: Callable[[FigureInputs], str] = _nothing
    published: str = ""
    is_narrow: bool = False


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
        "Kaplan et al. 2020, fig. 1",
    ),
    Drawing(
        "learning_curves",
        learning_curves,
        "Training loss of every run against the tokens seen and against the compute spent, by "
        "size: larger models reach a loss with fewer tokens, and at each compute another size is "
        "lowest.",
        "Kaplan et al. 2020, fig. 2",
        _no_curves,
    ),
    Drawing(
        "data_and_steps",
        data_and_steps,
        "Left: final loss against data with Kaplan's L(N, D). Middle: the excess over infinite "
        "data, for which the law is one line for all sizes. Right: learning curves with L(N, S).",
        "Kaplan et al. 2020, figs. 4 and 9",
        _no_fit,
        "hoffmann",
    ),
    Drawing(
        "embeddings",
        embeddings,
        "Losses less the data's term of the joint fit, against N with and without embeddings, one "
        "mark a depth; the count about whose line the runs scatter less describes them better.",
        "Kaplan et al. 2020, fig. 6",
        counts_missing,
    ),
    Drawing(
        "min_compute",
        min_compute,
        "Loss along the envelopes in C and in C_min, the compute that a batch far below B_crit "
        "would have needed; size and fewest steps of the winners against C_min.",
        "Kaplan et al. 2020, figs. 13 and 14",
        no_critical_batch,
    ),
    Drawing(
        "off_optimal",
        off_optimal,
        "Left: loss against size at equal compute. Middle and right: compute and tokens to the "
        "same loss at a size that is not optimal, which under the joint fit depend on N/N* and the "
        "exponents alone; marks are runs by the loss they reached.",
        "Kaplan et al. 2020, figs. 11 and 12",
        _no_fit,
        "hoffmann",
    ),
    Drawing(
        "approaches",
        approaches,
        "Optimal size against compute by the envelope of the curves, the isoFLOP minima and the "
        "joint fit, drawn ten times beyond the runs, with bands; grey lines have the published "
        "slopes, at another scale.",
        "Hoffmann et al. 2022, fig. 1",
        _no_fit,
        "hoffmann",
        is_narrow=True,
    ),
    Drawing(
        "table_2",
        table_2,
        "Exponents of optimal size and data by every approach and method, with 90% intervals and "
        "the bias of the method on losses without noise; below, the published ones.",
        "Hoffmann et al. 2022, table 2",
        _no_fit,
        "hoffmann",
        is_narrow=True,
    ),
    Drawing(
        "envelope",
        envelope,
        "Left: training curves and the lowest loss at each compute. Middle and right: size and "
        "tokens of whoever is lowest, with the power laws drawn on to ten times the compute.",
        "Hoffmann et al. 2022, fig. 2",
        _no_curves_or_fit,
    ),
    Drawing(
        "isoflop",
        isoflop,
        "Left: final loss against model size at each budget of compute, with the parabola in log N "
        "and its minimum; a hollow star is a budget whose minimum was refused. Right: optimal size "
        "and data against compute, with the fitted power laws.",
        "Hoffmann et al. 2022, fig. 3",
        published="porian",
    ),
    Drawing(
        "surface",
        surface,
        "Left: the fitted loss over model size and data, the runs on the same colour scale, the "
        "budgets of compute (dashed) and the compute-optimal path with its band. Right: slices of "
        "the same surface at equal compute, with the runs.",
        "Hoffmann et al. 2022, fig. 4",
        published="hoffmann",
    ),
    Drawing(
        "ladder",
        ladder,
        "The exponent after each correction of how a study counts: from Kaplan's way, without "
        "embeddings and with C = 6ND, to Hoffmann's; beside it the ladder of Porian et al.",
        "Porian et al. 2024, fig. 1",
        _one_count,
        "porian",
    ),
    Drawing(
        "regions",
        regions,
        "Bootstrap draws of coefficient and exponent, and of both exponents, with ellipses that "
        "hold 50, 80 and 95% of them; dotted: lines of equal allocation exponent a.",
        "Besiroglu et al. 2024, fig. 3",
        _no_draws,
        "hoffmann",
    ),
    Drawing(
        "repetition",
        repetition,
        "Loss against epochs at equal size and unique data, and the number of epochs of new tokens "
        "that repeated ones were worth.",
        "Muennighoff et al. 2023, figs. 3 and 5",
        unrepeated,
        "muennighoff",
    ),
    Drawing(
        "overtraining",
        overtraining,
        "Loss above the floor against compute by tokens per parameter, which the law says is "
        "parallel lines; and what too few or too many tokens for a size cost in loss.",
        "Gadre et al. 2024, figs. 2 and 3",
        _no_fit,
        "gadre",
    ),
    Drawing(
        "residuals",
        residuals,
        "Measured over predicted loss of the joint fit. Structure here is what the law does not "
        "describe; hollow runs carry a quality flag or were not fitted.",
        published="hoffmann",
    ),
    Drawing(
        "predicted",
        predicted,
        "Measured loss of every run against what the joint fit says of it; the band is twice the "
        "RMS residual of the fitted runs.",
        missing=_no_fit,
        published="hoffmann",
        is_narrow=True,
    ),
    Drawing(
        "coverage",
        coverage,
        "Share of runs left out of a fit that lie inside of their intervals, against the level of "
        "the interval; below the diagonal intervals are too narrow.",
        missing=_too_few_for_folds,
        published="hoffmann",
        is_narrow=True,
    ),
    Drawing(
        "extrapolation",
        extrapolation,
        "Error of each law on the largest runs when they are left out, by N, by D and by C, best "
        "law first, against two naive forecasts.",
        missing=_too_few_for_folds,
        published="hoffmann",
        is_narrow=True,
    ),
    Drawing(
        "ridge",
        ridge,
        "The objective over pairs of parameters with everything else fitted anew: a bowl where the "
        "runs determine both, a valley where one pays for the other.",
        missing=_no_draws,
        published="hoffmann",
    ),
    Drawing(
        "prediction",
        prediction,
        "The larger run. Left: what each convention predicted before it was trained, and what it "
        "measured. Right: where that lies beyond the fitted runs.",
        missing=_no_prediction,
    ),
    Drawing(
        "position",
        position,
        "Loss by place in the window, which is the number of tokens of context: of each size the "
        "run of lowest loss. Left: with the law E + A/t^alpha; bands are standard errors by "
        "document, which all positions of a run share. Right: the same losses against size.",
        "Kaplan et al. 2020, fig. 20",
        missing=_no_positions,
    ),
)
