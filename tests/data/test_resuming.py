"""Builds that are killed: nothing half-built is used, and what was done is not done again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data import building, surveying
from train.data.corpora import CorpusError, load, prepare
from train.data.resuming import Resumable

TEXTS = [f"Document {i}: " + " ".join(f"word{i * j % 97}" for j in range(40)) for i in range(120)]


def quiet(message):
    pass


@pytest.fixture
def name(tmp_path):
    """Files with a copy and an empty document among them."""
    (tmp_path / "text").mkdir()
    for i, text in enumerate([*TEXTS, TEXTS[3], "", TEXTS[5] + " more"]):
        (tmp_path / "text" / f"{i:03d}.txt").write_text(text)
    return f"files:{tmp_path}/text/*"


@pytest.fixture
def often(monkeypatch):
    """Progress is noted every few documents."""
    for module in (surveying, building):
        monkeypatch.setattr(module, "NOTE_EVERY_BYTES", 2000)


def files_of(data_dir):
    (folder,) = (path for path in (data_dir / "tokens").iterdir() if path.is_dir())
    return json.loads((folder / "meta.json").read_text())["files"]


@pytest.mark.parametrize("n_notes", [9, 20, 30])
def test_a_killed_build_goes_on_and_ends_in_the_same_files(name, tmp_path, often, n_notes):
    prepare(name, tmp_path / "whole", log=quiet)
    note, noted, sketched = Resumable.note, [], []

    def die(files, **counts):
        note(files, **counts)
        noted.append(counts)
        if len(noted) == n_notes:
            raise KeyboardInterrupt

    def counted(text):
        sketched.append(text)
        return sketch(text)

    sketch = surveying.sketch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surveying, "sketch", counted)
        with pytest.raises(KeyboardInterrupt):
            patch.setattr(Resumable, "note", die)
            prepare(name, tmp_path / "cut", log=quiet)
        patch.setattr(Resumable, "note", note)
        with pytest.raises(CorpusError, match="does not exist; run"):
            load(name, tmp_path / "cut")
        for part in (tmp_path / "cut").rglob("*.bin"):
            part.write_bytes(part.read_bytes() + b"of an unfinished note")
        told, is_second = [], bool(list((tmp_path / "cut").rglob("written.json")))
        prepare(name, tmp_path / "cut", log=told.append)
    assert is_second == (n_notes >= 20)
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")
    assert len(sketched) == len(TEXTS) + 3, "no document was sketched twice"
    assert any("going on with files:" in text for text in told) == is_second
    assert not list((tmp_path / "cut").rglob("unfinished*"))


def test_text_that_changed_while_nothing_ran_is_not_mixed_with_the_old(name, tmp_path, often):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(building, "_write_documents", stop)
        prepare(name, tmp_path / "data", log=quiet)
    path = tmp_path / "text" / "007.txt"
    path.write_text("other words altogether")
    corpus = prepare(name, tmp_path / "data", log=quiet)
    fresh = prepare(name, tmp_path / "fresh", log=quiet)
    assert corpus.content_hash == fresh.content_hash


def test_a_file_that_changes_unnoticed_is_refused_and_then_read_anew(name, tmp_path, monkeypatch):
    """Same size, same times: only the hashes of its text tell."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(building, "_write_documents", stop)
        prepare(name, tmp_path / "data", log=quiet)
    path = tmp_path / "text" / "007.txt"
    times = path.stat()
    path.write_bytes(path.read_bytes().replace(b"word", b"WORD"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(CorpusError, match="changed while it was read; prepare it again"):
        prepare(name, tmp_path / "data", log=quiet)
    assert "WORD" in bytes(prepare(name, tmp_path / "data", log=quiet).train_tokens).decode()


def stop(*arguments):
    raise KeyboardInterrupt


def test_a_builder_killed_by_the_kernel_leaves_nothing_that_loads(name, tmp_path):
    program = (
        "import sys, time; from pathlib import Path\n"
        "from train.data import building, corpora, surveying\n"
        "surveying.NOTE_EVERY_BYTES = building.NOTE_EVERY_BYTES = 2000\n"
        "write = building._write_document\n"
        "building._write_document = lambda *a: (time.sleep(0.02), write(*a))\n"
        "corpora.prepare(sys.argv[1], Path(sys.argv[2]), log=print)\n"
    )
    run = [sys.executable, "-c", program, name, tmp_path / "data"]
    with subprocess.Popen(run, stdout=subprocess.DEVNULL) as builder:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("data/tokens/*/unfinished/written.json")):
            assert time.monotonic() < deadline and builder.poll() is None
            time.sleep(0.01)
        builder.send_signal(signal.SIGKILL)
    with pytest.raises(CorpusError, match="does not exist; run"):
        load(name, tmp_path / "data")
    told = []
    prepare(name, tmp_path / "data", log=told.append)
    prepare(name, tmp_path / "whole", log=quiet)
    assert any("going on with files:" in text for text in told)
    assert files_of(tmp_path / "data") == files_of(tmp_path / "whole")


@given(st.lists(st.tuples(st.binary(max_size=9), st.sampled_from(("write", "note", "die")))))
@settings(max_examples=40)
def test_files_hold_what_was_written_until_the_last_note(tmp_path_factory, acts):
    folder = tmp_path_factory.mktemp("resumable")
    state, paths = folder / "state.json", {"a": folder / "a"}
    kept = written = b""
    files = Resumable(state, "one", paths)
    for content, act in acts:
        if act == "write":
            files.write("a", content)
            written += content
        elif act == "note":
            files.note(n=len(written))
            kept = written
        else:
            files.__exit__(None, None, None)
            files = Resumable(state, "one", paths)
            written = kept
            assert (paths["a"].read_bytes(), files.size("a")) == (kept, len(kept))
            assert files.counts.get("n", 0) == len(kept)
    files.__exit__(None, None, None)
    with Resumable(state, "another", paths) as other:
        assert (other.counts, paths["a"].read_bytes()) == ({}, b"")


@pytest.mark.parametrize("state", [b"", b"[]", b'{"of": "one"}', b'{"of": "one", "sizes": {}}'])
def test_a_note_that_is_no_note_or_of_longer_files_counts_for_nothing(tmp_path, state):
    (tmp_path / "state.json").write_bytes(state)
    with Resumable(tmp_path / "state.json", "one", {"a": tmp_path / "a"}) as files:
        assert files.counts == {}
        files.write("a", b"text")
        files.note(n=1)
    (tmp_path / "a").write_bytes(b"te")
    with Resumable(tmp_path / "state.json", "one", {"a": tmp_path / "a"}) as files:
        assert (files.counts, files.size("a")) == ({}, 0)
