"""Everything fitted to one sweep: joint fits by convention, isoFLOP minima, frontiers, limits.

Two versions stand side by side: `settled`, whose joint fits leave out the cells that quality
control calls pre-asymptotic and from which predictions are made; and `all_cells`, which shows what
leaving them out changed. Other flags (embedding-dominated cells) are reported and fitted.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from analysis.conventions import CONVENTIONS, ConventionRow, fit_conventions
from analysis.fit import DEFAULT_BOOTSTRAP, ObjectiveName
from analysis.frontier.loss_of_compute import Frontier, Limit, fit_frontiers, limits
from analysis.intervals.uncertainty import Prediction, predict_run
from analysis.load import Points, drop_flagged, points_from_runs

if TYPE_CHECKING:
    import pandas as pd

LEFT_OUT = ("pre_asymptotic",)
Version = str  # "settled" or "all_cells"


@dataclass(frozen=True)
class Study:
    """The fits of one sweep; frontiers and limits are under the first convention."""

    settled: tuple[ConventionRow, ...]
    all_cells: tuple[ConventionRow, ...]
    frontiers: tuple[Frontier, ...]
    limits: tuple[Limit, Limit]
    points: Mapping[tuple[str, str], Points]

    def versions(self) -> dict[Version, tuple[ConventionRow, ...]]:
        """Both versions by name, the one behind predictions first."""
        return {"settled": self.settled, "all_cells": self.all_cells}

    def to_json(self) -> dict[str, Any]:
        """Every number and status of the study; a number that is not finite may be NaN."""
        return {
            **{name: [_row_json(row) for row in rows] for name, rows in self.versions().items()},
            "frontiers": [
                {"source": f.source, "power": f.power.to_json(), "floor": f.power_floor.to_json()}
                for f in self.frontiers
            ],
            "limits": [
                {
                    "label": limit.label,
                    "parameters": limit.parameters,
                    "intervals": limit.intervals,
                    "status": limit.status,
                }
                for limit in self.limits
            ],
        }


def study(
    runs: "pd.DataFrame",
    objective: ObjectiveName,
    *,
    n_bootstrap: int = DEFAULT_BOOTSTRAP,
    seed: int = 0,
) -> Study:
    """Fit everything to a sweep's table of runs (held-out runs never enter a fit)."""
    settled = fit_conventions(runs, objective, drop=LEFT_OUT, n_bootstrap=n_bootstrap, seed=seed)
    every = {c: points_from_runs(runs, *c) for c in CONVENTIONS}
    points: dict[tuple[str, str], Points] = {
        c: drop_flagged(every[c], *LEFT_OUT) for c in CONVENTIONS
    }
    is_whole = all(len(points[c]) == len(every[c]) for c in CONVENTIONS)
    all_cells = (  # the same tables would give the same fits
        settled
        if is_whole
        else fit_conventions(runs, objective, n_bootstrap=n_bootstrap, seed=seed)
    )
    head = settled[0]
    whole = every[head.n_convention, head.c_convention]
    return Study(
        settled=settled,
        all_cells=all_cells,
        frontiers=fit_frontiers(whole, head.minima, n_bootstrap=n_bootstrap, seed=seed),
        limits=limits(head.fit),
        points=points,
    )


@dataclass(frozen=True)
class ConventionPrediction:
    """The predicted loss of one run under one convention of N and one version of the study."""

    version: Version
    n_convention: str
    n_params: float
    prediction: Prediction

    def to_json(self) -> dict[str, Any]:
        """JSON values; the prediction's fields stand beside the labels."""
        labels = {k: getattr(self, k) for k in ("version", "n_convention", "n_params")}
        return {**labels, **asdict(self.prediction)}


def predict_held_out(
    fitted: Study, *, n_params: dict[str, int], n_tokens: int
) -> tuple[ConventionPrediction, ...]:
    """Predict one run from the joint fits, one prediction a convention of N and version.

    Args: n_params: of the run, by convention of N.
    """
    predictions = []
    for version, rows in fitted.versions().items():
        by_n = {row.n_convention: row.fit for row in reversed(rows)}
        for n_convention, n in n_params.items():
            found = predict_run(by_n[n_convention], n_params=n, n_tokens=n_tokens)
            predictions.append(ConventionPrediction(version, n_convention, n, found))
    return tuple(predictions)


def _row_json(row: ConventionRow) -> dict[str, Any]:
    isoflop = {
        name: getattr(row.isoflop, name)
        for name in ("ok", "status", "a", "b", "intervals", "interval_method", "n_minima")
    }
    minima = [
        {
            name: getattr(m, name)
            for name in ("budget", "ok", "status", "n_params", "n_tokens", "loss_nats")
        }
        for m in row.minima
    ]
    return {"fit": row.fit.to_json(), "isoflop": isoflop, "minima": minima}
