"""The floor of a generated language beside the losses that were measured on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class AtFloor:
    """A measured loss and what no model with that context can be expected to go below."""

    run_id: str
    corpus: str
    seq_len: int
    loss_nats: float
    se_nats: float
    floor_nats: float

    @property
    def is_below(self) -> bool:
        """Whether the loss is below the floor by more than its standard error."""
        return self.loss_nats < self.floor_nats - self.se_nats


def at_floors(
    rows: Sequence[Record], seq_lens: dict[str, int], data_dir: Path
) -> tuple[AtFloor, ...]:
    """The rows whose corpus is a generated language, each with its floor.

    Args:
        rows: of runs or of evaluations; those without a loss are passed over.
        seq_lens: length of the windows by run_id.
    """
    from train.data.corpora import floor_nats

    known: dict[tuple[str, int], float | None] = {}
    found = []
    for row in (row for row in rows if row["loss_nats"] is not None):
        seq_len = seq_lens[row["run_id"]]
        key = (row["corpus"], seq_len)
        if key not in known:
            known[key] = floor_nats(row["corpus"], data_dir, seq_len)
        floor = known[key]
        if floor is not None:
            se = max(row["loss_se_iid"] or 0.0, row["loss_se_document"] or 0.0)
            found.append(AtFloor(row["run_id"], *key, row["loss_nats"], se, floor))
    return tuple(found)


def sentences(found: Sequence[AtFloor]) -> tuple[str, ...]:
    """What the floors say of the losses: one sentence a language and length of windows."""
    groups: dict[tuple[str, int], list[AtFloor]] = {}
    for one in found:
        groups.setdefault((one.corpus, one.seq_len), []).append(one)
    return tuple(_sentence(*key, ones) for key, ones in groups.items())


def _sentence(corpus: str, seq_len: int, found: Sequence[AtFloor]) -> str:
    lowest = min(found, key=lambda one: one.loss_nats)
    below = [one.run_id for one in found if one.is_below]
    verdict = (
        f"BELOW it by more than their standard error, which cannot be: {', '.join(below)}"
        if below
        else "none lies below it by more than its standard error"
    )
    return (
        f"floor of {corpus} in windows of {seq_len} tokens, known exactly: "
        f"{lowest.floor_nats:.5f} nats/token; lowest of {len(found)} losses: "
        f"{lowest.loss_nats:.5f} (standard error {lowest.se_nats:.2g}), "
        f"{lowest.loss_nats - lowest.floor_nats:+.5f}; {verdict}"
    )
