"""Who trains a run: the holder of its newest attempt, for as long as that one shows life.

An attempt's directory is its lease. It appears with its holder's name in it by one rename, which
only one process can do. The holder counts in the file `heartbeat`; others watch the count by their
own clocks, so no two clocks are ever compared. An attempt is over once the file `ended` is there:
written by its holder, or by whoever found that the holder is gone. A holder that was paused and
wakes up finds that, or a later attempt, and stops: the attempt's number fences it.

Nothing here decides which attempt counts: records.commit does, once.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from train import records
from train.records import Attempt, write_atomically

BEAT_S = 2.0
PATIENCE_S = 90.0
"""A holder that has not counted for so long is taken for dead, where it cannot be looked up."""

Unavailability = Literal["committed", "held", "halted"]


class Unavailable(Exception):
    """A run cannot be trained here and now; `why` says whether it ever need be."""

    def __init__(self, run_id: str, why: Unavailability):
        super().__init__(f"run {run_id} is {why}")
        self.run_id, self.why = run_id, why


class Lost(Exception):
    """An attempt was taken from its holder: by a later one, a commit, or a halt."""


@dataclass(frozen=True)
class Holder:
    """The process behind an attempt. `machine`: where its `pid` means anything (boot and pid
    namespace); `started`: when the process began, in the machine's ticks, since pids come again.
    """

    host: str
    machine: str
    pid: int
    started: str

    def is_gone(self) -> bool:
        """Whether it certainly no longer runs; unknown is False."""
        if self.machine != _machine():
            return False
        started = _started(self.pid)
        return started is not None and started != self.started


@dataclass(frozen=True)
class Halt:
    """Why nobody is to train a run until it is lifted (lift): cancelled, or failed by itself."""

    kind: Literal["cancelled", "failed"]
    reason: str
    host: str = field(default_factory=socket.gethostname)
    log: str | None = None


def this_process() -> Holder:
    """The calling process as a holder."""
    pid = os.getpid()
    return Holder(socket.gethostname(), _machine(), pid, _started(pid) or "")


def claim(store: Path, run_id: str) -> Attempt:
    """A new attempt at a run, held by this process.

    Raises: Unavailable: it is committed, halted, or held by another process.
    """
    if (store / run_id / "run.json").exists():
        raise Unavailable(run_id, "committed")
    if halt_of(store, run_id) is not None:
        raise Unavailable(run_id, "halted")
    tried = records.attempts(store, run_id)
    if tried and not is_over(tried[-1]):
        raise Unavailable(run_id, "held")
    number = tried[-1].number + 1 if tried else 1
    content = {"holder.json": json.dumps(asdict(this_process())), "heartbeat": _count(0)}
    attempt = records.begin_attempt(store, run_id, content, number)
    # A commit since the first look may have cleaned up what this attempt was numbered after.
    if (store / run_id / "run.json").exists():
        records.clean_up(store, run_id)
        raise Unavailable(run_id, "committed")
    if attempt is None:
        raise Unavailable(run_id, "held")
    return attempt


def is_over(attempt: Attempt) -> bool:
    """Whether an attempt has ended, or its holder is known to be gone, or never was named."""
    if (attempt.directory / "ended").exists():
        return True
    holder = holder_of(attempt)
    return holder is None or holder.is_gone()


def holder_of(attempt: Attempt) -> Holder | None:
    """Who holds an attempt; None if it does not say, as those of earlier versions."""
    try:
        return Holder(**json.loads((attempt.directory / "holder.json").read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def end(attempt: Attempt) -> None:
    """Declare an attempt over; of one that is, or was removed, nothing changes."""
    with contextlib.suppress(FileNotFoundError):
        (attempt.directory / "ended").touch()


@contextlib.contextmanager
def held(attempt: Attempt, every_s: float = BEAT_S) -> Iterator[Callable[[], bool]]:
    """Count for an attempt while the block runs, then end it; gives whether it was lost."""
    lost, done = threading.Event(), threading.Event()

    def beat() -> None:
        count = 0
        while not done.wait(every_s):
            # A disk that fails for a while must not stop a run; others may take it for dead.
            with contextlib.suppress(OSError):
                if is_lost(attempt):
                    lost.set()
                    return
                count += 1
                _overwrite(attempt.directory / "heartbeat", _count(count))

    thread = threading.Thread(target=beat, daemon=True, name=f"heart of {attempt.directory}")
    thread.start()
    try:
        yield lost.is_set
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError):
            if not _is_committed(attempt):
                end(attempt)


def is_lost(attempt: Attempt) -> bool:
    """Whether its holder has to stop: the attempt is fenced, or nobody is to train the run."""
    return is_fenced(attempt) or (attempt.directory.parent / "halt.json").exists()


def is_fenced(attempt: Attempt) -> bool:
    """Whether an attempt counts no more: it was ended, followed or removed, or there is a record.

    Its holder writes nothing after that.
    """
    if not attempt.directory.exists() or (attempt.directory / "ended").exists():
        return True
    run = attempt.directory.parent
    tried = records.attempts(run.parent, run.name)
    return _is_committed(attempt) or any(other.number > attempt.number for other in tried)


class Watch:
    """Finds attempts whose holders have stopped counting, by this process's own clock."""

    def __init__(self, patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic):
        self._patience_s, self._clock = patience_s, clock
        self._seen: dict[Path, _Seen] = {}

    def is_silent(self, attempt: Attempt) -> bool:
        """Whether the count has not changed for the patience since it was first seen as it is."""
        seen = self._look(attempt)
        return self._clock() - seen.since_s > self._patience_s

    def is_beating(self, attempt: Attempt) -> bool:
        """Whether the count was seen to change, and not too long ago."""
        seen = self._look(attempt)
        return seen.has_changed and self._clock() - seen.since_s <= self._patience_s

    def is_available(self, store: Path, run_id: str) -> bool:
        """Whether a run can be claimed; an attempt found silent is ended, so that it can."""
        tried = records.attempts(store, run_id)
        if tried and not is_over(tried[-1]):
            if not self.is_silent(tried[-1]):
                return False
            end(tried[-1])
        return True

    def _look(self, attempt: Attempt) -> "_Seen":
        try:
            count = (attempt.directory / "heartbeat").read_text()
        except FileNotFoundError:
            count = ""
        before = self._seen.get(attempt.directory)
        if before is None or before.count != count:
            self._seen[attempt.directory] = _Seen(count, self._clock(), before is not None)
        return self._seen[attempt.directory]


@dataclass(frozen=True)
class _Seen:
    """A count, since when it was seen, and whether there was another before."""

    count: str
    since_s: float
    has_changed: bool


def halt(store: Path, run_id: str, why: Halt) -> None:
    """Keep everybody from training a run; who does so now stops at the next beat."""
    (store / run_id).mkdir(parents=True, exist_ok=True)
    write_atomically(store / run_id / "halt.json", json.dumps(asdict(why)) + "\n")


def halt_of(store: Path, run_id: str) -> Halt | None:
    """Why a run is not to be trained, None if it may be."""
    try:
        return Halt(**json.loads((store / run_id / "halt.json").read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        path = store / run_id / "halt.json"
        raise records.RecordError(f"{path} is damaged ({error}); remove it") from error


def lift(store: Path, run_id: str) -> bool:
    """Let a run be trained again; False if nothing kept it."""
    try:
        (store / run_id / "halt.json").unlink()
    except FileNotFoundError:
        return False
    return True


def _is_committed(attempt: Attempt) -> bool:
    return (attempt.directory.parent / "run.json").exists()


def _count(n: int) -> str:
    return f"{n:020d}\n"


def _overwrite(path: Path, text: str) -> None:
    """Replace as many bytes in place, which needs no room on the disk."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, text.encode(), 0)
    finally:
        os.close(descriptor)


def _machine() -> str:
    """The boot and pid namespace of this process, in which a pid is one process; else random."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown {socket.gethostname()} {os.getpid()}"


def _started(pid: int) -> str | None:
    """When a process began, by the kernel's count; empty if there is none, or it is a zombie.

    None: there is one, but the kernel hides it from us.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None if _exists(pid) else ""
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else rest[18]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
