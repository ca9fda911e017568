import numpy as np
import pytest

from train.data import corpora, inspecting
from train.data.languages import floor_nats
from train.data.languages.names import KINDS, parse
from train.data.languages.text import LETTERS, Letters, Words
from train.data.tokenfiles import CorpusError

SMALL = "train=4000,validation=2000"
TEXT = "the cat sat on the mat and the dog sat on the cat " * 40


def quiet(message):
    pass


def test_one_language_has_one_spelling():
    short = parse("lang:markov:order=1,train=1e6")
    long = parse("lang:markov:train=1000000,vocab=16,seed=0,order=1")
    assert short == long and short.name == "lang:markov:order=1,train=1000000"
    assert parse("lang:even").name == "lang:even"
    assert all(parse(parse(f"lang:{kind}").name).name == f"lang:{kind}" for kind in KINDS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lang:esperanto", "language 'esperanto' is unknown; use one of: zipf, markov"),
        ("lang:markov:oder=1", "no parameter 'oder'; it has: .*order=2"),
        ("lang:markov:order", "'order' is not one parameter=value"),
        ("lang:markov:order=1,order=2", "'order=2' is not one parameter=value"),
        ("lang:markov:order=one", "order='one' is not a number"),
        ("lang:markov:order=1.5", "order=1.5 is not a whole number"),
        ("lang:markov:vocab=1", "vocab=1 is outside 2 to 2000"),
        ("lang:even:p=nan", "p='nan' is not a number"),
        ("lang:dyck:p_open=0.5", "never closes all brackets"),
        ("lang:modular:ops=/", "ops='/'"),
        ("lang:skills:skills=1000", "skills=1000 of sparsity=3 need more than bits=12"),
        ("lang:letters:text=../x", "text='../x' is not the name of a corpus"),
        ("lang:zipf:train=10", "train=10 is outside 64"),
    ],
)
def test_wrong_names_are_told_what_there_is(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse(name)
    assert name in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_language_writes_it_reads(kind, tmp_path, monkeypatch):
    if kind in ("letters", "words"):
        recipe = {"letters": Letters, "words": Words}[kind](order=1)
        monkeypatch.setattr(corpora, "language", lambda *_: recipe.from_text(TEXT))
    name = f"lang:{kind}"
    symbols = corpora.load_tokenizer(name, tmp_path, "symbols")
    tokens = symbols.language.sample(100, seed=3)
    assert symbols.encode(symbols.decode(tokens)).tolist() == tokens.tolist()
    assert symbols.encode(symbols.prompt).tolist() == symbols.first.tolist()
    with pytest.raises(ValueError, match=f"'§' begins with no symbol of {name}; use such as"):
        symbols.encode("§")


def test_the_floor_of_a_language_is_known_and_that_of_text_is_not(tmp_path):
    dyck = parse("lang:dyck:depth=3").recipe
    found = corpora.floor_nats("lang:dyck:depth=3,train=1000", tmp_path, 32)
    assert found == floor_nats(dyck, 32)
    assert corpora.floor_nats("sotu", tmp_path, 32) is None


def test_a_language_is_prepared_once_and_loaded_by_any_spelling(tmp_path):
    told = []
    name = f"lang:dyck:kinds=3,{SMALL}"
    corpus = corpora.prepare(name, tmp_path, log=told.append)
    assert len(told) == 1 and "drawing" in told[0]
    again = corpora.prepare(f"lang:dyck:{SMALL},kinds=3", tmp_path, log=told.append)
    assert len(told) == 1 and again.content_hash == corpus.content_hash
    assert (corpus.vocab_size, corpus.tokenizer, len(corpus.train_tokens)) == (7, "symbols", 4000)
    loaded = corpora.load(name, tmp_path, tokenizer="symbols")
    assert loaded.name == parse(name).name
    assert np.array_equal(loaded.train_tokens, corpus.train_tokens)


def test_damaged_files_of_a_language_are_drawn_anew(tmp_path):
    name = f"lang:even:{SMALL}"
    tokens = corpora.prepare(name, tmp_path, log=quiet).train_tokens.copy()
    (path,) = tmp_path.glob("tokens/*/train.bin")
    path.write_bytes(b"\1" + path.read_bytes()[1:-1])
    with pytest.raises(CorpusError, match="train.bin is damaged"):
        corpora.load(name, tmp_path)
    assert np.array_equal(corpora.prepare(name, tmp_path, log=quiet).train_tokens, tokens)


def test_a_language_that_was_not_prepared_says_how(tmp_path):
    with pytest.raises(CorpusError, match="launch.py data prepare lang:even"):
        corpora.load("lang:even", tmp_path)


def test_every_parameter_is_part_of_the_identity(tmp_path):
    names = [
        f"lang:markov:{SMALL}", f"lang:markov:{SMALL},seed=1", f"lang:markov:{SMALL},sample=1",
        f"lang:markov:{SMALL},order=1", "lang:markov:train=4001,validation=2000",
    ]  # fmt: skip
    found = [corpora.prepare(name, tmp_path, log=quiet) for name in names]
    assert len({corpus.content_hash for corpus in found}) == len(names)
    # One language has one meaning of its tokens, however much of it was drawn.
    assert len({corpus.tokenizer_hash for corpus in found}) == 3


def test_inspect_shows_the_floors(tmp_path):
    corpora.prepare(f"lang:markov:order=1,{SMALL}", tmp_path, log=quiet)
    report = inspecting.inspect(f"lang:markov:order=1,{SMALL}", tmp_path)
    language = corpora.language(f"lang:markov:order=1,{SMALL}", tmp_path)
    assert report.floor_nats == {t: floor_nats(language, t) for t in (1, 8, 64, 128)}
    assert report.entropy_rate_nats == pytest.approx(report.floor_nats[1])
    assert report.parameters["vocab"] == 16 and len(report.sample.split()) == 200


def test_letters_are_counted_and_smoothed():
    source = Letters(order=1).from_text("ab. AB!b")
    assert source.symbols == tuple(LETTERS)
    # " ", a, b: "ab ab b" has a -> b twice, b -> " " twice, " " -> a once and b once.
    a, b = LETTERS.index("a"), LETTERS.index("b")
    unigram_b = (3 + 3 / 27) / (7 + 3)
    assert source.table[a, b] == pytest.approx((2 + 1 * unigram_b) / (2 + 1))
    assert source.table[0, b] == pytest.approx((1 + 2 * unigram_b) / (2 + 2))
    assert (source.table > 0).all()


def test_letters_and_words_write_like_their_text():
    letters = Letters(order=2).from_text(TEXT)
    assert len(letters.table) == 27**2
    written = letters.render(letters.sample(2000, seed=0))
    assert written.count("the ") > 50
    words = Words(vocab=5).from_text(TEXT)
    assert set(words.symbols) == {"_", "the", "cat", "sat", "on"}
    assert "sat on the cat" in words.render(words.sample(200, seed=0))


def test_a_corpus_of_letters_names_its_text(tmp_path, monkeypatch):
    from train.data import builders
    from train.data.sources import Document

    documents = [Document(f"doc-{i:03d}", f"{TEXT[: 40 + i]}{i}\n") for i in range(200)]
    monkeypatch.setattr(builders, "build_documents", lambda *_: documents)
    corpus = corpora.prepare(f"lang:letters:{SMALL}", tmp_path, log=quiet)
    assert corpus.vocab_size == 27
    assert "sat" in inspecting.inspect(f"lang:letters:{SMALL}", tmp_path).sample
    with pytest.raises(ValueError, match="corpus='bible' is unknown"):
        corpora.prepare(f"lang:letters:text=bible,{SMALL}", tmp_path, log=quiet)


def test_tables_that_are_too_large_or_texts_too_short_are_refused():
    with pytest.raises(ValueError, match="use a smaller order"):
        Letters(order=4).from_text(TEXT)
    with pytest.raises(ValueError, match="too few for order=2"):
        Letters(order=2).from_text("a")
