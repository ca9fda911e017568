"""The whole model against its formulas, written once more in numpy, one token at a time."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from model.config import ModelConfig
from model.functional import apply, flatten, init_params, unflatten
from model.kernels import CPU, PLAIN

OPTIONS = [
    {"position": position, "norm": norm, "activation": activation, "tied_head": tied_head}
    for position, norm, activation, tied_head in itertools.product(
        ["learned", "rotary", "none"], ["layernorm", "rmsnorm"], ["gelu", "relu2", "swiglu"],
        [True, False],
    )
][::5] + [
    {"bias": True, "n_kv_heads": 1, "qk_norm": True, "logit_softcap": 1.0, "activation": "swiglu"},
    {"n_kv_heads": 2, "n_heads": 4, "position": "rotary", "d_head": 6},
]  # fmt: skip


def norm(cfg: ModelConfig, x, gain, bias=0.0):
    centre = x.mean() if cfg.norm == "layernorm" else 0.0
    return (x - centre) / math.sqrt(((x - centre) ** 2).mean() + 1e-5) * gain + bias


def rms(x, gain):
    return x / math.sqrt((x**2).mean() + 1e-5) * gain


def turned(x, t):
    """Each pair of features as a complex number, turned."""
    half = len(x) // 2
    angles = t * 10_000.0 ** (-np.arange(half) / half)
    z = (x[:half] + 1j * x[half:]) * np.exp(1j * angles)
    return np.concatenate([z.real, z.imag])


def attention(cfg: ModelConfig, p, xs):
    """Outputs at every position; the query at t meets the keys up to t, one head at a time."""
    n_kv = cfg.n_kv_heads or cfg.n_heads
    split = [cfg.n_heads * cfg.d_head, (cfg.n_heads + n_kv) * cfg.d_head]
    heads = [np.split(x @ p["qkv"] + p.get("qkv_bias", 0.0), split) for x in xs]
    q, k, v = (np.array([h[i] for h in heads]).reshape(len(xs), -1, cfg.d_head) for i in range(3))
    if cfg.qk_norm:
        q = np.array([[rms(a, p["q_norm.gain"]) for a in row] for row in q])
        k = np.array([[rms(a, p["k_norm.gain"]) for a in row] for row in k])
    if cfg.position == "rotary":
        q = np.array([[turned(a, t) for a in row] for t, row in enumerate(q)])
        k = np.array([[turned(a, t) for a in row] for t, row in enumerate(k)])
    outputs = []
    for t in range(len(xs)):
        y = []
        for h in range(cfg.n_heads):
            shared = h // (cfg.n_heads // n_kv)
            weights = np.exp(k[: t + 1, shared] @ q[t, h] / math.sqrt(cfg.d_head))
            y.append(weights @ v[: t + 1, shared] / weights.sum())
        outputs.append(np.concatenate(y) @ p["out"] + p.get("out_bias", 0.0))
    return outputs


def mlp(cfg: ModelConfig, p, x):
    h = x @ p["up"] + p.get("up_bias", 0.0)
    if cfg.activation == "swiglu":
        gate = x @ p["gate"] + p.get("gate_bias", 0.0)
        h = gate / (1 + np.exp(-gate)) * h
    elif cfg.activation == "relu2":
        h = np.maximum(h, 0) ** 2
    else:
        h = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    return h @ p["down"] + p.get("down_bias", 0.0)


def logits_of(cfg: ModelConfig, flat, tokens):
    """Logits [T, V] of one sequence in float64."""

    def part(prefix):
        return {k.removeprefix(prefix): v for k, v in flat.items() if k.startswith(prefix)}

    def normed(name, x):
        return norm(cfg, x, **part(f"{name}."))

    xs = [flat["token_embedding"][token] for token in tokens]
    if cfg.position == "learned":
        xs = [x + flat["position_embedding"][t] for t, x in enumerate(xs)]
    for i in range(cfg.n_layers):
        block = f"blocks.{i}."
        inputs = [normed(f"{block}attention_norm", x) for x in xs]
        ys = attention(cfg, part(f"{block}attention."), inputs)
        xs = [x + y for x, y in zip(xs, ys, strict=True)]
        xs = [x + mlp(cfg, part(f"{block}mlp."), normed(f"{block}mlp_norm", x)) for x in xs]
    head = flat["token_embedding" if cfg.tied_head else "head"]
    logits = np.array([head @ normed("final_norm", x) for x in xs])
    cap = cfg.logit_softcap
    return logits if cap is None else cap * np.tanh(logits / cap)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_logits_equal_the_formulas(tiny, options):
    cfg = dataclasses.replace(tiny, **options)
    rng = np.random.default_rng(0)
    # Away from the initial values, where gains are one and biases zero.
    flat = {
        name: leaf + 0.3 * rng.standard_normal(leaf.shape).astype(np.float32)
        for name, leaf in flatten(init_params(cfg, 0)).items()
    }
    tokens = rng.integers(0, cfg.vocab_size, (2, cfg.seq_len), np.int32)
    wanted = [logits_of(cfg, {k: v.astype(np.float64) for k, v in flat.items()}, t) for t in tokens]
    for kernels in (PLAIN, CPU):
        found = apply(cfg, unflatten(flat), tokens, kernels=kernels)
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)
