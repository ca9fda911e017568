"""Bytes and text of a file, plain or compressed (.gz, .zst), in pieces and to its very end."""

import codecs
import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from train.data.tokenfiles import CorpusError

_PIECE_BYTES = 1 << 16  # larger ones scatter over the heap, and it grows with the file
_ZSTD_WINDOW_BYTES = 1 << 27


def read_pieces(path: Path) -> Iterator[bytes]:
    """The decompressed content, a piece at a time.

    Raises: CorpusError: the file is missing, truncated or damaged.
    """
    try:
        with path.open("rb") as file:
            if path.suffix == ".zst":
                yield from _read_zstd(file, path)
            elif path.suffix == ".gz":
                with gzip.open(file) as unpacked:
                    yield from iter(lambda: unpacked.read(_PIECE_BYTES), b"")
            else:
                yield from iter(lambda: file.read(_PIECE_BYTES), b"")
    except EOFError as error:
        raise _truncated(path) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(f"{path} is damaged: {error}; get the file again") from error
    except FileNotFoundError as error:
        raise CorpusError(f"{path} does not exist; check the path") from error


def _read_zstd(file, path: Path) -> Iterator[bytes]:
    # zstandard's stream reader takes the end of a truncated file for the end of the text.
    import zstandard

    unpack = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    frame, is_whole = unpack.decompressobj(), True
    for piece in iter(lambda: file.read(_PIECE_BYTES), b""):
        while piece:
            try:
                yield frame.decompress(piece)
            except zstandard.ZstdError as error:
                raise CorpusError(f"{path} is damaged: {error}; get the file again") from error
            is_whole, piece = frame.eof, frame.unused_data
            if is_whole:
                frame = unpack.decompressobj()
    if not is_whole:
        raise _truncated(path)


def _truncated(path: Path) -> CorpusError:
    return CorpusError(f"{path} is truncated: it ends in the middle; get the file again")


def read_text(path: Path) -> Iterator[str]:
    """The content as UTF-8, a piece at a time; a byte order mark is left out.

    Raises: CorpusError: as read_pieces, or the content is not UTF-8; the message names the byte.
    """
    decoder, n_before = codecs.getincrementaldecoder("utf-8-sig")(), 0
    for piece in read_pieces(path):
        held = len(decoder.getstate()[0])
        yield _decode(decoder, piece, path, n_before - held)
        n_before += len(piece)
    yield _decode(decoder, b"", path, n_before - len(decoder.getstate()[0]), is_last=True)


def _decode(decoder, piece: bytes, path: Path, start: int, *, is_last: bool = False) -> str:
    try:
        return decoder.decode(piece, is_last)
    except UnicodeDecodeError as error:
        at = start + error.start
        raise CorpusError(
            f"{path} is not UTF-8: byte {at} is 0x{error.object[error.start]:02x} "
            f"({error.reason}); convert it, such as with iconv -f LATIN1 -t UTF-8"
        ) from error


def pieces_between(texts: Iterable[str], separator: str) -> Iterator[str]:
    """The pieces between separators of a text that comes in parts; the last one may be empty."""
    rest = ""
    for text in texts:
        *whole, rest = (rest + text).split(separator)
        yield from whole
    yield rest
