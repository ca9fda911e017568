"""The experiments there are, by name."""

from types import ModuleType

from experiments import (
    critical_batch,
    d_ladder,
    hoffmann_2022,
    isoflop,
    kaplan_2020,
    ladder,
    n_ladder,
    porian_2024,
    quickstart,
    surface,
    sweep,
    trunks,
    tune,
    wsd_2024,
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
    "hoffmann_2022": hoffmann_2022,
    "wsd_2024": wsd_2024,
    "kaplan_2020": kaplan_2020,
    "porian_2024": porian_2024,
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
