"""How a run ends that leaves no record, and what is done about it.

What is the run's own doing halts it (train.lease), for it would happen again. What is the
machine's, such as a full disk, is told and nothing more: the next start tries again.
"""

import contextlib
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from train.config import SpecError
from train.lease import Halt, Lost, Unavailable, halt
from train.records import RecordError


@dataclass(frozen=True)
class Unfinished:
    """A run that was handed out and left no record.

    unavailable: nothing was trained, `reason` is train.lease's held or halted; lost: it was taken
    away meanwhile; failed: `reason` says how. `is_machine`: it is not the run's own doing.
    """

    run_id: str
    kind: Literal["unavailable", "lost", "failed"]
    reason: str
    is_machine: bool = False
    suggestion: str = ""


def settle(store: Path, run_id: str, error: Exception, platform: str) -> Unfinished:
    """What an exception of a run means; one of its own doing halts it. The log gets its traceback.

    Args:
        platform: of the device, as jax names it.
    """
    if isinstance(error, Unavailable):
        return Unfinished(run_id, "unavailable", error.why)
    if isinstance(error, Lost):
        return Unfinished(run_id, "lost", "it was halted or taken over")
    traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, OSError):
        return Unfinished(run_id, "failed", str(error), is_machine=True)
    suggestion = suggest_memory(platform) if is_out_of_memory(error) else ""
    reason = _one_line(error)
    with contextlib.suppress(OSError):
        halt(store, run_id, Halt("failed", reason, log=log_file()))
    return Unfinished(run_id, "failed", reason, suggestion=suggestion)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether host or device had no memory left, by the names that Python and XLA have for it."""
    if isinstance(error, MemoryError) or "std::bad_alloc" in str(error):
        return True
    is_xla = type(error).__name__ in ("XlaRuntimeError", "JaxRuntimeError")
    return is_xla and "RESOURCE_EXHAUSTED" in str(error)


def suggest_memory(platform: str) -> str:
    """What to do about a run that does not fit into memory."""
    fewer = "workers (--workers)" if platform == "cpu" else "rows (--rows)"
    return f"use fewer {fewer}, a smaller batch_size or a smaller model"


def log_file() -> str | None:
    """The file that standard error goes to, None if it goes elsewhere."""
    with contextlib.suppress(OSError):
        path = os.path.realpath("/proc/self/fd/2")
        return path if os.path.isfile(path) else None
    return None


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0][:300] if lines else ""
    if isinstance(error, SpecError | RecordError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
