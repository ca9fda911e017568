"""After a kill between a commit and what follows it."""

import os

from experiments.leftovers import OLD_S, remove_leftovers
from train import records


def test_what_a_killed_worker_left_of_a_committed_run_goes(commit, plan, workspace):
    spec, other = (cell.spec for cell in plan.cells[:2])
    early = records.begin_attempt(workspace.runs, spec.run_id)
    kept = commit(spec)
    kept.checkpoint_dir.mkdir()
    under_way = records.begin_attempt(workspace.runs, other.run_id)
    folder = workspace.sweep(plan.name)
    folder.path.mkdir(parents=True)
    remove_leftovers([spec.run_id, other.run_id], workspace.runs, folder)
    assert not early.directory.exists() and not kept.checkpoint_dir.exists()
    assert (kept.directory / "run.json").exists() and under_way.directory.exists()


def test_old_temporary_files_go_and_those_of_others_at_work_stay(workspace):
    """By the times of the files alone, whatever the clock here says."""
    folder = workspace.sweep("one")
    folder.path.mkdir(parents=True)
    names = {".fits.json.a.tmp": 2, ".plan.json.b.once": 1.5, ".runs.parquet.c.tmp": 0.5, "old": 9}
    for name, hours in {**names, "fits.json": 0}.items():
        (folder.path / name).touch()
        os.utime(folder.path / name, (1e9 - hours * OLD_S,) * 2)
    remove_leftovers([], workspace.runs, folder)
    left = {path.name for path in folder.path.iterdir()}
    assert left == {".runs.parquet.c.tmp", "old", "fits.json"}
