"""Bad configs are refused with the value and the remedy."""

import dataclasses

import pytest

from model.config import ModelConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layers": 0}, r"n_layers=0 .* at least 1"),
        ({"d_model": -16}, r"d_model=-16"),
        ({"n_heads": True}, r"n_heads=True"),
        ({"position": "rotary", "d_head": 7}, r"d_head=7 is odd.*d_head=8"),
    ],
)
def test_bad_sizes_are_named(tiny, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny, **change)


@pytest.mark.usefixtures("ill_typed")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_ff": 64.0}, r"d_ff=64\.0 .* Python int"),
        ({"vocab_size": "256"}, r"vocab_size='256'"),
        ({"seq_len": None}, r"seq_len=None"),
        ({"position": "alibi"}, r"position='alibi' .* learned, rotary"),
        ({"norm": "batchnorm"}, r"norm='batchnorm' .* layernorm, rmsnorm"),
        ({"activation": "relu"}, r"activation='relu' .* gelu, swiglu"),
        ({"tied_head": 1}, r"tied_head=1 .* True or False"),
    ],
)
def test_values_of_another_kind_are_named(tiny, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny, **change)


def test_a_config_is_a_hashable_value(tiny):
    twin = ModelConfig(**dataclasses.asdict(tiny))
    assert twin == tiny
    assert hash(twin) == hash(tiny)


def test_heads_need_not_tile_the_model(tiny):
    assert dataclasses.replace(tiny, n_heads=3, d_head=5).d_attn == 15
