"""Token files from documents, and from the bytes of a corpus: streamed, whatever the size.

A corpus is built as bytes first: its documents are read twice, once to decide which stay
(cleaning.py) and once to write them. Every other tokenizer reads those bytes, document by document,
and goes on where an interrupted build left off.
"""

import hashlib
import itertools
import json
import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.data import ngrams, tokenfiles
from train.data.cleaning import Survey, add_to_hash, normalised, survey
from train.data.documents import Document, Source
from train.data.overlap import overlap
from train.data.tokenfiles import CorpusError, Split, TokenizedCorpus
from train.data.tokenizers import BYTES, BpeTokenizer

_TELL_EVERY_S = 5.0
_BATCH_BYTES = 1 << 22
_MAX_N = 4
_COUNTED_BYTES = 1 << 25
_COUNTED_TOKENS = 1 << 23
_N_STRETCHES = 64
_PROGRESS = "progress.json"
TOKENIZER = "tokenizer.json"
"""The tokenizer itself lies beside its tokens, but for bytes."""


class Progress:
    """Tells how far a build is, every few seconds."""

    def __init__(self, log: Callable[[str], object], what: str, n_bytes: int | None = None):
        self._log, self._what, self._n_bytes = log, what, n_bytes
        self._told_at = time.monotonic()

    def __call__(self, n_done: int) -> None:
        now = time.monotonic()
        if now - self._told_at < _TELL_EVERY_S:
            return
        self._told_at = now
        of = f" of {self._n_bytes / 1e6:,.0f}" if self._n_bytes else ""
        self._log(f"{self._what}: {n_done / 1e6:,.0f}{of} MB")


def build_bytes(
    source: Source,
    documents: Callable[[], Iterable[Document]],
    folder: Path,
    log: Callable[[str], object],
) -> None:
    """Write the byte tokens of a corpus into a new folder.

    Args:
        documents: gives the documents in key order, each time it is called.
    Raises: CorpusError: a document cannot be used, a split would be empty, or the documents were
        changed between the two readings.
    """
    log(f"reading {source.name}")
    found = survey(documents(), source, Progress(log, f"reading {source.name}"))
    folder.mkdir(parents=True)
    splits: tuple[Split, ...] = (
        "train",
        "validation",
        *(("test",) if found.split.has_test else ()),
    )
    writers: dict[Split, _BytesWriter] = {s: _BytesWriter(folder, s) for s in splits}
    progress = Progress(log, f"writing {source.name}", found.n_raw_bytes)
    try:
        _write_documents(documents(), source, found, writers, progress)
    finally:
        for writer in writers.values():
            writer.close()
    texts = {split: np.fromfile(folder / f"{split}.bin", np.uint8) for split in splits[1:]}
    train = np.memmap(folder / "train.bin", np.uint8, mode="r")
    values = {
        "name": source.name,
        "origin": source.origin,
        "tokenizer": BYTES.name,
        "vocab_size": BYTES.vocab_size,
        "content_hash": found.content_hash,
        "tokenizer_hash": BYTES.hash,
        "split_rule": found.rule,
        **{f"n_{split}_bytes": writer.n_bytes for split, writer in writers.items()},
        "n_duplicates_dropped": sum(n for why, n in found.n_dropped.items() if "copies" in why),
        "n_dropped": found.n_dropped,
        "ngram_nats": _ngrams(train, texts["validation"], BYTES.vocab_size),
        "overlap": {split: overlap(train, texts[split]) for split in splits[1:]},
        "about": about(source),
    }
    tokenfiles.finish(folder, values, np.dtype(np.uint8))


def _write_documents(
    documents: Iterable[Document],
    source: Source,
    found: Survey,
    writers: dict[Split, "_BytesWriter"],
    progress: Progress,
) -> None:
    digest, n_read = hashlib.sha256(), 0
    for index, document in enumerate(documents):
        raw = document.text.encode("utf-8")
        add_to_hash(digest, document.key, raw)
        n_read += len(raw)
        progress(n_read)
        split = found.place(index) if index < len(found.split_of) else None
        if split is None:
            continue
        text = document.text if source.cleaning is None else normalised(document.text)
        if split != "train" and found.split.head_bytes:
            text = text.encode("utf-8")[: found.split.head_bytes].decode("utf-8", errors="ignore")
        try:
            writers[split].add(document.key, BYTES.encode(text))
        except ValueError as error:
            raise CorpusError(f"document {document.key}: {error}") from error
    if digest.hexdigest() != found.content_hash:
        raise CorpusError(f"the text of {source.name} changed while it was read; prepare it again")


def about(source: Source) -> dict[str, str]:
    """What a reader must know to cite and use a corpus."""
    return {name: getattr(source, name) for name in ("title", "licence", "citation", "homepage")}


class _BytesWriter:
    """Writes the documents of one split, each with an end-of-text byte."""

    def __init__(self, folder: Path, split: Split):
        self._tokens = (folder / f"{split}.bin").open("wb")
        self._folder = folder
        self._split: Split = split
        self._starts, self._keys, self._n_tokens = array("q"), [], 0

    @property
    def n_bytes(self) -> int:
        return self._n_tokens - len(self._keys)

    def add(self, key: str, tokens: np.ndarray) -> None:
        self._starts.append(self._n_tokens)
        self._keys.append(key)
        self._tokens.write(tokens.tobytes() + bytes([BYTES.eot_id]))
        self._n_tokens += len(tokens) + 1

    def close(self) -> None:
        self._tokens.close()
        tokenfiles.write_starts(self._folder, self._split, np.frombuffer(self._starts, np.int64))
        tokenfiles.write_keys(self._folder, self._split, self._keys)


@dataclass(frozen=True)
class _Done:
    """How far a split has been tokenized."""

    n_documents: int
    n_tokens: int


def build_tokens(
    corpus: TokenizedCorpus, tokenizer: BpeTokenizer, folder: Path, log: Callable[[str], object]
) -> None:
    """Write the tokens of a corpus of bytes in another tokenizer, or go on doing so.

    Args:
        corpus: of bytes.
        folder: new, or what an interrupted build of these tokens left.
    """
    identity = f"{corpus.content_hash} {corpus.split_rule} {tokenizer.hash}"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder / TOKENIZER)
    dtype = tokenfiles.token_dtype(tokenizer.vocab_size)
    for split in corpus.splits:
        _tokenize_split(corpus, split, tokenizer, folder, identity, log)
        tokenfiles.write_keys(folder, split, corpus.keys(split))
    for split in corpus.splits:
        (folder / f"{split}.{_PROGRESS}").unlink()
        (folder / f"{split}.starts.part").unlink()
    train = np.memmap(folder / "train.bin", dtype, mode="r")
    validation = np.fromfile(folder / "validation.bin", dtype)
    values = {
        "name": corpus.name,
        "origin": corpus.origin,
        "tokenizer": tokenizer.name,
        "vocab_size": tokenizer.vocab_size,
        "content_hash": corpus.content_hash,
        "tokenizer_hash": tokenizer.hash,
        "split_rule": corpus.split_rule,
        **{f"n_{split}_bytes": corpus.n_bytes(split) for split in corpus.splits},
        "n_duplicates_dropped": corpus.n_duplicates_dropped,
        "n_dropped": corpus.n_dropped,
        "ngram_nats": _ngrams(train, validation, tokenizer.vocab_size),
        "overlap": corpus.overlap,
        "about": corpus.about,
    }
    tokenfiles.finish(folder, values, dtype)


def _tokenize_split(
    corpus: TokenizedCorpus,
    split: Split,
    tokenizer: BpeTokenizer,
    folder: Path,
    identity: str,
    log: Callable[[str], object],
) -> None:
    state, dtype = folder / f"{split}.{_PROGRESS}", tokenfiles.token_dtype(tokenizer.vocab_size)
    done = _done(state, identity)
    if done.n_documents:
        log(f"going on with {split} of {corpus.name} after {done.n_documents:,} documents")
    text, bounds = corpus.tokens(split), [*corpus.starts(split).tolist(), len(corpus.tokens(split))]
    progress = Progress(log, f"tokenizing {split} of {corpus.name}", len(text))
    with (
        _cut(folder / f"{split}.bin", done.n_tokens * dtype.itemsize) as tokens_file,
        _cut(folder / f"{split}.starts.part", done.n_documents * 8) as starts_file,
    ):
        for first, last in _batches(bounds, done.n_documents):
            documents = [text[a : b - 1] for a, b in itertools.pairwise(bounds[first : last + 1])]
            n_tokens, starts = done.n_tokens, array("q")
            for tokens in tokenizer.encode_documents([d.tobytes().decode() for d in documents]):
                starts.append(n_tokens)
                ended = np.append(tokens, tokenizer.eot_id).astype(dtype)
                tokens_file.write(ended.tobytes())
                n_tokens += len(ended)
            starts_file.write(starts.tobytes())
            done = _Done(last, n_tokens)
            _note(state, identity, done, tokens_file, starts_file)
            progress(bounds[last])
    starts = np.fromfile(folder / f"{split}.starts.part", np.int64)
    tokenfiles.write_starts(folder, split, starts)


def _batches(bounds: list[int], first: int) -> Iterator[tuple[int, int]]:
    """Ranges of documents of some megabytes, from `first` on."""
    last = first
    while first < len(bounds) - 1:
        last += 1
        if last == len(bounds) - 1 or bounds[last] - bounds[first] >= _BATCH_BYTES:
            yield first, last
            first = last


def _cut(path: Path, size: int):
    """A file opened for going on after `size` bytes; what lies beyond is of an unfinished batch."""
    file = path.open("ab")
    file.truncate(size)
    return file


def _done(state: Path, identity: str) -> _Done:
    try:
        found = json.loads(state.read_bytes())
    except (FileNotFoundError, ValueError):
        return _Done(0, 0)
    same = found["of"] == identity
    return _Done(found["n_documents"], found["n_tokens"]) if same else _Done(0, 0)


def _note(state: Path, identity: str, done: _Done, *files: Any) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())
    part = state.with_suffix(".part")
    part.write_text(json.dumps({"of": identity, **vars(done)}))
    part.replace(state)


def _ngrams(train: np.ndarray, validation: np.ndarray, vocab_size: int) -> dict[str, Any]:
    """N-gram entropies, counted on all the text of a corpus that is not too large to sort.

    A larger one is counted on 64 even stretches of it, together 32 MiB of bytes or 8 Mi tokens.
    """
    limit = _COUNTED_BYTES if vocab_size <= 256 else _COUNTED_TOKENS
    max_n = min(_MAX_N, 64 // max(1, (vocab_size - 1).bit_length()))
    return ngrams.ngram_entropies(
        _stretches(train, limit), _stretches(validation, limit), vocab_size=vocab_size, max_n=max_n
    )


def _stretches(tokens: np.ndarray, limit: int) -> np.ndarray:
    if len(tokens) <= limit:
        return np.asarray(tokens)
    length = limit // _N_STRETCHES
    starts = np.linspace(0, len(tokens) - length, _N_STRETCHES).astype(np.int64)
    return np.concatenate([tokens[start : start + length] for start in starts.tolist()])
