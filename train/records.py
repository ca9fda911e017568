"""What a run writes, and how it is read back. The only contract between training and analysis.

    runs/<run_id>/run.json                    the committed record (a hard link into its attempt)
    runs/<run_id>/attempt-<k>/run.json        one row: the run
    runs/<run_id>/attempt-<k>/curve.jsonl     one row a logged point
    runs/<run_id>/attempt-<k>/evaluations.jsonl   one row an evaluation; more may come later
    runs/<run_id>/attempt-<k>/weights.safetensors
    runs/<run_id>/attempt-<k>/digests.json    of the four files above, once it is committed
    runs/<run_id>/attempt-<k>/checkpoint/     only while the attempt is under way
    runs/<run_id>/attempt-<k>/holder.json, heartbeat, ended   whose attempt it is (train.lease)
    runs/<run_id>/halt.json                   why nobody is to train it, if so (train.lease)
    runs/<run_id>/branch/                     states for other runs, while a plan needs them

An attempt may be cut off anywhere; it counts once its record is linked, which the file system lets
exactly one attempt do. Nothing here imports jax.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train import integrity
from train.columns import EVALUATION_COLUMNS, RECORD_VERSION, RUN_COLUMNS, columns_since

_SEALED = ("run.json", "curve.jsonl", "evaluations.jsonl", "weights.safetensors")
"""Files of a committed attempt that nobody changes; to evaluations some may be added at the end."""

_TAIL_BYTES = 8192


class RecordError(ValueError):
    """A record that cannot be read; the message names the file and the remedy."""


@dataclass(frozen=True)
class Attempt:
    """One try at a run: its own directory, which nobody else writes."""

    directory: Path
    number: int

    @property
    def checkpoint_dir(self) -> Path:
        return self.directory / "checkpoint"

    @property
    def weights(self) -> Path:
        return self.directory / "weights.safetensors"


def begin_attempt(
    store: Path,
    run_id: str,
    content: Mapping[str, str] = {"holder.json": ""},
    number: int | None = None,
) -> Attempt | None:
    """A fresh attempt directory with these files.

    It appears at once and whole; None if another process was faster.

    Args:
        number: of the attempt, None for one past the highest there is. Whoever has looked at the
            attempt before gives the next one, since there may be more by now.
    """
    number = number or max((a.number for a in attempts(store, run_id)), default=0) + 1
    directory = store / run_id / f"attempt-{number}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    made = directory.parent / f".attempt-{uuid.uuid4().hex}"
    made.mkdir()
    try:
        for name, text in content.items():
            with naming(directory / name):
                (made / name).write_text(text)
        made.rename(directory)  # fails on a directory that is not empty
    except OSError as error:
        was_cleaned_up = not made.exists()
        shutil.rmtree(made, ignore_errors=True)
        if was_cleaned_up or error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return None
        raise
    return Attempt(directory, number)


def attempts(store: Path, run_id: str) -> list[Attempt]:
    """All attempts at a run, oldest first."""
    found = (store / run_id).glob("attempt-*")
    return sorted(
        (Attempt(p, int(p.name.removeprefix("attempt-"))) for p in found), key=lambda a: a.number
    )


def append_points(attempt: Attempt, points: Iterable[dict[str, Any]]) -> None:
    """Add logged points to an attempt's curve."""
    path = attempt.directory / "curve.jsonl"
    with naming(path), open(path, "a") as file:
        file.writelines(_line(point) + "\n" for point in points)


def read_points(attempt: Attempt) -> list[dict[str, Any]]:
    """Points of an attempt's curve; a torn last line (the writer was killed) is left out.

    Raises: RecordError: a line that is not the last cannot be read.
    """
    path = attempt.directory / "curve.jsonl"
    check_written(path)
    return _read_lines(path, remedy=_train_again(path))


def last_point(attempt: Attempt) -> dict[str, Any]:
    """The newest whole point of an attempt's curve, empty if there is none; reads only its end."""
    for line in reversed(tail_of(attempt.directory / "curve.jsonl").split("\n")[:-1]):
        try:
            return json.loads(line)
        except ValueError:
            continue
    return {}


def tail_of(path: Path) -> str:
    """The end of a text file, empty if it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def add_evaluations(attempt: Attempt, rows: Iterable[dict[str, Any]]) -> None:
    """Add evaluations that are not there yet, all or none; any number of processes may do so.

    Raises: RecordError: columns that are not EVALUATION_COLUMNS, or a damaged file.
    """
    with _sole_writer(attempt.directory):
        there = {_evaluation_key(row): row for row in read_evaluations(attempt)}
        n_before = len(there)
        for row in rows:
            if odd := sorted(set(row) ^ set(EVALUATION_COLUMNS)):
                raise RecordError(f"an evaluation must have EVALUATION_COLUMNS; differs in {odd}")
            there.setdefault(_evaluation_key(row), row)
        if len(there) > n_before:
            text = "".join(_line(row) + "\n" for row in there.values())
            path = attempt.directory / "evaluations.jsonl"
            if not path.exists():
                _reseal(path)  # removed by its user, it may come back in other words
            write_atomically(path, text)
            _reseal(path)


def read_evaluations(attempt: Attempt) -> list[dict[str, Any]]:
    """Evaluations of an attempt in the order they were made, none if it is of an earlier version.

    Raises: RecordError: a line cannot be read.
    """
    path = attempt.directory / "evaluations.jsonl"
    if path.exists():
        check_written(path)
    return _read_lines(path, remedy="remove the file and run: python launch.py evaluate")


def commit(store: Path, attempt: Attempt, row: dict[str, Any]) -> bool:
    """Make an attempt the run's record, durably. False if another attempt was first.

    Raises: RecordError: the row's columns are not RUN_COLUMNS.
    """
    if set(row) != set(RUN_COLUMNS):
        odd = sorted(set(row) ^ set(RUN_COLUMNS))
        raise RecordError(
            f"a run record must have exactly the columns RUN_COLUMNS; differs in {odd}"
        )
    path = attempt.directory / "run.json"
    write_atomically(path, json.dumps(to_plain(row), indent=1, allow_nan=False) + "\n")
    for name in _SEALED:
        if (attempt.directory / name).exists():
            _sync(attempt.directory / name)  # a record on disk must not outlive its weights
    written = integrity.digests(attempt.directory, _SEALED)
    write_atomically(attempt.directory / "digests.json", json.dumps(written) + "\n")
    try:
        os.link(path, attempt.directory.parent / "run.json")
    except FileExistsError:
        return False
    _sync(attempt.directory.parent)
    return True


def clean_up(store: Path, run_id: str) -> None:
    """Of a committed run, keep only the committed attempt's record, curve, weights and holder.

    Of a run without a record nothing is touched: any attempt may be under way.
    """
    row = read_run(store, run_id)
    if row is None:
        return
    for attempt in attempts(store, run_id):
        if attempt.number != row["attempt"]:
            shutil.rmtree(attempt.directory, ignore_errors=True)
            continue
        shutil.rmtree(attempt.checkpoint_dir, ignore_errors=True)
        for name in ("heartbeat", "ended"):
            (attempt.directory / name).unlink(missing_ok=True)
    for left in (store / run_id).glob(".attempt-*"):
        shutil.rmtree(left, ignore_errors=True)


def read_run(store: Path, run_id: str) -> dict[str, Any] | None:
    """The committed record of a run, None if there is none yet.

    A record of an older version is given the columns that it lacks, empty.

    Raises: RecordError: the record is damaged or from another version of the columns.
    """
    path = store / run_id / "run.json"
    try:
        text = path.read_bytes()
        row = json.loads(text)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RecordError(
            f"{path} is damaged ({error}); remove {path.parent} and run again"
        ) from error
    if isinstance(row, dict) and row.get("record_version") in range(1, RECORD_VERSION):
        row = {**dict.fromkeys(columns_since(row["record_version"])), **row}
    if not isinstance(row, dict) or set(row) != set(RUN_COLUMNS):
        raise RecordError(
            f"{path} does not have the columns of record_version={RECORD_VERSION}; "
            f"move {path.parent} away and run again"
        )
    own = committed_attempt(store, row).directory / "run.json"
    if not own.exists() and not attempts(store, run_id):
        return row  # moved here without the rest of its run
    # The attempt's own record is the same file, or a copy of it where links were not copied.
    if not own.exists() or own.read_bytes() != text:
        raise RecordError(f"{path} is not as it was written; remove {path.parent} and run again")
    check_written(own)
    return row


def check_written(path: Path) -> None:
    """Hold a file of an attempt against the digests that its commit left, if it has any.

    Raises: RecordError: it is not as it was written.
    """
    sealed = path.parent / "digests.json"
    try:
        written = json.loads(sealed.read_bytes())
        # What was not there at the commit is no part of it.
        known = {path.name: written[path.name]} if path.name in written else {}
        is_changed = bool(integrity.changed(path.parent, known))
    except FileNotFoundError:
        return
    except (ValueError, TypeError, LookupError) as error:
        raise RecordError(f"{sealed} is damaged ({error!r}); {_train_again(path)}") from error
    if is_changed:
        raise RecordError(f"{path} is not as it was written; {_train_again(path)}")


def _reseal(path: Path) -> None:
    """Enter a file of a committed attempt as it is now, or is not, among the digests."""
    sealed = path.parent / "digests.json"
    if sealed.exists():
        others = {k: v for k, v in json.loads(sealed.read_bytes()).items() if k != path.name}
        now = integrity.digests(path.parent, [path.name])
        write_atomically(sealed, json.dumps({**others, **now}) + "\n")


def _train_again(path: Path) -> str:
    return f"remove {path.parent.parent} and run again"


def read_sound_run(store: Path, run_id: str) -> dict[str, Any] | None:
    """The committed record of a run; None if there is none, or a damaged one.

    For who asks what is there to use or left to do: the executor tells of the damage.
    """
    try:
        return read_run(store, run_id)
    except RecordError:
        return None


def committed_attempt(store: Path, row: dict[str, Any]) -> Attempt:
    """The attempt behind a committed record."""
    return Attempt(store / row["run_id"] / f"attempt-{row['attempt']}", row["attempt"])


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by complete new content that survives a crash."""
    # Not named by the process: two machines may share a folder, and a number.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with naming(path), open(temporary, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_once(path: Path, text: str) -> bool:
    """Create a file with complete content, durably; False and untouched if it exists."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.once")
    with naming(path):
        write_atomically(temporary, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    _sync(path.parent)
    return True


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name this path in an OSError of the block: of a full disk the system says none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def to_plain(value: Any) -> Any:
    """JSON values of nested rows: numpy scalars become Python's, what is not finite null."""
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _evaluation_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("step", "is_result", "corpus_hash", "split"))


def _read_lines(path: Path, *, remedy: str) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines, none if it is not there; a torn last line is left out."""
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:  # no JSON, or not even text
            why = getattr(error, "msg", error)
            raise RecordError(f"{path} line {number} is damaged ({why}); {remedy}") from error
    return rows


@contextlib.contextmanager
def _sole_writer(directory: Path) -> Iterator[None]:
    """Hold a directory's lock; the kernel frees it however the process ends."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(to_plain(row), separators=(",", ":"), allow_nan=False)


def _sync(path: Path) -> None:
    """Have a file or a directory on the disk, whoever wrote it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
