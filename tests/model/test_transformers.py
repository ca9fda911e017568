"""Logits against the transformers package itself (make test-hf)."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from model import pretrained
from model.config import ModelConfig
from model.functional import apply, init_params
from model.ladders import LADDERS
from train.data.tokenizer_files import read_tokenizer, write_tokenizer
from train.data.tokenizers import BYTES, train_bpe

torch = pytest.importorskip("torch", reason="torch is not installed; make test-hf")
transformers = pytest.importorskip("transformers", reason="not installed; make test-hf")
pytestmark = [
    pytest.mark.slow,
    # Theirs, about their own and each other's interfaces.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

TOLERANCE = 1e-4
RUN = ModelConfig(n_layers=3, d_model=48, n_heads=2, d_head=24, d_ff=64, vocab_size=256, seq_len=32)
ROTARY = {"position": "rotary", "norm": "rmsnorm", "activation": "swiglu"}
TEXT = "The café — “quoted” \n\n 12 x\ty'll"


def gpt2(**sizes):
    """transformers' GPT-2 with random values, none of them at its start."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for values in model.parameters():
            values.add_(torch.randn_like(values), alpha=0.02)
    return model


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.float().numpy()


def random_tokens(vocab_size, shape):
    return np.random.default_rng(0).integers(0, vocab_size, shape)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("sizes", [{"n_head": 2}, {"n_head": 4, "n_inner": 40}])
def test_logits_of_a_small_gpt2(tmp_path, dtype, sizes):
    shape = {"n_layer": 3, "n_embd": 32, "vocab_size": 101, "n_positions": 24, **sizes}
    gpt2(**shape).to(getattr(torch, dtype)).save_pretrained(tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).float().eval()
    cfg, params = pretrained.load(tmp_path)
    tokens = random_tokens(101, (3, 24))
    assert np.abs(apply(cfg, params, tokens) - logits_of(theirs, tokens)).max() < TOLERANCE


@pytest.mark.parametrize("rung", LADDERS["gpt2"], ids=lambda rung: rung.name)
def test_logits_of_the_family(tmp_path, rung):
    """Minutes, and 20 GB of memory for the largest."""
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    if 12.5 * rung.n_params_published > 1024 * int(memory["MemAvailable"].split()[0]):
        pytest.skip(
            f"{rung.name} needs {12.5 * rung.n_params_published / 1e9:.0f} GB of free memory"
        )
    size = rung.model
    model = gpt2(n_layer=size.n_layers, n_embd=size.d_model, n_head=size.n_heads)
    tokens = random_tokens(size.vocab_size, (2, 48))
    theirs = logits_of(model, tokens)
    model.save_pretrained(tmp_path)
    del model
    cfg, params = pretrained.load(tmp_path)
    assert cfg == size
    apart = np.abs(apply(cfg, params, tokens) - theirs).max()
    print(f"{rung.name}: logits up to {np.abs(theirs).max():.2f}, at most {apart:.1e} apart")
    (tmp_path / "model.safetensors").unlink()
    assert apart < TOLERANCE


@pytest.mark.parametrize(
    ("options", "parametrization", "theirs"),
    [
        ({}, "standard", "GPT2LMHeadModel"),
        ({"bias": True}, "mup", "GPT2LMHeadModel"),
        ({"tied_head": False}, "standard", "GPT2LMHeadModel"),
        (ROTARY, "standard", "LlamaForCausalLM"),
        ({**ROTARY, "n_kv_heads": 1, "d_head": 6, "tied_head": False}, "mup", "LlamaForCausalLM"),
    ],
)
def test_our_models_load_there(tmp_path, options, parametrization, theirs):
    cfg = dataclasses.replace(RUN, **options)
    params = init_params(cfg, 0, parametrization)
    pretrained.save(tmp_path, cfg, params, parametrization, end_of_text=0)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(model).__name__ == theirs
    tokens = random_tokens(256, (3, 32))
    ours = apply(cfg, params, tokens, parametrization=parametrization)
    assert np.abs(ours - logits_of(model, tokens)).max() < TOLERANCE


@pytest.mark.parametrize("files", ["all", "tokenizer.json"])
def test_our_tokenizers_load_there(tmp_path, files):
    pretrained.save(tmp_path, RUN, init_params(RUN, 0), end_of_text=0)
    for tokenizer in (BYTES, train_bpe("bpe:270", [TEXT * 20], 270)):
        write_tokenizer(tokenizer, tmp_path, seq_len=64)
        if files != "all":
            for name in ("vocab.json", "merges.txt"):
                (tmp_path / name).unlink()
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert theirs(TEXT)["input_ids"] == tokenizer.encode(TEXT).tolist()
        assert theirs.decode(theirs(TEXT)["input_ids"]) == TEXT
        assert theirs.eos_token_id == tokenizer.eot_id
        assert read_tokenizer(tmp_path).hash == tokenizer.hash
        theirs.save_pretrained(tmp_path / "again")
        assert read_tokenizer(tmp_path / "again").hash == tokenizer.hash
