"""Parquet files that appear whole or not at all, and whose damage is seen."""

import contextlib
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from train.records import naming

if TYPE_CHECKING:
    import pyarrow as pa


def write_table(table: "pa.Table", path: Path) -> None:
    """Replace a Parquet file, atomically and durably; equal tables give equal bytes."""
    from pyarrow import parquet

    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with naming(path):
            parquet.write_table(table, temporary, write_page_checksum=True)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def read_table(path: Path, columns: list[str] | None = None) -> "pa.Table | None":
    """A table written by write_table; None if it is missing, damaged, or lacks a column."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            if columns is not None and not set(columns) <= set(file.schema_arrow.names):
                return None
            return file.read(columns)
    except (OSError, pa.ArrowException):
        return None
