"""The experiments there are, by name."""

from types import ModuleType

from experiments import (
    critical_batch,
    d_ladder,
    isoflop,
    ladder,
    n_ladder,
    quickstart,
    surface,
    sweep,
    trunks,
    tune,
)
from train.config import SpecError

EXPERIMENTS: dict[str, ModuleType] = {
    "quickstart": quickstart,
    "grid": surface,
    "isoflop": isoflop,
    "n_ladder": n_ladder,
    "d_ladder": d_ladder,
    "trunks": trunks,
    "sweep": sweep,
    "tune": tune,
    "critical_batch": critical_batch,
    "ladder": ladder,
}
"""Each module has Options (a frozen dataclass of flags) and plan(options, corpus) -> Plan;
experiments.ending says what else it may have."""


def find(name: str) -> ModuleType:
    """An experiment by name.

    Raises: SpecError: there is none of that name.
    """
    if name not in EXPERIMENTS:
        raise SpecError(f"no experiment {name!r}; there are: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
