"""Corpora for a person: what there is, what is prepared, and what one is made of."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from experiments.analyse import OutputFlags, Rows

if TYPE_CHECKING:
    from train.data.inspecting import CorpusReport
    from train.data.languages.names import LanguageReport


@dataclass(frozen=True)
class DataFlags(OutputFlags):
    """A corpus by name."""

    action: Positional[Literal["list", "prepare", "inspect"]] = "list"
    """list: what can be prepared; prepare: build it; inspect: describe a prepared one."""
    name: Positional[str] = "sotu"
    """Name of the corpus; `python launch.py data list` shows them."""
    source: Path | None = None
    """File or folder that a corpus is made of: of books, of a prepared TFDS dataset."""
    tokenizer: str = "bytes"
    """bytes, bpe:SIZE (trained on the corpus), bpe:SIZE@CORPUS (trained on another one) or
    gpt2:FOLDER (with GPT-2's files)."""


def data(flags: DataFlags) -> int:
    """The corpora."""
    from train.data import corpora

    folder = flags.out / "data"
    if flags.action == "list":
        _print("", *listing(folder), flags)
    elif flags.action == "prepare":
        corpora.prepare(flags.name, folder, tokenizer=flags.tokenizer, given=flags.source)
        print(f"{flags.name} is ready in {folder}")
    else:
        from train.data import inspecting

        report = inspecting.inspect(flags.name, folder, tokenizer=flags.tokenizer)
        is_text = isinstance(report, inspecting.CorpusReport)
        tables, sentences = of_text(report) if is_text else of_language(report)
        heading = f"{report.name}: {report.title}"
        _print(heading, tables, sentences, asdict(report), flags)
    return 0


def _print(
    heading: str, tables: Mapping[str, Rows], sentences: tuple[str, ...], values: Any,
    flags: DataFlags,
) -> None:  # fmt: skip
    from experiments.printing import print_tables
    from experiments.workspace import write_json

    if heading and flags.format == "text":
        print(f"{heading}\n")
    print_tables(tables, sentences, flags.format)
    if flags.json:
        write_json(flags.json, values)
        print(f"wrote {flags.json}")


def listing(folder: Path) -> tuple[dict[str, Rows], tuple[str, ...], dict[str, Any]]:
    """Tables of all corpora, languages, and what is prepared in a folder."""
    from train.data import corpora
    from train.data.languages import names

    texts = corpora.available()
    spoken = names.kinds()
    there = prepared(folder)
    tables: dict[str, Rows] = {
        "Text": [{"name": name, "what": what} for name, what in texts.items()],
        "Generated languages of known entropy": [
            {"name": name, "what": what, "parameters": words}
            for name, (what, words) in spoken.items()
        ],
    }
    if there:
        tables[f"Prepared in {folder}"] = there
    sizes = " ".join(f"{k}={v}" for k, v in asdict(names.Sizes()).items())
    sentences = (
        f"every language also takes: {sizes} (tokens of each split, seed of the sample); such as "
        "lang:dyck:kinds=3,train=1000000",
        "prepare one: python launch.py data prepare NAME; describe it: data inspect NAME",
    )
    values = {"texts": texts, "languages": spoken, "prepared": there}
    return tables, sentences, values


def prepared(folder: Path) -> Rows:
    """What lies in a folder of corpora: one row for each corpus and tokenizer."""
    paths = sorted(folder.glob("tokens/*/meta.json"))
    return [_prepared_row(path) for path in paths if path.parent.suffix != ".unfinished"]


def _prepared_row(path: Path) -> dict[str, str]:
    try:
        meta = json.loads(path.read_bytes())
        return {
            "name": meta["name"],
            "tokenizer": meta["tokenizer"],
            "vocabulary": f"{meta['vocab_size']:,}",
            "training text, MB": f"{meta['n_train_bytes'] / 1e6:,.2f}",
            "origin": meta["origin"],
        }
    except (ValueError, KeyError, TypeError):
        return {
            "name": path.parent.name,
            "tokenizer": "-",
            "vocabulary": "-",
            "training text, MB": "-",
            "origin": "damaged: prepare it again",
        }


def of_text(report: "CorpusReport") -> tuple[dict[str, Rows], tuple[str, ...]]:
    """Tables of a corpus of text, and its licence, source and samples."""
    splits = [
        {
            "split": split,
            "documents": f"{report.n_documents[split]:,}",
            "MB": f"{report.n_bytes[split] / 1e6:,.3f}",
            "tokens": f"{report.n_tokens[split]:,}",
            "occurs in training": f"{report.n_shared_with_train[split]:.1%}"
            if split in report.n_shared_with_train
            else "-",
        }
        for split in report.n_documents
    ]
    dropped = ", ".join(f"{n:,} {why}" for why, n in report.n_dropped.items())
    sentences = (
        f"tokens: {report.tokenizer}, vocabulary {report.vocab_size:,}, "
        f"{report.bytes_per_token:.3f} bytes a token",
        f"validation text packed by xz: {report.validation_xz_bits_per_byte:.3f} bits/byte",
        f"documents dropped: {dropped}",
        f"split: {report.split_rule}",
        f"origin: {report.origin}" + (f", {report.homepage}" if report.homepage else ""),
        f"content: sha256 {report.content_hash}",
        f"licence: {report.licence}",
        f"citation: {report.citation}",
        *(f"\n--- sample {i} ---\n{text}" for i, text in enumerate(report.samples, start=1)),
    )
    nats = _ngram_rows(report.ngram_nats, report.ngram_bits_per_byte)
    return {"Splits": splits, "N-grams counted on the training text": nats}, sentences


def of_language(report: "LanguageReport") -> tuple[dict[str, Rows], tuple[str, ...]]:
    """Tables of a generated language: its floors, and n-grams counted in its sample."""
    floors = [
        {"windows of": f"{length} tokens", "floor, nats/token": f"{nats:.5f}"}
        for length, nats in report.floor_nats.items()
    ] + [{"windows of": "any length", "floor, nats/token": f"{report.entropy_rate_nats:.5f}"}]
    parameters = " ".join(f"{key}={value}" for key, value in report.parameters.items())
    sentences = (
        f"parameters: {parameters}",
        f"vocabulary: {report.vocab_size:,} tokens; "
        + ", ".join(f"{n:,} tokens of {split}" for split, n in report.n_tokens.items()),
        f"content: sha256 {report.content_hash}",
        f"\n--- sample ---\n{report.sample}",
    )
    nats = _ngram_rows(report.ngram_nats, {})
    return {"Floors": floors, "N-grams counted on the sample": nats}, sentences


def _ngram_rows(
    nats: Mapping[str, tuple[float, ...]], bits: Mapping[str, tuple[float, ...]]
) -> Rows:
    rows = []
    for split, values in nats.items():
        row = {"loss on": split, "unit": "nats/token"}
        rows.append(row | {f"n={n}": f"{v:.4f}" for n, v in enumerate(values, start=1)})
    for split, values in bits.items():
        row = {"loss on": split, "unit": "bits/byte"}
        rows.append(row | {f"n={n}": f"{v:.4f}" for n, v in enumerate(values, start=1)})
    return rows
