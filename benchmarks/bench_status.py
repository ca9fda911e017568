"""How long do status, table and compaction take while there are 10,000 runs?

    python benchmarks/bench_status.py [N_RUNS] [POINTS_A_CURVE]

Writes a synthetic sweep with its records into a temporary folder, as `run` would have left it, and
prints seconds of: compaction of all of it, of what 100 more runs add, and of nothing new; then of
`status`, `status --json`, `list` and `table`, each in a fresh process, start of Python included.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from experiments.cells import cell_rows, read_cells, write_cells  # noqa: E402
from experiments.compact import compact_cells  # noqa: E402
from experiments.plan import Cell, Plan  # noqa: E402
from experiments.recipe import Recipe, Size  # noqa: E402
from experiments.workspace import SweepFolder, Workspace, write_json_once  # noqa: E402
from model.accounting import FLOPS_CONVENTIONS, count_params, train_flops  # noqa: E402
from train.columns import CURVE_COLUMNS, EVALUATION_COLUMNS, RUN_COLUMNS, column_type  # noqa: E402
from train.config import Budget, DataConfig, RunSpec  # noqa: E402

DEFAULTS = (10_000, 150)
FILLER = {"text": "synthetic", "truth": True, "real": 0.5, "whole": 7, "reals": [0.5, 0.25]}


def make_plan(n_runs: int) -> Plan:
    """A grid of learning rates and seeds, in a few sizes."""
    data = DataConfig("synthetic", "c0ffee", "bytes", "c0ffee", "by document")
    recipe, sizes = Recipe(), (Size(2, 24), Size(3, 40), Size(4, 64), Size(4, 80))
    specs = [
        recipe.spec(recipe.model(size, 256), data, Budget(tokens=1_000_000), seed=0)
        for size in sizes
    ]
    cells = []
    for i in range(n_runs):
        spec = specs[i % len(specs)]
        rate = spec.optimizer.lr * 2 ** (i / n_runs)
        spec = replace(spec, seed_init=i, optimizer=replace(spec.optimizer, lr=rate))
        cells.append(Cell(spec, "grid"))
    return Plan("synthetic", "quickstart", {}, {}, tuple(cells))


def write_record(store: Path, spec: RunSpec, n_points: int) -> None:
    """A committed run with its curve and one evaluation."""
    directory = store / spec.run_id / "attempt-1"
    directory.mkdir(parents=True)
    row = {name: FILLER[column_type(name)] for name in RUN_COLUMNS}
    known = {
        "n_layers": spec.model.n_layers,
        "d_model": spec.model.d_model,
        "lr": spec.optimizer.lr,
    }
    flops = {
        f"train_flops_{c}": train_flops(spec.model, spec.n_tokens, c) for c in FLOPS_CONVENTIONS
    }
    row |= known | flops | {"n_params_total": count_params(spec.model).total, "retry_of": None}
    row |= {"run_id": spec.run_id, "attempt": 1, "status": "finished", "seed_init": spec.seed_init}
    row |= {"record_version": 4, "diverged_step": None, "n_steps": spec.n_steps, "loss_nats": 1.5}
    (directory / "run.json").write_text(json.dumps(row, indent=1))
    (store / spec.run_id / "run.json").hardlink_to(directory / "run.json")
    point = {name: FILLER[column_type(name)] for name in CURVE_COLUMNS} | {"run_id": spec.run_id}
    lines = (json.dumps(point | {"step": k + 1, "loss_nats": 5 - k / 99}) for k in range(n_points))
    (directory / "curve.jsonl").write_text("\n".join(lines) + "\n")
    evaluation = {name: FILLER[column_type(name)] for name in EVALUATION_COLUMNS}
    evaluation |= {"run_id": spec.run_id}
    (directory / "evaluations.jsonl").write_text(json.dumps(evaluation) + "\n")


def timed(label: str, work) -> None:
    """Run work; wall time tells of the machine's other work too, CPU time does not."""
    start, before = time.perf_counter(), cpu_seconds()
    work()
    wall, cpu = time.perf_counter() - start, cpu_seconds() - before
    print(f"{label:<46} {wall:7.2f} s, {cpu:7.2f} s of CPU", flush=True)


def cpu_seconds() -> float:
    """Of this process and the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def command(label: str, *arguments: str) -> None:
    def call() -> None:
        subprocess.run(
            [sys.executable, str(ROOT / "launch.py"), *arguments], check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    timed(label, call)


def main(n_runs: int, n_points: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        workspace = Workspace(Path(name) / "out")
        folder: SweepFolder = workspace.sweep("synthetic")
        plan = make_plan(n_runs)
        write_json_once(folder.plan, plan.to_json())
        timed("table of the plan, written as it is frozen", lambda: write_cells(plan, folder))
        cells = cell_rows(plan)
        n_first = n_runs - 100
        for cell in plan.cells[:n_first]:
            write_record(workspace.runs, cell.spec, n_points)
        compacting = lambda: compact_cells(cells, workspace.runs, folder)  # noqa: E731
        timed(f"compaction of {n_first} runs", compacting)
        for cell in plan.cells[n_first:]:
            write_record(workspace.runs, cell.spec, n_points)
        timed("compaction of 100 more", compacting)
        timed("compaction of nothing new", compacting)
        assert len(read_cells(folder, workspace.runs).cells) == n_runs
        where = ("--out", str(workspace.root))
        command("status", "status", "synthetic", *where)
        command("status --json", "status", "synthetic", "--json", "-", *where)
        command("list", "list", *where)
        command("table --where", "table", "synthetic", "--where", "n_layers > 3", *where)
        (folder.runs_table).unlink()
        command("status without the table of runs", "status", "synthetic", *where)


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    main(*given, *DEFAULTS[len(given) :])
