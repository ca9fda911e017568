"""Two processes of train.pull at work on one sweep, as tasks of a cluster are, under kill -9."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from torture.judge import Commits
from torture.kills import AIMS
from torture.launching import HERE, Launch, finish, held_runs, inherited, is_running, n_attempts
from torture.tally import Tally, given

SEEN = ("checkpoint", "branch point", "attempt", "commit")
"""What a puller writes."""


def fight(
    tally: Tally,
    out: Path,
    base: Path,
    wanted: dict[str, Any],
    rng: random.Random,
    *arguments: str,
    n_kills: int,
    timeout_s: float = 900.0,
) -> None:
    """Kills at random moments and inside file operations; then a launcher does what is left."""
    given(out, base)
    scale = arguments[arguments.index("--scale") + 1]
    commits, deadline = Commits(out / "runs"), time.monotonic() + timeout_s
    command = [sys.executable, str(HERE / "zygote.py"), str(out), scale]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=inherited()
    ) as zygote:
        crowd = _Pullers(out, zygote, rng, n_kills)
        try:
            while len(commits.seen) < crowd.n_jobs and time.monotonic() < deadline:
                crowd.fill()
                time.sleep(rng.uniform(0, 0.4))
                crowd.strike()
                commits.look()
                crowd.look_for_recoveries(tally)
        finally:
            crowd.end()
    tally.kills += crowd.n_killed
    complaints = out.with_name(f"{out.name}.complaints")
    if complaints.exists():
        tally.faults.append(f"{complaints}: {complaints.read_text()[-300:]!r}")
    last: Launch = finish(out, *arguments)
    if last.code != 0:
        tally.faults.append(f"{last.log}: code {last.code}: {last.told[-300:]!r}")
    tally.judge(out, wanted, commits, *arguments)


class _Pullers:
    """Two pullers at a time, and what was done to them."""

    def __init__(self, out: Path, zygote: subprocess.Popen[str], rng: random.Random, n_kills: int):
        assert zygote.stdin and zygote.stdout
        self._out, self._rng, self._n_kills = out, rng, n_kills
        self._asks, self._answers = zygote.stdin, zygote.stdout
        self._pids: set[int] = set()
        self._n_started = self._n_struck = 0
        self._waiting: list[tuple[float, str, int]] = []
        self.n_jobs = int(self._answers.readline())

    @property
    def n_killed(self) -> int:
        """By the harness, and by aims that were hit."""
        hits = self._out.parent.glob(f"{self._out.name}.aims/*/*.spent")
        return self._n_struck + len(list(hits))

    def fill(self) -> None:
        """Start as many as are missing, of which one in two is aimed at."""
        self._pids = {pid for pid in self._pids if is_running(pid)}
        while len(self._pids) < 2:
            self._n_started += 1
            is_aimed = self.n_killed < self._n_kills and self._rng.random() < 0.5
            print(self._aim() if is_aimed else "-", file=self._asks, flush=True)
            self._pids.add(int(self._answers.readline()))

    def strike(self) -> None:
        """Perhaps kill one."""
        # Mostly in training: on a busy machine nearly all moments are of starting up.
        victims = sorted(self._training() if self._rng.random() < 0.9 else self._pids)
        if not victims or self._rng.random() > 0.15 or self.n_killed >= self._n_kills:
            return
        pid, runs = self._rng.choice(victims), self._out / "runs"
        held, numbers = held_runs(runs).get(pid), n_attempts(runs)
        self._n_struck += 1
        self._kill(pid)
        if held is not None and not (runs / held / "run.json").exists():
            self._waiting.append((time.monotonic(), held, numbers.get(held, 0)))

    def look_for_recoveries(self, tally: Tally) -> None:
        """Note how long it took until a run had its next attempt."""
        numbers = n_attempts(self._out / "runs") if self._waiting else {}
        for entry in list(self._waiting):
            killed_at, run_id, number = entry
            if numbers.get(run_id, 0) > number:
                tally.recoveries_s.append(time.monotonic() - killed_at)
                self._waiting.remove(entry)

    def end(self) -> None:
        """Leave none running."""
        for pid in self._pids:
            self._kill(pid)
        self._asks.close()

    def _kill(self, pid: int) -> None:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)

    def _training(self) -> set[int]:
        """Those that have logged a point of the run that they hold."""
        runs = self._out / "runs"
        held, numbers = held_runs(runs), n_attempts(runs)
        return {
            pid for pid in self._pids & set(held)
            if (runs / held[pid] / f"attempt-{numbers.get(held[pid], 0)}" / "curve.jsonl").exists()
        }  # fmt: skip

    def _aim(self) -> str:
        """A folder that says where a puller is to be killed."""
        pattern, n = AIMS[self._rng.choice(SEEN)]
        folder = self._out.parent / f"{self._out.name}.aims" / str(self._n_started)
        folder.mkdir(parents=True)
        aim = {"pattern": pattern, "nth": 1 + int(n * self._rng.random() ** 2), "delay_s": 0.0}
        (folder / "aim.json").write_text(json.dumps(aim))
        return str(folder)
