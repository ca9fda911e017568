"""Any text files as a corpus: `files:GLOB`, or `files:GLOB#FIELD` for a field of jsonl or parquet.

    .txt (and any other ending)   documents end at a form feed, or with the file
    .jsonl   a document a line    .parquet  a document a row
.txt and .jsonl may be compressed (.gz, .zst). Data sets of Hugging Face that lie on disk as Parquet
are read as such files.
"""

import glob
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from train.data.compressed import pieces_between, read_text
from train.data.documents import Cleaning, Document, Source, SplitRule
from train.data.tokenfiles import CorpusError

PREFIX = "files:"
DEFAULT_FIELD = "text"
_FORM_FEED = "\f"
_COMPRESSED = (".gz", ".zst")


def read_files(pattern: str, field: str) -> Iterator[Document]:
    """Documents of all files that match, in the order of their paths.

    A key is the path below the folder that the pattern begins with, and the document's number.

    Raises: CorpusError: no file matches, a file is damaged or not UTF-8, or a record lacks the
        field.
    """
    root = _root(pattern)
    for path in matching(pattern):
        name = path.relative_to(root).as_posix()
        for number, text in enumerate(_texts(path, field)):
            yield Document(f"{name}:{number:09d}", text, {"file": name})


def matching(pattern: str) -> list[Path]:
    """The files of a pattern, in the order of their keys.

    Raises: CorpusError: there are none.
    """
    found = [Path(p) for p in glob.glob(os.path.expanduser(pattern), recursive=True)]
    root = _root(pattern)
    paths = sorted(
        (path for path in found if path.is_file()),
        key=lambda path: f"{path.relative_to(root).as_posix()}:",
    )
    if not paths:
        raise CorpusError(
            f"{PREFIX}{pattern} matches no file; quote the pattern, and check it with ls"
        )
    return paths


def _root(pattern: str) -> Path:
    parts = Path(os.path.expanduser(pattern)).parts
    plain = [part for part in parts if not glob.has_magic(part)]
    n_plain = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(plain) - 1)
    return Path(*parts[:n_plain])


def _texts(path: Path, field: str) -> Iterator[str]:
    suffixes = [suffix for suffix in path.suffixes if suffix not in _COMPRESSED]
    kind = suffixes[-1] if suffixes else ""
    if kind == ".parquet":
        return _parquet(path, field)
    if kind == ".jsonl":
        return _jsonl(path, field)
    return pieces_between(read_text(path), _FORM_FEED)


def _jsonl(path: Path, field: str) -> Iterator[str]:
    for number, line in enumerate(pieces_between(read_text(path), "\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise CorpusError(f"{path}, line {number} is not JSON ({error}); repair it") from error
        if not isinstance(record, dict) or field not in record:
            there = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise CorpusError(
                f"{path}, line {number} has no field {field!r} but: {there}; name the text's "
                "field after the pattern: files:GLOB#FIELD"
            )
        if not isinstance(record[field], str):
            raise CorpusError(
                f"{path}, line {number}: field {field!r} is a {type(record[field]).__name__}, "
                "not text; name another: files:GLOB#FIELD"
            )
        yield record[field]


def _parquet(path: Path, field: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            kinds = (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view())
            texts = [name for name in schema.names if schema.field(name).type in kinds]
            if field not in texts:
                raise CorpusError(
                    f"{path} has no text column {field!r} but: {', '.join(texts) or 'none'}; name "
                    "one after the pattern: files:GLOB#COLUMN"
                )
            for batch in file.iter_batches(batch_size=1024, columns=[field]):
                yield from (text or "" for text in batch.column(0).to_pylist())
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: column {field!r} is not UTF-8 ({error})") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise CorpusError(f"{path} cannot be read ({error}); get the file again") from error


def fingerprint(pattern: str) -> str:
    """How many files match, and a hash of their names, sizes and times; empty if there are none."""
    try:
        paths = matching(pattern)
    except CorpusError:
        return ""
    looks = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return f"{len(paths)} {hashlib.sha256(repr(looks).encode()).hexdigest()[:12]}"


def source(name: str) -> Source:
    """The corpus of that name, `files:GLOB` or `files:GLOB#FIELD`.

    Raises: ValueError: there is no pattern.
    """
    pattern, _, field = name.removeprefix(PREFIX).partition("#")
    if not pattern:
        raise ValueError(f"corpus={name!r} names no files; use files:GLOB, such as 'files:text/*'")
    return Source(
        name=name,
        title=f"text files {pattern}",
        licence="that of the files",
        citation="none; these are files of your own",
        homepage="",
        field_types={"file": str},
        read=lambda: read_files(pattern, field or DEFAULT_FIELD),
        package="local files",
        version=lambda: fingerprint(pattern),
        cleaning=Cleaning(),
        split=SplitRule(),
        is_stored=False,
    )
