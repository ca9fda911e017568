"""Ctrl-C typed at a terminal, once and twice, at random moments of a sweep."""

import contextlib
import os
import pty
import random
import re
import termios
import threading
import time
from pathlib import Path
from typing import Any

from torture.judge import Commits
from torture.launching import Launch, finish
from torture.tally import Tally, given

STOP_WITHIN_S = 60.0
"""After the first Ctrl-C: a dispatch, checkpoints and an evaluation on a busy machine."""

SECOND_WITHIN_S = 15.0


class Terminal:
    """A pseudo-terminal that a launcher is in the foreground of; what it shows is kept as text."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        self._shown: list[bytes] = []
        self.before = termios.tcgetattr(self.slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def press_ctrl_c(self) -> None:
        """What the keyboard sends; the kernel makes SIGINT for the foreground group of it."""
        os.write(self._master, b"\x03")

    def faults(self) -> list[str]:
        """What of the terminal is not as it was: its modes, a hidden cursor, colours left on."""
        found = []
        if termios.tcgetattr(self.slave) != self.before:
            found.append("terminal modes changed")
        switches = re.findall(r"\x1b\[\?25[lh]", self.shown)
        if switches and switches[-1] == "\x1b[?25l":
            found.append("cursor left hidden")
        if "Traceback" in self.shown:
            found.append("traceback: " + " / ".join(self.shown.splitlines()[-6:]))
        return found

    @property
    def shown(self) -> str:
        return b"".join(self._shown).decode(errors="replace")

    def close(self) -> None:
        os.close(self.slave)
        self._reader.join(2)
        os.close(self._master)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 65536):
                self._shown.append(data)


def interrupt(
    tally: Tally,
    out: Path,
    base: Path,
    wanted: dict[str, Any],
    rng: random.Random,
    *arguments: str,
    n_times: int,
    n_rounds: int = 3,
) -> None:
    """Start, press Ctrl-C `n_times` at a random moment, look; so `n_rounds` times, then finish."""
    given(out, base)
    commits = Commits(out / "runs")
    for _ in range(n_rounds):
        terminal = Terminal()
        launch = Launch(out, *arguments, terminal=terminal.slave)
        try:
            _wait_for_plan(launch)
            time.sleep(rng.uniform(0, 15))
            if launch.code is not None:
                continue  # at its end before the moment came
            _press(tally, launch, terminal, rng, n_times)
            commits.look()
        finally:
            launch.end()
            terminal.close()
    last = finish(out, *arguments)
    if last.code != 0:
        tally.faults.append(f"{last.log}: code {last.code}")
    tally.judge(out, wanted, commits, *arguments)


def _press(
    tally: Tally, launch: Launch, terminal: Terminal, rng: random.Random, n_times: int
) -> None:
    tally.kills += n_times
    terminal.press_ctrl_c()
    if n_times == 2:
        time.sleep(rng.uniform(0.05, 1.5))
        terminal.press_ctrl_c()
    pressed, limit_s = time.monotonic(), STOP_WITHIN_S if n_times == 1 else SECOND_WITHIN_S
    while launch.code is None and time.monotonic() < pressed + limit_s:
        time.sleep(0.02)
    code, left = launch.code, launch.members()
    tally.recoveries_s.append(time.monotonic() - pressed)
    # At the very end of a sweep the whole of it may be done before the key is heard.
    if code not in (130, 0):
        tally.faults.append(f"{launch.log}: code {code} after Ctrl-C: {terminal.shown[-400:]!r}")
    if left and n_times == 1:
        tally.faults.append(f"{launch.log}: {len(left)} processes left after Ctrl-C")
    tally.faults += [f"{launch.log}: {fault}" for fault in terminal.faults()]


def _wait_for_plan(launch: Launch) -> None:
    """Until the sweep has begun: before, Python is importing and answers Ctrl-C by itself."""
    plan = launch.out / "sweeps" / "torture" / "plan.json"
    deadline = time.monotonic() + 120
    while not plan.exists() and launch.code is None and time.monotonic() < deadline:
        time.sleep(0.02)
