"""What is done to the text of a corpus before it is split, and which documents are copies."""

import unicodedata
from pathlib import Path

import numpy as np

from train.data.tokenfiles import Split

N_HASHES = 128
DROPPED = -1
OF_SPLIT: tuple[Split, ...] = ("validation", "test", "train")
"""What the numbers of splits stand for."""

_SHINGLE_WORDS = 5
_SEED = 42
_N_BANDS = 32  # of 4: a pair of similarity 0.8 escapes every band with a chance of 5e-8
_BANDS_AT_ONCE = 8
_ROWS_AT_ONCE = 1 << 15
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def normalised(text: str) -> str:
    """NFC, LF line ends, no NUL characters."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return unicodedata.normalize("NFC", text)


def add_to_hash(digest, key: str, content: bytes) -> None:
    """Add a document to a content hash: sha256 over (key, text) pairs, each with its length."""
    for part in (key.encode("utf-8"), content):
        digest.update(len(part).to_bytes(8, "little") + part)


def sketch(text: str) -> bytes:
    """MinHash of the word 5-grams of a text, or of all its words where they are fewer.

    Returns: N_HASHES numbers of 32 bits.
    """
    from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]

    words = text.split()
    runs = zip(*(words[i:] for i in range(_SHINGLE_WORDS)), strict=False)
    made = RMinHash(num_perm=N_HASHES, seed=_SEED)
    made.update(list(map(" ".join, runs)) if len(words) >= _SHINGLE_WORDS else [" ".join(words)])
    return np.array(made.digest(), "<u4").tobytes()


def drop_copies_of_held_out(places: np.ndarray, texts: np.ndarray) -> dict[str, int]:
    """Marks training documents whose text is held out, too, as dropped; returns how many.

    Args:
        places: index into OF_SPLIT for each document, changed in place.
        texts: hash of each text, two numbers [n, 2].
    """
    is_train, hashes = places == OF_SPLIT.index("train"), _as_one(texts)
    copies = is_train & np.isin(hashes, hashes[~is_train])
    places[copies] = DROPPED
    return {"exact copies": int(copies.sum())}


def drop(
    places: np.ndarray, texts: np.ndarray, is_empty: np.ndarray, sketches: Path, similarity: float
) -> dict[str, int]:
    """Marks empty documents and copies as dropped, held-out documents kept first.

    Args:
        places, texts: as for drop_copies_of_held_out.
        sketches: file of the sketch of each document.
        similarity: Jaccard similarity from which two documents are near copies.
    Returns: how many documents, by reason.
    """
    order = np.argsort(places == OF_SPLIT.index("train"), kind="stable")
    order = order[~is_empty[order]]
    _, first = np.unique(_as_one(texts[order]), return_index=True)
    is_first = np.zeros(len(order), bool)
    is_first[first] = True
    exact, order = order[~is_first], order[is_first]
    near = near_copies(order, sketches, similarity)
    places[is_empty] = places[exact] = places[near] = DROPPED
    n_dropped = {"empty": is_empty.sum(), "exact copies": len(exact), "near copies": len(near)}
    return {why: int(n) for why, n in n_dropped.items()}


def _as_one(hashes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(hashes).view([("", hashes.dtype)] * 2).ravel()


def near_copies(order: np.ndarray, sketches: Path, similarity: float) -> np.ndarray:
    """Documents that resemble one that comes before them in the order and is kept.

    Two are compared if a band of four hashes is the same in both. Most documents share no band
    with any other; the rest alone is held in memory, by a few hundred bytes each.

    Source: Leskovec, Rajaraman and Ullman 2014, Mining of Massive Datasets, section 3.4.
    """
    if not len(order):
        return order
    is_wanted = np.zeros(max(sketches.stat().st_size // (4 * N_HASHES), order.max() + 1), bool)
    is_wanted[order] = True
    is_shared = np.zeros(len(is_wanted), bool)
    for first in range(0, _N_BANDS, _BANDS_AT_ONCE):
        for band in _bands(sketches, slice(first, first + _BANDS_AT_ONCE)).T:
            is_shared |= is_wanted & _occurs_again(band, is_wanted)
    order = order[is_shared[order]]
    if not len(order):
        return order
    rows = np.memmap(sketches, "<u4", mode="r").reshape(-1, N_HASHES)
    return order[_follow_alike(order, _groups(sketches, order), rows, similarity)]


def _bands(sketches: Path, chosen: slice) -> np.ndarray:
    """A hash of each of these bands of each document [n, bands], read in pieces."""
    pieces, n_row = [], 4 * N_HASHES
    for start in range(0, sketches.stat().st_size // n_row, _ROWS_AT_ONCE):
        rows = np.fromfile(sketches, "<u4", _ROWS_AT_ONCE * N_HASHES, offset=start * n_row)
        pieces.append(_band_hashes(rows.reshape(-1, _N_BANDS, N_HASHES // _N_BANDS)[:, chosen]))
    return np.concatenate(pieces)


def _band_hashes(bands: np.ndarray) -> np.ndarray:
    hashes = np.zeros(bands.shape[:-1], np.uint64)
    for i in range(bands.shape[-1]):
        hashes = (hashes ^ (hashes >> np.uint64(29)) ^ bands[..., i]) * _MULTIPLIER
    return hashes


def _occurs_again(values: np.ndarray, is_wanted: np.ndarray) -> np.ndarray:
    """Whether each value occurs more than once among those wanted."""
    ordered = np.sort(values[is_wanted])
    return np.isin(values, ordered[1:][ordered[1:] == ordered[:-1]])


def _groups(sketches: Path, order: np.ndarray) -> np.ndarray:
    """Which documents of an order share a band: numbers [len(order), bands], equal if they do."""
    groups = np.empty((len(order), _N_BANDS), np.int32)
    for first in range(0, _N_BANDS, _BANDS_AT_ONCE):
        chosen = slice(first, first + _BANDS_AT_ONCE)
        for i, band in enumerate(_bands(sketches, chosen)[order].T):
            groups[:, first + i] = np.unique(band, return_inverse=True)[1]
    return groups


def _follow_alike(
    order: np.ndarray, groups: np.ndarray, rows: np.ndarray, similarity: float
) -> np.ndarray:
    """Whether each document of an order resembles one that precedes it there and is kept."""
    by_group = np.argsort(groups, axis=0, kind="stable").astype(np.int32)
    rank = np.empty_like(by_group)  # place of each document among those sorted by group
    np.put_along_axis(rank, by_group, np.arange(len(order), dtype=np.int32)[:, None], axis=0)
    starts = np.zeros_like(groups)  # where the group of each document begins
    for band in range(groups.shape[1]):
        ordered = groups[by_group[:, band], band]
        starts[:, band] = np.searchsorted(ordered, groups[:, band])
    is_copy = np.zeros(len(order), bool)
    for i in range(len(order)):
        bands = np.flatnonzero(starts[i] < rank[i])
        earlier = [by_group[starts[i, b] : rank[i, b], b] for b in bands.tolist()]
        if earlier:
            kept = np.unique(np.concatenate(earlier))
            kept = kept[~is_copy[kept]]
            alike = np.mean(rows[order[kept]] == rows[order[i]], axis=1)
            is_copy[i] = bool(np.any(alike >= similarity))
    return is_copy
