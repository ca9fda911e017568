"""What a person wants to know of a corpus before training on it."""

import lzma
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from train.data.building import about
from train.data.corpora import language, load
from train.data.languages import names as languages
from train.data.sources import get_source
from train.data.tokenfiles import TokenizedCorpus
from train.data.tokenizers import BYTES

_PACKED_BYTES = 1 << 24
_SAMPLE_CHARACTERS = 400
_N_SAMPLES = 3


@dataclass(frozen=True)
class CorpusReport:
    """A prepared corpus in numbers; dictionaries are by split, entropies in nats a token."""

    name: str
    title: str
    origin: str
    licence: str
    citation: str
    homepage: str
    tokenizer: str
    vocab_size: int
    content_hash: str
    split_rule: str
    n_documents: dict[str, int]
    n_bytes: dict[str, int]
    n_tokens: dict[str, int]
    n_dropped: dict[str, int]
    bytes_per_token: float
    ngram_nats: dict[str, tuple[float, ...]]
    ngram_bits_per_byte: dict[str, tuple[float, ...]]
    validation_xz_bits_per_byte: float
    n_shared_with_train: dict[str, float]
    samples: tuple[str, ...]


def inspect(
    name: str, data_dir: Path, *, tokenizer: str = BYTES.name
) -> CorpusReport | languages.LanguageReport:
    """Describe a prepared corpus.

    `n_shared_with_train` is the share of each held-out split's text that occurs in training
    (overlap.py); compressibility is that of the first 16 MiB of validation text by xz at level 9.

    Raises: ValueError: unknown corpus. CorpusError: it was not prepared, or a file is damaged.
    """
    if languages.is_language(name):
        found = language(name, data_dir)
        return languages.describe(languages.parse(name), load(name, data_dir), found)
    corpus = load(name, data_dir, tokenizer=tokenizer)
    text = load(name, data_dir)
    held_out = text.validation_tokens[:_PACKED_BYTES]
    held_out = held_out[held_out != BYTES.eot_id].tobytes()
    per_token = {
        split: len(corpus.tokens(split)) / corpus.n_bytes(split) for split in corpus.splits
    }
    return CorpusReport(
        name=name,
        **(corpus.about or about(get_source(name))),
        origin=corpus.origin,
        tokenizer=corpus.tokenizer,
        vocab_size=corpus.vocab_size,
        content_hash=corpus.content_hash,
        split_rule=corpus.split_rule,
        n_documents={split: len(corpus.starts(split)) for split in corpus.splits},
        n_bytes={split: corpus.n_bytes(split) for split in corpus.splits},
        n_tokens={split: len(corpus.tokens(split)) for split in corpus.splits},
        n_dropped=corpus.n_dropped,
        bytes_per_token=1 / per_token["train"],
        ngram_nats=corpus.ngram_nats,
        ngram_bits_per_byte={
            split: tuple(per_token[split] * value / np.log(2).item() for value in nats)
            for split, nats in corpus.ngram_nats.items()
        },
        validation_xz_bits_per_byte=8 * len(lzma.compress(held_out, preset=9)) / len(held_out),
        n_shared_with_train=corpus.overlap,
        samples=_samples(text),
    )


def _samples(text: TokenizedCorpus) -> tuple[str, ...]:
    """The beginnings of a few validation documents, evenly spaced."""
    n = len(text.validation_documents)
    bounds = [*text.validation_documents.tolist(), len(text.validation_tokens)]
    chosen = np.unique(np.linspace(0, n - 1, _N_SAMPLES).astype(int)).tolist()
    whole = (BYTES.decode(text.validation_tokens[bounds[i] : bounds[i + 1] - 1]) for i in chosen)
    return tuple(document[:_SAMPLE_CHARACTERS] for document in whole)
