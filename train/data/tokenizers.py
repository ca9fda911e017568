"""Text to token arrays and back."""

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np


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


def get_tokenizer(name: str) -> ByteTokenizer:
    """The tokenizer of that name.

    Raises: ValueError: no such tokenizer.
    """
    if name != ByteTokenizer.name:
        raise ValueError(f"tokenizer={name!r} is unknown; use {ByteTokenizer.name!r}")
    return ByteTokenizer()
