"""Keep a sweep's tables up to date while it runs."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.cells import all_cells
from experiments.compact import compact_cells
from experiments.plan import Plan
from experiments.workspace import SweepFolder
from train.records import RecordError

EVERY_S = 30.0
MAX_SHARE = 0.02
"""Of the time, at most so much is spent on it."""


@contextlib.contextmanager
def compacting(
    plan: Plan, store: Path, folder: SweepFolder, say: Callable[[str], None]
) -> Iterator[None]:
    """Compact now and then while the block runs; a disk that is full is told of, and no error."""
    done = threading.Event()

    def work() -> None:
        pause, cells, told = EVERY_S, None, ""
        while not done.wait(pause):
            start = time.monotonic()
            try:
                cells = all_cells(plan, folder, store) if cells is None else cells
                compact_cells(cells, store, folder)
            except (OSError, RecordError) as error:
                if str(error) != told:
                    say(f"  the tables of {folder.path} are not up to date: {error}")
                told = str(error)
            pause = max(EVERY_S, (time.monotonic() - start) / MAX_SHARE)

    thread = threading.Thread(target=work, daemon=True, name="compacting")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
