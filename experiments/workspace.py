"""Where things lie on disk.

Any number of launchers may work on one sweep: what they write is written once, or replaced whole by
equal content.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.config import SpecError
from train.records import write_atomically, write_once


@dataclass(frozen=True)
class Workspace:
    """The output folder: corpora and runs are shared by all sweeps, the rest is per sweep."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def ideas(self) -> Path:
        return self.root / "ideas"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def sweeps(self) -> Path:
        return self.root / "sweeps"

    def sweep(self, name: str) -> "SweepFolder":
        """The folder of one sweep."""
        return SweepFolder(self.sweeps / name)

    def sweep_names(self) -> list[str]:
        """Sweeps that have a plan."""
        return sorted(path.parent.name for path in self.sweeps.glob("*/plan.json"))


@dataclass(frozen=True)
class SweepFolder:
    """Files of one sweep. `plan` and `prediction` are written once and never changed."""

    path: Path

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def runs_table(self) -> Path:
        return self.path / "runs.parquet"

    @property
    def curves_table(self) -> Path:
        return self.path / "curves.parquet"

    @property
    def evaluations_table(self) -> Path:
        return self.path / "evaluations.parquet"

    @property
    def fits(self) -> Path:
        return self.path / "fits.json"

    @property
    def prediction(self) -> Path:
        return self.path / "prediction.json"

    @property
    def score(self) -> Path:
        return self.path / "score.json"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def report(self) -> Path:
        return self.path / "report.html"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of ours.

    Raises: SpecError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} cannot be read ({error}); run the experiment first") from error


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Replace a JSON file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def write_json_once(path: Path, values: dict[str, Any]) -> bool:
    """Create a JSON file; False, and nothing changed, if it is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_once(path, json.dumps(values, indent=1, allow_nan=False) + "\n")
