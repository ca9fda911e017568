"""Two processes of train.pull at work on one sweep, as tasks of a cluster are, under kill -9."""

import json
import os
import random
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
        assert zygote.stdin and zygote.stdout
        n_jobs, pullers, killed, n_started = int(zygote.stdout.readline()), set(), 0, 0
        waiting: list[tuple[float, str, int]] = []
        while len(commits.seen) < n_jobs and time.monotonic() < deadline:
            gone = {pid for pid in pullers if not is_running(pid)}
            pullers -= gone
            n_aimed = len(list(out.parent.glob(f"{out.name}.aims/*/*.spent")))
            while len(pullers) < 2:
                n_started += 1
                aims = _aim(out, n_started, rng) if killed + n_aimed < n_kills else "-"
                print(aims, file=zygote.stdin, flush=True)
                pullers.add(int(zygote.stdout.readline()))
            time.sleep(rng.uniform(0, 0.4))
            training = _training(out, pullers)
            # Mostly in training: on a busy machine nearly all moments are of starting up.
            victims = sorted(training if rng.random() < 0.9 else pullers)
            if killed + n_aimed < n_kills and victims and rng.random() < 0.15:
                killed += 1
                _kill(rng.choice(victims), out, waiting)
            commits.look()
            _look_for_recoveries(tally, out, waiting)
        for pid in pullers:
            _kill(pid, out, [])
        zygote.stdin.close()
    tally.kills += killed + len(list(out.parent.glob(f"{out.name}.aims/*/*.spent")))
    complaints = out.with_name(f"{out.name}.complaints")
    if complaints.exists():
        tally.faults.append(f"{complaints}: {complaints.read_text()[-300:]!r}")
    last: Launch = finish(out, *arguments)
    if last.code != 0:
        tally.faults.append(f"{last.log}: code {last.code}: {last.told[-300:]!r}")
    tally.judge(out, wanted, commits, *arguments)


def _training(out: Path, pullers: set[int]) -> set[int]:
    """Those that have logged a point of the run that they hold."""
    held, numbers = held_runs(out / "runs"), n_attempts(out / "runs")
    runs = {pid: out / "runs" / held[pid] for pid in pullers if pid in held}
    return {
        pid for pid, run in runs.items()
        if (run / f"attempt-{numbers.get(run.name, 0)}" / "curve.jsonl").exists()
    }  # fmt: skip


def _aim(out: Path, number: int, rng: random.Random) -> str:
    """For one puller in two: where it is to be killed; else a dash."""
    if rng.random() < 0.5:
        return "-"
    pattern, n = AIMS[rng.choice(SEEN)]
    folder = out.parent / f"{out.name}.aims" / str(number)
    folder.mkdir(parents=True)
    aim = {"pattern": pattern, "nth": 1 + int(n * rng.random() ** 2), "delay_s": 0.0}
    (folder / "aim.json").write_text(json.dumps(aim))
    return str(folder)


def _kill(pid: int, out: Path, waiting: list[tuple[float, str, int]]) -> None:
    held, numbers = held_runs(out / "runs").get(pid), n_attempts(out / "runs")
    if is_running(pid):
        os.kill(pid, 9)
    if held is not None and not (out / "runs" / held / "run.json").exists():
        waiting.append((time.monotonic(), held, numbers[held]))


def _look_for_recoveries(tally: Tally, out: Path, waiting: list[tuple[float, str, int]]) -> None:
    numbers = n_attempts(out / "runs") if waiting else {}
    for entry in list(waiting):
        killed_at, run_id, number = entry
        if numbers.get(run_id, 0) > number:
            tally.recoveries_s.append(time.monotonic() - killed_at)
            waiting.remove(entry)
