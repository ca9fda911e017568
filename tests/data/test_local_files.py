"""Corpora of a user's own files: every kind, and every way in which a file can be wrong."""

import errno
import gzip
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from train.data import building
from train.data.corpora import CorpusError, load, prepare
from train.data.documents import slug
from train.data.files import read_files
from train.data.inspecting import inspect

TEXTS = [f"Document {i}: " + " ".join(f"word{i * j % 97}" for j in range(40)) for i in range(90)]


def quiet(message):
    pass


def texts(pattern, field="text"):
    return [document.text for document in read_files(str(pattern), field)]


def zst(content):
    return zstandard.ZstdCompressor().compress(content)


@pytest.fixture
def folder(tmp_path):
    """A folder of text files that are a corpus."""
    (tmp_path / "text").mkdir()
    for i, text in enumerate(TEXTS):
        (tmp_path / "text" / f"{i:02d}.txt").write_text(text)
    return tmp_path


@pytest.fixture
def name(folder):
    return f"files:{folder}/text/*"


def lines(field="text"):
    return "".join(json.dumps({field: text, "n": 1}) + "\n" for text in TEXTS).encode()


@pytest.mark.parametrize(
    "pack", [lambda x: x, gzip.compress, zst, lambda x: zst(x[:99]) + zst(x[99:])]
)
def test_jsonl_is_read_plain_and_compressed(tmp_path, pack):
    ending = {b"{": "jsonl", b"\x1f": "jsonl.gz", b"(": "jsonl.zst"}[pack(lines())[:1]]
    (tmp_path / f"a.{ending}").write_bytes(pack(lines("body")))
    assert texts(tmp_path / "*", "body") == TEXTS


def test_parquet_is_read_by_column(tmp_path):
    table = pyarrow.table({"text": TEXTS, "label": list(range(90))})
    pyarrow.parquet.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    assert texts(tmp_path / "*.parquet") == TEXTS
    with pytest.raises(CorpusError, match=r"has no text column 'label' but: text.*#COLUMN"):
        texts(tmp_path / "*.parquet", "label")


def test_form_feeds_part_documents_and_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\n\n\ftwo\xc3\xa9")
    assert texts(tmp_path / "a.txt") == ["one\n\n", "twoé"]


def test_keys_name_files_below_the_pattern_in_order(tmp_path):
    for place in ("b/c.txt", "b.txt", "a.txt"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(place)
    keys = [d.key for d in read_files(f"{tmp_path}/**/*.txt", "text")]
    assert keys == ["a.txt:000000000", "b.txt:000000000", "b/c.txt:000000000"]


def test_a_corpus_of_files_is_prepared_loaded_and_inspected(folder, name):
    (folder / "text" / "copy.txt").write_text(TEXTS[0])
    corpus = prepare(name, folder / "data", log=quiet)
    assert corpus.name == name and corpus.n_duplicates_dropped == 1
    assert "sha256(key)) % 16 == 0, test if" in corpus.split_rule
    assert load(name, folder / "data").content_hash == corpus.content_hash
    report = inspect(name, folder / "data")
    assert report.licence == "that of the files"
    assert sum(report.n_documents.values()) == 90
    told = []
    prepare(name, folder / "data", log=told.append)
    (folder / "text" / "new.txt").write_text("new")
    prepare(name, folder / "data", log=told.append)
    assert len(told) == 1 and "changed since it was prepared; to take it as it is now" in told[0]
    (folder / "text" / "new.txt").unlink()
    elsewhere = folder / "moved"
    (folder / "text").rename(elsewhere)
    moved = prepare(f"files:{elsewhere}/*", folder / "data", log=quiet)
    assert moved.content_hash == corpus.content_hash
    assert slug(name) != slug(f"files:{elsewhere}/*")


WRONG = {
    "cut.jsonl.gz": (gzip.compress(lines())[:-20], "is truncated: it ends in the middle"),
    "cut.jsonl.zst": (zst(lines())[:-20], "is truncated: it ends in the middle"),
    "bad.jsonl.gz": (b"\x1f\x8b\x08\x00 rubbish rubbish", "is damaged"),
    "bad.jsonl.zst": (b"rubbish rubbish rubbish", "is damaged"),
    "bad.parquet": (b"PAR1 rubbish", "cannot be read"),
    "latin.txt": (b"aaaaa\xe9b", "is not UTF-8: byte 5 is 0xe9"),
    "far.txt": (b"a" * (1 << 20) + b"\xc3", f"is not UTF-8: byte {1 << 20} is 0xc3"),
    "field.jsonl": (lines("body"), r"line 1 has no field 'text' but: body, n; .*GLOB#FIELD"),
    "number.jsonl": (b'{"text": 5}\n', "line 1: field 'text' is a int, not text"),
    "list.jsonl": (b"\n[1]\n", "line 2 has no field 'text' but: list"),
    "broken.jsonl": (b'{"text": "a"}\n{"text"', "line 2 is not JSON"),
    "empty.txt": (b"", "1 documents leave 0 for validation.*1 empty"),
    "byte.txt": (b"x", "1 documents leave"),
    "empty.jsonl": (b"", "0 documents leave"),
    "empty.parquet": (b"", "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("file", WRONG)
def test_a_wrong_file_is_named_with_its_fault_and_leaves_nothing(tmp_path, file):
    content, message = WRONG[file]
    (tmp_path / file).write_bytes(content)
    name = f"files:{tmp_path}/{file}"
    with pytest.raises(CorpusError, match=message):
        prepare(name, tmp_path / "data", log=quiet)
    with pytest.raises(CorpusError, match="does not exist; run"):
        load(name, tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "message"), [("files:", "names no files"), ("files:no/*", "matches no file")]
)
def test_a_pattern_without_files_is_refused(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        prepare(name, tmp_path / "data", log=quiet)


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(folder, name, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(building, "_write_document", full)
        with pytest.raises(CorpusError, match="no room to prepare files:.*make room or give"):
            prepare(name, folder / "data", log=quiet)
    assert not [path for path in (folder / "data/tokens").iterdir() if path.is_dir()]
    prepare(name, folder / "data", log=quiet)


@pytest.mark.parametrize("name", ["sotu", "lang:zipf"])
def test_a_disk_that_fills_up_under_the_documents_is_told_too(tmp_path, name):
    """The limit on a file's size stands in for the disk: all writers, C++ to NumPy, meet it."""
    program = (
        "import resource, signal, sys; from pathlib import Path; from train.data import corpora\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try: corpora.prepare(sys.argv[2], Path(sys.argv[1]))\n"
        "except corpora.CorpusError as error: print(error); sys.exit(2)\n"
    )
    run = [sys.executable, "-c", program, tmp_path, name]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert f"no room to prepare {name}" in done.stdout
    with pytest.raises(CorpusError, match="does not exist"):
        load(name, tmp_path)
    assert not [path for path in (tmp_path / "tokens").iterdir() if path.is_dir()]


def _prepare(name, data_dir):
    return prepare(name, data_dir, log=quiet).content_hash


def test_two_builders_at_once_both_get_the_whole_corpus(folder, name):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        first, second = pool.map(_prepare, [name] * 2, [folder / "data"] * 2)
    assert first == second == load(name, folder / "data").content_hash


def test_who_waits_for_another_builder_says_so(folder, name):
    import fcntl

    told = []
    lock = folder / "data/tokens" / f"{slug(name)}-bytes.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def log(text):
            told.append(text)
            fcntl.flock(file, fcntl.LOCK_UN)

        prepare(name, folder / "data", log=log)
    assert told[0] == f"another process is preparing {name}; waiting for it"


def test_building_tells_how_far_it_is(folder, name, monkeypatch):
    monkeypatch.setattr(building, "_TELL_EVERY_S", 0.0)
    told = []
    prepare(name, folder / "data", log=told.append)
    assert any(text.startswith(f"writing {name}: 0 of 0 MB") for text in told)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text(tmp_path):
    """64 MB of text take little more memory than 8 MB do."""
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from train.data import building, corpora, ngrams\n"
        "ngrams.ngram_entropies = lambda *_, **__: {'train': (), 'validation': ()}\n"
        "corpora.prepare(sys.argv[1], Path(sys.argv[2]), log=lambda text: None)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for n_megabytes in (8, 64):
        path = tmp_path / f"{n_megabytes}.jsonl"
        words = np.random.default_rng(0).integers(0, 10**6, 12_000)
        with path.open("w") as file:
            for i in range(n_megabytes * 10):
                text = " ".join(map(str, np.roll(words, i * 97) + i))
                file.write(json.dumps({"text": text}) + "\n")
        done = subprocess.run(
            [sys.executable, "-c", program, f"files:{path}", tmp_path / str(n_megabytes)],
            capture_output=True, text=True, env={**os.environ},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 30, peaks
