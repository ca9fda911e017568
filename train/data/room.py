"""Where corpora are built: one builder at a time, and a word on it where the disk is full."""

import errno
import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from train.data.tokenfiles import CorpusError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_SPACE_WORDS = (
    "no space left",
    "quota exceeded",
    "file too large",
    "resource_exhausted",
    "not enough disk space",  # TFDS
    " requested and ",  # NumPy's "N requested and M written"
)


@contextmanager
def room_for(name: str, folder: Path, unfinished: Path) -> Iterator[None]:
    """Says it in one line where the disk is full, and leaves nothing half-built on it.

    Args:
        folder: what is prepared.
        unfinished: where it is built.
    Raises: CorpusError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_space(error):
            raise
        shutil.rmtree(unfinished, ignore_errors=True)
        n_free = shutil.disk_usage(folder.parent).free
        raise CorpusError(
            f"no room to prepare {name} in {folder.parent}: {error}; what was built of it is "
            f"removed, {n_free / 1e6:,.0f} MB are free; make room or give another folder (--out "
            "DIR), and prepare again"
        ) from error


def is_out_of_space(error: Exception) -> bool:
    """Whether an error says, in one of the many ways, that a disk is full."""
    words = str(error).lower()
    is_known = isinstance(error, OSError) and error.errno in _NO_SPACE
    return is_known or any(known in words for known in _NO_SPACE_WORDS)


@contextmanager
def lock(path: Path, name: str, log: Callable[[str], object]) -> Iterator[None]:
    """One builder works at a time; another one waits, and says so."""
    # The kernel drops the lock of a process that dies, so nothing needs clearing by hand.
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"another process is preparing {name}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
