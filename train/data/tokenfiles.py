"""Token files: a tokenized corpus on disk, checksummed and memory-mapped.

A folder holds for each split the tokens (`<split>.bin`), where each document starts
(`<split>.starts.npy`) and the documents' keys (`<split>.keys.txt`, one a line); `meta.json` holds
everything else, with a checksum of each file and of itself.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
_FORMAT = 1
_IN_META = (
    "name origin tokenizer vocab_size content_hash tokenizer_hash split_rule n_train_bytes "
    "n_validation_bytes n_duplicates_dropped ngram_nats"
).split()


class CorpusError(ValueError):
    """A corpus is missing, damaged or unusable; the message says which file and what to do."""


@dataclass(frozen=True)
class TokenizedCorpus:
    """Tokens of both splits with their document boundaries, memory-mapped where they are files.

    Hashes are hexadecimal sha256. content_hash covers the sorted (key, text) pairs of the source
    and nothing about files, packages or machines; origin names the version that was read.
    Documents are start offsets in tokens (int64): one ends, with its end-of-text token if the
    tokenizer has one, where the next starts. Bytes count text only. ngram_nats holds for each
    split the n-gram entropies for n = 1, 2, ... (ngrams.py).
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

    def tokens(self, split: Split) -> np.ndarray:
        """Tokens of a split, uint8 or uint16 of shape (n_tokens,)."""
        return self.train_tokens if split == "train" else self.validation_tokens

    def document_of_token(self, split: Split, positions: np.ndarray) -> np.ndarray:
        """Index of the document that holds each token position: int64, the shape of positions.

        With batches.target_positions this gives the cluster of each validation loss.
        """
        starts = self.train_documents if split == "train" else self.validation_documents
        return np.searchsorted(starts, positions, side="right") - 1


def write(corpus: TokenizedCorpus, folder: Path) -> None:
    """Write a corpus into a new folder; it is complete once meta.json is there.

    Raises: CorpusError: a key is empty or longer than a line. FileExistsError: the folder exists.
    """
    folder.mkdir(parents=True)
    for split in SPLITS:
        keys = corpus.train_keys if split == "train" else corpus.validation_keys
        starts = corpus.train_documents if split == "train" else corpus.validation_documents
        for key in keys:
            if key.splitlines() != [key]:
                raise CorpusError(f"document key {key!r} is not one line; rename the document")
        corpus.tokens(split).tofile(folder / f"{split}.bin")
        np.save(folder / f"{split}.starts.npy", starts, allow_pickle=False)
        (folder / f"{split}.keys.txt").write_bytes("\n".join(keys).encode("utf-8"))
    meta = {name: getattr(corpus, name) for name in _IN_META}
    meta["format"] = _FORMAT
    meta["dtype"] = corpus.train_tokens.dtype.str
    meta["files"] = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    meta["checksum"] = _checksum(meta)
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def read(folder: Path, *, remedy: str) -> TokenizedCorpus:
    """Open a corpus after checking every byte of it.

    Raises: CorpusError: the folder is missing or a file in it is missing or damaged; the message
        names the file and ends with the remedy.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder} does not exist; {remedy}")
    meta = _read_meta(folder / "meta.json", remedy)
    for file, checksum in meta["files"].items():
        path = folder / file
        if not path.is_file():
            raise CorpusError(f"{path} is missing; {remedy}")
        if _sha256(path) != checksum:
            raise CorpusError(f"{path} is damaged: its checksum differs from meta.json; {remedy}")
    fields: dict[str, Any] = {name: meta[name] for name in _IN_META}
    fields["ngram_nats"] = {split: tuple(nats) for split, nats in meta["ngram_nats"].items()}
    for split in SPLITS:
        tokens = np.memmap(folder / f"{split}.bin", dtype=meta["dtype"], mode="r")
        fields[f"{split}_tokens"] = np.asarray(tokens)
        fields[f"{split}_documents"] = np.load(folder / f"{split}.starts.npy", allow_pickle=False)
        keys = (folder / f"{split}.keys.txt").read_bytes().decode("utf-8")
        fields[f"{split}_keys"] = tuple(keys.split("\n"))
    return TokenizedCorpus(**fields)


def _read_meta(path: Path, remedy: str) -> dict[str, Any]:
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


def _checksum(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode("utf-8")).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
