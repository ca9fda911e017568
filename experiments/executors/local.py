"""Train the missing runs of a plan on this machine's devices, in this process."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from experiments.branches import waves
from experiments.progress import SweepProgress
from experiments.workspace import Workspace
from train.config import SpecError
from train.data.corpora import TokenizedCorpus
from train.jobs import Job
from train.records import read_run


def execute(
    jobs: Sequence[Job],
    corpus: TokenizedCorpus,
    workspace: Workspace,
    *,
    n_workers: int | None,
    console: Console,
) -> int:
    """Train what has no record yet, `n_workers` runs at a time (None: one a device).

    Trunks come first, then what branches off them.

    Returns: how many runs were trained.
    Raises: SpecError: more workers than devices. KeyboardInterrupt: Ctrl-C; checkpoints were left.
    """
    missing = [job for job in jobs if read_run(workspace.runs, job.spec.run_id) is None]
    if not missing:
        return 0
    import jax

    from train.pack import train_all

    devices: list[Any] = jax.local_devices()
    if n_workers is not None and not 1 <= n_workers <= len(devices):
        raise SpecError(f"workers={n_workers} but there are {len(devices)} devices; use 1 to that")
    n_done = len(jobs) - len(missing)
    console.print(
        f"training {len(missing)} runs on {min(n_workers or len(devices), len(missing))} of "
        f"{len(devices)} {devices[0].platform} device(s); {n_done} done before",
        highlight=False,
    )
    with SweepProgress(missing, n_done, console) as progress:
        for wave in waves(missing):
            train_all(
                wave,
                corpus,
                workspace.runs,
                devices=devices[:n_workers],
                on_progress=progress.on_progress,
                on_record=progress.on_record,
            )
    return len(missing)
