"""Digests of what a run has written: a flipped bit still reads as a number, of another run.

A committed attempt has them in digests.json, a checkpoint those of its attempt's files in its
notes. Without them (earlier versions) files are taken as they are. Nothing here imports jax.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Digests = Mapping[str, Sequence[int | str]]
"""By name of the file: how many bytes from its beginning, and their SHA-256."""


def digests(folder: Path, names: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Of these files of a folder as they are now; those that are not there are left out."""
    there = [name for name in names if (folder / name).is_file()]
    return {name: _digest((folder / name).read_bytes()) for name in there}


def changed(folder: Path, written: Digests) -> list[str]:
    """Files that do not begin with what was written: changed, cut off, or gone."""
    return [name for name, digest in written.items() if not _begins(folder / name, digest)]


def _begins(path: Path, digest: Sequence[int | str]) -> bool:
    n_bytes = digest[0]
    if not isinstance(n_bytes, int) or not path.is_file():
        return False
    with open(path, "rb") as file:
        return list(_digest(file.read(n_bytes))) == list(digest)


def _digest(content: bytes) -> tuple[int, str]:
    return len(content), hashlib.sha256(content).hexdigest()
