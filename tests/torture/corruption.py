"""Damage to one file of a sweep that was cut off: it goes on to equal results, or says which file.

Never a traceback, and never a result that is wrong and does not say so.
"""

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torture.judge import results, unequal
from torture.launching import Launch, finish
from torture.sweep import N_RUNS
from torture.tally import Tally, given

KINDS: dict[str, str] = {
    "checkpoint": "runs/*/attempt-*/checkpoint/**/*",
    "branch point": "runs/*/branch/**/*",
    "curve": "runs/*/attempt-*/curve.jsonl",
    "evaluations": "runs/*/attempt-*/evaluations.jsonl",
    "record": "runs/*/run.json",
    "weights": "runs/*/attempt-*/weights.safetensors",
    "lease": "runs/*/attempt-*/[he]*",
    "plan": "sweeps/*/plan.json",
    "fits": "sweeps/*/fits.json",
    "prediction": "sweeps/*/prediction.json",
    "table": "sweeps/*/*.parquet",
    "compile cache": "cache/*-cache",
    "corpus": "data/**/*.*",
}
"""Files of a sweep by what they are."""


def flip(content: bytes, rng: random.Random) -> bytes:
    """One bit of it the other way round."""
    where = rng.randrange(len(content))
    return content[:where] + bytes([content[where] ^ 1 << rng.randrange(8)]) + content[where + 1 :]


def truncate(content: bytes, rng: random.Random) -> bytes:
    """Its beginning only."""
    return content[: rng.randrange(len(content))]


def digit(content: bytes, rng: random.Random) -> bytes:
    """Another digit somewhere: the file still reads as what it is."""
    places = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
    if not places:
        return flip(content, rng)
    where = rng.choice(places)
    other = ord(rng.choice([c for c in "123456789" if ord(c) != content[where]]))
    return content[:where] + bytes([other]) + content[where + 1 :]


def nothing(content: bytes, rng: random.Random) -> bytes:
    """An empty file."""
    return b""


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, truncate, digit, nothing)


def cut_off_sweep(out: Path, base: Path, rng: random.Random, *arguments: str, late: bool) -> None:
    """A sweep killed on the way: among its grid, or, `late`, at its held-out run."""
    given(out, base)
    launch = Launch(out, *arguments)
    mark = out / "sweeps/torture/prediction.json"
    is_there: Callable[[], bool] = mark.exists if late else lambda: len(_records(out)) >= 4
    try:
        deadline = time.monotonic() + 300
        while not is_there() and launch.code is None and time.monotonic() < deadline:
            time.sleep(0.02)
        end = time.monotonic() + rng.uniform(0.5, 4)
        # Until some run has a checkpoint to damage.
        while time.monotonic() < end or not list(out.glob("runs/*/*/checkpoint/latest.json")):
            if launch.code is not None or time.monotonic() > deadline:
                break
            time.sleep(0.02)
    finally:
        launch.end()


def damage_all(
    tally: Tally,
    out: Path,
    base: Path,
    wanted: dict[str, Any],
    rng: random.Random,
    *arguments: str,
    n_cases: int = 1,
) -> None:
    """Two sweeps that were cut off, early and late; of each kind of file `n_cases` of each."""
    for moment in ("early", "late"):
        template = out / moment
        cut_off_sweep(template, base, rng, *arguments, late=moment == "late")
        for kind in KINDS:
            for i in range(n_cases):
                case = out / f"{moment}-{kind.replace(' ', '-')}-{i}"
                damage(tally, case, template, wanted, kind, rng, *arguments)


def damage(
    tally: Tally,
    out: Path,
    template: Path,
    wanted: dict[str, Any],
    kind: str,
    rng: random.Random,
    *arguments: str,
) -> bool:
    """One case: False if the sweep has no file of this kind."""
    found = [p for p in template.glob(KINDS[kind]) if p.is_file() and p.stat().st_size]
    if not found:
        return False
    tally.wanted += N_RUNS
    # With its hard links: a committed record and its attempt's are one file.
    subprocess.run(["cp", "-a", str(template), str(out)], check=True)
    path = out / rng.choice(sorted(found)).relative_to(template)
    how = rng.choice(DAMAGES)
    before = path.read_bytes()
    path.write_bytes(how(before, rng))
    if path.read_bytes() == before:
        path.write_bytes(b"")
    case = f"{out.name}: {how.__name__} of {path.relative_to(out)}"
    launch = finish(out, *arguments, timeout_s=300)
    tally.trials += 1
    tally.kills += 1
    told = launch.told
    if "Traceback" in told:
        tally.faults.append(f"{case}: traceback ({launch.log})")
    elif launch.code == 0:
        different = unequal(results(out), wanted)
        if different and not _is_refused(path):
            tally.unequal += 1
            tally.faults.append(f"{case}: silently other results: {different}")
        else:
            tally.finished += N_RUNS
            tally.messages.append(f"{case}: went on" + (", refused when read" if different else ""))
    else:
        last = told.strip().splitlines()[-1] if told.strip() else ""
        is_named = any(str(part) in told for part in (path, path.parent, path.parent.parent))
        if launch.code not in (1, 2) or not is_named:
            tally.faults.append(f"{case}: code {launch.code}, {last!r}")
        else:
            tally.messages.append(f"{case}: code {launch.code}, {last}")
    return True


def _is_refused(path: Path) -> bool:
    """Whether who reads damaged weights is told; a sweep itself does not read them again."""
    from train.checkpoint import load_weights, read_spec
    from train.records import RecordError

    if path.suffix != ".safetensors":
        return False
    try:
        load_weights(path, read_spec(path).model)
    except RecordError as error:
        return str(path) in str(error)
    return False


def _records(out: Path) -> list[Path]:
    return list((out / "runs").glob("*/run.json"))
