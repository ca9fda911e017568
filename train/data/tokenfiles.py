"""Token files: a tokenized corpus on disk, checksummed and memory-mapped.

A folder holds for each split the tokens (`<split>.bin`), where each document starts
(`<split>.starts.npy`) and the documents' keys (`<split>.keys.txt`, one a line); `meta.json` holds
everything else, with a checksum of each file and of itself. `verified.json`, written by whoever
compared all checksums last, says what the files looked like then (size, times, inode): a reader
that finds them unchanged need not read them through again.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation")
"""The splits that every corpus has."""
_FORMAT = 1
_IN_META = (
    "name origin tokenizer vocab_size content_hash tokenizer_hash split_rule n_train_bytes "
    "n_validation_bytes n_duplicates_dropped ngram_nats"
).split()
_IN_NEWER_META = "n_test_bytes n_dropped overlap about".split()
_META = "meta.json"
_STAMP = "verified.json"
UNFINISHED = "unfinished"
"""Folder beside token files that are being built, with what a killed build goes on from."""
_SETTLED_NS = 2_000_000_000


class CorpusError(ValueError):
    """A corpus is missing, damaged or unusable; the message says which file and what to do."""


@dataclass(frozen=True)
class TokenizedCorpus:
    """Tokens of the splits with their document boundaries, memory-mapped where they are files.

    Hashes are hexadecimal sha256. content_hash covers the sorted (key, text) pairs of the source
    and nothing about files, packages or machines; origin names the version that was read.
    Documents are start offsets in tokens (int64): one ends, with its end-of-text token if the
    tokenizer has one, where the next starts. Bytes count text only. ngram_nats holds for each
    split the n-gram entropies for n = 1, 2, ... (ngrams.py).
    n_dropped counts documents by reason; overlap is the share of each held-out split's text that
    occurs in training (overlap.py); about is title, licence, citation and homepage.
    """

    name: str
    origin: str
    tokenizer: str
    vocab_size: int
    content_hash: str
    tokenizer_hash: str
    split_rule: str
    train_tokens: np.ndarray
    validation_tokens: np.ndarray
    train_documents: np.ndarray
    validation_documents: np.ndarray
    train_keys: tuple[str, ...]
    validation_keys: tuple[str, ...]
    n_train_bytes: int
    n_validation_bytes: int
    n_duplicates_dropped: int
    ngram_nats: dict[str, tuple[float, ...]]
    test_tokens: np.ndarray | None = None
    test_documents: np.ndarray | None = None
    test_keys: tuple[str, ...] = ()
    n_test_bytes: int = 0
    n_dropped: dict[str, int] = field(default_factory=dict)
    overlap: dict[str, float] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that this corpus has."""
        return SPLITS if self.test_tokens is None else (*SPLITS, "test")

    def tokens(self, split: Split) -> np.ndarray:
        """Tokens of a split, uint8, uint16 or uint32 of shape (n_tokens,)."""
        return getattr(self, f"{split}_tokens")

    def starts(self, split: Split) -> np.ndarray:
        """Where each document of a split starts, in tokens."""
        return getattr(self, f"{split}_documents")

    def keys(self, split: Split) -> tuple[str, ...]:
        """The keys of a split's documents."""
        return getattr(self, f"{split}_keys")

    def n_bytes(self, split: Split) -> int:
        """Bytes of a split's text."""
        return getattr(self, f"n_{split}_bytes")

    def document_of_token(self, split: Split, positions: np.ndarray) -> np.ndarray:
        """Index of the document that holds each token position: int64, the shape of positions.

        With batches.target_positions this gives the cluster of each validation loss.
        """
        return np.searchsorted(self.starts(split), positions, side="right") - 1


class FileTokens:
    """Tokens in a file, a slice read when it is asked for: memory holds no more than that."""

    def __init__(self, path: Path, dtype: np.dtype):
        self._path, self._dtype = path, dtype
        self._n = path.stat().st_size // dtype.itemsize

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(self._n)
        offset = start * self._dtype.itemsize
        return np.fromfile(self._path, self._dtype, max(0, stop - start), offset=offset)


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest unsigned type that holds every token."""
    return np.min_scalar_type(vocab_size - 1)


def write_keys(folder: Path, split: Split, keys: Iterable[str]) -> None:
    """Write the keys of a split's documents, one a line."""
    (folder / f"{split}.keys.txt").write_bytes("\n".join(keys).encode("utf-8"))


def write_starts(folder: Path, split: Split, starts: np.ndarray) -> None:
    """Write where the documents of a split start."""
    np.save(folder / f"{split}.starts.npy", np.asarray(starts, np.int64), allow_pickle=False)


def finish(folder: Path, values: dict[str, Any], dtype: np.dtype) -> None:
    """Write meta.json, with which a folder of token files is complete; notes on its building go.

    Args:
        values: the fields of TokenizedCorpus that are no arrays and no keys.
    """
    meta: dict[str, Any] = {**values, "format": _FORMAT, "dtype": dtype.str}
    written = sorted(path for path in folder.iterdir() if path.name not in (UNFINISHED, _META))
    meta["files"] = {path.name: _sha256(path) for path in written}
    meta["checksum"] = _checksum(meta)
    (folder / _META).write_text(json.dumps(meta, indent=1), encoding="utf-8")
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def write(corpus: TokenizedCorpus, folder: Path) -> None:
    """Write a corpus that is in memory into a new folder.

    Raises: CorpusError: a key is not one line. FileExistsError: the folder exists.
    """
    folder.mkdir(parents=True)
    for split in corpus.splits:
        for key in corpus.keys(split):
            if key.splitlines() != [key]:
                raise CorpusError(f"document key {key!r} is not one line; rename the document")
        corpus.tokens(split).tofile(folder / f"{split}.bin")
        write_starts(folder, split, corpus.starts(split))
        write_keys(folder, split, corpus.keys(split))
    names = (*_IN_META, *_IN_NEWER_META)
    finish(folder, {name: getattr(corpus, name) for name in names}, corpus.train_tokens.dtype)


def read(folder: Path, *, remedy: str, every_byte: bool = False) -> TokenizedCorpus:
    """Open a corpus whose files are those that were written.

    Args:
        every_byte: compare all checksums even of files that look unchanged since that was done.
    Raises: CorpusError: the folder is missing or a file in it is missing or damaged; the message
        names the file and ends with the remedy.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder} does not exist; {remedy}")
    meta = read_meta(folder, remedy)
    _verify(folder, meta, remedy, every_byte)
    names = [*_IN_META, *(name for name in _IN_NEWER_META if name in meta)]
    fields: dict[str, Any] = {name: meta[name] for name in names}
    fields["ngram_nats"] = {split: tuple(nats) for split, nats in meta["ngram_nats"].items()}
    for split in (s for s in (*SPLITS, "test") if f"{s}.bin" in meta["files"]):
        tokens = np.memmap(folder / f"{split}.bin", dtype=meta["dtype"], mode="r")
        fields[f"{split}_tokens"] = np.asarray(tokens)
        fields[f"{split}_documents"] = np.load(folder / f"{split}.starts.npy", allow_pickle=False)
        keys = (folder / f"{split}.keys.txt").read_bytes().decode("utf-8")
        fields[f"{split}_keys"] = tuple(keys.split("\n"))
    return TokenizedCorpus(**fields)


def read_meta(folder: Path, remedy: str) -> dict[str, Any]:
    """The description in a folder of token files, which is whole.

    Raises: CorpusError: it is missing, damaged, or of another format.
    """
    path = folder / _META
    try:
        meta = json.loads(path.read_bytes())
        written = meta.pop("checksum")
    except FileNotFoundError as error:
        raise CorpusError(f"{path} is missing; {remedy}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{path} is damaged: it is not whole JSON; {remedy}") from error
    if written != _checksum(meta):
        raise CorpusError(f"{path} is damaged: its own checksum differs; {remedy}")
    if meta["format"] != _FORMAT:
        raise CorpusError(f"{path} has format {meta['format']}, not {_FORMAT}; {remedy}")
    return meta


def _verify(folder: Path, meta: dict[str, Any], remedy: str, every_byte: bool) -> None:
    known = {} if every_byte else _known_intact(folder, _checksum(meta))
    looks, began_ns = {}, time.time_ns()
    for file, checksum in meta["files"].items():
        path = folder / file
        if not path.is_file():
            raise CorpusError(f"{path} is missing; {remedy}")
        looks[file] = _look(path)
        if known.get(file) != looks[file] and _sha256(path) != checksum:
            raise CorpusError(f"{path} is damaged: its checksum differs from meta.json; {remedy}")
    if known != looks:
        _remember(folder, {"of": _checksum(meta), "at_ns": began_ns, "files": looks})


def _look(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _known_intact(folder: Path, checksum: str) -> dict[str, list[int]]:
    """How files looked when they were last found intact; nothing for one changed about then.

    A file's clock is coarse: what is written right after a look may have the times of before.
    """
    try:
        stamp = json.loads((folder / _STAMP).read_bytes())
        if stamp["of"] != checksum:
            return {}
        settled = stamp["at_ns"] - _SETTLED_NS
        return {file: look for file, look in stamp["files"].items() if max(look[1:3]) < settled}
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return {}


def _remember(folder: Path, stamp: dict[str, Any]) -> None:
    part = folder / f"{_STAMP}.{os.getpid()}"
    try:
        part.write_text(json.dumps(stamp))
        part.replace(folder / _STAMP)
    except OSError:  # a folder that cannot be written to is read through each time
        part.unlink(missing_ok=True)


def _checksum(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode("utf-8")).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
