"""TFDS datasets that were prepared elsewhere: `tfds:NAME[/CONFIG][#FIELD]`, without TensorFlow.

Read as they lie, as ArrayRecord or Parquet, below the folder given with --source, or TFDS_DATA_DIR,
or ~/tensorflow_datasets. The documents are those of the split `train`; ours are made of them.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train.data.documents import Cleaning, Document, Source, SplitRule
from train.data.tokenfiles import CorpusError

PREFIX = "tfds:"
_READABLE = ("array_record", "parquet")
_MOST_OF_A_REASON = 300


def read_prepared(name: str, field: str, data_dir: Path | None) -> Iterator[Document]:
    """Documents of a prepared dataset in the order in which it stores them.

    Raises: CorpusError: it is not there, cannot be read without TensorFlow, has no such text field,
        or is damaged.
    """
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(_find(name, data_dir))
    path, file_format = builder.data_path, builder.info.file_format.value
    if file_format not in _READABLE:
        raise CorpusError(
            f"{path} holds {file_format} files, which need TensorFlow; convert them on a machine "
            "that has it: python -m tensorflow_datasets.scripts.cli.main convert_format "
            f"--dataset_dir={path} --out_file_format=array_record --out_path=FOLDER"
        )
    field = _text_field(builder.info.features, field, name)
    split = "train" if "train" in builder.info.splits else next(iter(builder.info.splits))
    number = 0
    try:
        examples: Any = builder.as_data_source(split=split)
        for number in range(len(examples)):
            text = examples[number][field].decode("utf-8")
            yield Document(f"{split}:{number:012d}", text)
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path}: example {number} of {split} is not UTF-8 ({error}); get the dataset again"
        ) from error
    except Exception as error:  # ArrayRecord and Arrow report damaged files in many ways
        raise CorpusError(
            f"{path}: {split} cannot be read from example {number} on ({error}); get the dataset "
            "again"
        ) from error


def _text_field(features: Any, field: str, name: str) -> str:
    import tensorflow_datasets as tfds

    texts = sorted(key for key, kind in features.items() if isinstance(kind, tfds.features.Text))
    if field in texts:
        return field
    if not field and len(texts) == 1:
        return texts[0]
    if not field and "text" in texts:
        return "text"
    raise CorpusError(
        f"{PREFIX}{name} has no text field {field!r} but: {', '.join(texts) or 'none'}; name one: "
        f"{PREFIX}{name}#FIELD"
        if field
        else f"{PREFIX}{name} has the text fields {', '.join(texts) or 'none'}; name one: "
        f"{PREFIX}{name}#FIELD"
    )


def folders(data_dir: Path | None) -> tuple[Path, ...]:
    """Where prepared datasets are looked for, first to last."""
    if data_dir is not None:
        return (data_dir,)
    given = os.environ.get("TFDS_DATA_DIR")
    home = Path("~/tensorflow_datasets").expanduser()
    return (Path(given), home) if given else (home,)


def _find(name: str, data_dir: Path | None) -> Path:
    """The newest version of a dataset."""
    for folder in folders(data_dir):
        base = folder / name
        versions = [info.parent for info in base.glob("*/dataset_info.json")]
        if versions:
            return max(versions, key=lambda path: [int(n) for n in path.name.split(".")])
        if configs := sorted(info.parents[1].name for info in base.glob("*/*/dataset_info.json")):
            raise CorpusError(
                f"{PREFIX}{name} has the configs {', '.join(dict.fromkeys(configs))} in {folder}; "
                f"name one: {PREFIX}{name}/{configs[0]}"
            )
    return _build(name, folders(data_dir)[0])


def _build(name: str, data_dir: Path) -> Path:
    """Build a dataset by its own TFDS code, which needs TensorFlow and a network."""
    looked_in = ", ".join(map(str, folders(None)))
    instead = (
        "give the folder where it lies prepared as ArrayRecord or Parquet (--source DIR), or use "
        "text of your own (files:GLOB)"
    )
    try:
        import tensorflow  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise CorpusError(
            f"{PREFIX}{name} is not prepared in {data_dir} (looked for by default in {looked_in}), "
            "and building it needs TensorFlow and a network: pip install "
            f"'gpt-scaling-laws[tfds-build]'; or {instead}"
        ) from error
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # no network, no such dataset, no Beam: TFDS says it in many ways
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:_MOST_OF_A_REASON]
        raise CorpusError(
            f"{PREFIX}{name} cannot be built here ({why}); it takes a network and, for some "
            f"datasets, Apache Beam; {instead}"
        ) from error
    return Path(builder.data_path)


def source(name: str, data_dir: Path | None) -> Source:
    """The corpus of that name, `tfds:NAME`, `tfds:NAME/CONFIG`, with #FIELD if it is not `text`.

    Raises: ValueError: there is no name.
    """
    dataset, _, field = name.removeprefix(PREFIX).partition("#")
    if not dataset or not all(dataset.split("/")):
        raise ValueError(f"corpus={name!r} names no dataset; use tfds:NAME or tfds:NAME/CONFIG")
    return Source(
        name=name,
        title=f"the TFDS dataset {dataset}, prepared elsewhere",
        licence="that of the dataset: see its dataset_info.json",
        citation="see the dataset's dataset_info.json",
        homepage=f"https://www.tensorflow.org/datasets/catalog/{dataset.split('/')[0]}",
        field_types={},
        read=lambda: read_prepared(dataset, field, data_dir),
        package=f"TFDS dataset {dataset}",
        version=lambda: "",
        cleaning=Cleaning(),
        split=SplitRule(),
        is_stored=False,
    )
