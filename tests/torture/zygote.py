"""A process that has imported everything and forks pullers, so that a kill costs little.

    python zygote.py OUT SCALE

It prepares the sweep's queue, says how many jobs there are, and then forks one process of
train.pull for each line that it is told: a folder of aims (aim/sitecustomize.py), or a dash. It
answers with the process id. What goes wrong in one is appended to OUT.complaints.
"""

import json
import os
import runpy
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    out, scale = Path(sys.argv[1]), sys.argv[2]
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]
    from train.runtime import configure, confine_to_one_core

    configure(out / "cache")
    confine_to_one_core()
    folder, n_jobs = _queue(out, scale)
    # What the pullers would import one by one; nothing here starts a thread.
    import orbax.checkpoint  # noqa: F401

    import train.pack  # noqa: F401
    import train.pull  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print(n_jobs, flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _child(folder, line.strip(), out.with_name(f"{out.name}.complaints"))
        print(pid, flush=True)
    return 0


def _queue(out: Path, scale: str) -> tuple[Path, int]:
    """The sweep's jobs as a folder of train.pull, but for the run that is predicted before."""
    from torture import sweep

    from train.data import corpora
    from train.worker import Setup

    corpus = corpora.load("sotu", out / "data")
    plan = sweep.plan(sweep.Options(scale=scale), corpus)
    held_out = {cell.spec.run_id for cell in plan.of_role("held_out")}
    jobs = [job.to_json() for run_id, job in plan.jobs.items() if run_id not in held_out]
    setup = Setup(
        str(out / "runs"), str(out / "data"), str(out / "cache"), corpus.name, corpus.tokenizer,
        n_devices=1, checkpoint_every_s=0.1,
    )  # fmt: skip
    folder = out / "queues" / "torture"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "setup.json").write_text(json.dumps(asdict(setup)))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    return folder, len(jobs)


def _child(folder: Path, aims: str, complaints: Path) -> None:
    """Pull to the end of the queue, and never return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(0)
    os.dup2(2, 1)  # where the answers go
    if aims != "-":
        os.environ["TORTURE_AIMS"] = aims
        runpy.run_path(str(HERE / "aim" / "sitecustomize.py"))
    try:
        from train.pull import pull

        pull(folder, 0, 1)
        os._exit(0)
    except BaseException:
        with open(complaints, "a") as file:
            file.write(traceback.format_exc())
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
