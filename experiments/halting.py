"""`launch.py cancel` and `launch.py retry`: keep runs of a sweep from being trained, or let them.

Both write and remove `runs/<run_id>/halt.json` (train.lease) and talk to no process: whoever trains
a cancelled run finds out at its next beat and stops with a checkpoint.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from experiments.cells import CellRow, read_cells
from experiments.workspace import Workspace, read_json
from train import lease
from train.config import SpecError
from train.lease import Halt
from train.records import attempts


@dataclass(frozen=True)
class HaltFlags:
    """Which runs of which sweep."""

    sweep: Positional[str]
    """Name of the sweep; `python launch.py list` shows them."""
    runs: Positional[tuple[str, ...]] = ()
    """run_ids, or their beginnings. Default: every run without a record."""
    out: Path = Path("out")
    """Folder of corpora, runs and sweeps."""


class Cancelled(Exception):
    """A sweep cannot be concluded, as runs of it are cancelled; the message names the remedy."""


def cancel(flags: HaltFlags) -> int:
    """Cancel runs that have no record; what is being trained stops with a checkpoint."""
    workspace = Workspace(flags.out)
    cells = selected(read_cells(workspace.sweep(flags.sweep), workspace.runs).cells, flags.runs)
    store = workspace.runs
    open_ids = [c.run_id for c in cells if not (store / c.run_id / "run.json").exists()]
    halted = [run_id for run_id in open_ids if lease.halt_of(store, run_id) is not None]
    fresh = [run_id for run_id in open_ids if run_id not in set(halted)]
    held = [run_id for run_id in fresh if _is_held(store, run_id)]
    for run_id in fresh:
        lease.halt(store, run_id, Halt("cancelled", f"cancelled in sweep {flags.sweep}"))
    print(
        f"{flags.sweep}: cancelled {_runs(len(fresh))}"
        + (f", of which {len(held)} under way: each stops with a checkpoint" if held else "")
        + (f"; {len(halted)} had failed or were cancelled before" if halted else "")
        + (
            f"; {len(cells) - len(open_ids)} have their record"
            if len(open_ids) < len(cells)
            else ""
        )
    )
    if fresh or halted:
        print(f"to train them after all: python launch.py retry {flags.sweep}")
    return 0


def retry(flags: HaltFlags) -> int:
    """Let failed and cancelled runs be trained again."""
    workspace = Workspace(flags.out)
    folder = workspace.sweep(flags.sweep)
    cells = selected(read_cells(folder, workspace.runs).cells, flags.runs)
    lifted = [cell.run_id for cell in cells if lease.lift(workspace.runs, cell.run_id)]
    if not lifted:
        print(f"{flags.sweep}: none of {_runs(len(cells))} had failed or was cancelled")
        return 0
    print(f"{flags.sweep}: {_runs(len(lifted))} can be trained again, from their checkpoints")
    print(f"now: {run_command(read_json(folder.plan), flags.out)}")
    return 0


def selected(cells: Sequence[CellRow], prefixes: Sequence[str]) -> list[CellRow]:
    """The cells that the prefixes of run_ids name, in plan order; all without a prefix.

    Raises: SpecError: a prefix of none, or of several.
    """
    if not prefixes:
        return list(cells)
    wanted = set()
    for prefix in prefixes:
        found = [cell.run_id for cell in cells if cell.run_id.startswith(prefix)]
        if len(found) != 1:
            what = f"several: {', '.join(found[:5])}" if found else "none"
            raise SpecError(
                f"run {prefix!r} is to be one run of the sweep but is {what}; "
                "python launch.py status shows them"
            )
        wanted.add(found[0])
    return [cell for cell in cells if cell.run_id in wanted]


def refuse_cancelled(
    sweep: str, run_ids: Sequence[str], store: Path, *, is_before: bool = False
) -> None:
    """Raises: Cancelled: runs are cancelled; before training only if none is left to train."""
    left = [run_id for run_id in run_ids if not (store / run_id / "run.json").exists()]
    halts = [halt for run_id in left if (halt := lease.halt_of(store, run_id)) is not None]
    n_cancelled = sum(halt.kind == "cancelled" for halt in halts)
    if n_cancelled == 0 or (is_before and n_cancelled < len(left)):
        return
    raise Cancelled(
        f"{n_cancelled} of {_runs(len(run_ids))} of sweep {sweep} are cancelled; "
        f"python launch.py retry {sweep} lifts that, python launch.py fit {sweep} takes what is "
        "there"
    )


def run_command(plan: dict[str, Any], out: Path) -> str:
    """The command that goes on with a sweep, as far as its plan tells."""
    words = ["python", "launch.py", "run", plan["experiment"]]
    for name, value in plan["overrides"].items():
        flag = name.rsplit(".", 1)[-1].replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            values = value if isinstance(value, list | tuple) else [value]
            words += [f"--{flag}", *map(str, values)]
    if out != Path("out"):
        words += ["--out", str(out)]
    return shlex.join(words)


def _is_held(store: Path, run_id: str) -> bool:
    tried = attempts(store, run_id)
    return bool(tried) and not lease.is_over(tried[-1])


def _runs(n: int) -> str:
    return f"{n:,} run{'' if n == 1 else 's'}"
