"""`launch.py status`: a sweep's status on a terminal, in a log, or as JSON."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from experiments.status import STATES, RunStatus, State, SweepStatus, sweep_status
from experiments.workspace import Workspace
from train.records import to_plain, write_atomically

LEFT_OUT = ("D tokens", "role", "host:pid", "planned", "try", "took", "LxD")
"""Columns that a narrow terminal does without, the first first."""

MIN_NOTE = 12
GAP = 2

MAX_FAILURES = 10
_STYLES = {"failed": "red", "running": "green", "diverged": "yellow", "cancelled": "magenta"}


@dataclass(frozen=True)
class StatusFlags:
    """Which sweep, and how it is shown."""

    sweep: Positional[str] = "quickstart"
    """Name of the sweep; `python launch.py list` shows them."""
    out: Path = Path("out")
    """Folder of corpora, runs and sweeps."""
    state: Literal["all", State] = "all"
    """Show the runs in this state only."""
    limit: int = 60
    """Rows at most, those that ask for attention first; 0 for all."""
    watch: bool = False
    """Look again and again until the sweep is over; Ctrl-C ends it."""
    every: float = 2.0
    """Seconds between two looks."""
    json: Path | None = None
    """Write the status to this file; - writes it to standard output instead of the table."""


def show(flags: StatusFlags) -> int:
    """Where each run stands: state, progress, loss, time left, host; failures with reasons."""
    workspace = Workspace(flags.out)
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    try:
        if flags.watch:
            _watch(workspace, flags, console)
            return 0
    except KeyboardInterrupt:
        return 0
    found = sweep_status(workspace, flags.sweep)
    if flags.json is None:
        console.print(_page(found, flags, console.width))
    elif str(flags.json) == "-":
        print(_lines(found))
    else:
        flags.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(flags.json, _lines(found) + "\n")
        print(f"wrote {flags.json}")
    return 0


def _watch(workspace: Workspace, flags: StatusFlags, console: Console) -> None:
    """A live table on a terminal, else a line whenever something has changed."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, screen=False) as live:
            while True:
                found = sweep_status(workspace, flags.sweep)
                live.update(_page(found, flags, console.width, console.height), refresh=True)
                if found.is_over:
                    return
                time.sleep(flags.every)
    said = ""
    while True:
        found = sweep_status(workspace, flags.sweep)
        if (line := totals(found)) != said:
            print(line, flush=True)
        said = line
        if found.is_over:
            return
        time.sleep(flags.every)


def as_json(found: SweepStatus) -> dict[str, Any]:
    """All of a status as JSON values; the fields of a run's cell stand beside its own."""
    return {
        "sweep": found.sweep.name,
        "experiment": found.sweep.experiment,
        "plan_hash": found.sweep.plan_hash,
        "counts": found.counts,
        "n_runs": len(found.runs),
        "is_over": found.is_over,
        "train_flops": found.train_flops,
        "train_flops_done": found.train_flops_done,
        "eta_seconds": found.eta_seconds,
        "runs": [
            {**vars(run.cell), **{k: v for k, v in vars(run).items() if k != "cell"}}
            for run in found.runs
        ],
    }


def _lines(found: SweepStatus) -> str:
    """A status as JSON, a run a line."""
    values = to_plain(as_json(found))
    runs = ",\n".join(json.dumps(run, allow_nan=False) for run in values.pop("runs"))
    head = json.dumps(values, indent=1, allow_nan=False).removesuffix("\n}")
    return f'{head},\n "runs": [\n{runs}\n]}}'


def totals(found: SweepStatus) -> str:
    """The sweep in a line."""
    counts = ", ".join(f"{n:,} {state}" for state, n in found.counts.items())
    done, planned = found.train_flops_done, found.train_flops
    eta = "" if found.is_over else f"; ETA {clock(found.eta_seconds)}"
    share = done / planned if planned else 1.0
    return (
        f"{len(found.runs):,} runs: {counts}; {done:.3e} of {planned:.3e} FLOPs ({share:.0%}){eta}"
    )


def _page(
    found: SweepStatus, flags: StatusFlags, width: int, height: int | None = None
) -> RenderableType:
    wanted = [run for run in found.runs if flags.state in ("all", run.state)]
    limit = flags.limit or len(wanted)
    if height is not None:  # a live table that is longer than the screen cannot be drawn again
        limit = max(1, min(limit, height - 12))
    shown = most_wanted(wanted, limit)
    parts: list[RenderableType] = [_table(found, shown, width)]
    if len(shown) < len(wanted):
        parts.append(f"{len(wanted) - len(shown):,} more runs: --limit 0 shows all, --json too")
    parts.append(totals(found))
    if line := _estimate_line(found.runs):
        parts.append(line)
    return Group(*parts, *_failures(found, height))


def most_wanted(runs: Sequence[RunStatus], limit: int) -> list[RunStatus]:
    """At most so many runs, in plan order: failed and running ones before waiting and finished."""
    if len(runs) <= limit:
        return list(runs)
    order = sorted(range(len(runs)), key=lambda i: (STATES.index(runs[i].state), i))
    return [runs[i] for i in sorted(order[:limit])]


def _table(found: SweepStatus, runs: Sequence[RunStatus], width: int) -> Table:
    sweep = found.sweep
    title = f"{sweep.name}, plan {sweep.plan_hash}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    rows = [_cells(run) for run in runs]
    used = _columns(rows, width)
    for name in used:
        is_text = name in ("run", "role", "state", "host:pid", "note")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    for run, row in zip(runs, rows, strict=True):
        values = (_cut(row[name], room) for name, room in used.items())
        table.add_row(*map(escape, values), style=_STYLES.get(run.state))
    return table


def _columns(rows: Sequence[dict[str, str]], width: int) -> dict[str, int]:
    """Columns that hold something and fit side by side, each with its width; the note has the rest.

    They are chosen here since rich would squeeze them all alike.
    """
    names = list(rows[0]) if rows else []
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    widths = {k: n for k, n in widths.items() if any(row[k] for row in rows)}
    note = widths.pop("note", 0)
    for name in LEFT_OUT:
        if sum(widths.values()) + GAP * (len(widths) - 1) <= width:
            break
        widths.pop(name, None)
    rest = width - sum(widths.values()) - GAP * len(widths)
    return widths | ({"note": min(note, rest)} if note and rest >= min(note, MIN_NOTE) else {})


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _cells(run: RunStatus) -> dict[str, str]:
    cell = run.cell
    holder = "" if run.host is None else run.host + ("" if run.pid is None else f":{run.pid}")
    return {
        "run": cell.run_id[:8],
        "role": cell.role,
        "LxD": f"{cell.n_layers}x{cell.d_model}",
        "D tokens": f"{cell.n_tokens:,}",
        "state": run.state,
        "step": f"{run.step:,}/{cell.n_steps:,}",
        "loss": "" if run.loss_nats is None else f"{run.loss_nats:.4f}",
        "ETA": "" if run.eta_seconds is None else clock(run.eta_seconds),
        "took": "" if run.seconds is None else clock(run.seconds),
        "planned": "" if run.estimated_seconds is None else clock(run.estimated_seconds),
        "try": "" if run.attempt is None else str(run.attempt),
        "host:pid": holder,
        "note": _note(run),
    }


def _note(run: RunStatus) -> str:
    if run.cell.retry_of is not None:
        again = f"repeats {run.cell.retry_of[:8]}"
        return f"{again}; {run.reason}" if run.reason else again
    return run.reason or ""


def _estimate_line(runs: Sequence[RunStatus]) -> str:
    """Estimated against actual seconds of the finished runs of which both are known."""
    pairs = [
        (run.seconds, run.estimated_seconds)
        for run in runs
        if run.state == "finished" and run.seconds and run.estimated_seconds
    ]
    if not pairs:
        return ""
    actual, estimated = (sum(column) for column in zip(*pairs, strict=True))
    return (
        f"{len(pairs):,} finished runs took {clock(actual)} of work, estimated {clock(estimated)} "
        f"({actual / estimated - 1:+.0%})"
    )


def _failures(found: SweepStatus, height: int | None) -> list[str]:
    failed = [run for run in found.runs if run.state == "failed"]
    if not failed or height is not None:
        return []
    lines = ["", f"[bold]failed ({len(failed):,})[/]"]
    for run in failed[:MAX_FAILURES]:
        lines.append(escape(f"{run.cell.run_id[:8]} on {run.host}: {run.reason}"))
        if run.log is not None:
            lines.append(escape(f"  {run.log}"))
        lines += [escape(f"    {line}") for line in run.log_tail]
    lines.append(f"try them again: python launch.py retry {found.sweep.name}")
    return lines


def clock(seconds: float | None) -> str:
    """A span as s, min:s or h:min:s; ? if it is not known."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
