"""kill -9 of workers, launchers and both: at random moments, and inside file operations."""

import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torture.judge import Commits
from torture.launching import Launch, held_runs, n_attempts
from torture.tally import Tally, given

Victim = Literal["worker", "launcher", "both", "aimed"]
AIMS = {
    "checkpoint": ("*/checkpoint*", 60),
    "branch point": ("*/branch*", 20),
    "attempt": ("*attempt-*", 60),
    "commit": ("*run.json*", 8),
    "table": ("*/sweeps/*.parquet*", 9),
    "sweep": ("*/sweeps/*", 20),
    "corpus": ("*/data/*", 12),
    "compile cache": ("*/cache/*", 6),
}
"""Paths by what they belong to, and among how many operations of a process the deadly one is."""

MAX_DEATHS = 2
"""Workers killed under one run of one launcher: at three it is taken for the run's own doing."""

TIMEOUT_S = 600.0


@dataclass
class Blows:
    """What is done to one sweep: who is killed, how often, how long at most between two blows."""

    victims: Sequence[Victim]
    n_kills: int
    gap_s: float = 9.0
    n_launchers: int = 1
    aims: Sequence[str] = tuple(AIMS)


@dataclass
class _Fight:
    """One sweep under blows."""

    out: Path
    blows: Blows
    rng: random.Random
    tally: Tally
    arguments: Sequence[str]
    commits: Commits
    launches: list[Launch] = field(default_factory=list)
    deaths: Counter[tuple[int, str]] = field(default_factory=Counter)
    waiting: list[tuple[float, str, int]] = field(default_factory=list)
    hits: set[str] = field(default_factory=set)
    n_killed: int = 0

    def run(self) -> None:
        """Blows until there were enough, launches until one is left alone to its end."""
        deadline, strike_at = time.monotonic() + TIMEOUT_S, self._next_strike()
        self.launches = [self._launch() for _ in range(self.blows.n_launchers)]
        while any(launch.code != 0 for launch in self.launches):
            time.sleep(0.02)
            self.commits.look()
            self._look_for_recoveries()
            self._count_hits()
            self._start_again()
            if time.monotonic() > strike_at and self.n_killed < self.blows.n_kills:
                self._strike()
                strike_at = self._next_strike()
            if time.monotonic() > deadline:
                self.tally.faults.append(f"{self.out.name}: not at its end after {TIMEOUT_S:.0f} s")
                return

    def _launch(self) -> Launch:
        if "aimed" not in self.blows.victims:
            return Launch(self.out, *self.arguments)
        self._aim()
        return Launch(self.out, *self.arguments, aims=self._aims)

    @property
    def _aims(self) -> Path:
        return self.out.with_name(f"{self.out.name}.aims")

    def _aim(self) -> None:
        """Lay out the next aim: whoever starts from now on has it, and whoever hits may take it."""
        pattern, n = AIMS[self.rng.choice(self.blows.aims)]
        nth = 1 + int(n * self.rng.random() ** 3)
        delay_s = self.rng.choice([0.0, 0.0, self.rng.uniform(0, 0.03)])
        self._aims.mkdir(exist_ok=True)
        aim = {"pattern": pattern, "nth": nth, "delay_s": delay_s}
        (self._aims / "aim.json").write_text(json.dumps(aim))

    def _count_hits(self) -> None:
        """Kills are the aims that were spent; a launcher must not see one run killed too often."""
        hits = {path.name for path in self._aims.glob("*.spent")} - self.hits
        self.hits |= hits
        held = held_runs(self.out / "runs") if hits else {}
        for name in hits:
            self.n_killed += 1
            self.tally.kills += 1
            pid = int(name.removesuffix(".spent").rpartition("-")[2])
            for launch in self.launches:
                if pid in held and launch.code is None:
                    self.deaths[launch.process.pid, held[pid]] += 1
        for launch in self.launches:
            if any(
                n >= MAX_DEATHS for (pid, _), n in self.deaths.items() if pid == launch.process.pid
            ):
                launch.kill(launch.process.pid)
        if hits and self.n_killed < self.blows.n_kills:
            self._aim()

    def _start_again(self) -> None:
        """Launchers that were killed come again."""
        for i, launch in enumerate(self.launches):
            if launch.code in (None, 0):
                continue
            if launch.code != -9 or "Traceback" in launch.told:
                tail = launch.told.strip().splitlines()[-3:]
                self.tally.faults.append(f"{launch.log}: code {launch.code}: {' / '.join(tail)}")
                if launch.code != -9:
                    raise RuntimeError(self.tally.faults[-1])
            self.launches[i] = self._launch()

    def _strike(self) -> None:
        kinds = [kind for kind in self.blows.victims if kind != "aimed"]
        running = [launch for launch in self.launches if launch.code is None]
        if not kinds or not running:
            return
        launch, kind = self.rng.choice(running), self.rng.choice(kinds)
        held, workers = held_runs(self.out / "runs"), launch.workers()
        if kind == "worker":
            workers = [
                pid for pid in workers
                if pid in held and self.deaths[launch.process.pid, held[pid]] < MAX_DEATHS
            ]  # fmt: skip
            victims = [self.rng.choice(workers)] if workers else []
        else:
            victims = [launch.process.pid, *(workers if kind == "both" else [])]
        before, now = n_attempts(self.out / "runs"), time.monotonic()
        launch.kill(*victims)
        self.n_killed += len(victims)
        self.tally.kills += len(victims)
        for pid in workers if kind != "worker" else victims:
            if run_id := held.get(pid):
                self.deaths[launch.process.pid, run_id] += kind == "worker"
                self.waiting.append((now, run_id, before[run_id]))

    def _look_for_recoveries(self) -> None:
        runs, numbers = self.out / "runs", n_attempts(self.out / "runs") if self.waiting else {}
        for entry in list(self.waiting):
            killed_at, run_id, number = entry
            if numbers.get(run_id, 0) > number or (runs / run_id / "run.json").exists():
                self.tally.recoveries_s.append(time.monotonic() - killed_at)
                self.waiting.remove(entry)

    def _next_strike(self) -> float:
        return time.monotonic() + self.rng.uniform(0, self.blows.gap_s)


def fight(
    tally: Tally,
    out: Path,
    base: Path,
    wanted: dict[str, Any],
    blows: Blows,
    rng: random.Random,
    *arguments: str,
    is_cold: bool = False,
) -> None:
    """One sweep from nothing to its end under blows, judged against the undisturbed one.

    Args:
        base: an output folder whose corpus and compile cache are taken over unless `is_cold`.

    Raises: RuntimeError: a launcher ended by itself.
    """
    out.mkdir(parents=True)
    if not is_cold:
        given(out, base)
    fighting = _Fight(out, blows, rng, tally, arguments, Commits(out / "runs"))
    try:
        fighting.run()
    finally:
        for launch in fighting.launches:
            launch.end()
    tally.judge(out, wanted, fighting.commits, *arguments)
