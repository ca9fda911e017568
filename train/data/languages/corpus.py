"""A sample of a language as a corpus."""

import hashlib
import json

import numpy as np

from train.data.languages.base import Language
from train.data.languages.markov import MarkovSource
from train.data.ngrams import ngram_entropies
from train.data.tokenfiles import TokenizedCorpus

N_BLOCKS = 64


def as_corpus(
    source: MarkovSource, *, n_train: int, n_validation: int, seed: int
) -> TokenizedCorpus:
    """`sampled` for a Markov source given by its table, under a name that says its size.

    Raises: ValueError: a split is shorter than 64 tokens.
    """
    return sampled(
        source,
        name=f"markov-{source.order}-{source.vocab_size}",
        origin=f"Markov source of order {source.order} over {source.vocab_size} symbols",
        identity=[source.order, source.transitions, n_train, n_validation, seed],
        tokenizer_identity="symbols are tokens",
        n_train=n_train,
        n_validation=n_validation,
        seed=seed,
    )


def sampled(
    language: Language,
    *,
    name: str,
    origin: str,
    identity: object,
    tokenizer_identity: str,
    n_train: int,
    n_validation: int,
    seed: int,
) -> TokenizedCorpus:
    """Two independent samples of a language as a corpus in memory, one token counted as one byte.

    There is no end-of-text token but the language's own: each split is one unbroken stretch, so
    that the entropy floor is exact. Its "documents" are equal blocks, which serve as clusters for
    standard errors.

    Args:
        identity: what fixes the tokens, as JSON values; its hash is the content hash.
        tokenizer_identity: what the tokens mean; corpora that share it can score each other's runs.
    Raises: ValueError: a split is shorter than 64 tokens.
    """
    if min(n_train, n_validation) < N_BLOCKS:
        raise ValueError(
            f"n_train={n_train}, n_validation={n_validation}: each must be at least {N_BLOCKS}"
        )
    train_seed, validation_seed = np.random.SeedSequence(seed).generate_state(2)
    train = language.sample(n_train, int(train_seed))
    validation = language.sample(n_validation, int(validation_seed))
    keys = tuple(f"block-{i:02d}" for i in range(N_BLOCKS))
    return TokenizedCorpus(
        name=name,
        origin=origin,
        tokenizer="symbols",
        vocab_size=language.vocab_size,
        content_hash=_sha256(json.dumps(identity)),
        tokenizer_hash=_sha256(tokenizer_identity),
        split_rule=f"independent samples, seed {seed}",
        train_tokens=train,
        validation_tokens=validation,
        train_documents=_block_starts(n_train),
        validation_documents=_block_starts(n_validation),
        train_keys=keys,
        validation_keys=keys,
        n_train_bytes=n_train,
        n_validation_bytes=n_validation,
        n_duplicates_dropped=0,
        ngram_nats=ngram_entropies(train, validation, vocab_size=language.vocab_size, max_n=4),
    )


def _block_starts(n_tokens: int) -> np.ndarray:
    return np.arange(N_BLOCKS, dtype=np.int64) * n_tokens // N_BLOCKS


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
