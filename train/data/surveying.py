"""The first of two readings of a corpus: its hash, and which documents stay in which split.

What is known of a document (hashes of its text and of what it is split by, its MinHash) goes to
files beside the corpus that is built. A killed reading goes on after the documents in them, and
memory holds some tens of bytes a document.
"""

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from train.data.cleaning import (
    DROPPED,
    N_HASHES,
    OF_SPLIT,
    add_to_hash,
    drop,
    drop_copies_of_held_out,
    normalised,
    sketch,
)
from train.data.documents import Document, Source, SplitRule
from train.data.resuming import Resumable
from train.data.tokenfiles import CorpusError, Split

NOTE_EVERY_BYTES = 1 << 25
_VERSION = 1
_ENTRY = np.dtype([("text", "<u8", 2), ("group", ">u4", 8), ("is_empty", "?")])
_ENTRIES, _SKETCHES = "entries", "sketches"
_SKETCH_BYTES = 4 * N_HASHES


@dataclass(frozen=True)
class Survey:
    """What was found in one reading of the documents, in the order in which they were read.

    `split_of`: index into `OF_SPLIT` for each document, or -1 where it is dropped. `n_dropped`
    counts documents by reason. `rule` says how text of this size is cleaned and split.
    """

    content_hash: str
    rule: str
    split: SplitRule
    split_of: np.ndarray
    n_dropped: dict[str, int]
    n_raw_bytes: int

    def place(self, index: int) -> Split | None:
        """The split of a document, None if it is dropped."""
        found = int(self.split_of[index])
        return None if found == DROPPED else OF_SPLIT[found]


def survey(
    documents: Iterable[Document],
    source: Source,
    told: Callable[[int], object] = lambda n: None,
    folder: Path | None = None,
) -> Survey:
    """Read all documents once and decide for each.

    Args:
        told: is given the bytes read so far, now and then.
        folder: where what is known of each document is kept, and what a killed reading left; None
            for one that goes with this call.
    Raises: CorpusError: keys are not one line each or not in order, a field to split by is
        missing, the documents are not those that a killed reading saw, or a split would be empty.
    """
    if folder is None:
        with TemporaryDirectory() as made:
            return survey(documents, source, told, Path(made))
    files = {name: folder / name for name in (_ENTRIES, _SKETCHES)}
    with Resumable(folder / "survey.json", identity(source), files) as ledger:
        if "content_hash" not in ledger.counts:
            _read_all(documents, source, ledger, files[_ENTRIES], told)
        content_hash, n_bytes = ledger.counts["content_hash"], ledger.counts["n_bytes"]
    known = np.fromfile(files[_ENTRIES], _ENTRY)
    split = source.split.sized(n_bytes)
    places = _places(known["group"], split)
    if source.cleaning is None:
        n_dropped = drop_copies_of_held_out(places, known["text"])
    else:
        similarity = source.cleaning.similarity
        n_dropped = drop(places, known["text"], known["is_empty"], files[_SKETCHES], similarity)
    _check_sizes(places, split, n_dropped)
    return Survey(content_hash, source.rule(n_bytes), split, places, n_dropped, n_bytes)


def identity(source: Source) -> str:
    """What an interrupted reading must have in common with the one that goes on."""
    rules = f"{source.cleaning} {source.split}"
    return f"{source.name} {source.origin} {rules} {_VERSION}"


def has_changed(source: Source) -> CorpusError:
    """The complaint about documents that are not those of an earlier reading."""
    return CorpusError(f"the text of {source.name} changed while it was read; prepare it again")


def _read_all(
    documents: Iterable[Document],
    source: Source,
    ledger: Resumable,
    entries: Path,
    told: Callable[[int], object],
) -> None:
    """Add what is not in the ledger yet; what is there is held against what is read."""
    n_known = ledger.counts.get("n_documents", 0)
    digest, n_bytes, noted_at, last, index = hashlib.sha256(), 0, 0, None, -1
    with entries.open("rb") as known:
        for index, document in enumerate(documents):
            _check_key(document.key, last)
            last, raw = document.key, _encoded(document)
            add_to_hash(digest, document.key, raw)
            text = raw if source.cleaning is None else normalised(document.text).encode("utf-8")
            entry = _entry(document, text, source.split.by)
            n_bytes += len(raw)
            if index < n_known:
                _hold_against(entry, known, source)
                noted_at = n_bytes
            else:
                ledger.write(_ENTRIES, entry)
                if source.cleaning is not None:
                    ledger.write(_SKETCHES, sketch(text.decode("utf-8")))
            if n_bytes - noted_at >= NOTE_EVERY_BYTES:
                ledger.note(n_documents=index + 1)
                noted_at = n_bytes
            told(n_bytes)
    if index + 1 < n_known:
        raise has_changed(source)
    ledger.note(n_documents=index + 1, n_bytes=n_bytes, content_hash=digest.hexdigest())


def _hold_against(entry: bytes, known: io.BufferedReader, source: Source) -> None:
    if known.read(_ENTRY.itemsize) != entry:
        raise has_changed(source)


def _entry(document: Document, text: bytes, by: str | None) -> bytes:
    group = document.key if by is None else str(document.fields[by])
    return b"".join(
        (
            hashlib.blake2b(text, digest_size=16).digest(),
            hashlib.sha256(group.encode("utf-8")).digest(),
            bytes([not text.strip()]),
        )
    )


def _encoded(document: Document) -> bytes:
    try:
        return document.text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"document {document.key}: character {error.start} of the text "
            f"({document.text[error.start]!r}) is not valid Unicode; decode the source as UTF-8"
        ) from error


def _check_key(key: str, last: str | None) -> None:
    if key.splitlines() != [key]:
        raise CorpusError(f"document key {key!r} is not one line; rename the document")
    if last is not None and key <= last:
        raise CorpusError(
            f"document {key!r} comes after {last!r}: keys must be unique and in order; rename "
            "the files, or leave one of them out"
        )


def _places(groups: np.ndarray, split: SplitRule) -> np.ndarray:
    """The split of each document by the hash [n, 8] of its group, 8 digits to the base 2**32."""
    assert split.one_in is not None
    remainders: Any = np.zeros(len(groups), np.uint64)
    for digit in groups.astype(np.uint64).T:
        remainders = ((remainders << np.uint64(32)) + digit) % np.uint64(split.one_in)
    train = OF_SPLIT.index("train")
    held_out = np.where((remainders == 1) & split.has_test, OF_SPLIT.index("test"), train)
    return np.where(remainders == 0, OF_SPLIT.index("validation"), held_out).astype(np.int8)


def _check_sizes(places: np.ndarray, split: SplitRule, n_dropped: dict[str, int]) -> None:
    names = OF_SPLIT if split.has_test else ("validation", "train")
    n = {name: int(np.sum(places == OF_SPLIT.index(name))) for name in names}
    if min(n.values(), default=0) == 0:
        dropped = ", ".join(f"{count} {why}" for why, count in n_dropped.items() if count)
        left = ", ".join(f"{count} for {name}" for name, count in n.items())
        raise CorpusError(
            f"{len(places)} documents leave {left}{f' ({dropped} dropped)' if dropped else ''}; a "
            "corpus needs a hundred documents or so: one a file, a line of jsonl, or a part of a "
            "text file that ends at a form feed"
        )
