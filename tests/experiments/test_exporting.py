"""Runs in Hugging Face's layout, asked again from there (test_transformers.py: by others)."""

import dataclasses

import numpy as np
import pytest

from experiments import exporting
from experiments.sampling import TrainedRun, load_pretrained
from model.functional import apply, init_params
from train.data.tokenizer_files import read_tokenizer, write_tokenizer
from train.data.tokenizers import BYTES, train_bpe

TEXT = "The café — “quoted” \n\n 12 x\ty'll"


@pytest.fixture
def export(monkeypatch, tmp_path, tiny):
    """Export a model of these options as if it were a finished run."""

    def export(parametrization="standard", **options):
        cfg = dataclasses.replace(tiny, vocab_size=256, **options)
        run = TrainedRun(cfg, init_params(cfg, 0, parametrization), BYTES, parametrization)
        monkeypatch.setattr(exporting, "load_run", lambda workspace, name: run)
        exporting.export(exporting.ExportFlags("some", tmp_path / "model"))
        return run, load_pretrained(tmp_path / "model")

    return export


@pytest.mark.parametrize("parametrization", ["standard", "mup"])
def test_an_exported_run_gives_its_logits(export, parametrization):
    run, again = export(parametrization, bias=True)
    tokens = np.arange(24).reshape(2, 12) + 90
    np.testing.assert_allclose(
        apply(again.model, again.params, tokens),
        apply(run.model, run.params, tokens, parametrization=parametrization),
        atol=1e-6,
    )
    assert again.tokenizer is BYTES


def test_a_model_of_neither_kind_leaves_no_folder(export, tmp_path):
    with pytest.raises(ValueError, match="GPT-2 has no qk_norm=True"):
        export(qk_norm=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_not_written(export, tmp_path):
    export()
    with pytest.raises(ValueError, match="model exists; name one that does not"):
        export()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("is_one_file", [False, True])
def test_tokenizers_are_read_as_they_were(tmp_path, is_one_file):
    for tokenizer in (BYTES, train_bpe("bpe:270", [TEXT * 20], 270)):
        write_tokenizer(tokenizer, tmp_path, seq_len=12)
        if is_one_file:
            (tmp_path / "vocab.json").unlink()
            (tmp_path / "merges.txt").unlink()
        found = read_tokenizer(tmp_path)
        assert (found.hash, found.name) == (tokenizer.hash, tokenizer.name)
        assert found.decode(found.encode(TEXT)) == TEXT


@pytest.mark.parametrize("content", ["{", "{}", '{"model": {"type": "Unigram"}}'])
def test_another_kind_of_tokenizer_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match="tokenizer.json cannot be used"):
        read_tokenizer(tmp_path)


def test_a_tokenizer_larger_than_the_model_is_refused(export, tmp_path):
    export()
    write_tokenizer(train_bpe("bpe:270", [TEXT * 20], 270), tmp_path / "model", seq_len=12)
    with pytest.raises(ValueError, match="tokenizer has 270 tokens, but .* vocab_size=256"):
        load_pretrained(tmp_path / "model")
