"""GPT-2 weights in and out, and Llama's out, in Hugging Face's layout.

A folder holds `config.json` and the weights in float32 as `model.safetensors` (or in several files
with `model.safetensors.index.json`); files of the tokenizer lie beside them. What one of our models
computes that neither architecture can is refused by the name of the field, never approximated.

Source: the published files of GPT-2, and the classes GPT2LMHeadModel and LlamaForCausalLM of
    transformers, whose logits ours equal by test.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.config import ModelConfig
from model.functional import Params, abstract_params, flatten, unflatten
from model.parametrization import multipliers

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_INDEX = f"{WEIGHTS}.index.json"
_NORM_EPSILON = 1e-5

_GPT2 = {
    "token_embedding": "wte.weight",
    "position_embedding": "wpe.weight",
    "attention_norm.gain": "ln_1.weight",
    "attention_norm.bias": "ln_1.bias",
    "attention.qkv": "attn.c_attn.weight",
    "attention.qkv_bias": "attn.c_attn.bias",
    "attention.out": "attn.c_proj.weight",
    "attention.out_bias": "attn.c_proj.bias",
    "mlp_norm.gain": "ln_2.weight",
    "mlp_norm.bias": "ln_2.bias",
    "mlp.up": "mlp.c_fc.weight",
    "mlp.up_bias": "mlp.c_fc.bias",
    "mlp.down": "mlp.c_proj.weight",
    "mlp.down_bias": "mlp.c_proj.bias",
    "final_norm.gain": "ln_f.weight",
    "final_norm.bias": "ln_f.bias",
}
"""Our names, those of a block without `blocks.<i>.`, and GPT-2's; shapes are the same."""

_LLAMA = {
    "token_embedding": "model.embed_tokens.weight",
    "head": "lm_head.weight",
    "attention_norm.gain": "input_layernorm.weight",
    "attention.out": "self_attn.o_proj.weight",
    "mlp_norm.gain": "post_attention_layernorm.weight",
    "mlp.gate": "mlp.gate_proj.weight",
    "mlp.up": "mlp.up_proj.weight",
    "mlp.down": "mlp.down_proj.weight",
    "final_norm.gain": "model.norm.weight",
}
"""As above; matrices of the blocks are transposed, and queries, keys and values stand apart."""

_GPT2_ONLY: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (_NORM_EPSILON,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
"""Values of config.json that our model computes; the first is what a file that is silent means."""


@dataclass(frozen=True)
class Architecture:
    """A form that weights leave us in: which models it can express, its config.json and names."""

    name: str
    expresses: Mapping[str, tuple[Any, ...]]
    config: Callable[[ModelConfig], dict[str, Any]]
    tensors: Callable[[ModelConfig, dict[str, np.ndarray]], dict[str, np.ndarray]]

    def unlike(self, cfg: ModelConfig) -> list[str]:
        """Fields of a model that this architecture cannot express, as `field=value`."""
        odd = [name for name, values in self.expresses.items() if getattr(cfg, name) not in values]
        if self.name == "GPT-2" and cfg.d_attn != cfg.d_model:
            odd.append("d_head")
        return [f"{name}={getattr(cfg, name)!r}" for name in odd]


def load(folder: Path) -> tuple[ModelConfig, Params]:
    """A GPT-2 of Hugging Face's layout: its config and float32 parameters.

    Raises: ValueError: a file is missing or damaged, or the model is none that ours computes; the
        message names the file or the field.
    """
    cfg = load_config(folder)
    found = {name.removeprefix("transformer."): t for name, t in _read_tensors(folder).items()}
    expected = flatten(abstract_params(cfg))
    leaves = {}
    for name, leaf in expected.items():
        theirs = "lm_head.weight" if name == "head" else _renamed(name, _GPT2, "h.{}.")
        tensor = found.get(theirs)
        if tensor is None or tensor.shape != leaf.shape:
            has = "no such tensor" if tensor is None else f"shape {tensor.shape}"
            raise ValueError(
                f"{folder}: {theirs} must have shape {leaf.shape} by {CONFIG}, but there is {has}; "
                "download the model again"
            )
        leaves[name] = np.ascontiguousarray(tensor, np.float32)
    return cfg, unflatten(leaves)


def load_config(folder: Path) -> ModelConfig:
    """The model that a folder's config.json describes.

    Raises: ValueError: it is missing or damaged, or describes a model that ours does not compute.
    """
    path = folder / CONFIG
    values = _read_json(path)
    if values.get("model_type") != "gpt2":
        raise ValueError(f"{path}: model_type={values.get('model_type')!r} is not read; use gpt2")
    for name, computed in _GPT2_ONLY.items():
        if (value := values.get(name, computed[0])) not in computed:
            raise ValueError(f"{path}: {name}={value!r} is not computed here; only {computed[0]!r}")
    try:
        d_model, n_heads = values["n_embd"], values["n_head"]
        return ModelConfig(
            n_layers=values["n_layer"],
            d_model=d_model,
            n_heads=n_heads,
            d_head=d_model // n_heads,
            d_ff=values.get("n_inner") or 4 * d_model,
            vocab_size=values["vocab_size"],
            seq_len=values["n_positions"],
            tied_head=values.get("tie_word_embeddings", True),
            bias=True,
        )
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{path} describes no GPT-2 ({error!r}); download it again") from error


def save(
    folder: Path,
    cfg: ModelConfig,
    params: Params,
    parametrization: str = "standard",
    end_of_text: int | None = None,
) -> Architecture:
    """Write a model as GPT-2, or as Llama if it is one, into an existing folder; returns as which.

    The parametrization's multipliers are folded into weights, and biases that a model lacks are
    zeros where GPT-2 has some.

    Args: end_of_text: the token that begins and ends a document.
    Raises: ValueError: neither architecture computes what the model does; the fields are named.
    """
    from safetensors.numpy import save_file

    form = architecture(cfg)
    leaves = folded(cfg, flatten(params), parametrization)
    tensors = {name: np.ascontiguousarray(t) for name, t in form.tensors(cfg, leaves).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    values = {
        **form.config(cfg),
        "vocab_size": cfg.vocab_size,
        "tie_word_embeddings": cfg.tied_head,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "dtype": "float32",
    }
    (folder / CONFIG).write_text(json.dumps(values, indent=1) + "\n")
    return form


def architecture(cfg: ModelConfig) -> Architecture:
    """The architecture that expresses a model.

    Raises: ValueError: none does; the fields that stand in the way are named.
    """
    for form in ARCHITECTURES:
        if not form.unlike(cfg):
            return form
    why = "; ".join(f"{form.name} has no {', '.join(form.unlike(cfg))}" for form in ARCHITECTURES)
    raise ValueError(f"the model cannot be exported: {why}; train one with the other values")


def folded(
    cfg: ModelConfig, leaves: Mapping[str, Any], parametrization: str
) -> dict[str, np.ndarray]:
    """Parameters that give under `standard` the logits that these give under a parametrization."""
    by = multipliers(cfg, parametrization)
    query = np.ones(cfg.d_attn + 2 * cfg.d_kv, np.float32)
    query[: cfg.d_attn] = by.query
    factors = {"qkv": query, "out": by.residual, "down": by.residual}

    def factor(name: str) -> Any:
        if name.startswith("final_norm."):
            return by.output
        return factors.get(name.rpartition(".")[2].removesuffix("_bias"), 1.0)

    return {
        name: np.asarray(x, np.float32) * np.float32(factor(name)) for name, x in leaves.items()
    }


def _renamed(name: str, names: Mapping[str, str], block: str) -> str:
    """Their name of one of our parameters; `block` is the beginning of those of block {}."""
    if not name.startswith("blocks."):
        return names[name]
    _, i, inner = name.split(".", 2)
    return block.format(i) + names[inner]


def _gpt2_config(cfg: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": cfg.n_layers,
        "n_embd": cfg.d_model,
        "n_head": cfg.n_heads,
        "n_inner": cfg.d_ff,
        "n_positions": cfg.seq_len,
        # Dropout belongs to training, and our runs had none.
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0),
        **{name: values[0] for name, values in _GPT2_ONLY.items()},
    }


def _gpt2_tensors(cfg: ModelConfig, leaves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {
        f"transformer.{_renamed(name, _GPT2, 'h.{}.')}": leaf
        for name, leaf in leaves.items()
        if name != "head"
    }
    if "head" in leaves:
        found["lm_head.weight"] = leaves["head"]
    if not cfg.bias:
        widths = {"attention.qkv_bias": 3 * cfg.d_model, "mlp.up_bias": cfg.d_ff}
        in_blocks = [name for name in _GPT2 if name.endswith("bias") and name != "final_norm.bias"]
        names = [f"blocks.{i}.{name}" for i in range(cfg.n_layers) for name in in_blocks]
        for name in [*names, "final_norm.bias"]:
            width = widths.get(name.split(".", 2)[-1], cfg.d_model)
            theirs = f"transformer.{_renamed(name, _GPT2, 'h.{}.')}"
            found[theirs] = np.zeros(width, np.float32)
    return found


def _llama_config(cfg: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": cfg.n_layers,
        "hidden_size": cfg.d_model,
        "num_attention_heads": cfg.n_heads,
        "num_key_value_heads": cfg.n_kv_heads or cfg.n_heads,
        "head_dim": cfg.d_head,
        "intermediate_size": cfg.d_ff,
        "max_position_embeddings": cfg.seq_len,
        "hidden_act": "silu",
        "rms_norm_eps": _NORM_EPSILON,
        "rope_theta": 10_000.0,
        "attention_bias": False,
        "mlp_bias": False,
    }


def _llama_tensors(cfg: ModelConfig, leaves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {}
    for name, leaf in leaves.items():
        if name.endswith("attention.qkv"):
            start = f"model.layers.{name.split('.')[1]}.self_attn."
            parts = np.split(leaf, [cfg.d_attn, cfg.d_attn + cfg.d_kv], axis=1)
            for letter, part in zip("qkv", parts, strict=True):
                found[f"{start}{letter}_proj.weight"] = part.T
            continue
        is_block_matrix = name.startswith("blocks.") and leaf.ndim == 2
        found[_renamed(name, _LLAMA, "model.layers.{}.")] = leaf.T if is_block_matrix else leaf
    return found


_OURS_ALONE: dict[str, tuple[Any, ...]] = {
    "qk_norm": (False,), "logit_softcap": (None,),
    "block": (None,), "attention": (None,), "mlp": (None,),
}  # fmt: skip
GPT2 = Architecture(
    "GPT-2",
    {"position": ("learned",), "norm": ("layernorm",), "activation": ("gelu",),
     "n_kv_heads": (None,), **_OURS_ALONE},
    _gpt2_config,
    _gpt2_tensors,
)  # fmt: skip
LLAMA = Architecture(
    "Llama",
    {"position": ("rotary",), "norm": ("rmsnorm",), "activation": ("swiglu",), "bias": (False,),
     **_OURS_ALONE},
    _llama_config,
    _llama_tensors,
)  # fmt: skip
ARCHITECTURES = (GPT2, LLAMA)


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    index, files = folder / _INDEX, [WEIGHTS]
    if not (folder / WEIGHTS).is_file() and index.is_file():
        # Names, not paths: nothing outside of the folder is read.
        files = sorted({Path(name).name for name in _read_json(index)["weight_map"].values()})
    found: dict[str, np.ndarray] = {}
    for name in files:
        try:
            found |= load_file(folder / name)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{folder / name} cannot be read as weights ({error}); download the model again"
            ) from error
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); give a folder with {CONFIG} and {WEIGHTS}"
        ) from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is no JSON object; download the model again")
    return values
