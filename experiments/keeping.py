"""Records of finished sweeps, kept beside the pages that are drawn from them."""

import shutil
from pathlib import Path
from typing import Any

from experiments.workspace import SweepFolder, Workspace

MOST_POINTS = 120
"""Points kept of a training curve, even in the log of its steps."""


def kept(name: str, home: Path) -> SweepFolder:
    """Where the records of an experiment lie, laid out as a sweep's folder."""
    return SweepFolder(home / "data" / name)


def keep(name: str, scale: str, workspace: Workspace, home: Path) -> str:
    """Copy what a sweep left into the folder of results; the answer says what was done."""
    from experiments.compact import compact
    from experiments.plan import frozen_plan

    sweep = name if scale == "laptop" else f"{name}-{scale}"
    folder, to = workspace.sweep(sweep), kept(name, home)
    if not folder.plan.exists():
        return f"{name}: {folder.path} has no plan, nothing kept"
    plan = frozen_plan(folder)
    n_done, n_planned = compact(plan, workspace.runs, folder), len(plan.cells)
    if n_done < n_planned:
        return f"{name}: {n_done} of {n_planned} runs are done, nothing kept"
    shutil.rmtree(to.path, ignore_errors=True)
    to.path.mkdir(parents=True)
    for source, target in (
        (folder.plan, to.plan), (folder.runs_table, to.runs_table),
        (folder.evaluations_table, to.evaluations_table), (folder.prediction, to.prediction),
        (folder.score, to.score),
    ):  # fmt: skip
        if source.exists():
            shutil.copyfile(source, target)
    _write_thinned(folder.curves_table, to.curves_table)
    return f"{name}: kept {n_done} runs"


def _write_thinned(source: Path, target: Path) -> None:
    """Curves of at most MOST_POINTS points a run, losses averaged over the points between."""
    import numpy as np
    import pandas as pd

    curves = pd.read_parquet(source)
    parts = []
    for _, curve in curves.groupby("run_id", sort=False):
        steps = curve["step"].to_numpy(float)
        wanted = np.geomspace(max(steps[0], 1.0), steps[-1], MOST_POINTS)
        last = np.unique(np.searchsorted(steps, wanted - 0.5).clip(0, len(steps) - 1))
        weight = np.diff(steps, prepend=0.0)
        total = np.add.reduceat(weight * curve["loss_nats"].to_numpy(float), _starts(last))
        thin = curve.iloc[last].copy()
        thin["loss_nats"] = total / np.add.reduceat(weight, _starts(last))
        parts.append(thin)
    pd.concat(parts).to_parquet(target, index=False, compression="zstd")


def _starts(last: Any) -> Any:
    """First rows of the groups that end at these rows."""
    import numpy as np

    return np.concatenate([[0], last[:-1] + 1])
