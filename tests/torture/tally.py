"""What a scenario came to: one row of the table, and the sentences behind a bad one."""

import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture import judge
from torture.launching import finish
from torture.sweep import N_RUNS


@dataclass
class Tally:
    """Counts over the trials of a scenario; `faults` says what was not as it must be.

    `messages`: what launchers said to what was done to them.
    """

    scenario: str
    trials: int = 0
    kills: int = 0
    wanted: int = 0
    finished: int = 0
    repeated: int = 0
    lost: int = 0
    unequal: int = 0
    torn: int = 0
    leftovers: int = 0
    recoveries_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def judge(
        self, out: Path, wanted: dict[str, Any], commits: judge.Commits, *arguments: str
    ) -> None:
        """Count the end of a trial, which must equal an undisturbed sweep.

        Temporary files that a killed launcher left are removed by one that finds them old.
        """
        commits.look()
        if judge.age(out):
            finish(out, *arguments)
            commits.look()
        self.trials += 1
        self.wanted += N_RUNS
        found = judge.results(out)
        different, torn, left = judge.unequal(found, wanted), judge.torn(out), judge.leftovers(out)
        lost = commits.lost()
        self.finished += sum(name.endswith(" record") for name in found)
        self.repeated += len(commits.repeated)
        self.lost += len(lost)
        self.unequal += len(different)
        self.torn += len(torn)
        self.leftovers += len(left)
        for what, names in (
            ("unequal", different), ("torn", torn), ("left over", left), ("lost", sorted(lost)),
            ("repeated", sorted(commits.repeated)),
        ):  # fmt: skip
            self.faults += [f"{out.name}: {what}: {name}" for name in names]

    @property
    def row(self) -> dict[str, Any]:
        """The scenario's row of the table."""
        middle = statistics.median(self.recoveries_s) if self.recoveries_s else None
        return {
            "scenario": self.scenario,
            "trials": self.trials,
            "kills": self.kills,
            "runs finished": f"{self.finished} of {self.wanted}",
            "repeated": self.repeated,
            "lost": self.lost,
            "bits equal": "yes" if not self.unequal else f"no ({self.unequal})",
            "torn": self.torn,
            "left over": self.leftovers,
            "recovery, s": "-" if middle is None else f"{middle:.1f}",
        }


def given(out: Path, base: Path) -> Path:
    """A new output folder with another's corpus and compile cache."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("data", "cache"):
        shutil.copytree(base / name, out / name)
    return out


def markdown(tallies: Sequence[Tally]) -> str:
    """The table, one row a scenario."""
    rows = [tally.row for tally in tallies]
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[n]) for n in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
