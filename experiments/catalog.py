"""The experiments there are, by name."""

from types import ModuleType

from experiments import quickstart
from train.config import SpecError

EXPERIMENTS: dict[str, ModuleType] = {"quickstart": quickstart}
"""Each module has Options (a frozen dataclass of flags) and plan(options, corpus) -> Plan."""


def find(name: str) -> ModuleType:
    """An experiment by name.

    Raises: SpecError: there is none of that name.
    """
    if name not in EXPERIMENTS:
        raise SpecError(f"no experiment {name!r}; there are: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
