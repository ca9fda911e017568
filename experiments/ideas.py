"""From `my_idea.py:Block` on the command line to a part of a spec: the file kept, by its content.

A file of ideas is code that is executed, with all that its user may do: run none you have not read.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from model import custom
from train.config import RunSpec, SpecError
from train.records import write_once


@dataclass(frozen=True)
class OwnParts:
    """Modules in place of the model's, each as FILE.py:NAME."""

    block: str | None = None
    """A whole layer: Block(cfg, kernels), x_BTD to x_BTD, residual stream included."""
    attention: str | None = None
    """Attention(cfg, kernels), normed x_BTD to what is added to the stream."""
    mlp: str | None = None
    """MLP(cfg, kernels), normed x_BTD to what is added to the stream."""


@dataclass(frozen=True)
class Idea:
    """References of model.custom by slot; what is None stays as it is in the baseline."""

    model: OwnParts
    loss: str | None = None
    optimizer: str | None = None

    def on(self, spec: RunSpec) -> RunSpec:
        """The spec with the idea's loss and optimizer; the model's parts are in its config."""
        optimizer = spec.optimizer
        if self.optimizer is not None:
            optimizer = dataclasses.replace(optimizer, kind="custom", custom=self.optimizer)
        return dataclasses.replace(spec, optimizer=optimizer, loss=self.loss)


def adopt(slot: str, text: str, folder: Path) -> str:
    """Keep the file of FILE.py:NAME in the folder, under its hash, and try to load the object.

    Returns: the reference FILE.py:NAME@SHA-256, FILE without its path.
    Raises: ValueError: no such file or object, or the file cannot be executed.
    """
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise SpecError(f"--{slot}={text} names no part; write FILE.py:NAME, as my_idea.py:Block")
    try:
        content = Path(file).expanduser().read_bytes()
        source = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--{slot}: {file} cannot be read as text ({error})") from error
    reference = f"{Path(file).name}:{name}@{custom.digest(content)}"
    parsed = custom.parse(slot, reference)
    folder.mkdir(parents=True, exist_ok=True)
    write_once(folder / f"{parsed.digest}.py", source)
    custom.look_in(folder)
    if not callable(custom.load(slot, reference)):
        raise SpecError(f"--{slot}: {parsed.name} of {file} cannot be called; name a class or def")
    return reference


def adopt_all(parts: OwnParts, loss: str | None, optimizer: str | None, folder: Path) -> Idea:
    """Keep the files of all slots that are given.

    Raises: ValueError: none is given, or one is wrong (`adopt`).
    """
    given = {f"model.{k}": v for k, v in dataclasses.asdict(parts).items()}
    given |= {"loss": loss, "optimizer": optimizer}
    if not any(given.values()):
        raise SpecError(
            "compare needs an idea; give at least one of "
            + ", ".join(f"--{slot} FILE.py:NAME" for slot in given)
        )
    kept = {slot: adopt(slot, text, folder) if text else None for slot, text in given.items()}
    own = OwnParts(**{k.removeprefix("model."): v for k, v in kept.items() if "model." in k})
    return Idea(own, kept["loss"], kept["optimizer"])
