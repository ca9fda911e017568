"""The books corpus: one compressed text of many books, and an index of which byte is whose.

The file is UTF-8 text, compressed or not; beside it lies `<name>.index.tsv`, a table with the
columns author, title, year, byte_offset, bytes, path, in the order of the offsets.
"""

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from train.data.compressed import read_pieces
from train.data.documents import Cleaning, Document, Source, SplitRule, existing
from train.data.tokenfiles import CorpusError

_COLUMNS = ("author", "title", "year", "byte_offset", "bytes", "path")
_GET = "give the file of the books: python launch.py data prepare books --source FILE.txt.zst"


@dataclass(frozen=True)
class _Entry:
    author: str
    title: str
    year: int
    start: int
    n_bytes: int
    key: str


def read_books(file: Path | None) -> Iterator[Document]:
    """The books of a file in the order of its index, which is sorted by path.

    Raises: CorpusError: the file or its index is missing, damaged, or they do not fit together.
    """
    if file is None:
        raise CorpusError(f"books is not on this machine yet; {_GET}")
    existing(file, what="the file of the books", remedy=_GET)
    pieces, held, position = read_pieces(file), bytearray(), 0
    for entry in sorted(_index(file), key=lambda entry: entry.start):
        while position + len(held) < entry.start + entry.n_bytes:
            try:
                held += next(pieces)
            except StopIteration:
                raise CorpusError(
                    f"{file} has {position + len(held):,} bytes of text but its index ends "
                    f"{entry.key!r} at {entry.start + entry.n_bytes:,}; get both files again"
                ) from None
        first = entry.start - position
        content = bytes(held[first : first + entry.n_bytes])
        del held[: first + entry.n_bytes]
        position = entry.start + entry.n_bytes
        fields: dict[str, str | int] = {
            "author": entry.author, "title": entry.title, "year": entry.year,
        }  # fmt: skip
        yield Document(entry.key, _decoded(content, entry, file), fields)
    for _ in pieces:  # to the end: only there is the checksum of the compressed file compared
        pass


def _decoded(content: bytes, entry: _Entry, file: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{file}: the text of {entry.key!r} is not UTF-8 at its byte {error.start}; the index "
            "belongs to another file, or the text is damaged; get both again"
        ) from error


def index_of(file: Path) -> Path:
    """Where the index of a file of books lies: beside it, for x.txt.zst in x.index.tsv."""
    return file.with_name(f"{file.name.split('.txt')[0]}.index.tsv")


def _index(file: Path) -> list[_Entry]:
    path = existing(index_of(file), what="the index of the books", remedy="put it beside the text")
    with path.open(encoding="utf-8", newline="") as table:
        rows = csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE)
        if missing := [name for name in _COLUMNS if name not in (rows.fieldnames or ())]:
            raise CorpusError(f"{path} lacks the columns {', '.join(missing)}; get it again")
        try:
            return [_entry(row) for row in rows]
        except (TypeError, ValueError) as error:
            raise CorpusError(f"{path} is damaged ({error}); get it again") from error


def _entry(row: dict[str, str]) -> _Entry:
    return _Entry(
        row["author"], row["title"], int(row["year"] or 0), int(row["byte_offset"]),
        int(row["bytes"]), row["path"],
    )  # fmt: skip


def version_of(file: Path | None) -> str:
    """The beginning of the file's sha256; empty where there is no file."""
    if file is None or not file.is_file():
        return ""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def source(file: Path | None) -> Source:
    """The corpus, read from that file."""
    return Source(
        name="books",
        title="English prose first published up to 1930, by author, from a local file",
        licence="public domain in the United States (published before 1931)",
        citation=(
            "@misc{classic-books,\n"
            "  title = {Classic English prose to 1930},\n"
            "  note = {author, title and year of each book are in the index of the file}\n}"
        ),
        homepage="",
        field_types={"author": str, "title": str, "year": int},
        read=lambda: read_books(file),
        package="local file with sha256",
        version=lambda: version_of(file),
        needs="the compressed text, its index beside it",
        cleaning=Cleaning(),
        split=SplitRule(20, by="author", head_bytes=65_536),
    )
