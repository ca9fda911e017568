import pytest

import launch
from experiments import quickstart
from experiments.baselines import NgramFlags, ngrams
from train.data import corpora

LANGUAGE = "lang:markov:vocab=6,order=1,train=60000,validation=20000"


def test_ngrams_of_a_language_stand_beside_its_exact_entropies(tmp_path):
    corpora.prepare(LANGUAGE, tmp_path / "data", log=lambda text: None)
    shown = ngrams(NgramFlags(out=tmp_path, name=LANGUAGE, order=3, sample=40))
    (rows,) = shown.tables.values()
    assert [row["n"] for row in rows] == ["1", "2", "3"]
    assert shown.values["nats_per_token"] == pytest.approx(shown.values["exact_nats"], abs=0.02)
    assert len(shown.values["samples"][2].split()) == 40
    with pytest.raises(ValueError, match="--unit letters"):
        ngrams(NgramFlags(out=tmp_path, name=LANGUAGE, unit="words"))


@pytest.mark.parametrize("unit", ["letters", "words"])
def test_ngrams_of_a_text(prepared, unit):
    shown = ngrams(NgramFlags(out=prepared[0], name="sotu", order=3, unit=unit, sample=30))
    losses = shown.values["nats_per_token"]
    assert losses[1] <= losses[0] and shown.values["exact_nats"] is None
    assert len(shown.sentences) == 3 and "written with n = 3" in shown.sentences[2]


def test_flags_that_cannot_be_are_refused(prepared):
    with pytest.raises(ValueError, match="order=0"):
        ngrams(NgramFlags(out=prepared[0], order=0))


def test_a_study_on_a_language_names_it_in_its_one_spelling(tmp_path):
    spelled = "lang:markov:seed=0,vocab=6,train=60000,validation=20000,order=1"
    corpus = corpora.prepare(spelled, tmp_path, log=lambda text: None)
    options = quickstart.Options(scale="smoke", corpus=spelled)
    cells = quickstart.plan(options, corpus).cells
    assert {cell.spec.data.corpus for cell in cells} == {LANGUAGE}
    assert {cell.spec.model.vocab_size for cell in cells} == {6}


@pytest.mark.parametrize("name", ["bible", "lang:esperanto", "lang:markov:order=0"])
def test_a_study_on_a_corpus_that_is_not_there_says_what_is(name, tmp_path, capsys):
    flags = ["quickstart", "--scale", "smoke", "--corpus", name, "--out", str(tmp_path)]
    assert launch.main(["plan", *flags]) == 2
    complaint = capsys.readouterr().err
    assert f"corpus={name!r}" in complaint and "use one of" in complaint or "order=0" in complaint
