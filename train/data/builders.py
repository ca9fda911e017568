"""TFDS builders of our corpora: ArrayRecord on disk, no TensorFlow. Import this module lazily."""

import hashlib
import io
import itertools
import types
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from train.data.cleaning import add_to_hash
from train.data.documents import Document, Source

_SPLIT = "documents"
_EXAMPLES_AT_ONCE = 32
_EXAMPLES_A_FILE = 1 << 20


class DocumentsBuilder(FileReaderBuilder, skip_registration=True):
    """One split "documents": key, text and the fields of its source.

    Its metadata holds `content_hash`, the sha256 of all documents in key order. Examples are
    written one after another: the builders of TFDS that take a generator hold up to 1,000 MiB of
    it in memory to shuffle it, and need TensorFlow for what is beyond.
    """

    VERSION: ClassVar[Any] = tfds.core.Version("1.0.0")
    # Nothing is downloaded. Left to itself TFDS 4.9.10 looks for checksums of addresses by way of
    # importlib_resources, which it does not declare as a dependency.
    url_infos: ClassVar[Any] = None
    source: ClassVar[Source]

    def _info(self) -> tfds.core.DatasetInfo:
        fields: dict[str, Any] = {name: tfds.features.Text() for name in ("key", "text")}
        for name, kind in self.source.field_types.items():
            fields[name] = tfds.features.Text() if kind is str else tfds.features.Scalar(np.int64)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.source.title}. Read from: {self.source.origin}.",
            features=tfds.features.FeaturesDict(fields),
            homepage=self.source.homepage,
            citation=self.source.citation,
            license=self.source.licence,
            metadata=tfds.core.MetadataDict(content_hash=""),
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        written = self._info()  # of the folder that gets its name when it is whole
        writer = tfds.core.SequentialWriter(written, _EXAMPLES_A_FILE, file_format="array_record")
        writer.initialize_splits([_SPLIT])
        examples = self._examples()
        while batch := list(itertools.islice(examples, _EXAMPLES_AT_ONCE)):
            writer.add_examples({_SPLIT: batch})
        writer.close_all()
        self.info.set_splits(written.splits)

    def _examples(self) -> Iterator[dict[str, Any]]:
        hashes = {}
        for document in self.source.read():
            digest = hashlib.sha256()
            add_to_hash(digest, document.key, document.text.encode("utf-8"))
            hashes[document.key] = digest.digest()
            yield {"key": document.key, "text": document.text, **document.fields}
        metadata: Any = self.info.metadata
        metadata["content_hash"] = _hash_of_all(hashes)


def _hash_of_all(hashes: dict[str, bytes]) -> str:
    return hashlib.sha256(b"".join(hashes[key] for key in sorted(hashes))).hexdigest()


def _builder_of(source: Source) -> type[DocumentsBuilder]:
    # The version is part of the path, so that a newer package is never taken for an older one.
    config = tfds.core.BuilderConfig(name=source.version(), description=source.origin)
    values = {"source": source, "BUILDER_CONFIGS": [config], "__module__": __name__}
    name = "".join(part.title() for part in source.name.split("-"))
    options = {"skip_registration": True}
    return types.new_class(name, (DocumentsBuilder,), options, lambda body: body.update(values))


class StoredDocuments(Sequence[Document]):
    """Documents of a TFDS dataset of ours in key order, read as they are asked for.

    TFDS's own builders store examples in the order of a hash of their keys, hence the sort.

    Raises: ValueError: their checksum is not the one that was written with them.
    """

    def __init__(self, builder: Any, field_types: dict[str, type]):
        splits = builder.as_data_source()
        self._examples, self._field_types = splits[_SPLIT], field_types
        keys, hashes = [], {}
        for index in range(len(self._examples)):
            document, digest = self._read(index), hashlib.sha256()
            add_to_hash(digest, document.key, document.text.encode("utf-8"))
            keys.append((document.key, index))
            hashes[document.key] = digest.digest()
        expected = (builder.info.metadata or {}).get("content_hash")
        if expected and expected != _hash_of_all(hashes):
            raise ValueError(f"the checksum of the documents in {builder.data_path} differs")
        self._order = [index for _, index in sorted(keys)]

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place):
        if isinstance(place, slice):
            return [self._read(index) for index in self._order[place]]
        return self._read(self._order[place])

    def _read(self, index: int) -> Document:
        example = self._examples[index]
        fields = {
            name: example[name].decode("utf-8") if kind is str else int(example[name])
            for name, kind in self._field_types.items()
        }
        return Document(example["key"].decode("utf-8"), example["text"].decode("utf-8"), fields)


def build_documents(source: Source, data_dir: Path) -> Sequence[Document]:
    """Build the TFDS dataset of a corpus if it is not there, and open it in key order."""
    tfds.disable_progress_bar()
    builder = _builder_of(source)(data_dir=data_dir, file_format="array_record")
    with redirect_stdout(io.StringIO()):  # TFDS announces a download; there is none
        builder.download_and_prepare()
    return StoredDocuments(builder, source.field_types)
