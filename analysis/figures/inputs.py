"""What the figures and the report are drawn from, and the runs sorted by how they are drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.conventions import ConventionRow
from analysis.frontier.approaches import ApproachRow, compare
from analysis.frontier.critical_batch import CriticalLaw
from analysis.frontier.loss_of_compute import Envelope, Frontier
from analysis.intervals.uncertainty import Prediction
from analysis.load import Points, select
from analysis.published import PublishedLaw

Convention = tuple[str, str]
HEADLINE: Convention = ("total", "matmul_full")

N_MEANING = {
    "total": "all parameters",
    "non_embedding": "weight matrices of the blocks (no embeddings, norms or head)",
    "as_given": "as in the table",
}
C_MEANING = {
    "matmul_full": "matrix products, every query attending to all keys",
    "matmul_causal": "matrix products, causal attention",
    "6n_total": "6ND with total N",
    "6n_non_embedding": "6ND with non-embedding N",
    "6nd": "6ND",
    "as_given": "as in the table",
}


@dataclass(frozen=True)
class HeldOut:
    """The larger run: what was predicted under one convention, and what it measured, if trained.

    `measured_loss_nats` and its standard error are None until the run is trained.
    """

    run_id: str
    n_convention: str
    c_convention: str
    n_params: float
    n_tokens: float
    train_flops: float
    prediction: Prediction
    measured_loss_nats: float | None = None
    measured_loss_se: float | None = None

    @property
    def is_scored(self) -> bool:
        """Whether there is both a prediction and a measurement."""
        return self.prediction.ok and self.measured_loss_nats is not None

    @property
    def is_hit(self) -> bool:
        """Whether the measured loss lies inside of the interval of a new run."""
        low, high = self.prediction.new_run_interval
        return self.measured_loss_nats is not None and low <= self.measured_loss_nats <= high


N_APPROACH_DRAWS = 120


@dataclass(frozen=True)
class Step:
    """An exponent a under one set of choices: (method, a, interval) each; NaN where there is none.

    `printed` holds what a paper gives, if this is a paper's step; `n_runs` is of this step, None if
    it has all runs of the study.
    """

    name: str
    found: tuple[tuple[str, float, tuple[float, float]], ...]
    printed: tuple[float, tuple[float, float] | None] | None = None
    n_runs: int | None = None


@dataclass(frozen=True)
class FigureInputs:
    """Everything that figures and report show of one sweep.

    Args:
        title: of the sweep, one line.
        corpus: name of the text.
        runs: one row a run (train.records columns, role, isoflop_budget), held-out included.
        curves: columns run_id, train_flops_matmul_full, loss_nats (smoothed training loss).
        points: by (n_convention, c_convention), the very tables that `conventions` were fitted to.
        conventions: joint fit and isoFLOP minima under each convention, `headline` among them.
        frontiers: L(C) with and without floor, from points of the headline convention.
        envelope: lower envelope of the curves (analysis.frontier.loss_of_compute.curve_envelope).
        held_out: predictions of the larger run, one a convention; empty before there is one.
        ngram_entropies: n -> entropy of the corpus in `unit`, drawn as reference lines.
        entropy_floor_nats: least expected loss of any model of these windows, where the law of the
            text is known (generated languages).
        unit: of every loss.
        all_cells: the fits without leaving out flagged runs, for the report to show beside.
        headline: the convention of figures that show only one.
        evaluations: one row an evaluation (train.records), None or empty if none were recorded.
        critical: B_crit against the loss, of a batch sweep on the same text; None without one.
        steps: the exponent after each correction of its counting, where a paper gives them.
        references: laws that a paper prints for these very points.

    Raises: ValueError: no headline convention, or a table of points that is not the fitted one.
    """

    title: str
    corpus: str
    runs: pd.DataFrame
    curves: pd.DataFrame
    points: Mapping[Convention, Points]
    conventions: tuple[ConventionRow, ...]
    frontiers: tuple[Frontier, ...]
    envelope: Envelope
    held_out: tuple[HeldOut, ...] = ()
    ngram_entropies: Mapping[int, float] | None = None
    entropy_floor_nats: float | None = None
    unit: str = "nats/byte"
    all_cells: tuple[ConventionRow, ...] = ()
    headline: Convention = HEADLINE
    evaluations: pd.DataFrame | None = None
    critical: CriticalLaw | None = None
    steps: tuple[Step, ...] = ()
    references: tuple[PublishedLaw, ...] = ()

    def __post_init__(self) -> None:
        present = {(row.n_convention, row.c_convention): row for row in self.conventions}
        if self.headline not in present:
            raise ValueError(f"headline={self.headline} is not fitted; use one of {list(present)}")
        for convention, row in present.items():
            if convention not in self.points:
                raise ValueError(f"points lack convention {convention}; give the fitted table")
            if self.points[convention].table_hash != row.fit.table_hash:
                raise ValueError(f"points of {convention} are not the table that was fitted")

    @property
    def main(self) -> ConventionRow:
        """Fits under the headline convention."""
        return next(
            row for row in self.conventions if (row.n_convention, row.c_convention) == self.headline
        )

    @property
    def main_points(self) -> Points:
        """The fitted table of the headline convention."""
        return self.points[self.headline]

    @cached_property
    def approaches(self) -> tuple[ApproachRow, ...]:
        """Approaches 1, 2 and 3 of the headline convention."""
        curves = self.curves if len(self.curves) else None
        return compare(self.main_points, curves, self.main.fit, n_bootstrap=N_APPROACH_DRAWS)

    @property
    def critical_here(self) -> CriticalLaw | None:
        """The law of B_crit if most of these runs end at losses that it was measured at."""
        if self.critical is None:
            return None
        low, high = self.critical.loss_range
        finals = self.main_points.loss_nats
        return self.critical if ((low <= finals) & (finals <= high)).mean() >= 0.5 else None

    @property
    def main_held_out(self) -> HeldOut | None:
        """The prediction under the headline convention, else the first there is."""
        same = [h for h in self.held_out if (h.n_convention, h.c_convention) == self.headline]
        return next(iter((*same, *self.held_out)), None)


@dataclass(frozen=True)
class Group:
    """Runs drawn alike, in the headline convention; `reason` is empty for those without a flag.

    `example` is the sentence of quality control about the first of them.
    """

    reason: str
    example: str
    is_fitted: bool
    n_params: np.ndarray
    n_tokens: np.ndarray
    train_flops: np.ndarray
    loss_nats: np.ndarray

    def __len__(self) -> int:
        return len(self.loss_nats)

    @property
    def label(self) -> str:
        """For a legend: what they are, how many, whether fitted."""
        if not self.reason:
            return f"fitted ({len(self)}), no flag"
        if self.reason.startswith("held out"):
            return f"never fitted ({len(self)}), held out"
        state = "fitted" if self.is_fitted else "not fitted"
        example = f", e.g. {self.example}" if self.example else ""
        return f"{state} ({len(self)}), {self.reason.replace('_', '-')}{example}"


def run_groups(inputs: FigureInputs) -> tuple[Group, ...]:
    """Runs with a loss by what quality control said: no flag, flagged but fitted, not fitted.

    The first group is always of those without a flag, though it may be empty.
    """
    points = inputs.main_points
    names = [" + ".join(flag.split(":")[0] for flag in flags) for flags in points.flags]
    groups = [
        _rows_of_points(points, name, np.array([name == n for n in names], bool))
        for name in ("", *sorted(set(names) - {""}))
    ]
    reason_of = {run_id: text.split(":")[0] for run_id, text in inputs.main.fit.rows_excluded}
    by_id = inputs.runs.drop_duplicates("run_id").set_index("run_id")
    for reason in sorted(set(reason_of.values())):
        ids = [i for i, r in reason_of.items() if r == reason and i in by_id.index]
        rows = by_id.loc[ids]
        rows = rows[np.isfinite(rows["loss_nats"].to_numpy(np.float64))]
        if len(rows):
            n_convention, c_convention = inputs.headline
            columns = (f"n_params_{n_convention}", "n_tokens", f"train_flops_{c_convention}")
            arrays = (rows[name].to_numpy(np.float64) for name in (*columns, "loss_nats"))
            example = _detail(dict(inputs.main.fit.rows_excluded)[str(rows.index[0])])
            groups.append(Group(reason, example, False, *arrays))
    return tuple(groups)


def some_of(points: Points, most: int) -> Points:
    """At most so many of the runs, at random but always the same, for what takes many fits."""
    if len(points) <= most:
        return points
    kept = np.random.default_rng(0).permutation(len(points)) < most
    return select(points, [None if keep else "not drawn" for keep in kept])


def count_text(inputs: FigureInputs) -> str:
    """How many runs there are and what became of them, as in "25 runs: 23 fitted, 2 diverged"."""
    reasons = [text.split(":")[0] for _, text in inputs.main.fit.rows_excluded]
    parts = [f"{len(inputs.main_points)} fitted"]
    parts += [f"{reasons.count(reason)} {reason}" for reason in sorted(set(reasons))]
    return f"{len(inputs.runs)} runs: {', '.join(parts)}"


def _rows_of_points(points: Points, reason: str, mask: np.ndarray) -> Group:
    arrays = (points.n_params, points.n_tokens, points.train_flops, points.loss_nats)
    flags = next((f for f, m in zip(points.flags, mask, strict=True) if m), ())
    example = "; ".join(_detail(flag) for flag in flags)
    return Group(reason, example, True, *(values[mask] for values in arrays))


def _detail(reason: str) -> str:
    return reason.partition(": ")[2]
