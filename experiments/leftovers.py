"""What launchers and workers that were killed did not come to remove."""

from collections.abc import Iterable
from pathlib import Path

from experiments.workspace import SweepFolder
from train.records import clean_up

OLD_S = 3600.0
"""A temporary file so much older than the sweep's newest has no writer any more: one lives for as
long as it takes to write a few megabytes."""


def remove_leftovers(run_ids: Iterable[str], store: Path, folder: SweepFolder) -> None:
    """Of committed runs all that is no part of them, and the sweep's old temporary files.

    Ages are told by the times that the folder's own file system gives, not by this machine's clock.
    """
    for run_id in run_ids:
        clean_up(store, run_id)
    times = {path: path.stat().st_mtime for path in _files(folder.path)}
    for path, written in times.items():
        is_temporary = path.name.startswith(".") and path.suffix in (".tmp", ".once")
        if is_temporary and written < max(times.values()) - OLD_S:
            path.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]
