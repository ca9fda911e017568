"""Corpora by name: prepared once, then loaded in milliseconds.

Under the data directory, `tfds/` holds documents (builders.py), `downloads/` what was fetched for
them, and `tokens/<corpus>-<tokenizer>/` the token files (tokenfiles.py). Such a folder appears by
one rename, so a half-written corpus is never seen under its name.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path

from train.data import building, tokenfiles
from train.data.documents import Document, Source, slug
from train.data.languages import names as languages
from train.data.languages.symbols import SymbolTokenizer
from train.data.room import is_out_of_space, lock, room_for
from train.data.sources import OPEN_ENDED, SOURCES, get_source
from train.data.tokenfiles import CorpusError, Split, TokenizedCorpus
from train.data.tokenizers import (
    BYTES,
    BpeTokenizer,
    Tokenizer,
    canonical_name,
    load_bpe,
    read_gpt2,
    train_bpe,
)

Log = Callable[[str], object]

_SYMBOLS = "symbols"
"""Tokenizer of generated languages, whose text is tokens from the start."""

_N_FIRST = 8
_TRAINED_ON_BYTES = 1 << 26
_STRETCH_BYTES = 1 << 20


def available() -> dict[str, str]:
    """Names of the corpora of text that can be prepared, each with one line on what it is."""
    needs = {name: f" (--source: {s.needs})" if s.needs else "" for name, s in SOURCES.items()}
    named = {name: source.title + needs[name] for name, source in SOURCES.items()}
    return named | OPEN_ENDED


def prepare(
    name: str,
    data_dir: Path,
    *,
    tokenizer: str = BYTES.name,
    given: Path | None = None,
    log: Log = print,
) -> TokenizedCorpus:
    """Make the token files of a corpus unless intact ones are there, and load them.

    Safe to kill and to start several times at once: one builder works at a time, what an earlier
    one left is removed or gone on with, and damaged files are built anew. Every byte is compared
    with its checksum.

    Args:
        tokenizer: bytes, bpe:SIZE, bpe:SIZE@CORPUS (learned there) or gpt2:FOLDER.
        given: the file or folder of a corpus that needs one (--source).
    Raises: ValueError: unknown corpus or tokenizer. CorpusError: the text cannot be used, or the
        disk is full.
    """
    if languages.is_language(name):
        return _prepare_language(name, data_dir, log)
    kept_as = canonical_name(tokenizer)
    source = get_source(name, given=given, downloads=Path(data_dir) / "downloads")
    folder = _folder(name, data_dir, kept_as)
    if folder.exists():
        try:
            corpus = _read(name, data_dir, kept_as, every_byte=True)
            if not source.is_stored and source.version() and corpus.origin != source.origin:
                log(
                    f"{name} changed since it was prepared; to take it as it is now remove {folder}"
                )
            return corpus
        except CorpusError as problem:
            log(f"{problem} (doing so now)")
    if kept_as != BYTES.name:
        corpus = prepare(name, data_dir, given=given, log=log)
    with (
        lock(folder.with_name(f"{folder.name}.lock"), name, log),
        room_for(name, folder, _unfinished(folder)),
    ):
        try:  # another process may have built it while this one waited
            return _read(name, data_dir, kept_as, every_byte=True)
        except CorpusError:
            shutil.rmtree(folder, ignore_errors=True)
        unfinished = _unfinished(folder)
        if kept_as == BYTES.name:
            log(f"preparing {name}: {source.title}")
            source = _at_hand(source, Path(data_dir) / "tfds", log)
            documents = _documents(source, Path(data_dir) / "tfds", log)
            try:
                building.build_bytes(source, documents, unfinished, log)
            except CorpusError:  # of other text nothing is gone on with
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
        else:
            log(f"preparing {name} in tokens of {kept_as}")
            engine = _tokenizer(tokenizer, corpus, unfinished / building.TOKENIZER, data_dir, log)
            building.build_tokens(
                corpus, _folder(name, data_dir, BYTES.name), engine, unfinished, log
            )
        os.rename(unfinished, folder)
    corpus = _read(name, data_dir, kept_as, every_byte=False)
    log(
        f"prepared {name}: {len(corpus.train_tokens):,} training and "
        f"{len(corpus.validation_tokens):,} validation tokens, "
        f"documents dropped: {_counted(corpus.n_dropped)}"
    )
    return corpus


def prepare_like(
    name: str, data_dir: Path, *, of: str, tokenizer: str, log: Log = print
) -> TokenizedCorpus:
    """A prepared corpus in the tokens of another one, made if they are not there yet.

    Args:
        of: the other corpus; a BPE that was learned there is used here.
        tokenizer: what that corpus was tokenized with.
    Raises: ValueError: one of the two is a generated language, and the other is not. CorpusError:
        a corpus was not prepared.
    """
    if languages.is_language(name) != languages.is_language(of):
        raise ValueError(
            f"corpus={name!r} cannot be read in the tokens of {of}: symbols of a generated "
            "language are no text; use a language of the same kind and parameters"
        )
    if languages.is_language(name) or tokenizer == BYTES.name:
        return load(name, data_dir)
    is_bpe = tokenizer.startswith("bpe:") and "@" not in tokenizer
    wanted = f"{tokenizer}@{of}" if is_bpe and name != of else tokenizer
    try:
        return load(name, data_dir, tokenizer=wanted)
    except CorpusError:
        if not is_bpe:
            raise
    load(name, data_dir)  # says what to do if there is no text
    return prepare(name, data_dir, tokenizer=wanted, log=log)


def load(name: str, data_dir: Path, *, tokenizer: str = BYTES.name) -> TokenizedCorpus:
    """Open a prepared corpus whose files are those that were written.

    Files that look unchanged since all their bytes were compared are not read through again.

    Raises: ValueError: unknown corpus or tokenizer. CorpusError: it was not prepared, or a file is
        damaged; the message names the file and the remedy.
    """
    if languages.is_language(name):
        return _read(languages.parse(name).name, data_dir, _SYMBOLS, every_byte=False)
    get_source(name)
    return _read(name, data_dir, canonical_name(tokenizer), every_byte=False)


def split_text(corpus: TokenizedCorpus, split: Split) -> str:
    """The text of a split of a corpus of bytes, documents joined by line ends.

    Raises: ValueError: the corpus has other tokens.
    """
    if corpus.tokenizer != BYTES.name:
        raise ValueError(f"{corpus.name} in tokens of {corpus.tokenizer} is not text; load bytes")
    return BYTES.decode(corpus.tokens(split))


def language(name: str, data_dir: Path) -> languages.Language:
    """The generated language of a prepared corpus.

    Raises: ValueError: unknown language. CorpusError: the text that it was counted in is gone.
    """
    found, _ = languages.parse(name).language(partial(training_text, data_dir=data_dir))
    return found


def training_text(name: str, data_dir: Path) -> tuple[str, str]:
    """Training text of a prepared corpus, and its content hash."""
    corpus = load(name, data_dir)
    return split_text(corpus, "train"), corpus.content_hash


def _prepare_language(name: str, data_dir: Path, log: Log) -> TokenizedCorpus:
    """Draw the tokens of a generated language unless intact ones are there, and load them."""
    named = languages.parse(name)
    folder = _folder(named.name, data_dir, _SYMBOLS)
    with (
        lock(folder.with_name(f"{named.name}.lock"), name, log),
        room_for(name, folder, _unfinished(folder)),
    ):
        try:
            return load(name, data_dir)
        except CorpusError as problem:
            if folder.exists():
                log(f"{problem} (doing so now)")
        unfinished = _unfinished(folder)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(unfinished, ignore_errors=True)

        def text_of(text: str) -> tuple[str, str]:
            prepare(text, data_dir, log=log)
            return training_text(text, data_dir)

        log(f"drawing {named.name}: {named.title}")
        tokenfiles.write(named.generate(text_of), unfinished)
        os.rename(unfinished, folder)
    return load(name, data_dir)


def floor_nats(name: str, data_dir: Path, seq_len: int) -> float | None:
    """Lowest expected loss on a prepared corpus with windows of seq_len inputs, nats per token.

    Returns: None for text, whose floor nobody knows.
    Raises: ValueError: unknown language. CorpusError: the text that it was counted in is gone.
    """
    if not languages.is_language(name):
        return None
    return languages.floor_nats(language(name, data_dir), seq_len)


def load_tokenizer(name: str, data_dir: Path, tokenizer: str) -> Tokenizer | SymbolTokenizer:
    """What reads and writes the tokens of a prepared corpus.

    Raises: ValueError: unknown tokenizer. CorpusError: the corpus was not prepared with it.
    """
    if languages.is_language(name):
        spoken = language(name, data_dir)
        return SymbolTokenizer(name, spoken, spoken.sample(_N_FIRST, seed=0))
    kept_as = canonical_name(tokenizer)
    if kept_as == BYTES.name:
        return BYTES
    path = _folder(name, data_dir, kept_as) / building.TOKENIZER
    if not path.is_file():
        raise CorpusError(f"{path} does not exist; {_remedy(name, kept_as)}")
    return load_bpe(kept_as, path)


def ngram_entropies(
    corpus: TokenizedCorpus, max_n: int | None = None, *, split: Split = "validation"
) -> dict[int, float]:
    """Loss of the training text's n-gram counts on a split, nats per token, by n.

    The validation values are the reference lines for a model's validation loss; the training
    values are the conditional entropies H_n - H_(n-1) of the counts themselves.

    Args:
        max_n: the longest n-grams; None for all that were counted.
    Raises: ValueError: max_n is larger than what was counted.
    """
    values = corpus.ngram_nats[split]
    if max_n is not None and not 1 <= max_n <= len(values):
        raise ValueError(f"max_n={max_n} is outside 1..{len(values)}, the n-grams that are counted")
    return dict(enumerate(values[:max_n], start=1))


def _read(name: str, data_dir: Path, kept_as: str, *, every_byte: bool) -> TokenizedCorpus:
    folder = _folder(name, data_dir, kept_as)
    return tokenfiles.read(folder, remedy=_remedy(name, kept_as), every_byte=every_byte)


def _remedy(name: str, kept_as: str) -> str:
    shown = name if name in SOURCES else f"'{name}'"
    if kept_as == _SYMBOLS:
        return f"run: python launch.py data prepare {name}"
    of_folder = {"gpt2": "gpt2:FOLDER"}.get(kept_as, kept_as)
    flag = "" if kept_as == BYTES.name else f" --tokenizer {of_folder}"
    return f"run: python launch.py data prepare {shown}{flag}"


def _folder(name: str, data_dir: Path, kept_as: str) -> Path:
    kind, at, learned_on = kept_as.partition("@")
    of_tokens = kind.replace(":", "-") + (f"@{slug(learned_on)}" if at else "")
    return Path(data_dir) / "tokens" / f"{slug(name)}-{of_tokens}"


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.unfinished")


def _counted(n_dropped: dict[str, int]) -> str:
    return ", ".join(f"{n} {why}" for why, n in n_dropped.items()) or "none"


def _tokenizer(
    wanted: str, corpus: TokenizedCorpus, kept: Path, data_dir: Path, log: Log
) -> BpeTokenizer:
    """The tokenizer asked for: of another corpus, GPT-2's, of a cut-off build, or trained."""
    kind, _, rest = wanted.partition(":")
    own, at, learned_on = canonical_name(wanted).partition("@")
    if at:
        learned = load_tokenizer(learned_on, data_dir, own)
        assert isinstance(learned, BpeTokenizer)
        return replace(learned, name=f"{own}@{learned_on}")
    if kind == "gpt2":
        if not rest:
            raise ValueError("tokenizer='gpt2' needs the folder of its files: gpt2:FOLDER")
        return read_gpt2(Path(rest).expanduser())
    if kept.is_file():
        try:
            return load_bpe(canonical_name(wanted), kept)
        except (ValueError, KeyError):
            kept.unlink()  # cut off while it was written
    log(f"training a BPE of {rest} tokens on {corpus.name}")
    return train_bpe(canonical_name(wanted), _text_to_learn(corpus), int(rest))


def _text_to_learn(corpus: TokenizedCorpus) -> Iterator[str]:
    """The training text, or 64 MiB of it in even stretches."""
    text = corpus.train_tokens
    n_stretches = max(1, -(-min(len(text), _TRAINED_ON_BYTES) // _STRETCH_BYTES))
    apart = max(_STRETCH_BYTES, len(text) // n_stretches)
    for start in range(0, len(text), apart):
        piece = text[start : start + _STRETCH_BYTES].tobytes()
        yield from piece.decode("utf-8", errors="ignore").split("\0")


def _at_hand(source: Source, tfds_dir: Path, log: Log) -> Source:
    """The source with what it has to fetch, or with what the user once gave and is stored.

    Its version is asked for once: for some it is a checksum of all the text.
    """
    if source.fetch is not None:
        source.fetch(log)
    version = source.version()
    if source.needs and not version:
        stored = sorted(tfds_dir.glob(f"{source.name}/*/*/dataset_info.json"))
        version = stored[-1].parents[1].name if stored else ""
    return replace(source, version=lambda: version)


def _documents(source: Source, tfds_dir: Path, log: Log) -> Callable[[], Iterable[Document]]:
    """What gives the documents of a source, as often as it is asked."""
    if not source.is_stored:
        return source.read
    from train.data.builders import build_documents  # TFDS takes a second to import

    folder = tfds_dir / source.name.replace("-", "_")
    for killed in folder.glob("*/incomplete.*"):
        shutil.rmtree(killed)
    log(f"storing the documents of {source.name} (or finding them stored)")
    source = _told(source, building.Progress(log, f"storing {source.name}"))
    try:
        stored = build_documents(source, tfds_dir)
    except CorpusError:
        raise
    except Exception as error:  # TFDS and ArrayRecord report damaged files in many ways
        if not folder.exists() or is_out_of_space(error):
            raise
        log(f"{folder} cannot be read ({error}); building it anew")
        shutil.rmtree(folder)
        stored = build_documents(source, tfds_dir)
    return lambda: stored


def _told(source: Source, progress: Callable[[int], object]) -> Source:
    """The source, telling how many bytes were read of it whenever it is read."""

    stdout = sys.stdout  # which is not TFDS's to silence here

    def read() -> Iterator[Document]:
        n_bytes = 0
        for document in source.read():
            yield document
            n_bytes += len(document.text.encode("utf-8", errors="replace"))
            with redirect_stdout(stdout):
                progress(n_bytes)

    return replace(source, read=read)
