"""What must hold of an output folder after all that was done to it: equal results, whole files."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture.sweep import NAME

PROVENANCE = {
    "attempt", "seconds", "seconds_compile", "resumed_from_step", "git_commit",
    "parent_run_id", "parent_step", "train_flops_charged",
}  # fmt: skip
"""Columns of a record that say how it came about. A trunk's state is a saving, not a result."""

RESULTS = ("plan.json", "fits.json", "prediction.json", "score.json")


def results(out: Path) -> dict[str, Any]:
    """Everything that an undisturbed sweep must have equal, by name: bits of weights as digests."""
    found: dict[str, Any] = {}
    for path in sorted((out / "runs").glob("*/run.json")):
        row = json.loads(path.read_text())
        attempt = path.parent / f"attempt-{row['attempt']}"
        name = path.parent.name
        found[f"{name} record"] = {k: v for k, v in row.items() if k not in PROVENANCE}
        found[f"{name} weights"] = _digest(attempt / "weights.safetensors")
        for kind in ("curve", "evaluations"):
            lines = (attempt / f"{kind}.jsonl").read_text().splitlines()
            found[f"{name} {kind}"] = [{**json.loads(line), "attempt": None} for line in lines]
    for name in RESULTS:
        path = out / "sweeps" / NAME / name
        found[name] = json.loads(path.read_text()) if path.exists() else None
    found["plan.json"] = found["plan.json"] and _identity(found["plan.json"])
    found |= {name: _table(out / "sweeps" / NAME / name) for name in ("runs", "curves")}
    return found


def unequal(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Names of results that differ, or that one of the two lacks."""
    return sorted(
        name for name in {**found, **wanted} if found.get(name, ...) != wanted.get(name, ...)
    )


def torn(out: Path) -> list[str]:
    """Files that do not load as what their names say."""
    return sorted(
        f"{path.relative_to(out)}: {fault}"
        for path in out.rglob("*")
        if path.is_file() and not path.name.startswith(".") and (fault := _fault(path))
    )


def leftovers(out: Path) -> list[str]:
    """Temporary files, and whatever else a finished sweep (or a store alone) has no use for."""
    found = []
    for path in out.rglob("*"):
        is_temporary = path.name.startswith(".") or ".orbax-checkpoint-tmp" in path.name
        if is_temporary or path.name in ("checkpoint", "branch", "halt.json"):
            found.append(path)
        if path.name == "run.json" and not path.parent.name.startswith("attempt-"):
            kept = f"attempt-{json.loads(path.read_text())['attempt']}"
            found += [p for p in path.parent.glob("attempt-*") if p.name != kept]
    return sorted(str(path.relative_to(out)) for path in found)


def age(out: Path) -> bool:
    """Make temporary files of the sweep's folder two hours old; False if there are none."""
    found = [p for p in (out / "sweeps").rglob(".*") if p.is_file()]
    for path in found:
        written = path.stat().st_mtime - 7200
        os.utime(path, (written, written))
    return bool(found)


@dataclass
class Commits:
    """Watches records appear; one that changes or goes, or a run tried again after, is a fault."""

    runs: Path
    seen: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    repeated: set[str] = field(default_factory=set)

    def look(self) -> None:
        """Take in what is new and hold the rest against what was seen."""
        for path in self.runs.glob("*/run.json"):
            now = self._state(path)
            before = self.seen.setdefault(path.parent.name, now)
            if now != before:
                self.repeated.add(path.parent.name)

    def lost(self) -> set[str]:
        """Runs that had a record and have none."""
        return {name for name in self.seen if not (self.runs / name / "run.json").exists()}

    @staticmethod
    def _state(path: Path) -> tuple[int, int, str]:
        status = path.stat()
        return status.st_ino, status.st_mtime_ns, _digest(path)


def _identity(plan: dict[str, Any]) -> Any:
    """What of a plan's file is no label: experiment, hash, and what each cell is."""
    cells = [{k: v for k, v in cell.items() if k != "run_id"} for cell in plan["cells"]]
    return plan["experiment"], plan["hash"], cells


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _table(path: Path) -> list[dict[str, Any]] | None:
    import pandas as pd

    path = path.with_suffix(".parquet")
    if not path.exists():
        return None
    table = pd.read_parquet(path)
    kept = table.drop(columns=[name for name in table if name in PROVENANCE])
    return json.loads(kept.to_json(orient="records", double_precision=15) or "null")


def _fault(path: Path) -> str | None:
    try:
        match path.suffix:
            case ".json":
                json.loads(path.read_text())
            case ".jsonl":
                text = path.read_text()
                assert not text or text.endswith("\n"), "no line end"
                [json.loads(line) for line in text.splitlines()]
            case ".parquet":
                import pandas as pd

                pd.read_parquet(path)
            case ".safetensors":
                from safetensors.numpy import load_file

                load_file(path)
    except Exception as error:
        return repr(error)[:200]
    return None
