"""Short versions of the torture, and whether its judge would notice."""

import json
import os
import random
import signal
import subprocess
import sys

import pytest
from torture import judge, leases
from torture.__main__ import SCENARIOS, torture
from torture.launching import HERE, ROOT
from torture.tally import Tally, markdown


def test_leases_and_records_survive_kills_and_pauses(tmp_path):
    """Four processes on one store, killed at random and inside file operations."""
    tally = Tally("leases")
    leases.crowd(tally, tmp_path / "store", random.Random(1), n_runs=30, n_kills=30)
    assert not tally.faults, tally.faults
    assert tally.finished == tally.wanted == 30 and tally.kills > 3
    assert "| leases | 1 |" in markdown([tally])


def test_an_aim_kills_inside_the_operation_it_names_and_only_once(tmp_path):
    """The second rename of this program does not happen; a second process is left alone."""
    aims = tmp_path / "aims"
    aims.mkdir()
    (aims / "aim.json").write_text(json.dumps({"pattern": "*/b*", "nth": 1, "delay_s": 0}))
    code = (
        "import os, sys; os.chdir(sys.argv[1]); open('x', 'w').close()\n"
        "for name in 'abc': os.rename('x', f'./{name}'); os.rename(f'./{name}', 'x')"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = {**os.environ, "TORTURE_AIMS": str(aims), "PYTHONPATH": str(HERE / "aim")}
    killed = subprocess.run(command, env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "x").exists() and len(list(aims.glob("*.spent"))) == 1
    assert subprocess.run(command, env=environment).returncode == 0


def test_the_judge_sees_torn_files_and_what_is_left_over(tmp_path):
    run = tmp_path / "runs/r"
    (run / "attempt-2/checkpoint").mkdir(parents=True)
    (run / "attempt-1").mkdir()
    (run / "run.json").write_text('{"attempt": 2}')
    (run / "attempt-2/run.json").write_text('{"attempt": 2')
    (run / "attempt-2/curve.jsonl").write_text('{"step": 1}\n{"st')
    (run / "attempt-2/weights.safetensors").write_bytes(b"\x09")
    (tmp_path / "runs.parquet").write_bytes(b"PAR1")
    (run / ".run.json.12.tmp").write_text("")
    assert [line.partition(":")[0] for line in judge.torn(tmp_path)] == [
        "runs.parquet", "runs/r/attempt-2/curve.jsonl", "runs/r/attempt-2/run.json",
        "runs/r/attempt-2/weights.safetensors",
    ]  # fmt: skip
    assert judge.leftovers(tmp_path) == [
        "runs/r/.run.json.12.tmp", "runs/r/attempt-1", "runs/r/attempt-2/checkpoint",
    ]  # fmt: skip


def test_the_judge_sees_a_repeated_run_and_a_lost_one(tmp_path):
    commits = judge.Commits(tmp_path)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text('{"loss_nats": 1}')
    commits.look()
    (tmp_path / "a/new.json").write_text('{"loss_nats": 1}')
    os.replace(tmp_path / "a/new.json", tmp_path / "a/run.json")
    (tmp_path / "b/run.json").unlink()
    commits.look()
    assert commits.repeated == {"a"} and commits.lost() == {"b"}


def test_make_torture_lists_its_scenarios():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, "-m", "torture", "nothing"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "no scenario 'nothing'; there are leases" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "leases"])
def test_a_sweep_survives(name, tmp_path):
    """Each scenario once, on the smallest sweep."""
    if not SCENARIOS[name].is_possible():
        pytest.skip("this machine or user cannot")
    (tally,) = torture(tmp_path, [name], 1, 0, "--scale", "tiny")
    assert not tally.faults, tally.faults
    assert tally.finished
