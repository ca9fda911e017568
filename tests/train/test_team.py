"""Two processes over loopback train one run: the losses of one, and no hang where one fails."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from model.config import ModelConfig
from train import records
from train.config import (
    Budget,
    DataConfig,
    OptimizerConfig,
    RunSpec,
    ScheduleConfig,
    SpecError,
    to_json,
)
from train.data import corpora
from train.team import Team

ROOT = Path(__file__).resolve().parents[2]
LANGUAGE = "lang:markov:vocab=16,order=1,train=20000,validation=2000"


@pytest.mark.parametrize(
    "given, message",
    [
        ({"coordinator": "localhost:1"}, "give all three"),
        ({"coordinator": "h:1", "num_processes": 2, "process_id": 2}, "process_id=2"),
    ],
)
def test_a_team_half_described_is_refused(given, message):
    with pytest.raises(SpecError, match=message):
        Team(**given)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a corpus, and a spec on it in a file."""
    out = tmp_path_factory.mktemp("team")
    corpora.prepare(LANGUAGE, out / "data")
    corpus = corpora.load(LANGUAGE, out / "data")
    data = DataConfig(
        corpus.name, corpus.content_hash, corpus.tokenizer, corpus.tokenizer_hash,
        corpus.split_rule,
    )  # fmt: skip
    model = ModelConfig(2, 16, 2, 8, 32, corpus.vocab_size, 16)
    spec = RunSpec(
        model, data, OptimizerConfig(lr=0.01), Budget(steps=40),
        ScheduleConfig(warmup_steps=4), batch_size=8,
    )  # fmt: skip
    (out / "spec.json").write_text(json.dumps(to_json(spec)))
    return out, spec


def started(out, *flags, n_devices=2, port=None, k=None):
    """launch.py train, as one process or as one of two."""
    team = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", "--process-id", str(k)]
    flag = f"--xla_force_host_platform_device_count={n_devices}"
    return subprocess.Popen(
        [sys.executable, "launch.py", "train", str(out / "spec.json"), "--out", str(out),
         *(team if port else []), *flags],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "XLA_FLAGS": flag, "NPROC": "1", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def losses(out, spec):
    row = records.read_run(out / "runs", spec.run_id)
    points = records.read_points(records.committed_attempt(out / "runs", row))
    return [row["loss_nats"], *(point["loss_nats"] for point in points)]


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(prepared, tmp_path):
    """Also from checkpoint to checkpoint: written by two, gone on with by two, then by one."""
    out, spec = prepared
    alone = started(out, "--mesh", "data=1", n_devices=1)
    told = alone.communicate(timeout=600)[0]
    assert alone.returncode == 0, told
    expected = losses(out, spec)
    (out / "runs").rename(tmp_path / "alone")
    port = free_port()
    flags = ("--mesh", "data=2,fsdp=2", "--scan-layers", "--checkpoint-every-s", "0")
    both = [started(out, *flags, port=port, k=k) for k in range(2)]
    told = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert losses(out, spec) == pytest.approx(expected, rel=2e-5)
    assert "mesh=data=2,fsdp=2,tensor=1" in told[0]
    assert "step 40 of 40" in told[0] and "step 40 of 40" not in told[1]


@pytest.mark.slow
def test_a_process_that_fails_ends_the_run_with_its_reason(prepared, tmp_path):
    out, spec = prepared
    (tmp_path / "spec.json").write_text((out / "spec.json").read_text())
    (tmp_path / "data").mkdir()  # of process 1: no corpus there
    port = free_port()
    (out / "runs").rename(tmp_path / "before") if (out / "runs").exists() else None
    flags = ("--mesh", "data=2,fsdp=2")
    leader = started(out, *flags, port=port, k=0)
    other = started(tmp_path, *flags, port=port, k=1)
    told = leader.communicate(timeout=300)[0]
    assert leader.returncode == 1
    assert "process 1: CorpusError" in told
    complaint = other.communicate(timeout=60)[0]
    assert other.returncode != 0 and "launch.py: " in complaint
    assert records.read_run(out / "runs", spec.run_id) is None
