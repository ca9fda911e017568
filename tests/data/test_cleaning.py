"""What cleaning drops, how splits are cut, and the check between them."""

import random
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import rensa
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data import building, tokenfiles
from train.data.cleaning import N_HASHES, near_copies, normalised, sketch
from train.data.documents import Cleaning, Document, SplitRule
from train.data.overlap import WINDOW_BYTES, overlaps, window_hashes
from train.data.sources import SOURCES
from train.data.surveying import survey

WORDS = [f"{a}{b}{c}" for a in "bdfkmt" for b in "aeiou" for c in "lnrs"]


def prose(seed, n_words=120):
    return " ".join(random.Random(seed).choices(WORDS, k=n_words))


def source(documents, **changes):
    rule = {"cleaning": Cleaning(), "split": SplitRule(4)} | changes
    return replace(SOURCES["sotu"], version=lambda: "1", read=lambda: iter(documents), **rule)


def documents(n=60):
    return [Document(f"doc-{i:03d}", prose(i)) for i in range(n)]


def test_text_is_brought_to_one_form():
    assert normalised("cafe\u0301\r\nb\rc\0d") == "café\nb\ncd"


def test_exact_and_near_copies_and_empty_documents_are_dropped_and_counted():
    some = documents()
    words = some[0].text.split()
    near = " ".join([*words[:100], "altogether", *words[101:]])
    far = " ".join([*words[:60], *prose(999, 60).split()])
    extra = [" \n", some[1].text, some[1].text.replace(" ", "\r\n", 1), near, far]
    every = some + [Document(f"extra-{i}", text) for i, text in enumerate(extra)]
    found = survey(every, source(every))
    assert found.n_dropped == {"empty": 1, "exact copies": 1, "near copies": 2}
    kept = {d.key for i, d in enumerate(every) if found.place(i) is not None}
    assert "extra-4" in kept and "extra-0" not in kept
    assert len({"doc-001", "extra-1", "extra-2"} & kept) == 1
    assert len({"doc-000", "extra-3"} & kept) == 1


@given(st.randoms(use_true_random=False), st.integers(2, 60), st.sampled_from((0.5, 0.8, 0.95)))
@settings(max_examples=30)
def test_near_copies_are_those_that_an_index_in_memory_finds(rng, n, similarity):
    """Families of texts that differ in a few words, against rensa's own LSH."""
    texts = []
    for _ in range(n):
        words = (
            rng.choice(texts).split() if texts and rng.random() < 0.7 else prose(rng.random(), 80)
        )
        words = words.split() if isinstance(words, str) else words
        for _ in range(rng.choice((0, 1, 2, 6))):
            words[rng.randrange(len(words))] = rng.choice(WORDS) + "s"
        texts.append(" ".join(words))
    order = rng.sample(range(n), n)
    index = rensa.RMinHashLSH(threshold=similarity, num_perm=N_HASHES, num_bands=32)
    hashes = [rensa.RMinHash(num_perm=N_HASHES, seed=42) for _ in texts]
    expected = []
    for i in order:
        words = texts[i].split()
        hashes[i].update([" ".join(words[k : k + 5]) for k in range(len(words) - 4)])
        if any(hashes[i].jaccard(hashes[j]) >= similarity for j in index.query(hashes[i])):
            expected.append(i)
        else:
            index.insert(i, hashes[i])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sketches"
        path.write_bytes(b"".join(map(sketch, texts)))
        assert near_copies(np.array(order), path, similarity).tolist() == expected


def test_of_copies_the_held_out_one_stays():
    some = documents()
    found = survey(some, source(some))
    held_out = next(i for i in range(60) if found.place(i) == "validation")
    train = [i for i in range(60) if found.place(i) == "train"]
    copies = [
        replace(d, text=some[held_out].text) if i in train[:3] else d for i, d in enumerate(some)
    ]
    found = survey(copies, source(copies))
    assert found.place(held_out) == "validation"
    assert [found.place(i) for i in train[:3]] == [None] * 3


@given(st.integers(0, 100), st.sampled_from((3, 5, 8)), st.booleans())
@settings(max_examples=8)
def test_splits_are_disjoint_whole_and_of_the_size_asked_for(seed, one_in, has_test):
    some = [Document(f"{seed}-{i:04d}", f"{seed} {i}") for i in range(400)]
    found = survey(some, source(some, split=SplitRule(one_in, has_test=has_test)))
    places = [found.place(i) for i in range(400)]
    assert None not in places
    assert abs(places.count("validation") - 400 / one_in) < 6 * np.sqrt(400 / one_in)
    assert (places.count("test") > 0) == has_test


def test_what_belongs_together_stays_together():
    some = [replace(d, fields={"author": f"author {i % 12}"}) for i, d in enumerate(documents())]
    found = survey(some, source(some, split=SplitRule(3, by="author")))
    for author in range(12):
        assert len({found.place(i) for i in range(author, 60, 12)}) == 1


def test_held_out_documents_are_cut_between_characters(tmp_path):
    some = [Document(f"doc-{i:03d}", f"{i:03d}" + "é" * 50) for i in range(60)]
    of_heads = source(some, split=SplitRule(4, head_bytes=10), cleaning=Cleaning(1.0))
    building.build_bytes(of_heads, of_heads.read, tmp_path / "tokens", lambda text: None)
    corpus = tokenfiles.read(tmp_path / "tokens", remedy="")
    assert set(np.diff(corpus.validation_documents).tolist()) == {10}  # 9 bytes and the end
    assert set(np.diff(corpus.train_documents).tolist()) == {104}
    assert corpus.splits == ("train", "validation", "test") and len(corpus.test_keys) > 5
    assert corpus.n_test_bytes == 9 * len(corpus.test_keys)
    assert "held-out documents end after 10 bytes" in corpus.split_rule


@pytest.mark.parametrize(
    ("n_bytes", "one_in"), [(1, 16), (2**25, 16), (2**25 + 1, 32), (2**30, 512)]
)
def test_large_corpora_hold_out_a_smaller_share(n_bytes, one_in):
    assert SplitRule().sized(n_bytes).one_in == one_in
    assert SplitRule(7).sized(n_bytes).one_in == 7


def test_window_hashes_are_those_of_the_windows():
    text = np.random.default_rng(0).integers(0, 256, 300).astype(np.uint8)
    twice = np.concatenate([text, text])
    hashes = window_hashes(twice)
    assert len(hashes) == 600 - WINDOW_BYTES + 1
    assert np.array_equal(hashes[:200], hashes[300:500])
    assert len(set(hashes[:300].tolist())) == 300


def test_overlap_is_the_share_of_text_that_is_shared():
    rng = np.random.default_rng(1)
    train, other = (rng.integers(1, 256, 200_000).astype(np.uint8) for _ in range(2))
    half = np.concatenate([other[:30_000], train[:30_000]])
    texts = {"other": other, "same": train[50_000:90_000], "half": half, "short": other[:10]}
    shares = overlaps(train, texts)
    assert (shares["other"], shares["same"], shares["short"]) == (0, 1, 0)
    assert shares["half"] == pytest.approx(0.5, abs=0.05)
    assert overlaps(train, {"short": other[:10]}) == {"short": 0}
