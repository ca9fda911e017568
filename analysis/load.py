"""Records or any CSV in, a tidy table of points out; every row left out is listed with its reason.

Conventions are arguments here and nowhere later: a `Points` table carries one meaning of N and one
of C, and every fit of it repeats both.
"""

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.laws import Variable

if TYPE_CHECKING:
    import pandas as pd

NConvention = Literal["total", "non_embedding", "as_given"]
CConvention = Literal[
    "matmul_full", "matmul_causal", "6n_total", "6n_non_embedding", "6nd", "as_given"
]
RUN_N_CONVENTIONS = ("total", "non_embedding")
RUN_C_CONVENTIONS = ("matmul_full", "matmul_causal", "6n_total", "6n_non_embedding")

PRE_ASYMPTOTIC_STEPS = 900  # ours: cells of fewer steps lay above the law in the prototype's grids
EMBEDDING_SHARE = 0.5
HELD_OUT_ROLE = "held_out"

CSV_COLUMNS = {  # ours -> accepted spellings
    "n_params": ("N", "n_params"),
    "n_tokens": ("D", "n_tokens"),
    "train_flops": ("C", "train_flops"),
    "loss_nats": ("L", "loss_nats"),
}


@dataclass(frozen=True)
class Points:
    """Rows to fit, one a run (or a row of a CSV); every array is float64 of shape (n_rows,).

    `n_params` and `train_flops` are in `n_convention` and `c_convention`; `loss_se` and `budget`
    (nominal FLOPs of the isoFLOP group) are NaN where unknown; rows of one `cluster` are resampled
    together; `flags` are "name: detail" sentences of quality control, known before any fit;
    `rejected` lists (label, reason) of what is not in the arrays.
    """

    n_params: np.ndarray
    n_tokens: np.ndarray
    train_flops: np.ndarray
    loss_nats: np.ndarray
    loss_se: np.ndarray
    budget: np.ndarray
    run_id: tuple[str, ...]
    cluster: np.ndarray
    flags: tuple[tuple[str, ...], ...]
    n_convention: NConvention
    c_convention: CConvention
    rejected: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.loss_nats)

    @property
    def table_hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the sorted (N, D, C, loss) rows and conventions."""
        table = np.stack([self.n_params, self.n_tokens, self.train_flops, self.loss_nats], -1)
        rows = table[np.lexsort(table.T)] if len(table) else table
        digest = hashlib.sha256(f"{self.n_convention} {self.c_convention}".encode())
        digest.update(np.ascontiguousarray(rows, np.float64).tobytes())
        return digest.hexdigest()[:16]

    @property
    def variables(self) -> dict[str, np.ndarray]:
        """N, D and C as the arguments of analysis.laws.predict."""
        return {
            "n_params": self.n_params,
            "n_tokens": self.n_tokens,
            "train_flops": self.train_flops,
        }

    def columns(self, variables: Sequence[Variable]) -> np.ndarray:
        """The named variables side by side, shape (n_rows, n_variables)."""
        by_letter = {"N": self.n_params, "D": self.n_tokens, "C": self.train_flops}
        return np.stack([by_letter[v] for v in variables], -1)


@dataclass(frozen=True)
class Sweep:
    """A compacted sweep: one row a run, one row a logged curve point, the frozen plan."""

    runs: "pd.DataFrame"
    curves: "pd.DataFrame"
    meta: dict[str, Any]


def load_sweep(sweep_dir: Path | str) -> Sweep:
    """Read runs.parquet, curves.parquet and, where there is one, plan.json of a sweep.

    Raises: ValueError: a table is not there (the sweep has not been run or compacted).
    """
    import pandas as pd

    folder = Path(sweep_dir)
    tables = []
    for name in ("runs.parquet", "curves.parquet"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} does not exist; run the sweep first")
        tables.append(pd.read_parquet(folder / name))
    plan = folder / "plan.json"
    return Sweep(*tables, meta=json.loads(plan.read_text()) if plan.is_file() else {})


def points_from_runs(
    runs: "pd.DataFrame",
    n_convention: NConvention = "total",
    c_convention: CConvention = "matmul_full",
) -> Points:
    """Points of a table of runs (train.records), flagged; held-out and diverged ones rejected.

    Raises: ValueError: an unknown convention, or columns missing.
    """
    if n_convention not in RUN_N_CONVENTIONS:
        raise ValueError(f"n_convention={n_convention!r}; use one of {RUN_N_CONVENTIONS}")
    if c_convention not in RUN_C_CONVENTIONS:
        raise ValueError(f"c_convention={c_convention!r}; use one of {RUN_C_CONVENTIONS}")
    names = {
        "n_params": f"n_params_{n_convention}",
        "n_tokens": "n_tokens",
        "train_flops": f"train_flops_{c_convention}",
        "loss_nats": "loss_nats",
        "loss_se": "loss_se_document",
        "budget": "isoflop_budget",
    }
    needed = {*names.values(), "run_id", "status", "role", "n_steps", "diverged_step", "n_epochs"}
    needed |= {"n_params_total", "n_params_non_embedding"}
    if absent := sorted(needed - set(runs.columns)):
        raise ValueError(f"table of runs lacks columns {absent}; it has {sorted(runs.columns)}")
    arrays = {ours: runs[name].to_numpy(np.float64) for ours, name in names.items()}
    rows = runs.to_dict("records")
    reasons = [_reason_against_run(row) for row in rows]
    run_ids = tuple(str(row["run_id"]) for row in rows)
    points = Points(
        n_params=arrays["n_params"],
        n_tokens=arrays["n_tokens"],
        train_flops=arrays["train_flops"],
        loss_nats=arrays["loss_nats"],
        loss_se=arrays["loss_se"],
        budget=arrays["budget"],
        run_id=run_ids,
        cluster=_codes(run_ids),
        flags=tuple(_flags_of_run(row) for row in rows),
        n_convention=n_convention,
        c_convention=c_convention,
    )
    return select(points, reasons)


def points_from_csv(path: Path | str) -> Points:
    """Points of any CSV with N, D, L, or C, N, L (then D = C/6N), or our own column names.

    Columns accepted: N or n_params, D or n_tokens, C or train_flops, L or loss_nats; optional
    run_id (label) and cluster (rows resampled together; default every row on its own). Without C,
    C = 6ND. Rows with a value missing, not a number, not finite or not positive are rejected with
    the row number (the first row after the header is row 1).

    Raises: ValueError: unreadable file, or columns missing.
    """
    header, rows = _read_csv(Path(path))
    used = {
        ours: next((name for name in spellings if name in header), None)
        for ours, spellings in CSV_COLUMNS.items()
    }
    absent = [ours for ours in ("n_params", "loss_nats") if used[ours] is None]
    if used["n_tokens"] is None and used["train_flops"] is None:
        absent.append("n_tokens or train_flops")
    if absent:
        raise ValueError(
            f"{path} lacks {', '.join(absent)}; columns present: {', '.join(header) or 'none'}; "
            "needed: N, L and one of D, C (or n_params, loss_nats, n_tokens, train_flops)"
        )
    present = {ours: name for ours, name in used.items() if name is not None}
    values = {ours: np.full(len(rows), np.nan) for ours in CSV_COLUMNS}
    reasons: list[str | None] = []
    for index, row in enumerate(rows):
        parsed = {ours: _positive(row.get(name)) for ours, name in present.items()}
        faults = [f"{present[k]}={row.get(present[k])!r}" for k, v in parsed.items() if v is None]
        reasons.append(f"not a positive finite number: {', '.join(faults)}" if faults else None)
        for ours, value in parsed.items():
            values[ours][index] = np.nan if value is None else value
    if used["n_tokens"] is None:
        values["n_tokens"] = values["train_flops"] / (6 * values["n_params"])
    if used["train_flops"] is None:
        values["train_flops"] = 6 * values["n_params"] * values["n_tokens"]
    labels = tuple(f"row {i + 1}" + _label(row) for i, row in enumerate(rows))
    unknown = np.full(len(rows), np.nan)
    clusters = tuple(row["cluster"] for row in rows) if "cluster" in header else labels
    points = Points(
        n_params=values["n_params"],
        n_tokens=values["n_tokens"],
        train_flops=values["train_flops"],
        loss_nats=values["loss_nats"],
        loss_se=unknown,
        budget=unknown,
        run_id=labels,
        cluster=_codes(clusters),
        flags=((),) * len(rows),
        n_convention="as_given",
        c_convention="6nd" if used["train_flops"] is None else "as_given",
    )
    return select(points, reasons)


def select(points: Points, reasons: Sequence[str | None]) -> Points:
    """The rows whose reason is None; the others join `rejected` under their run_id.

    Raises: ValueError: not one reason a row.
    """
    if len(reasons) != len(points):
        raise ValueError(f"{len(reasons)} reasons for {len(points)} rows; give one a row")
    keep = np.array([reason is None for reason in reasons], bool)
    arrays = ("n_params", "n_tokens", "train_flops", "loss_nats", "loss_se", "budget", "cluster")
    rejected = tuple((points.run_id[i], r) for i, r in enumerate(reasons) if r is not None)
    return replace(
        points,
        **{name: getattr(points, name)[keep] for name in arrays},
        run_id=tuple(r for r, k in zip(points.run_id, keep, strict=True) if k),
        flags=tuple(f for f, k in zip(points.flags, keep, strict=True) if k),
        rejected=points.rejected + rejected,
    )


def drop_flagged(points: Points, *names: str) -> Points:
    """Points without the rows that carry a flag of one of these names; the flag is the reason."""
    return select(points, [_first_flag(flags, names) for flags in points.flags])


def _first_flag(flags: Sequence[str], names: Sequence[str]) -> str | None:
    return next((flag for flag in flags if flag.split(":")[0] in names), None)


def _reason_against_run(row: dict) -> str | None:
    if row["role"] == HELD_OUT_ROLE:
        return "held out: scored against the prediction, never fitted"
    if row["status"] == "diverged":
        step = row["diverged_step"]
        return "diverged" if _positive(step) is None else f"diverged: at step {int(step)}"
    if row["status"] != "finished":
        return f"not finished: status {row['status']!r}"
    if _positive(row["loss_nats"]) is None:
        return f"not a positive finite number: loss_nats={row['loss_nats']}"
    return None


def _flags_of_run(row: dict) -> tuple[str, ...]:
    flags = []
    if row["n_steps"] < PRE_ASYMPTOTIC_STEPS:
        flags.append(f"pre_asymptotic: {int(row['n_steps'])} steps < {PRE_ASYMPTOTIC_STEPS}")
    share = 1 - row["n_params_non_embedding"] / row["n_params_total"]
    if share > EMBEDDING_SHARE:
        flags.append(f"embedding_dominated: embeddings are {share:.0%} of N_total")
    if row["n_epochs"] > 1:
        flags.append(f"repeated_data: {row['n_epochs']:.2f} epochs")
    return tuple(flags)


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            return header, list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {path} as a UTF-8 CSV file: {error}") from error


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < np.inf else None


def _label(row: dict[str, str]) -> str:
    return f" ({row['run_id']})" if row.get("run_id") else ""


def _codes(labels: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(labels, str), return_inverse=True)[1].astype(np.int64)
