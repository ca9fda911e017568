"""What is told of runs that failed, and of a machine that would not go on."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from train.config import RunSpec
from train.lease import Halt
from train.records import tail_of

N_LOG_LINES = 5

_REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, the quota is used up",
    errno.EROFS: "it is mounted for reading only; make it writable, or give another --out",
    errno.EACCES: "give yourself the permission to write there, or give another --out",
    errno.EPERM: "give yourself the permission to write there, or give another --out",
}


@dataclass(frozen=True)
class Failure:
    """A run without a record and why; `is_machine`: not by its own doing, so it was not halted."""

    run_id: str
    n_layers: int
    d_model: int
    reason: str
    is_machine: bool = False
    log: str | None = None
    suggestion: str = ""


class RunsFailed(Exception):
    """Some runs failed and the others are done; `sweep` is their sweep's name, if they have one."""

    def __init__(self, failures: Sequence[Failure], sweep: str | None = None):
        super().__init__(f"{len(failures)} runs failed")
        self.failures, self.sweep = tuple(failures), sweep


def failure_of(
    spec: RunSpec,
    reason: str,
    *,
    is_machine: bool = False,
    log: str | None = None,
    suggestion: str = "",
) -> Failure:
    """The failure of a spec's run."""
    return Failure(
        spec.run_id, spec.model.n_layers, spec.model.d_model, reason, is_machine, log, suggestion
    )


def halted(spec: RunSpec, why: Halt) -> Failure:
    """The failure of a run that was halted as failed, be it by another process or before."""
    return failure_of(spec, f"{why.reason} (on {why.host})", log=why.log)


def describe(failed: RunsFailed) -> list[str]:
    """Lines for a terminal: each run, why, the end of its log, and what to do."""
    n = len(failed.failures)
    lines = [f"{n} run{'s' * (n > 1)} failed, the others are done:"]
    for failure in failed.failures:
        lines.append(f"  {failure.run_id} {failure.n_layers}x{failure.d_model}: {failure.reason}")
        if failure.suggestion:
            lines.append(f"    {failure.suggestion}")
        end = [] if failure.is_machine else last_lines(failure.log)  # there the reason says it all
        if end:
            lines += [f"    {failure.log} ends:", *(f"    | {line}" for line in end)]
    own = [failure for failure in failed.failures if not failure.is_machine]
    if len(own) < n:
        lines.append("those that the machine kept from finishing are tried again by the same run")
    if own and failed.sweep:
        lines.append(f"to train the failed ones again: python launch.py retry {failed.sweep}")
    elif own:
        lines.append("to train the failed ones again remove halt.json in their folders of runs/")
    return lines


def last_lines(log: str | None, n: int = N_LOG_LINES) -> list[str]:
    """The last lines of a log that are not empty; none if it cannot be read here."""
    text = "" if log is None else tail_of(Path(log))
    return [line.rstrip() for line in text.splitlines() if line.strip()][-n:]


def describe_os_error(error: OSError) -> str:
    """One line for an error of the machine: what, where, and the remedy if there is a usual one."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None or error.filename is None:
        return str(error)
    return f"{error.filename}: {error.strerror}; {remedy}"
