"""Weights in Hugging Face's layout without transformers: what is read, written and refused."""

import dataclasses
import json

import numpy as np
import pytest

from model import pretrained
from model.config import ModelConfig
from model.functional import apply, flatten, init_params, unflatten
from model.ladders import LADDERS

GPT2 = ModelConfig(
    n_layers=2, d_model=16, n_heads=2, d_head=8, d_ff=24, vocab_size=17, seq_len=12, bias=True
)
LLAMA = dataclasses.replace(
    GPT2, bias=False, position="rotary", norm="rmsnorm", activation="swiglu", n_kv_heads=1
)
TOKENS = np.random.default_rng(0).integers(0, 17, (2, 12))


def noisy(cfg, seed=0):
    """Initial values with biases and gains that matter."""
    rng = np.random.default_rng(seed)
    leaves = flatten(init_params(cfg, seed))
    return unflatten(
        {k: v + rng.normal(0, 0.1, v.shape).astype(np.float32) for k, v in leaves.items()}
    )


def rewrite(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def folder(tmp_path):
    pretrained.save(tmp_path, GPT2, noisy(GPT2), end_of_text=0)
    return tmp_path


def test_what_is_written_is_read(folder):
    cfg, params = pretrained.load(folder)
    assert cfg == GPT2
    expected = flatten(noisy(GPT2))
    assert all(np.array_equal(leaf, expected[name]) for name, leaf in flatten(params).items())


@pytest.mark.parametrize("changes", [{"bias": False}, {"bias": False, "tied_head": False}])
def test_a_model_without_biases_is_a_gpt2_with_zeros(tmp_path, changes):
    cfg = dataclasses.replace(GPT2, **changes)
    params = noisy(cfg)
    pretrained.save(tmp_path, cfg, params)
    read, same = pretrained.load(tmp_path)
    assert read == dataclasses.replace(cfg, bias=True)
    np.testing.assert_allclose(apply(read, same, TOKENS), apply(cfg, params, TOKENS), atol=1e-6)


@pytest.mark.parametrize("cfg", [GPT2, LLAMA])
def test_multipliers_fold_into_the_weights(cfg):
    cfg, params = dataclasses.replace(cfg, d_model=64, d_head=32), None
    params = noisy(cfg)
    found = unflatten(pretrained.folded(cfg, flatten(params), "mup"))
    expected = apply(cfg, params, TOKENS, parametrization="mup")
    assert np.abs(np.asarray(apply(cfg, params, TOKENS)) - expected).max() > 0.01
    np.testing.assert_allclose(apply(cfg, found, TOKENS), expected, atol=1e-6)


def test_the_published_sizes_are_read_as_the_ladder_has_them(tmp_path):
    """Of the released files only config.json, whose n_ctx and summary fields say nothing here."""
    for rung in LADDERS["gpt2"]:
        model = rung.model
        values = {
            "model_type": "gpt2", "activation_function": "gelu_new", "n_ctx": 1024,
            "n_embd": model.d_model, "n_head": model.n_heads, "n_layer": model.n_layers,
            "n_positions": 1024, "vocab_size": 50257, "layer_norm_epsilon": 1e-05,
            "summary_type": "cls_index", "attn_pdrop": 0.1,
        }  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(values))
        assert pretrained.load_config(tmp_path) == model


def test_names_without_a_prefix_and_several_files(folder):
    """As in the released gpt2, which also stores its causal masks."""
    from safetensors.numpy import load_file, save_file

    tensors = {
        name.removeprefix("transformer."): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    tensors["h.0.attn.bias"] = np.ones((1, 1, 12, 12), np.float32)
    (folder / "model.safetensors").unlink()
    names, files = sorted(tensors), ("model-1.safetensors", "model-2.safetensors")
    for file, some in zip(files, (names[::2], names[1::2]), strict=True):
        save_file({name: tensors[name] for name in some}, folder / file)
    weight_map = {name: files[i % 2] for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    found = flatten(pretrained.load(folder)[1])
    assert all(np.array_equal(found[name], leaf) for name, leaf in flatten(noisy(GPT2)).items())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"norm": "rmsnorm"}, "GPT-2 has no norm='rmsnorm'; Llama has no position='learned'"),
        ({"position": "rotary"}, "GPT-2 has no position='rotary'; Llama has no norm='layernorm'"),
        ({"qk_norm": True}, "GPT-2 has no qk_norm=True"),
        ({"logit_softcap": 30.0}, r"GPT-2 has no logit_softcap=30\.0"),
        ({"n_kv_heads": 1}, "GPT-2 has no n_kv_heads=1"),
        ({"activation": "relu2"}, "GPT-2 has no activation='relu2'"),
        ({"d_head": 4}, "GPT-2 has no d_head=4"),
    ],
)
def test_what_no_architecture_expresses_is_refused_by_its_name(changes, why):
    with pytest.raises(ValueError, match=why):
        pretrained.architecture(dataclasses.replace(GPT2, **changes))


def test_rotary_rmsnorm_swiglu_is_a_llama(tmp_path):
    assert pretrained.architecture(LLAMA) is pretrained.LLAMA
    pretrained.save(tmp_path, LLAMA, noisy(LLAMA))
    with pytest.raises(ValueError, match="model_type='llama' is not read"):
        pretrained.load(tmp_path)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"activation_function": "relu"}, "activation_function='relu' is not computed here"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ({"n_layer": 3}, r"h\.2\.\S+ must have shape .* no such tensor"),
        ({"vocab_size": 18}, r"wte\.weight must have shape \(18, 16\).* shape \(17, 16\)"),
        ({"n_embd": None}, "describes no GPT-2"),
        ({"n_head": 0}, "describes no GPT-2"),
        ({"n_layer": -1}, "n_layers=-1"),
    ],
)
def test_a_config_of_another_model_is_refused(folder, values, why):
    rewrite(folder, **values)
    with pytest.raises(ValueError, match=why):
        pretrained.load(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [("config.json", None), ("config.json", b"{"), ("config.json", b"[]"),
     ("model.safetensors", None), ("model.safetensors", b"\x00" * 20)],
)  # fmt: skip
def test_missing_and_damaged_files_are_named(folder, file, content):
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=file):
        pretrained.load(folder)
