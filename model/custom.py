"""Parts of a model or of its training from a user's own file, named by the file's content.

A reference such as `my_idea.py:Block@<SHA-256>` is all that a spec holds. The file is looked for as
`<SHA-256>.py` in the folders that `look_in` was told, verified, and executed: it is code. No jax
here, and nothing is pickled.
"""

import hashlib
import re
import sys
import threading
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

MAX_NAME = 64
"""Characters of a file's and of an object's name."""

_REFERENCE = re.compile(r"([^/\\:@\s]+\.py):([A-Za-z_]\w*)@([0-9a-f]{64})")
_lock = threading.RLock()
_folders: list[Path] = []
_modules: dict[str, ModuleType] = {}


class Reference(NamedTuple):
    """What a reference says: the file's name, the object in it, SHA-256 of the file's content."""

    file: str
    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.file}:{self.name}@{self.digest}"

    @property
    def short(self) -> str:
        """The reference with 12 digits of its hash, for tables."""
        return f"{self.file}:{self.name}@{self.digest[:12]}"


def parse(slot: str, text: object) -> Reference:
    """The parts of a reference.

    Args: slot: the field that holds it, for the message.
    Raises: ValueError: it is none, or a name in it is too long.
    """
    found = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(
            f"{slot}={text!r} is no reference file.py:Name@<SHA-256 of the file>; "
            "python launch.py compare makes one of file.py:Name"
        )
    reference = Reference(*found.groups())
    for name in (reference.file, reference.name):
        if len(name) > MAX_NAME:
            raise ValueError(
                f"{slot}: the name {name[:20]}... has {len(name)} characters; "
                f"use {MAX_NAME} at most"
            )
    return reference


def digest(content: bytes) -> str:
    """SHA-256 of a file's content, 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def look_in(folder: Path) -> None:
    """Search this folder, too, for files of ideas: once for every process and workspace."""
    with _lock:
        if folder not in _folders:
            _folders.append(folder)


def load(slot: str, text: str) -> Any:
    """The object that a reference names; the file is executed at its first use in a process.

    Raises: ValueError: no folder has the file, its content is not that of the hash, it fails when
        executed, or it has no such object.
    """
    reference = parse(slot, text)
    with _lock:
        module = _modules.get(reference.digest) or _execute(slot, reference)
    if not hasattr(module, reference.name):
        public = [
            k for k, v in vars(module).items() if getattr(v, "__module__", "") == _name(reference)
        ]
        raise ValueError(
            f"{slot}: {reference.file} defines no {reference.name!r}; it defines "
            f"{', '.join(public) or 'nothing'}"
        )
    return getattr(module, reference.name)


def complaint(slot: str, text: str, doing: str, error: BaseException) -> ValueError:
    """An error of the user's code as one line: slot, reference, what was tried, what went wrong."""
    reference = parse(slot, text)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if Path(f.filename).stem == reference.digest]
    line = lines[-1] if lines else getattr(error, "lineno", None)
    where = f" (line {line})" if line else ""
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return ValueError(
        f"{slot}={reference.short} {doing}{where}: {type(error).__name__}: {first[:300]}"
    )


def _name(reference: Reference) -> str:
    return f"idea_{reference.digest[:16]}"


def _execute(slot: str, reference: Reference) -> ModuleType:
    path = _find(slot, reference)
    content = path.read_bytes()
    if digest(content) != reference.digest:
        raise ValueError(
            f"{slot}: {path} was changed: its SHA-256 is {digest(content)[:12]}..., not "
            f"{reference.digest[:12]}...; put the original {reference.file} back"
        )
    module = ModuleType(_name(reference))
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(content, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise complaint(slot, str(reference), "cannot be executed", error) from error
    _modules[reference.digest] = module
    return module


def _find(slot: str, reference: Reference) -> Path:
    for folder in _folders:
        path = folder / f"{reference.digest}.py"
        if path.is_file():
            return path
    folders = ", ".join(map(str, _folders)) or "no folder"
    raise ValueError(
        f"{slot}={reference.short}: no {reference.digest[:12]}....py in {folders}; a workspace "
        "keeps its ideas in the folder ideas/, which must move with it"
    )
