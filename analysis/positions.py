"""Loss by token position: how much each model gains from context, and the law through it.

A position is a place in the window, from 1, which is the number of tokens of context. Windows begin
anywhere in documents: the context of an early position is cut, not missing from the text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.fit import Fit, fit
from analysis.laws import PowerLawFloor
from analysis.table.points import points_from_columns


@dataclass(frozen=True)
class PositionLoss:
    """Mean loss (nats/token) in bins of positions `first` to `last`, with errors by document.

    Errors are NaN where they are not known, as with a single document.
    """

    first: np.ndarray
    last: np.ndarray
    loss_nats: np.ndarray
    se_document: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        """Geometric middle of each bin; of one position, itself."""
        return np.sqrt(self.first * self.last)


def position_loss(row: Mapping[str, Any]) -> PositionLoss:
    """The losses by position of an evaluation (train.columns.EVALUATION_COLUMNS)."""
    edges = np.asarray(row["position_edges"], np.float64)
    return PositionLoss(
        edges[:-1],
        edges[1:] - 1,
        np.asarray(row["position_loss_nats"], np.float64),
        np.asarray(row["position_se_document"], np.float64),
    )


def fit_position(found: PositionLoss, *, n_bootstrap: int = 200) -> Fit:
    """L(t) = E + A / t^alpha by least squares in log loss.

    Intervals resample positions: they measure how well the law runs through the points. All
    positions score the same documents, so that errors of the level move E for all of them at once
    (`se_document` measures that) and are no part of these intervals.

    Source: Kaplan et al. 2020, arXiv:2001.08361, appendix D.5, fig. 20 (constant plus power of T).
    """
    points = points_from_columns({"position": found.middle, "L": found.loss_nats})
    return fit(PowerLawFloor("position"), points, "ls_log", n_bootstrap=n_bootstrap)
