"""Files that a build appends to, and how far they are whole: a killed build goes on from there."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any


class Resumable:
    """Some files that grow together, cut on opening to what was there at the last note.

    `counts` are those of that note: none, and empty files, if there was no note of this identity.

    Args:
        state: the file that a note replaces as a whole.
        identity: of what is built; a note of another one counts for nothing.
        files: where they lie, by name.
    """

    def __init__(self, state: Path, identity: str, files: dict[str, Path]):
        self._state, self._identity = state, identity
        found = _noted(state, identity, files)
        self.counts: dict[str, Any] = found.get("counts", {})
        self._sizes: dict[str, int] = {name: found.get("sizes", {}).get(name, 0) for name in files}
        self._files = {name: path.open("ab") for name, path in files.items()}
        for name, file in self._files.items():
            file.truncate(self._sizes[name])

    def __enter__(self) -> "Resumable":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def size(self, name: str) -> int:
        """Bytes of a file, with what was written since the last note."""
        return self._sizes[name]

    def write(self, name: str, content: bytes) -> None:
        """Append to a file."""
        self._files[name].write(content)
        self._sizes[name] += len(content)

    def note(self, **counts: Any) -> None:
        """What was written until now is kept, and these counts with it."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self.counts = counts
        part = self._state.with_suffix(".part")
        note = {"of": self._identity, "counts": counts, "sizes": self._sizes}
        part.write_text(json.dumps(note), encoding="utf-8")
        part.replace(self._state)


def _noted(state: Path, identity: str, files: dict[str, Path]) -> dict[str, Any]:
    """The last note, if it is of this identity and the files are no shorter than it says."""
    try:
        found = json.loads(state.read_bytes())
        sizes = [(path.stat().st_size, found["sizes"][name]) for name, path in files.items()]
        is_usable = found["of"] == identity and all(there >= noted for there, noted in sizes)
        return found if is_usable else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
