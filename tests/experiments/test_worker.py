"""The worker as a process: what it says of jobs that it cannot take in."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from experiments.ideas import adopt
from train import records
from train.config import Budget, DataConfig, OptimizerConfig, RunSpec
from train.jobs import Job
from train.worker import Setup

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/examples/my_idea.py"


@pytest.fixture
def told(prepared, shared_workspace):
    """Hand lines of jobs to a worker; what it told, as (event, values), and its exit code."""

    def told(*lines):
        corpus, workspace = prepared[1], shared_workspace
        setup = Setup(
            str(workspace.runs), str(workspace.data), str(workspace.cache),
            corpus.name, corpus.tokenizer,
        )  # fmt: skip
        given = "".join(line + "\n" for line in (json.dumps(asdict(setup)), *lines))
        with subprocess.Popen(
            [sys.executable, "-m", "train.worker"], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdin and process.stdout and process.stderr
            process.stdin.write(given)
            process.stdin.flush()
            heard = []
            # Its input stays open, as a launcher's does: the end must come from the worker.
            for line in process.stdout:
                heard.append(json.loads(line))
                if heard[-1]["event"] == "record":
                    process.stdin.close()
            process.stderr.read()
        return heard, process.returncode

    return told


def test_a_job_that_cannot_be_read_is_told_and_ends_the_worker(told):
    heard, code = told("[{}]")
    failed = [event for event in heard if event["event"] == "broken"]
    assert len(failed) == 1 and "trunk" in failed[0]["message"]
    assert code is not None


def test_the_first_job_may_be_a_users_own_block(told, prepared, tiny, shared_workspace):
    """Its size is counted from the kept file, before anything else could have read that."""
    corpus = prepared[1]
    block = adopt("model.block", f"{EXAMPLE}:Block", shared_workspace.ideas)
    model = dataclasses.replace(tiny, vocab_size=256, n_layers=1, block=block)
    data = DataConfig(
        corpus.name, corpus.content_hash, corpus.tokenizer, corpus.tokenizer_hash, corpus.split_rule
    )
    spec = RunSpec(model=model, data=data, optimizer=OptimizerConfig(lr=0.01), budget=Budget(5))
    heard, code = told(json.dumps([Job(spec).to_json()]))
    assert [e["event"] for e in heard if e["event"] != "progress"] == ["ready", "record"]
    assert code == 0
    row = records.read_run(shared_workspace.runs, spec.run_id)
    assert row is not None and f"block={block}".startswith(row["idea"])
