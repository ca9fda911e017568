"""Progress of a sweep: bars on a terminal, plain lines in a log."""

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from experiments.estimates import share
from model.accounting import train_flops_per_token
from train.config import RunSpec
from train.jobs import Job
from train.jobs import Progress as RunProgress

PLAIN_EVERY_S = 15.0


class SweepProgress:
    """Counts work done of work planned; the rate so far gives the ETA.

    Work is FLOPs over the share of the machine that a shape reaches, so that the small runs of a
    sweep tell of its large ones. Steps that a branch is spared count as neither.
    """

    def __init__(self, jobs: Sequence[Job], n_done_before: int, console: Console):
        self._specs = {job.spec.run_id: job.spec for job in jobs}
        self.n_before = n_done_before
        self._n_own = {job.spec.run_id: job.n_steps_own for job in jobs}
        self._work = {job.spec.run_id: 0.0 for job in jobs}
        self._total = sum(_work_of(job.spec, job.n_steps_own) for job in jobs)
        self._n_finished = 0
        self._started = self._printed = time.monotonic()
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("training", total=1.0, note="compiling")

    def __enter__(self) -> "SweepProgress":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def on_progress(self, progress: RunProgress) -> None:
        """A run logged a point."""
        spec = self._specs[progress.run_id]
        self._work[progress.run_id] = self._done(spec, progress.step)
        note = f"{self._note()}; {_name(spec)} step {progress.step}/{progress.n_steps} "
        note += f"loss {progress.loss_nats:.3f}"
        self._bar.update(self._task, completed=self._share(), note=note)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._printed > PLAIN_EVERY_S:
            self._printed = now
            self._console.print(f"  {note}", highlight=False, soft_wrap=True)

    def on_record(self, row: dict[str, Any]) -> None:
        """A run was committed."""
        spec = self._specs[row["run_id"]]
        self._n_finished += 1
        self._work[spec.run_id] = self._done(spec, spec.n_steps)
        if row["status"] == "finished":
            outcome = f"loss {row['loss_nats']:.4f} ± {row['loss_se_iid']:.4f} nats/token"
        else:
            outcome = f"diverged at step {row['diverged_step']}"
        line = f"  {self._note()}  {_name(spec)}  D={spec.n_tokens:,}  {outcome}"
        self._console.print(f"{line}  {row['seconds']:.0f} s", highlight=False, soft_wrap=True)
        self._bar.update(self._task, completed=self._share(), note=self._note())

    def _done(self, spec: RunSpec, step: int) -> float:
        """Work of a run's own steps up to `step`; none for those that a trunk has taken."""
        n_shared = spec.n_steps - self._n_own[spec.run_id]
        return _work_of(spec, max(0, step - n_shared))

    def _share(self) -> float:
        return sum(self._work.values()) / (self._total or 1.0)

    def _note(self) -> str:
        share, elapsed = self._share(), time.monotonic() - self._started
        eta = _clock(elapsed * (1 - share) / share) if share > 0 else "?"
        n_all = self.n_before + len(self._specs)
        return f"[{self.n_before + self._n_finished}/{n_all}] {_clock(elapsed)} elapsed, ETA {eta}"


def _work_of(spec: RunSpec, n_steps: int) -> float:
    per_token = train_flops_per_token(spec.model, "matmul_full")
    return n_steps * spec.batch_tokens * per_token / share(per_token, spec.batch_tokens)


def _name(spec: RunSpec) -> str:
    return f"{spec.run_id[:8]} {spec.model.n_layers}x{spec.model.d_model}"


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
