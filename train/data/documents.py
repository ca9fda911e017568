"""Documents, and how a corpus makes training text of them: cleaning and the held-out splits."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from train.data.tokenfiles import CorpusError

LARGEST_HELD_OUT_BYTES = 2**21
"""A held-out split of a corpus of any size is about so large: every run is scored on all of it."""


@dataclass(frozen=True)
class Document:
    """One text with its key (unique in the corpus, one line) and descriptive fields."""

    key: str
    text: str
    fields: dict[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Cleaning:
    """What is done to the text of a corpus before it is split.

    Text is brought to NFC with LF line ends, and its NUL characters go. Then empty documents are
    dropped, exact copies, and near copies: those whose sets of word 5-grams have an estimated
    Jaccard similarity of `similarity` or more with a document that is kept. Held-out documents are
    kept first, so that a copy leaves training.

    Source: Lee et al. 2022, arXiv:2107.06499, section 4.2 (5-grams, 0.8).
    """

    similarity: float = 0.8

    @property
    def words(self) -> str:
        """The rule in one line; it is part of a run's identity."""
        return (
            "text in NFC, LF line ends, no NUL; dropped: empty documents, exact copies, near "
            f"copies (word 5-grams, 128 R-MinHashes of seed 42, Jaccard >= {self.similarity}), "
            "held-out ones kept first"
        )


@dataclass(frozen=True)
class SplitRule:
    """Which documents are held out, by a hash: validation where it is 0 modulo `one_in`.

    The key is hashed, or `by`, a field that keeps together what belongs together (an author). Where
    there is a test split, it takes those with 1. `one_in` None: a power of two from 16 up, so that
    a held-out split comes to about LARGEST_HELD_OUT_BYTES. `head_bytes`: of each held-out document
    only so much is used, which buys more documents for the same cost of scoring.
    """

    one_in: int | None = None
    by: str | None = None
    head_bytes: int | None = None
    has_test: bool = True

    def sized(self, n_bytes: int) -> "SplitRule":
        """The rule for a text of that size, `one_in` settled."""
        if self.one_in is not None:
            return self
        one_in = 16
        while n_bytes / one_in > LARGEST_HELD_OUT_BYTES:
            one_in *= 2
        return SplitRule(one_in, self.by, self.head_bytes, self.has_test)

    @property
    def words(self) -> str:
        """The rule in one line; it is part of a run's identity."""
        hashed = f"int(sha256({self.by or 'key'})) % {self.one_in}"
        test = f", test if {hashed} == 1" if self.has_test else ""
        head = f"; held-out documents end after {self.head_bytes} bytes" if self.head_bytes else ""
        return f"validation if {hashed} == 0{test}, else train{head}"


KEPT_AS_IT_IS = (
    "validation if int(sha256(key)) % 20 == 0, else train; "
    "train drops documents whose text is also in validation"
)
"""What a corpus without cleaning does; its wording is part of stored run ids."""


@dataclass(frozen=True)
class Source:
    """A corpus before it is built.

    field_types maps each descriptive field to str or int; read yields the documents in key order;
    version asks for the version of what would be read now. `needs` says what the user must give as
    the source, if anything; `fetch` brings it here by other means, telling what it does to the
    function that it is given. `cleaning` None leaves the text as it is. `is_stored`: whether the
    documents are written as a TFDS dataset first; text that lies on this machine as documents
    already is read where it is.
    """

    name: str
    title: str
    licence: str
    citation: str
    homepage: str
    field_types: dict[str, type]
    read: Callable[[], Iterator[Document]]
    package: str
    version: Callable[[], str]
    needs: str | None = None
    fetch: Callable[[Callable[[str], object]], None] | None = None
    cleaning: Cleaning | None = None
    split: SplitRule = SplitRule(20, has_test=False)
    is_stored: bool = True

    @property
    def origin(self) -> str:
        """Package and version that would be read now."""
        return f"{self.package} {self.version()}".strip()

    def rule(self, n_bytes: int) -> str:
        """How text of that size is cleaned and split, in one line."""
        if self.cleaning is None:
            return KEPT_AS_IT_IS
        return f"{self.split.sized(n_bytes).words}; {self.cleaning.words}"


def slug(name: str) -> str:
    """The name of a corpus as one of a folder: as it is, or a hash for one that has a pattern."""
    kind, separator, rest = name.partition(":")
    if not separator:
        return name
    return f"{kind}-{hashlib.sha256(rest.encode()).hexdigest()[:12]}"


def existing(path: Path, *, what: str, remedy: str) -> Path:
    """The path, if a file is there.

    Raises: CorpusError: there is none.
    """
    if not path.is_file():
        raise CorpusError(f"{path}: {what} is not there; {remedy}")
    return path
