"""Tokenizers in Hugging Face's files, beside the weights that they belong to."""

import json
from pathlib import Path
from typing import Any

from train.data.tokenizers import BYTES, BpeTokenizer, ByteTokenizer, Tokenizer, read_gpt2

_END_OF_TEXT = "<|endoftext|>"
_GPT2_VOCABULARY = 50_257
_SPECIAL = dict.fromkeys(("bos_token", "eos_token", "unk_token"), _END_OF_TEXT)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The byte-level BPE in a folder: vocab.json and merges.txt, or tokenizer.json.

    Bytes written by `write_tokenizer` are read as what they were. A BPE has the name under which a
    corpus of its tokens is kept; whether it is the same one its hash says.

    Raises: ValueError: there is none, or it is damaged or of another kind.
    """
    path = folder / "tokenizer.json"
    has_pair = any((folder / name).is_file() for name in ("vocab.json", "encoder.json"))
    if has_pair or not path.is_file():
        found = read_gpt2(folder)
    else:
        found = _from_one_file(path)
    if (found.vocabulary, found.merges) == (_byte_bpe().vocabulary, ()):
        return BYTES
    name = "gpt2" if found.vocab_size == _GPT2_VOCABULARY else f"bpe:{found.vocab_size}"
    return BpeTokenizer(name, found.vocabulary, found.merges)


def write_tokenizer(tokenizer: Tokenizer, folder: Path, seq_len: int) -> None:
    """Write a tokenizer as one of GPT-2's kind into an existing folder.

    Bytes become a BPE without merges, whose end of text is byte 0.
    """
    bpe = _byte_bpe() if isinstance(tokenizer, ByteTokenizer) else tokenizer
    engine = bpe.engine()
    engine.add_special_tokens([_END_OF_TEXT])
    engine.save(str(folder / "tokenizer.json"))
    (folder / "vocab.json").write_text(json.dumps(bpe.vocabulary, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in bpe.merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    about = {
        **_SPECIAL, "tokenizer_class": "GPT2Tokenizer", "model_max_length": seq_len,
        "add_prefix_space": False, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1) + "\n")


def _from_one_file(path: Path) -> BpeTokenizer:
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        model, before = values["model"], values.get("pre_tokenizer") or {}
        is_gpt2s = (model["type"], before.get("type"), before.get("add_prefix_space")) == (
            "BPE", "ByteLevel", False,
        )  # fmt: skip
        if not is_gpt2s or values.get("normalizer"):
            raise ValueError("it is no byte-level BPE of GPT-2's kind")
        pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        vocabulary = {**model["vocab"], **{t["content"]: t["id"] for t in values["added_tokens"]}}
        return BpeTokenizer("gpt2", vocabulary, tuple((left, right) for left, right in pairs))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be used ({error}); put the model's vocab.json and merges.txt there"
        ) from error


def _byte_bpe() -> BpeTokenizer:
    """Bytes as a BPE without merges, in GPT-2's alphabet.

    Printable bytes of Latin-1 are spelled as themselves, the others, in order, by the characters
    from 256 on.
    """
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = dict(zip(visible, map(chr, visible), strict=True))
    letters |= {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    vocabulary = {letters[byte]: byte for byte in range(1, 256)}
    return BpeTokenizer("bytes", {**vocabulary, _END_OF_TEXT: BYTES.eot_id}, ())
