"""Launchers of the tortured sweep as child processes, each in a session of its own."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class Launch:
    """A launcher with its workers; what it prints goes to a file beside the output folder, or to
    the terminal given by descriptor, which it is in the foreground of.
    """

    def __init__(
        self,
        out: Path,
        *arguments: str,
        aims: Path | None = None,
        wrapper: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        terminal: int | None = None,
    ):
        self.out, self.started = out, time.monotonic()
        logs = out.with_name(f"{out.name}.logs")
        logs.mkdir(parents=True, exist_ok=True)
        self.log = logs / f"{len(list(logs.iterdir()))}.txt"
        extra = dict(environment or {})
        if aims is not None:
            extra |= {"TORTURE_AIMS": str(aims), "PYTHONPATH": str(HERE / "aim")}
        command = [*wrapper, sys.executable, str(HERE / "sweep.py"), str(out), *arguments]
        with open(self.log, "w") as file:
            self.process = subprocess.Popen(
                command,
                stdout=file if terminal is None else terminal,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                env={**inherited(), **extra},
                start_new_session=True,
                preexec_fn=None if terminal is None else _take_terminal,
            )

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.process.poll()

    @property
    def told(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")

    def members(self) -> list[int]:
        """Process ids of its session: itself and its workers, also orphaned ones."""
        pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
        return [pid for pid in pids if _session(pid) == self.process.pid]

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        return [pid for pid in self.members() if "train.worker" in _command(pid)]

    def kill(self, *pids: int) -> None:
        """SIGKILL; of processes that are gone already nothing more comes."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Leave nothing running."""
        while members := self.members():
            self.kill(*members)
            self.process.poll()
            time.sleep(0.02)
        self.process.wait()


def finish(out: Path, *arguments: str, timeout_s: float = 600, **options) -> Launch:
    """A launcher left alone until its end."""
    launch = Launch(out, *arguments, **options)
    try:
        launch.process.wait(timeout_s)
    finally:
        launch.end()
    return launch


def held_runs(runs: Path) -> dict[int, str]:
    """Which process holds which run, as their newest attempts say."""
    held = {}
    for path in sorted(runs.glob("*/attempt-*/holder.json")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            held[json.loads(path.read_text())["pid"]] = path.parent.parent.name
    return held


def n_attempts(runs: Path) -> dict[str, int]:
    """The highest number of an attempt, by run."""
    found: dict[str, int] = {}
    for path in runs.glob("*/attempt-*"):
        number = int(path.name.removeprefix("attempt-"))
        found[path.parent.name] = max(number, found.get(path.parent.name, 0))
    return found


def _take_terminal() -> None:
    """In the child: its standard input becomes its controlling terminal, and Ctrl-C is heard."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not only its remains."""
    return _session(pid) != 0


def inherited() -> dict[str, str]:
    """This process's, without what would change a run's mode."""
    odd = ("JAX_", "XLA_", "NPROC", "PYTHONPATH", "TORTURE_")
    return {k: v for k, v in os.environ.items() if not k.startswith(odd)} | {"JAX_PLATFORMS": "cpu"}


def _session(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    state, _, _, session, *_ = stat.rpartition(")")[2].split()
    return 0 if state in "ZX" else int(session)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
