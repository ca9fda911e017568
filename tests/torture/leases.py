"""Leases and records alone, under kills and pauses by the hundred: who holds, who commits."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from torture import judge
from torture.holder import N_STEPS, loss_at, run_ids
from torture.launching import HERE, ROOT
from torture.tally import Tally

PATIENCE_S = 0.3
"""Fifteen beats of a holder; a pause is longer."""

AIMS = {"*attempt-*": 60, "*/run.json*": 8, "*/checkpoint/*": 20, "*/ended": 2, "*/heartbeat": 20}
"""Patterns of paths, and among how many operations on them a process is killed."""


@dataclass
class _Crowd:
    """Several holders at work on one store."""

    store: Path
    n_runs: int
    rng: random.Random
    holders: list[subprocess.Popen[bytes]] = field(default_factory=list)
    n_started: int = 0

    @property
    def aims(self) -> Path:
        return self.store.with_name(f"{self.store.name}.aims")

    def start(self, is_aimed: bool) -> None:
        """One more holder; an aimed one is killed in the middle of a file operation."""
        self.n_started += 1
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if is_aimed:
            folder = self.aims / str(self.n_started)
            folder.mkdir(parents=True)
            pattern = self.rng.choice(list(AIMS))
            nth = self.rng.randint(1, AIMS[pattern])
            aim = {"pattern": pattern, "nth": nth, "delay_s": 0.0}
            (folder / "aim.json").write_text(json.dumps(aim))
            environment["TORTURE_AIMS"] = str(folder)
            environment["PYTHONPATH"] += os.pathsep + str(HERE / "aim")
        command = [sys.executable, str(HERE / "holder.py"), str(self.store), str(self.n_runs)]
        process = subprocess.Popen(
            [*command, str(PATIENCE_S)], env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.holders.append(process)

    def reap(self, tally: Tally) -> int:
        """Take out holders that are gone; how many of them were killed."""
        gone = [holder for holder in self.holders if holder.poll() is not None]
        self.holders = [holder for holder in self.holders if holder not in gone]
        for holder in gone:
            _, complaint = holder.communicate()
            if holder.returncode not in (0, -signal.SIGKILL):
                tally.faults.append(f"a holder ended: {complaint.decode()[-500:]}")
        return sum(holder.returncode == -signal.SIGKILL for holder in gone)

    def end(self) -> None:
        """Leave none running."""
        for holder in self.holders:
            holder.send_signal(signal.SIGCONT)
            holder.kill()
            holder.communicate()


def crowd(
    tally: Tally, store: Path, rng: random.Random, *, n_runs: int, n_kills: int, n_holders: int = 4
) -> None:
    """One store from nothing to its last commit, with kills and pauses until there were enough."""
    store.mkdir(parents=True)
    group, commits, killed = _Crowd(store, n_runs, rng), judge.Commits(store), 0
    deadline = time.monotonic() + 60 + n_runs + n_kills
    try:
        while len(commits.seen) < n_runs or group.holders:
            killed += group.reap(tally)
            is_more = killed < n_kills and len(commits.seen) < n_runs
            while len(group.holders) < n_holders and len(commits.seen) < n_runs:
                group.start(is_aimed=is_more and rng.random() < 0.5)
            time.sleep(rng.uniform(0, 0.05))
            if is_more and group.holders:
                _strike(rng.choice(group.holders), rng)
            commits.look()
            if time.monotonic() > deadline or len(tally.faults) > 10:
                tally.faults.append(
                    f"{store.name}: {n_runs - len(commits.seen)} runs not committed"
                )
                break
    finally:
        group.end()
    tally.kills += killed
    _judge(tally, store, commits, n_runs)


def _strike(holder: subprocess.Popen[bytes], rng: random.Random) -> None:
    """Kill, or pause for longer than others wait."""
    with contextlib.suppress(ProcessLookupError):
        if rng.random() < 0.8:
            holder.kill()
            return
        holder.send_signal(signal.SIGSTOP)
        time.sleep(rng.uniform(1, 2) * PATIENCE_S)
        holder.send_signal(signal.SIGCONT)


def _judge(tally: Tally, store: Path, commits: judge.Commits, n_runs: int) -> None:
    """One commit a run, with the whole curve of the attempt that it names, and nothing else."""
    from train import records

    tally.trials += 1
    tally.wanted += n_runs
    commits.look()
    tally.repeated += len(commits.repeated)
    tally.lost += len(commits.lost())
    expected = {
        run_id: [loss_at(run_id, step) for step in range(1, N_STEPS + 1)]
        for run_id in run_ids(n_runs)
    }
    for run_id, losses in expected.items():
        row = records.read_run(store, run_id)
        if row is None:
            continue
        tally.finished += 1
        records.clean_up(store, run_id)  # as the next launcher does, where a killed one did not
        points = records.read_points(records.committed_attempt(store, row))
        of_others = [p for p in points if p["attempt"] != row["attempt"]]
        if [p["loss_nats"] for p in points] != losses or of_others:
            tally.unequal += 1
            tally.faults.append(
                f"{store.name}: {run_id} has another curve, of {len(points)} points"
            )
    torn, left = judge.torn(store), judge.leftovers(store)
    tally.torn += len(torn)
    tally.leftovers += len(left)
    tally.faults += [f"{store.name}: torn: {name}" for name in torn]
    tally.faults += [f"{store.name}: left over: {name}" for name in left]
