"""A worker that sleeps for longer than others wait, and wakes up; launchers with skewed clocks."""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torture.judge import Commits
from torture.launching import Launch, held_runs, n_attempts
from torture.tally import Tally, given

PATIENCE_S = 6.0
"""Three beats, where the default is 45 of them."""


def pause(
    tally: Tally, out: Path, base: Path, wanted: dict[str, Any], rng: random.Random, *arguments: str
) -> None:
    """Two launchers; a worker of one sleeps until its run has another attempt, then wakes up."""
    given(out, base)
    commits, options = Commits(out / "runs"), (*arguments, "--patience", str(PATIENCE_S))
    launches = [Launch(out, "--workers", "1", *options) for _ in range(2)]
    try:
        for _ in range(3):
            _pause_one(tally, out, launches, commits, rng)
        _until_both_end(tally, launches, commits)
    finally:
        for launch in launches:
            launch.end()
    tally.judge(out, wanted, commits, *arguments)


def skew(
    tally: Tally, out: Path, base: Path, wanted: dict[str, Any], rng: random.Random, *arguments: str
) -> None:
    """Two launchers whose clocks are years apart, one of which runs ten times too fast."""
    given(out, base)
    commits, options = Commits(out / "runs"), (*arguments, "--patience", str(PATIENCE_S))
    clocks = [f"{rng.choice('+-')}{rng.randint(1, 4000)}d", f"+{rng.randint(0, 900)}d x10"]
    launches = [
        Launch(out, "--workers", "1", *options, wrapper=("faketime", "-f", clock),
               environment={"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"})
        for clock in clocks
    ]  # fmt: skip
    try:
        _until_both_end(tally, launches, commits)
    finally:
        for launch in launches:
            launch.end()
    tally.judge(out, wanted, commits, *arguments)
    double = [name for name, n in n_attempts(out / "runs").items() if n > 1]
    tally.faults += [f"{out.name}: taken over for no reason: {name}" for name in double]


def can_skew() -> bool:
    """Whether libfaketime is installed (Debian: faketime)."""
    return shutil.which("faketime") is not None


def _pause_one(
    tally: Tally, out: Path, launches: list[Launch], commits: Commits, rng: random.Random
) -> None:
    """Stop a worker that trains, until another has its run, and let it go on."""
    time.sleep(rng.uniform(0, 4))
    while not (victims := _training(out, launches)):
        if all(launch.code is not None for launch in launches):
            return
        time.sleep(0.05)
    pid, run_id = rng.choice(sorted(victims.items()))
    with _stopped(pid):
        number, stopped_at = n_attempts(out / "runs")[run_id], time.monotonic()
        tally.kills += 1
        # The other launcher may have a long run of its own to finish before it looks aside.
        while time.monotonic() < stopped_at + 20 * PATIENCE_S:
            commits.look()
            time.sleep(0.05)
            if n_attempts(out / "runs").get(run_id, 0) > number:
                tally.recoveries_s.append(time.monotonic() - stopped_at)
                break
            if (out / "runs" / run_id / "run.json").exists():
                break
        else:
            tally.faults.append(f"{out.name}: {run_id} was not taken over from a paused worker")
        time.sleep(rng.uniform(0, 2))


def _training(out: Path, launches: list[Launch]) -> dict[int, str]:
    """Workers that hold a run, by process id."""
    workers = {pid for launch in launches if launch.code is None for pid in launch.workers()}
    held = held_runs(out / "runs")
    open_runs = {p: r for p, r in held.items() if not (out / "runs" / r / "run.json").exists()}
    return {pid: run_id for pid, run_id in open_runs.items() if pid in workers}


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """A worker of ours does not run inside the block."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _until_both_end(tally: Tally, launches: list[Launch], commits: Commits) -> None:
    deadline = time.monotonic() + 600
    while any(launch.code is None for launch in launches) and time.monotonic() < deadline:
        commits.look()
        time.sleep(0.05)
    for launch in launches:
        if launch.code != 0 or "Traceback" in launch.told:
            tally.faults.append(f"{launch.log}: code {launch.code}: {launch.told[-300:]!r}")
