"""Corpora by name: prepared once, then loaded in milliseconds.

Under the data directory, `tfds/` holds the documents (builders.py) and
`tokens/<corpus>-<tokenizer>/` the token files (tokenfiles.py). That folder appears by one rename,
so a half-written corpus is never seen under its name.
"""

import fcntl
import hashlib
import lzma
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from train.data import ngrams, tokenfiles
from train.data.languages import names as languages
from train.data.sources import SOURCES, Document, get_source
from train.data.tokenfiles import SPLITS, CorpusError, Split, TokenizedCorpus
from train.data.tokenizers import ByteTokenizer, get_tokenizer

SPLIT_RULE = (
    "validation if int(sha256(key)) % 20 == 0, else train; "
    "train drops documents whose text is also in validation"
)
_MAX_N = 4
_SYMBOLS = "symbols"
"""Tokenizer of generated languages, whose text is tokens from the start."""


@dataclass(frozen=True)
class CorpusReport:
    """What a person wants to know of a corpus before training on it."""

    name: str
    title: str
    origin: str
    licence: str
    citation: str
    homepage: str
    tokenizer: str
    content_hash: str
    split_rule: str
    n_documents: dict[str, int]
    n_bytes: dict[str, int]
    n_tokens: dict[str, int]
    n_duplicates_dropped: int
    ngram_nats: dict[str, tuple[float, ...]]
    validation_xz_bits_per_byte: float
    sample: str


def available() -> dict[str, str]:
    """Names of the corpora that can be prepared, each with one line on what it is."""
    return {name: source.title for name, source in SOURCES.items()} | languages.available()


def prepare(
    name: str, data_dir: Path, *, tokenizer: str = "bytes", log: Callable[[str], object] = print
) -> TokenizedCorpus:
    """Make the token files of a corpus unless intact ones are there, and load them.

    Safe to kill and to start several times at once: one builder works at a time, what an earlier
    one left unfinished is removed, and damaged files are built anew.

    Raises: ValueError: unknown corpus or tokenizer. CorpusError: the text cannot be used.
    """
    if languages.is_language(name):
        return _prepare_language(name, data_dir, log)
    tokenize_with = get_tokenizer(tokenizer)
    source = get_source(name)
    folder = _folder(name, data_dir, tokenizer)
    if folder.exists():
        try:
            return load(name, data_dir, tokenizer=tokenizer)
        except CorpusError as problem:
            log(f"{problem} (doing so now)")
    with _lock(folder.with_name(f"{name}.lock")):
        try:  # another process may have built it while this one waited
            return load(name, data_dir, tokenizer=tokenizer)
        except CorpusError:
            unfinished = folder.with_name(f"{folder.name}.unfinished")
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(unfinished, ignore_errors=True)
        log(f"preparing {name}: {source.title}")
        documents = _documents(name, Path(data_dir) / "tfds", log)
        corpus = tokenize(documents, tokenize_with, name=name, origin=source.origin)
        tokenfiles.write(corpus, unfinished)
        os.rename(unfinished, folder)
    log(
        f"prepared {name}: {len(corpus.train_tokens):,} training and "
        f"{len(corpus.validation_tokens):,} validation tokens, "
        f"{corpus.n_duplicates_dropped} duplicate documents dropped"
    )
    return load(name, data_dir, tokenizer=tokenizer)


def load(name: str, data_dir: Path, *, tokenizer: str = "bytes") -> TokenizedCorpus:
    """Open a prepared corpus, checking every byte of it.

    Raises: ValueError: unknown corpus or tokenizer. CorpusError: it was not prepared, or a file is
        damaged; the message names the file and the remedy.
    """
    if languages.is_language(name):
        name, tokenizer = languages.parse(name).name, _SYMBOLS
    else:
        get_source(name)
        get_tokenizer(tokenizer)
    folder = _folder(name, data_dir, tokenizer)
    return tokenfiles.read(folder, remedy=f"run: python launch.py data prepare {name}")


def split_text(corpus: TokenizedCorpus, split: Split) -> str:
    """The text of a split, documents joined by what the tokenizer shows for an end of text.

    Raises: ValueError: the corpus is of a generated language, which has no text.
    """
    return get_tokenizer(corpus.tokenizer).decode(corpus.tokens(split))


def language(name: str, data_dir: Path) -> languages.Language:
    """The generated language of a prepared corpus.

    Raises: ValueError: unknown language. CorpusError: the text that it was counted in is gone.
    """
    found, _ = languages.parse(name).language(partial(_training_text, data_dir=data_dir))
    return found


def _training_text(name: str, data_dir: Path) -> tuple[str, str]:
    get_source(name)
    corpus = load(name, data_dir)
    return split_text(corpus, "train"), corpus.content_hash


def _prepare_language(name: str, data_dir: Path, log: Callable[[str], object]) -> TokenizedCorpus:
    """Draw the tokens of a generated language unless intact ones are there, and load them."""
    named = languages.parse(name)
    folder = _folder(named.name, data_dir, _SYMBOLS)
    with _lock(folder.with_name(f"{named.name}.lock")):
        try:
            return load(name, data_dir)
        except CorpusError as problem:
            if folder.exists():
                log(f"{problem} (doing so now)")
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(unfinished, ignore_errors=True)

        def text_of(text: str) -> tuple[str, str]:
            prepare(text, data_dir, log=log)
            return _training_text(text, data_dir)

        log(f"drawing {named.name}: {named.title}")
        tokenfiles.write(named.generate(text_of), unfinished)
        os.rename(unfinished, folder)
    return load(name, data_dir)


def tokenize(
    documents: list[Document], tokenizer: ByteTokenizer, *, name: str, origin: str
) -> TokenizedCorpus:
    """Split, tokenize and count documents (in the order given) into a corpus in memory.

    Raises: CorpusError: a split would be empty, or a document cannot be tokenized.
    """
    splits, n_dropped = split_documents(documents)
    fields: dict[str, Any] = {}
    for split in SPLITS:
        tokens, starts = _concatenate(splits[split], tokenizer)
        fields[f"{split}_tokens"], fields[f"{split}_documents"] = tokens, starts
        fields[f"{split}_keys"] = tuple(document.key for document in splits[split])
        n_bytes = sum(len(document.text.encode("utf-8")) for document in splits[split])
        fields[f"n_{split}_bytes"] = n_bytes
    return TokenizedCorpus(
        name=name,
        origin=origin,
        tokenizer=tokenizer.name,
        vocab_size=tokenizer.vocab_size,
        content_hash=content_hash(documents),
        tokenizer_hash=tokenizer.hash,
        split_rule=SPLIT_RULE,
        n_duplicates_dropped=n_dropped,
        ngram_nats=ngrams.ngram_entropies(
            fields["train_tokens"],
            fields["validation_tokens"],
            vocab_size=tokenizer.vocab_size,
            max_n=_MAX_N,
        ),
        **fields,
    )


def ngram_entropies(
    corpus: TokenizedCorpus, max_n: int = 4, *, split: Split = "validation"
) -> dict[int, float]:
    """Loss of the training text's n-gram counts on a split, nats per token, by n.

    The validation values are the reference lines for a model's validation loss; the training
    values are the conditional entropies H_n - H_(n-1) of the counts themselves.
    Raises: ValueError: max_n is larger than what was counted.
    """
    values = corpus.ngram_nats[split]
    if not 1 <= max_n <= len(values):
        raise ValueError(f"max_n={max_n} is outside 1..{len(values)}, the n-grams that are counted")
    return dict(enumerate(values[:max_n], start=1))


def inspect(
    name: str, data_dir: Path, *, tokenizer: str = "bytes"
) -> CorpusReport | languages.LanguageReport:
    """Describe a prepared corpus.

    Raises: ValueError: unknown corpus. CorpusError: it was not prepared, or a file is damaged.
    """
    if languages.is_language(name):
        corpus = load(name, data_dir)
        return languages.describe(languages.parse(name), corpus, language(name, data_dir))
    source = get_source(name)
    corpus = load(name, data_dir, tokenizer=tokenizer)
    text = get_tokenizer(tokenizer).decode(corpus.validation_tokens)
    packed = lzma.compress(text.encode("utf-8"), preset=9)
    return CorpusReport(
        name=name,
        title=source.title,
        origin=corpus.origin,
        licence=source.licence,
        citation=source.citation,
        homepage=source.homepage,
        tokenizer=tokenizer,
        content_hash=corpus.content_hash,
        split_rule=corpus.split_rule,
        n_documents={"train": len(corpus.train_keys), "validation": len(corpus.validation_keys)},
        n_bytes={"train": corpus.n_train_bytes, "validation": corpus.n_validation_bytes},
        n_tokens={split: len(corpus.tokens(split)) for split in SPLITS},
        n_duplicates_dropped=corpus.n_duplicates_dropped,
        ngram_nats=corpus.ngram_nats,
        validation_xz_bits_per_byte=8 * len(packed) / corpus.n_validation_bytes,
        sample=text[:400],
    )


def content_hash(documents: Iterable[Document]) -> str:
    """Identity of a set of documents: sha256 over their (key, text) pairs in key order."""
    digest = hashlib.sha256()
    for document in sorted(documents, key=lambda document: document.key):
        for part in (document.key.encode("utf-8"), document.text.encode("utf-8")):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def split_documents(documents: Iterable[Document]) -> tuple[dict[Split, list[Document]], int]:
    """Split documents by a hash of their key, and keep validation text out of training.

    Returns: the documents of each split in the order given, and how many were dropped from train
        because validation holds the same text.
    Raises: CorpusError: a split would be empty.
    """
    validation, train = [], []
    for document in documents:
        digest = hashlib.sha256(document.key.encode("utf-8")).hexdigest()
        (validation if int(digest, 16) % 20 == 0 else train).append(document)
    held_out = {document.text for document in validation}
    kept = [document for document in train if document.text not in held_out]
    if not validation or not kept:
        raise CorpusError(
            f"{len(train) + len(validation)} documents leave {len(validation)} for validation and "
            f"{len(kept)} for training; a corpus needs a hundred documents or so"
        )
    return {"train": kept, "validation": validation}, len(train) - len(kept)


def _folder(name: str, data_dir: Path, tokenizer: str) -> Path:
    return Path(data_dir) / "tokens" / f"{name}-{tokenizer}"


def _concatenate(
    documents: list[Document], tokenizer: ByteTokenizer
) -> tuple[np.ndarray, np.ndarray]:
    pieces = []
    for document in documents:
        try:
            pieces += [tokenizer.encode(document.text), np.array([tokenizer.eot_id], np.uint8)]
        except ValueError as error:
            raise CorpusError(f"document {document.key}: {error}") from error
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)[1::2]
    return np.concatenate(pieces), np.concatenate([[0], ends[:-1]])


def _documents(name: str, tfds_dir: Path, log: Callable[[str], object]) -> list[Document]:
    from train.data.builders import build_documents  # TFDS takes a second to import

    folder = tfds_dir / name.replace("-", "_")
    for killed in folder.glob("*/incomplete.*"):
        shutil.rmtree(killed)
    try:
        return build_documents(name, tfds_dir)
    except Exception as error:  # TFDS and ArrayRecord report damaged files in many ways
        if not folder.exists():
            raise
        log(f"{folder} cannot be read ({error}); building it anew")
        shutil.rmtree(folder)
        return build_documents(name, tfds_dir)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    # The kernel drops the lock of a process that dies, so nothing needs clearing by hand.
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
