"""One large run of a plan, over all devices of one process or of several."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from experiments.workspace import Workspace
from train.config import RunSpec, SpecError, from_json


@dataclass(frozen=True)
class LargeFlags:
    """Which run, spread how; the same on every process but for process_id."""

    plan: Positional[Path]
    """JSON of a run's spec, or of a plan as `plan --json` writes it."""
    out: Path = Path("out")
    """Folder of corpora, runs and sweeps; of all processes the same files."""
    run: str | None = None
    """run_id (or its beginning) of the plan's run. Default: the one of most compute."""
    mesh: str = "fsdp=*"
    """How many devices for data, fsdp and tensor; * takes all that are left."""
    microbatches: int = 1
    """Parts of a batch, one after another."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass computes again: nothing, all but products with weights, every layer
    from its input."""
    scan_layers: bool = False
    """One compiled layer for all."""
    checkpoint_every_s: float = 600.0
    """Seconds between checkpoints."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where there are several and no cluster says so."""
    num_processes: int | None = None
    """How many processes, beside coordinator."""
    process_id: int | None = None
    """Which of them this is, from 0, beside coordinator."""
    cluster: bool = False
    """Several processes as the cluster says: under srun, mpirun, on every host of a TPU slice."""


def read_spec(path: Path, run: str | None) -> RunSpec:
    """The spec in a file, or that of a run of the plan in it.

    Raises: SpecError: there is no such file or run, or it is no spec.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SpecError(
            f"plan={path} cannot be read ({error}); `plan --json` writes one"
        ) from error
    if not isinstance(values, dict) or "cells" not in values:
        return from_json(RunSpec, values)
    specs = [from_json(RunSpec, cell["spec"]) for cell in values["cells"]]
    found = [spec for spec in specs if run is None or spec.run_id.startswith(run)]
    if not found or (run is not None and len({spec.run_id for spec in found}) > 1):
        ids = ", ".join(spec.run_id for spec in specs[:20])
        raise SpecError(f"run={run} is not one run of {path}, which has {ids}")
    return max(found, key=_flops)


def _flops(spec: RunSpec) -> int:
    from model.accounting import train_flops

    return train_flops(spec.model, spec.n_tokens, "matmul_full")


def train_large(flags: LargeFlags) -> int:
    """Train one run of a plan over all devices, of this process or of several."""
    from train.runtime import configure

    spec = read_spec(flags.plan, flags.run)
    if flags.microbatches < 1:
        raise SpecError(f"microbatches={flags.microbatches} must be at least 1")
    workspace = Workspace(flags.out)
    configure(workspace.cache)
    from train.team import Channel, Team, follow, join, lead

    team = Team(flags.coordinator, flags.num_processes, flags.process_id)
    is_team = flags.cluster or team.coordinator is not None
    if is_team:
        join(team)
    import jax

    from train.data.corpora import load
    from train.loop import train
    from train.placement import on_mesh
    from train.sharding import parse_mesh

    devices = jax.devices()
    placement = on_mesh(
        spec, parse_mesh(flags.mesh, len(devices)), devices,
        scan_layers=flags.scan_layers, remat=flags.remat, n_microbatches=flags.microbatches,
        channel=Channel() if is_team else None,
    )  # fmt: skip

    def open_corpus():
        return load(spec.data.corpus, workspace.data, tokenizer=spec.data.tokenizer)

    if is_team and jax.process_index() > 0:
        with placement.channel.telling_failure():
            follow(spec, open_corpus(), placement)
        return 0
    corpus = open_corpus()
    options: dict[str, Any] = {
        "on_progress": _say, "checkpoint_every_s": flags.checkpoint_every_s,
    }  # fmt: skip
    if is_team:
        row = lead(spec, corpus, workspace.runs, placement, **options)
    else:
        row = train(spec, corpus, workspace.runs, device=placement, **options)
    print(
        f"run {row['run_id']} {row['status']}: loss {row['loss_nats']} nats/token after "
        f"{row['n_steps']} steps, {row['seconds']:.0f} s, {row['mode']}"
    )
    return 0


def _say(progress) -> None:
    print(f"step {progress.step} of {progress.n_steps}: loss {progress.loss_nats:.4f}", flush=True)
