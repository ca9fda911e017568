"""Which documents of a corpus stay, and in which split: the first of two readings of it."""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from train.data.documents import Document, Source, SplitRule
from train.data.tokenfiles import CorpusError, Split

_SHINGLE_WORDS = 5
_N_HASHES = 128
_SEED = 42
_DROPPED = -1
_OF_SPLIT: tuple[Split, ...] = ("validation", "test", "train")


@dataclass(frozen=True)
class Survey:
    """What was found in one reading of the documents, in the order in which they were read.

    `split_of`: index into `splits` for each document, or -1 where it is dropped. `n_dropped` counts
    documents by reason. `rule` says how text of this size is cleaned and split.
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
        return None if found == _DROPPED else _OF_SPLIT[found]


def normalised(text: str) -> str:
    """NFC, LF line ends, no NUL characters."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return unicodedata.normalize("NFC", text)


def survey(
    documents: Iterable[Document], source: Source, told: Callable[[int], object] = lambda n: None
) -> Survey:
    """Read all documents once and decide for each; holds hashes, never texts.

    Args:
        told: is given the bytes read so far, now and then.
    Raises: CorpusError: keys are not one line each or not in order, a field to split by is
        missing, or a split would be empty.
    """
    cleaning, digest = source.cleaning, hashlib.sha256()
    texts, sketches, empty = [], [], []
    hashes, n_bytes, last = bytearray(), 0, None
    for document in documents:
        _check_key(document.key, last)
        last = document.key
        raw = _encoded(document)
        add_to_hash(digest, document.key, raw)
        text = raw if cleaning is None else normalised(document.text).encode("utf-8")
        texts.append(hashlib.blake2b(text, digest_size=16).digest())
        if not text.strip():
            empty.append(len(texts) - 1)
        if cleaning is not None:
            sketches.append(_sketch(text.decode("utf-8")))
        by = source.split.by
        group = document.key if by is None else str(document.fields[by])
        hashes += hashlib.sha256(group.encode("utf-8")).digest()
        n_bytes += len(raw)
        told(n_bytes)
    split = source.split.sized(n_bytes)
    places = _places(bytes(hashes), split)
    if cleaning is None:
        n_dropped = _drop_copies_of_validation(places, texts)
    else:
        n_dropped = _drop(places, texts, empty, sketches, cleaning.similarity)
    _check_sizes(places, split, n_dropped)
    return Survey(digest.hexdigest(), source.rule(n_bytes), split, places, n_dropped, n_bytes)


def add_to_hash(digest, key: str, content: bytes) -> None:
    """Add a document to a content hash: sha256 over (key, text) pairs, each with its length."""
    for part in (key.encode("utf-8"), content):
        digest.update(len(part).to_bytes(8, "little") + part)


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


def _places(hashes: bytes, split: SplitRule) -> np.ndarray:
    assert split.one_in is not None
    remainders = np.array(
        [
            int.from_bytes(hashes[i : i + 32], "big") % split.one_in
            for i in range(0, len(hashes), 32)
        ],
        dtype=np.int64,
    )
    train = _OF_SPLIT.index("train")
    held_out = np.where((remainders == 1) & split.has_test, 1, train)
    return np.where(remainders == 0, 0, held_out).astype(np.int8)


def _drop_copies_of_validation(places: np.ndarray, texts: list[bytes]) -> dict[str, int]:
    """Marks them as dropped in `places`; returns how many."""
    train = _OF_SPLIT.index("train")
    held_out = {texts[i] for i in np.flatnonzero(places != train)}
    copies = [i for i in np.flatnonzero(places == train) if texts[i] in held_out]
    places[copies] = _DROPPED
    return {"exact copies": len(copies)}


def _drop(
    places: np.ndarray, texts: list[bytes], empty: list[int], sketches: list, similarity: float
) -> dict[str, int]:
    """Marks empty documents and copies as dropped in `places`; returns how many, by reason."""
    order = np.argsort(places == _OF_SPLIT.index("train"), kind="stable").tolist()
    seen, gone, exact = set(), set(empty), []
    for i in order:  # held-out documents first
        if i in gone:
            continue
        if texts[i] in seen:
            exact.append(i)
        seen.add(texts[i])
    gone.update(exact)
    near = _near_copies([i for i in order if i not in gone], sketches, similarity)
    places[[*empty, *exact, *near]] = _DROPPED
    return {"empty": len(empty), "exact copies": len(exact), "near copies": len(near)}


def _sketch(text: str):
    """MinHash of the word 5-grams of a text; of all its words where they are fewer."""
    from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]

    words = text.split()
    runs = zip(*(words[i:] for i in range(_SHINGLE_WORDS)), strict=False)
    sketch = RMinHash(num_perm=_N_HASHES, seed=_SEED)
    sketch.update(list(map(" ".join, runs)) if len(words) >= _SHINGLE_WORDS else [" ".join(words)])
    return sketch


def _near_copies(order: list[int], sketches: list, similarity: float) -> list[int]:
    """Documents that resemble one that comes before them in the order and is kept."""
    from rensa import RMinHashLSH  # pyright: ignore[reportAttributeAccessIssue]

    # 32 bands of 4: a pair of similarity 0.8 escapes every band with a chance of 5e-8.
    index, copies = RMinHashLSH(threshold=similarity, num_perm=_N_HASHES, num_bands=32), []
    for i in order:
        alike = (sketches[i].jaccard(sketches[j]) for j in index.query(sketches[i]))
        if any(found >= similarity for found in alike):
            copies.append(i)
        else:
            index.insert(i, sketches[i])
    return copies


def _check_sizes(places: np.ndarray, split: SplitRule, n_dropped: dict[str, int]) -> None:
    names = _OF_SPLIT if split.has_test else ("validation", "train")
    n = {name: int(np.sum(places == _OF_SPLIT.index(name))) for name in names}
    if min(n.values(), default=0) == 0:
        dropped = ", ".join(f"{count} {why}" for why, count in n_dropped.items() if count)
        left = ", ".join(f"{count} for {name}" for name, count in n.items())
        raise CorpusError(
            f"{len(places)} documents leave {left}{f' ({dropped} dropped)' if dropped else ''}; a "
            "corpus needs a hundred documents or so: one a file, a line of jsonl, or a part of a "
            "text file that ends at a form feed"
        )
