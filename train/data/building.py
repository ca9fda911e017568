"""Token files from documents, and from the bytes of a corpus: streamed, whatever the size.

A corpus is built as bytes first: its documents are read twice, once to decide which stay
(surveying.py) and once to write them. Every other tokenizer reads those bytes, document by
document. Either goes on where an interrupted build left off (resuming.py).
"""

import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from train.data import ngrams, tokenfiles
from train.data.cleaning import add_to_hash, normalised
from train.data.documents import Document, Source
from train.data.overlap import overlaps
from train.data.resuming import Resumable
from train.data.surveying import NOTE_EVERY_BYTES, Survey, has_changed, identity, survey
from train.data.tokenfiles import CorpusError, Split, TokenizedCorpus
from train.data.tokenizers import BYTES, BpeTokenizer

_TELL_EVERY_S = 5.0
_BATCH_BYTES = 1 << 22
_MAX_N = 4
_COUNTED_BYTES = 1 << 25
_COUNTED_TOKENS = 1 << 23
_N_STRETCHES = 64
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
    """Write the byte tokens of a corpus into a folder, or go on doing so.

    Args:
        documents: gives the documents in key order, each time it is called.
        folder: new, or what an interrupted build of this corpus left.
    Raises: CorpusError: a document cannot be used, a split would be empty, or the documents were
        changed between the two readings.
    """
    state = folder / tokenfiles.UNFINISHED
    state.mkdir(parents=True, exist_ok=True)
    log(f"reading {source.name}")
    found = survey(documents(), source, Progress(log, f"reading {source.name}"), state)
    splits: tuple[Split, ...] = (
        "train",
        "validation",
        *(("test",) if found.split.has_test else ()),
    )
    paths = {name: path for split in splits for name, path in _files(folder, split).items()}
    for path in folder.iterdir():
        if path.is_file() and path not in paths.values():
            path.unlink()  # of an earlier build by other rules, or of a later stage of this one
    of = f"{identity(source)} {found.content_hash}"
    with Resumable(state / "written.json", of, paths) as files:
        _write_documents(documents, source, found, files, log)
        n_bytes = {split: _n_text_bytes(files, split) for split in splits}
    for split in splits:
        starts = np.fromfile(paths[f"{split}.starts"], np.int64)
        tokenfiles.write_starts(folder, split, starts)
    texts = {split: np.fromfile(folder / f"{split}.bin", np.uint8) for split in splits[1:]}
    train = tokenfiles.FileTokens(folder / "train.bin", np.dtype(np.uint8))
    log(f"counting n-grams of {source.name}")
    searched = Progress(log, f"looking for held-out text in {source.name}", len(train))
    values = {
        "name": source.name,
        "origin": source.origin,
        "tokenizer": BYTES.name,
        "vocab_size": BYTES.vocab_size,
        "content_hash": found.content_hash,
        "tokenizer_hash": BYTES.hash,
        "split_rule": found.rule,
        **{f"n_{split}_bytes": n for split, n in n_bytes.items()},
        "n_duplicates_dropped": sum(n for why, n in found.n_dropped.items() if "copies" in why),
        "n_dropped": found.n_dropped,
        "ngram_nats": _ngrams(train, texts["validation"], BYTES.vocab_size),
        "overlap": overlaps(train, texts, searched),
        "about": about(source),
    }
    tokenfiles.finish(folder, values, np.dtype(np.uint8))


def _files(folder: Path, split: Split) -> dict[str, Path]:
    """The files of a split that grow document by document."""
    starts = f"{split}.starts"
    found = {name: folder / name for name in (f"{split}.bin", f"{split}.keys.txt")}
    return {**found, starts: folder / tokenfiles.UNFINISHED / starts}


def _n_text_bytes(files: Resumable, split: Split) -> int:
    n_documents = files.size(f"{split}.starts") // 8
    return files.size(f"{split}.bin") - n_documents


def _write_documents(
    documents: Callable[[], Iterable[Document]],
    source: Source,
    found: Survey,
    files: Resumable,
    log: Callable[[str], object],
) -> None:
    """Add the documents that are not written yet; all are read, for the hash of all."""
    n_written = files.counts.get("n_documents", 0)
    if n_written == len(found.split_of):
        return
    if n_written:
        log(f"going on with {source.name} after {n_written:,} documents")
    progress = Progress(log, f"writing {source.name}", found.n_raw_bytes)
    digest, n_read, noted_at, index = hashlib.sha256(), 0, 0, -1
    for index, document in enumerate(documents()):
        raw = document.text.encode("utf-8")
        add_to_hash(digest, document.key, raw)
        n_read += len(raw)
        progress(n_read)
        split = found.place(index) if index < len(found.split_of) else None
        if index < n_written or split is None:
            continue
        _write_document(document, source, found, split, files)
        if n_read - noted_at >= NOTE_EVERY_BYTES:
            files.note(n_documents=index + 1)
            noted_at = n_read
    if digest.hexdigest() != found.content_hash:
        raise has_changed(source)
    files.note(n_documents=index + 1)


def _write_document(
    document: Document, source: Source, found: Survey, split: Split, files: Resumable
) -> None:
    """Add a document to its split, with an end-of-text byte."""
    text = document.text if source.cleaning is None else normalised(document.text)
    if split != "train" and found.split.head_bytes:
        text = text.encode("utf-8")[: found.split.head_bytes].decode("utf-8", errors="ignore")
    try:
        tokens = BYTES.encode(text)
    except ValueError as error:
        raise CorpusError(f"document {document.key}: {error}") from error
    start = files.size(f"{split}.bin")
    files.write(f"{split}.starts", np.int64(start).tobytes())
    files.write(f"{split}.keys.txt", b"\n" * (start > 0) + document.key.encode("utf-8"))
    files.write(f"{split}.bin", tokens.tobytes() + bytes([BYTES.eot_id]))


def about(source: Source) -> dict[str, str]:
    """What a reader must know to cite and use a corpus."""
    return {name: getattr(source, name) for name in ("title", "licence", "citation", "homepage")}


def build_tokens(
    corpus: TokenizedCorpus,
    text_in: Path,
    tokenizer: BpeTokenizer,
    folder: Path,
    log: Callable[[str], object],
) -> None:
    """Write the tokens of a corpus of bytes in another tokenizer, or go on doing so.

    Args:
        corpus: of bytes.
        text_in: the folder of its files.
        folder: new, or what an interrupted build of these tokens left.
    """
    of = f"{corpus.content_hash} {corpus.split_rule} {tokenizer.hash}"
    (folder / tokenfiles.UNFINISHED).mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder / TOKENIZER)
    dtype = tokenfiles.token_dtype(tokenizer.vocab_size)
    for split in corpus.splits:
        text = tokenfiles.FileTokens(text_in / f"{split}.bin", np.dtype(np.uint8))
        _tokenize_split(corpus, split, text, tokenizer, folder, of, log)
        tokenfiles.write_keys(folder, split, corpus.keys(split))
    train = tokenfiles.FileTokens(folder / "train.bin", dtype)
    validation = np.fromfile(folder / "validation.bin", dtype)
    log(f"counting n-grams of {corpus.name}")
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
    text: tokenfiles.FileTokens,
    tokenizer: BpeTokenizer,
    folder: Path,
    identity: str,
    log: Callable[[str], object],
) -> None:
    state, dtype = folder / tokenfiles.UNFINISHED, tokenfiles.token_dtype(tokenizer.vocab_size)
    paths = {"tokens": folder / f"{split}.bin", "starts": state / f"{split}.starts"}
    progress = Progress(log, f"tokenizing {split} of {corpus.name}", len(text))
    bounds = np.append(corpus.starts(split), len(text))
    with Resumable(state / f"{split}.json", identity, paths) as files:
        n_done = files.counts.get("n_documents", 0)
        if n_done:
            log(f"going on with {split} of {corpus.name} after {n_done:,} documents")
        for first, last in _batches(bounds, n_done):
            places = bounds[first : last + 1] - bounds[first]
            piece = text[int(bounds[first]) : int(bounds[last])]
            documents = [piece[a : b - 1].tobytes().decode() for a, b in itertools.pairwise(places)]
            for tokens in tokenizer.encode_documents(documents):
                start = files.size("tokens") // dtype.itemsize
                files.write("starts", np.int64(start).tobytes())
                files.write("tokens", np.append(tokens, tokenizer.eot_id).astype(dtype).tobytes())
            files.note(n_documents=last)
            progress(int(bounds[last]))
    tokenfiles.write_starts(folder, split, np.fromfile(paths["starts"], np.int64))


def _batches(bounds: np.ndarray, first: int) -> Iterator[tuple[int, int]]:
    """Ranges of documents of some megabytes, from `first` on."""
    last, n = first, len(bounds) - 1
    while first < n:
        last += 1
        if last == n or bounds[last] - bounds[first] >= _BATCH_BYTES:
            yield first, last
            first = last


def _ngrams(
    train: tokenfiles.FileTokens, validation: np.ndarray, vocab_size: int
) -> dict[str, Any]:
    """N-gram entropies, counted on all the text of a corpus that is not too large to sort.

    A larger one is counted on 64 even stretches of it, together 32 MiB of bytes or 8 Mi tokens.
    """
    limit = _COUNTED_BYTES if vocab_size <= 256 else _COUNTED_TOKENS
    max_n = min(_MAX_N, 64 // max(1, (vocab_size - 1).bit_length()))
    return ngrams.ngram_entropies(
        _stretches(train, limit), _stretches(validation, limit), vocab_size=vocab_size, max_n=max_n
    )


def _stretches(tokens: tokenfiles.FileTokens | np.ndarray, limit: int) -> np.ndarray:
    if len(tokens) <= limit:
        return tokens[:]
    length = limit // _N_STRETCHES
    starts = np.linspace(0, len(tokens) - length, _N_STRETCHES).astype(np.int64)
    return np.concatenate([tokens[start : start + length] for start in starts.tolist()])
