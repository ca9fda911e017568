"""A disk that is full, read-only, or not ours to write: said in one line, mended, gone on with."""

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torture.judge import Commits
from torture.launching import Launch, finish
from torture.tally import Tally, given

FULL_KB = (450, 1400)
"""Sizes of the disk: from one that takes the corpus and the compile cache to one that takes nearly
everything."""

AS_A_USER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Root may write whatever the modes say; without these capabilities it may not."""


def can_mount() -> bool:
    """Whether this process may mount a file system, which is the superuser's right."""
    return os.geteuid() == 0 and shutil.which("mount") is not None and _mount_works()


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A file system of this size on a new folder, while the block runs."""
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(
    tally: Tally, out: Path, base: Path, wanted: dict[str, Any], rng: random.Random, *arguments: str
) -> None:
    """A sweep on a disk too small for it, which then becomes larger."""
    with small_disk(out, rng.randint(*FULL_KB)):
        given(out, base)
        launch = _until_it_stops(tally, out, *arguments)
        _must_say(tally, launch, "No space left on device")
        _mount("-o", "remount,size=64m", str(out))
        _finish(tally, out, wanted, *arguments)


def protect(
    tally: Tally, out: Path, base: Path, wanted: dict[str, Any], rng: random.Random, *arguments: str
) -> None:
    """A sweep that was killed on the way, started on a disk that can only be read."""
    with small_disk(out, 65536):
        given(out, base)
        _cut_off(out, rng, *arguments)
        _mount("-o", "remount,ro", str(out))
        launch = _until_it_stops(tally, out, *arguments)
        _must_say(tally, launch, "Read-only file system")
        _mount("-o", "remount,rw", str(out))
        _finish(tally, out, wanted, *arguments)


def forbid(
    tally: Tally, out: Path, base: Path, wanted: dict[str, Any], rng: random.Random, *arguments: str
) -> None:
    """A sweep under way when it loses the right to write into a folder."""
    wrapper = AS_A_USER if os.geteuid() == 0 else ()
    given(out, base)
    name = rng.choice(["runs", "sweeps/torture", "."])
    launch = Launch(out, *arguments, wrapper=wrapper)
    try:
        _wait(launch, out / "sweeps/torture/plan.json", rng.uniform(1, 10))
        folder = out / name
        if launch.code is None and folder.exists():
            folder.chmod(0o555)
            with contextlib.suppress(subprocess.TimeoutExpired):
                launch.process.wait(120)
            folder.chmod(0o755)
    finally:
        launch.end()
    if launch.code == 0:
        pass  # nothing was left to write there
    elif launch.code == 1:
        _must_say(tally, launch, "Permission denied")
    else:
        tally.faults.append(f"{launch.log}: code {launch.code} without permission for {name}")
    _finish(tally, out, wanted, *arguments)


def _until_it_stops(tally: Tally, out: Path, *arguments: str) -> Launch:
    launch = finish(out, *arguments, timeout_s=300)
    if launch.code not in (0, 1):
        tally.faults.append(f"{launch.log}: code {launch.code}: {launch.told[-300:]!r}")
    return launch


def _must_say(tally: Tally, launch: Launch, reason: str) -> None:
    tally.kills += launch.code == 1
    told = launch.told
    if launch.code == 1 and reason not in told:
        tally.faults.append(f"{launch.log}: does not say {reason!r}: {told[-300:]!r}")
    if "Traceback" in told:
        tally.faults.append(f"{launch.log}: traceback")
    if launch.code == 1:
        tally.messages.append(told.strip().splitlines()[-1])


def _finish(tally: Tally, out: Path, wanted: dict[str, Any], *arguments: str) -> None:
    commits, started = Commits(out / "runs"), time.monotonic()
    commits.look()
    launch = finish(out, *arguments)
    tally.recoveries_s.append(time.monotonic() - started)
    if launch.code != 0:
        tally.faults.append(f"{launch.log}: code {launch.code}: {launch.told[-300:]!r}")
    tally.judge(out, wanted, commits, *arguments)


def _cut_off(out: Path, rng: random.Random, *arguments: str) -> None:
    launch = Launch(out, *arguments)
    try:
        _wait(launch, out / "sweeps/torture/plan.json", rng.uniform(3, 15))
    finally:
        launch.end()


def _wait(launch: Launch, path: Path, more_s: float) -> None:
    while not path.exists() and launch.code is None:
        time.sleep(0.02)
    end = time.monotonic() + more_s
    while time.monotonic() < end and launch.code is None:
        time.sleep(0.02)


def _mount(*arguments: str) -> None:
    """Tried again while the disk is busy: a killed process may take a moment to close its files."""
    for _ in range(100):
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
        if done.returncode == 0:
            return
        time.sleep(0.1)
    raise OSError(done.stderr.strip())


def _mount_works() -> bool:
    """In a mount namespace of its own, which the mount ends with."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", folder]
        return subprocess.run(command, capture_output=True).returncode == 0
