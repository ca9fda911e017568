"""What every experiment does with its options: the corpus as identity, changes, a sweep's name."""

import hashlib
from typing import Any

from train.config import DataConfig, canonical_json, to_json
from train.data.corpora import TokenizedCorpus


def data_config(corpus: TokenizedCorpus) -> DataConfig:
    """The whole training split of a prepared corpus."""
    return DataConfig(
        corpus=corpus.name,
        corpus_hash=corpus.content_hash,
        tokenizer=corpus.tokenizer,
        tokenizer_hash=corpus.tokenizer_hash,
        split_rule=corpus.split_rule,
    )


def changes(options: Any) -> dict[str, Any]:
    """Options that differ from their defaults, by dotted path."""
    return _differences(to_json(options), to_json(type(options)()))


def sweep_name(experiment: str, overrides: dict[str, Any], spoken: tuple[str, ...]) -> str:
    """The experiment, then changes of the options `spoken` by value, then a hash of the rest."""
    plain = [str(overrides[key]) for key in spoken if key in overrides]
    rest = {key: value for key, value in overrides.items() if key not in spoken}
    tail = [hashlib.sha256(canonical_json(rest).encode()).hexdigest()[:6]] if rest else []
    return "-".join([experiment, *plain, *tail])


def _differences(values: dict, defaults: dict, path: str = "") -> dict[str, Any]:
    changed = {}
    for key, value in values.items():
        if isinstance(value, dict):
            changed |= _differences(value, defaults[key], f"{path}{key}.")
        elif value != defaults[key]:
            changed[path + key] = value
    return changed
