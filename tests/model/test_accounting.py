"""Parameters and FLOPs by formula equal what is really there: array sizes, and the jaxpr."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.accounting import (
    FLOPS_CONVENTIONS,
    count_params,
    forward_flops_per_token,
    train_flops,
    train_flops_per_token,
)
from model.config import ModelConfig
from model.counting import counted_flops_per_token, counted_params, jaxpr_flops
from model.functional import abstract_params, features, flatten
from model.kernels import PLAIN

HEADS = [(1, None), (2, None), (3, None), (2, 1), (3, 1), (4, 1), (4, 2), (6, 2), (6, 3)]


def with_heads(heads: tuple[int, int | None], **sizes) -> ModelConfig:
    return ModelConfig(n_heads=heads[0], n_kv_heads=heads[1], **sizes)


CONFIGS = st.builds(
    with_heads,
    heads=st.sampled_from(HEADS),
    n_layers=st.integers(1, 3),
    d_model=st.integers(1, 9),
    d_head=st.sampled_from([2, 4, 6]),
    d_ff=st.integers(1, 11),
    vocab_size=st.integers(1, 13),
    seq_len=st.integers(1, 7),
    position=st.sampled_from(["learned", "rotary", "none"]),
    norm=st.sampled_from(["layernorm", "rmsnorm"]),
    activation=st.sampled_from(["gelu", "relu2", "swiglu"]),
    tied_head=st.booleans(),
    bias=st.booleans(),
    qk_norm=st.booleans(),
    logit_softcap=st.sampled_from([None, 30.0]),
)


def quickstart(n_layers: int, d_model: int) -> ModelConfig:
    return ModelConfig(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=d_model // 8,
        d_head=8,
        d_ff=4 * d_model,
        vocab_size=256,
        seq_len=64,
    )


def group(name: str) -> str:
    """The parameter group of a leaf, by what it is called."""
    if name.endswith("_embedding"):
        return "embedding"
    if name.endswith(("gain", "bias")):
        return "norm"
    return "head" if name == "head" else "non_embedding"


@settings(max_examples=50)
@given(CONFIGS)
def test_param_groups_equal_the_arrays(cfg):
    sizes = {"embedding": 0, "non_embedding": 0, "norm": 0, "head": 0}
    for name, leaf in flatten(abstract_params(cfg)).items():
        sizes[group(name)] += math.prod(leaf.shape)
    counts = count_params(cfg)
    assert {name: getattr(counts, name) for name in sizes} == sizes
    assert counts.total == sum(sizes.values())


@pytest.mark.no_cover  # tracing twice as slow, of a model that other tests run
@settings(max_examples=12)
@given(CONFIGS)
def test_counts_of_the_jaxpr_are_those_of_the_formula(cfg):
    assert counted_params(cfg) == count_params(cfg)
    for is_causal, convention in ((False, "matmul_full"), (True, "matmul_causal")):
        forward, training = (
            counted_flops_per_token(cfg, is_training=is_training, is_causal=is_causal)
            for is_training in (False, True)
        )
        assert forward == forward_flops_per_token(cfg, convention)
        assert training == train_flops_per_token(cfg, convention)


@pytest.mark.no_cover  # tracing twice as slow, of a model that other tests run
@settings(max_examples=12)
@given(CONFIGS, st.integers(1, 3))
def test_matmul_flops_equal_the_jaxpr_of_a_training_step(cfg, batch_size):
    def loss(params, tokens_BT):
        x_BTD, w_VD = features(cfg, params, tokens_BT, kernels=PLAIN)
        x_ND, targets_N = x_BTD.reshape(-1, cfg.d_model), tokens_BT.reshape(-1)
        return PLAIN.cross_entropy(x_ND, w_VD, targets_N, cfg.logit_softcap, jnp.float32(1e-4))

    tokens = jax.ShapeDtypeStruct((batch_size, cfg.seq_len), jnp.int32)
    jaxpr = jax.make_jaxpr(jax.value_and_grad(loss))(abstract_params(cfg), tokens).jaxpr
    assert jaxpr_flops(jaxpr) == train_flops(cfg, batch_size * cfg.seq_len, "matmul_full")


@pytest.mark.parametrize(
    ("n_layers", "d_model", "n_params", "flops"),
    [
        (1, 16, 3_072, 55_296),
        (2, 16, 6_144, 86_016),
        (2, 24, 13_824, 156_672),
        (2, 32, 24_576, 245_760),
        (3, 40, 57_600, 499_200),
        (3, 56, 112_896, 892_416),
        (4, 64, 196_608, 1_474_560),
        (4, 80, 307_200, 2_211_840),
    ],
)
def test_counts_of_the_quickstart_sizes(n_layers, d_model, n_params, flops):
    cfg = quickstart(n_layers, d_model)
    assert count_params(cfg).non_embedding == n_params
    assert count_params(cfg).embedding == (256 + 64) * d_model
    assert train_flops_per_token(cfg, "matmul_full") == flops


def test_conventions_of_gpt2_small():
    """The usual shape: Kaplan's 12 n_layers d_model^2, and the size published for GPT-2 small."""
    cfg = ModelConfig(12, 768, 12, 64, 3072, 50257, 1024)
    counts = count_params(cfg)
    assert counts.non_embedding == 12 * 12 * 768**2
    # 124,439,808 parameters as released, less 12 * 9 * 768 biases of the blocks' matrices and
    # 25 * 768 of the norms.
    assert counts.total == 124_439_808 - 12 * 9 * 768 - 25 * 768
    with_biases = count_params(dataclasses.replace(cfg, bias=True))
    assert with_biases.total == 124_439_808
    assert with_biases.non_embedding == counts.non_embedding
    assert train_flops_per_token(cfg, "6n_non_embedding") == 6 * counts.non_embedding
    assert train_flops_per_token(cfg, "6n_total") == 6 * counts.total
    head = 6 * 768 * 50257
    scores = 12 * 12 * 768 * 1024
    assert train_flops_per_token(cfg, "matmul_full") == 6 * counts.non_embedding + head + scores


def test_counts_of_mistral_7b():
    """Grouped queries, gates and an untied head, against the size published (7,241,732,096)."""
    cfg = ModelConfig(
        32, 4096, 32, 128, 14336, 32000, 4096, "rotary", "rmsnorm", "swiglu",
        tied_head=False, n_kv_heads=8,
    )  # fmt: skip
    assert count_params(cfg).total == 7_241_732_096


def test_counts_of_qwen3_0_6b():
    """Query-key norms beside grouped queries; 596,049,920 parameters as released."""
    cfg = ModelConfig(
        28, 1024, 16, 128, 3072, 151936, 40960, "rotary", "rmsnorm", "swiglu",
        n_kv_heads=8, qk_norm=True,
    )  # fmt: skip
    assert count_params(cfg).total == 596_049_920


@given(CONFIGS)
def test_causal_flops_count_the_keys_each_query_sees(cfg):
    n_keys_seen = sum(t for t in range(1, cfg.seq_len + 1))
    n_keys_full = cfg.seq_len**2
    excess = 12 * cfg.n_layers * cfg.d_attn * (n_keys_full - n_keys_seen)
    full, causal = (
        train_flops(cfg, cfg.seq_len, convention) for convention in ("matmul_full", "matmul_causal")
    )
    assert full - causal == excess


@pytest.mark.parametrize("convention", FLOPS_CONVENTIONS)
def test_training_is_three_forward_passes(tiny, convention):
    forward = forward_flops_per_token(tiny, convention)
    assert train_flops_per_token(tiny, convention) == 3 * forward
    assert train_flops(tiny, 10, convention) == 30 * forward


@pytest.mark.usefixtures("ill_typed")
def test_an_unknown_convention_is_named(tiny):
    with pytest.raises(ValueError, match="convention='6n' is unknown.*matmul_full"):
        train_flops_per_token(tiny, "6n")
