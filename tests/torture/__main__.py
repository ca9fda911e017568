"""Torture of sweeps: `make torture`, or PYTHONPATH=.:tests python -m torture [SCENARIO ...].

Prints a row a scenario; exit code 1 if anything was not as it must be. Everything random comes from
--seed, but for the machine's own timing.
"""

import argparse
import functools
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture import corruption, disks, interrupts, judge, leases, pauses, pulls
from torture.kills import Blows, fight
from torture.launching import finish
from torture.tally import Tally, markdown

TWO = ("--workers", "1")
WARM = ("checkpoint", "branch point", "attempt", "commit", "table", "sweep")


@dataclass(frozen=True)
class Scenario:
    """One row: what it says, how to do it once, how many times by default, whether it can be done.

    `attack`: takes a tally, an output folder, that of the undisturbed sweep, its results, a source
    of random numbers, and the launcher's arguments.
    """

    title: str
    attack: Callable[..., None]
    n_trials: int = 3
    is_possible: Callable[[], bool] = lambda: True


def _kills(blows: Blows, *more: str, is_cold: bool = False) -> Callable[..., None]:
    def attack(tally, out, base, wanted, rng, *arguments):
        fight(tally, out, base, wanted, blows, rng, *arguments, *more, is_cold=is_cold)

    return attack


def _leases(tally, out, base, wanted, rng, *arguments):
    leases.crowd(tally, out, rng, n_runs=150, n_kills=150)


SCENARIOS = {
    "leases": Scenario("4 processes on one store, no training: kill -9, pauses", _leases, 8),
    "pullers": Scenario(
        "2 pullers on one sweep: kill -9 at random and inside file operations",
        functools.partial(pulls.fight, n_kills=40),
    ),
    "workers": Scenario("kill -9 of a worker", _kills(Blows(("worker",), 12, 6.0))),
    "launchers": Scenario("kill -9 of the launcher", _kills(Blows(("launcher",), 12))),
    "both": Scenario("kill -9 of launcher and workers", _kills(Blows(("both",), 30, 15.0))),
    "aimed": Scenario(
        "kill -9 inside a file operation",
        _kills(Blows(("aimed",), 14, aims=WARM)),
    ),
    "cold": Scenario(
        "the same, corpus and compile cache anew",
        _kills(Blows(("aimed",), 12), is_cold=True),
        2,
    ),
    "two": Scenario(
        "two launchers, kill -9 of either",
        _kills(Blows(("worker", "launcher", "both"), 20, n_launchers=2), *TWO),
    ),
    "paused": Scenario("a worker sleeps beyond the patience", pauses.pause, 2),
    "clocks": Scenario("two launchers, clocks years apart", pauses.skew, 1, pauses.can_skew),
    "ctrl-c": Scenario("Ctrl-C", functools.partial(interrupts.interrupt, n_times=1)),
    "ctrl-c-twice": Scenario("Ctrl-C twice", functools.partial(interrupts.interrupt, n_times=2)),
    "full": Scenario("disk full, then not", disks.fill, 4, disks.can_mount),
    "read-only": Scenario("disk read-only, then not", disks.protect, 2, disks.can_mount),
    "forbidden": Scenario("no permission, then again", disks.forbid, 3),
    "corrupt": Scenario("one file damaged", corruption.damage_all, 1),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenarios", nargs="*", help=f"of {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--trials", type=int, help="of each; default: as each scenario says")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", default="small", help="tiny or small, of torture/sweep.py")
    parser.add_argument("--folder", type=Path, help="where to work; kept (default: temporary)")
    flags = parser.parse_args()
    if unknown := sorted(set(flags.scenarios) - set(SCENARIOS)):
        parser.error(f"no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    # A shell has its background jobs ignore Ctrl-C, and launchers would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary:
        folder = flags.folder or Path(temporary)
        names = flags.scenarios or [*SCENARIOS]
        tallies = torture(folder, names, flags.trials, flags.seed, "--scale", flags.scale)
    print(markdown(tallies))
    faults = [f"{tally.scenario}: {fault}" for tally in tallies for fault in tally.faults]
    print("\n".join(faults) or "nothing was repeated, lost, unequal, torn or left over")
    return bool(faults)


def torture(
    folder: Path, names: list[str], n_trials: int | None, seed: int, *arguments: str
) -> list[Tally]:
    """Scenarios by name, each on fresh sweeps, held against one that nobody disturbs."""
    base, wanted = folder / "undisturbed", undisturbed(folder / "undisturbed", *arguments)
    tallies = []
    for name in names:
        scenario = SCENARIOS[name]
        if not scenario.is_possible():
            print(f"{name}: left out, this machine or user cannot", flush=True)
            continue
        tally = Tally(scenario.title)
        tallies.append(tally)
        for trial in range(n_trials or scenario.n_trials):
            rng, started = random.Random(f"{seed} {name} {trial}"), time.monotonic()
            try:
                scenario.attack(tally, folder / f"{name}-{trial}", base, wanted, rng, *arguments)
            except Exception as error:  # the other scenarios are still worth their time
                tally.faults.append(f"{name}-{trial}: the trial broke off: {error!r}")
            seconds = time.monotonic() - started
            print(f"{name} {trial + 1}: {seconds:.0f} s, {tally.row}", flush=True)
        print("\n".join(f"  {said}" for said in [*tally.faults, *tally.messages]), flush=True)
    return tallies


def undisturbed(out: Path, *arguments: str) -> dict[str, Any]:
    """The results of a sweep that nobody disturbs."""
    started = time.monotonic()
    launch = finish(out, *arguments)
    if launch.code != 0:
        raise SystemExit(launch.told)
    wanted = judge.results(out)
    print(f"undisturbed: {time.monotonic() - started:.0f} s, {len(wanted)} results", flush=True)
    return wanted


if __name__ == "__main__":
    sys.exit(main())
