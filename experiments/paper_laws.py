"""What the experiments on the core papers fit alike: a surface, its predictions, points of curves."""

from typing import TYPE_CHECKING

from analysis.fit import Fit, fit
from analysis.intervals.uncertainty import predict_run
from analysis.laws import Chinchilla, KaplanND, Law
from analysis.load import Points, drop_flagged, points_from_runs
from analysis.study import LEFT_OUT, ConventionPrediction
from experiments.plan import Cell
from model.accounting import count_params

if TYPE_CHECKING:
    import pandas as pd

OBJECTIVE = "ls_log"
"""As in experiments.stages: runs of one recipe have no outliers that survive quality control."""


def settled(runs: "pd.DataFrame", n_convention: str = "total", c_convention="matmul_full"):
    """The points of runs without those that quality control calls too short for a law."""
    return drop_flagged(points_from_runs(runs, n_convention, c_convention), *LEFT_OUT)  # type: ignore[arg-type]


def surface(points: Points, law: Law | None = None, n_bootstrap: int = 500) -> Fit:
    """A law of N and D through points; Chinchilla's by default."""
    return fit(law or Chinchilla(), points, OBJECTIVE, n_bootstrap=n_bootstrap)


def surface_predictions(runs: "pd.DataFrame", cell: Cell) -> tuple[ConventionPrediction, ...]:
    """A run's loss by Chinchilla's law through the runs, under both counts of N."""
    return tuple(
        _prediction("chinchilla", surface(settled(runs, n)), n, cell)
        for n in ("total", "non_embedding")
    )


def kaplan_predictions(runs: "pd.DataFrame", cell: Cell) -> tuple[ConventionPrediction, ...]:
    """A run's loss by Kaplan's L(N, D), which has no floor, and by Chinchilla's."""
    points = settled(runs, "non_embedding")
    laws = (KaplanND(), Chinchilla())
    return tuple(_prediction(law.name, surface(points, law), "non_embedding", cell) for law in laws)


def _prediction(version: str, found: Fit, n_convention: str, cell: Cell) -> ConventionPrediction:
    n_params = getattr(count_params(cell.spec.model), n_convention)
    made = predict_run(found, n_params=n_params, n_tokens=cell.spec.n_tokens)
    return ConventionPrediction(version, n_convention, n_params, made)
