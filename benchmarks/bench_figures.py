"""How long do the fits, the figures and the report of a large sweep take?

    python benchmarks/bench_figures.py [N_RUNS ...]

Plants sweeps of a known law (90 points a curve), by default of 100, 1,000 and 10,000 runs (a
multiple of 50), and prints, for each, wall and CPU seconds of all fits of `launch.py figures`, of
all figures as PNG by one process and by two, and of the report with these figures, with the
megabytes of both; the CPU seconds tell of this machine, whatever else runs on it.
"""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from figures.conftest import many_runs  # noqa: E402

from analysis.figures import FigureInputs, draw_all  # noqa: E402
from analysis.frontier.loss_of_compute import curve_envelope  # noqa: E402
from analysis.report import write_report  # noqa: E402
from analysis.study import study  # noqa: E402

DEFAULTS = (100, 1000, 10_000)
N_PROCESSES = (1, 2)


def timed(label: str, work: Callable[[], Any]) -> Any:
    """Run and print wall and CPU seconds, those of child processes included."""
    start, before = time.perf_counter(), cpu_seconds()
    result = work()
    wall, cpu = time.perf_counter() - start, cpu_seconds() - before
    print(f"  {label:<34} {wall:7.1f} s, {cpu:7.1f} s of CPU", flush=True)
    return result


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def fitted_inputs(runs: Any, curves: Any) -> FigureInputs:
    found = study(runs, "ls_log")
    return FigureInputs(
        title="Planted sweep",
        corpus="planted",
        runs=runs,
        curves=curves,
        points=found.points,
        conventions=found.settled,
        all_cells=found.all_cells,
        frontiers=found.frontiers,
        envelope=curve_envelope(curves),
    )


def main(n_runs: int) -> None:
    runs, curves = many_runs(n_runs)
    print(f"{len(runs)} runs, {len(curves)} points of curves; {os.cpu_count()} cores")
    inputs = timed("all fits", lambda: fitted_inputs(runs, curves))
    with tempfile.TemporaryDirectory() as folder:
        files: list[Path] = []
        for n_processes in N_PROCESSES:
            inputs.__dict__.pop("approaches", None)  # kept by the first to need it
            draw = partial(draw_all, inputs, folder, formats=("png",), n_processes=n_processes)
            files = timed(f"figures, {n_processes} process(es)", draw)
        sizes = [path.stat().st_size for path in files]
        print(f"  {len(files)} files, {sum(sizes) / 1e6:.1f} MB")
        page = timed("report", partial(write_report, inputs, files, Path(folder) / "report.html"))
        print(f"  {page.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    for n in [int(text) for text in sys.argv[1:]] or DEFAULTS:
        main(n)
