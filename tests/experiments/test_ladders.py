"""Endings of ladders and sweeps on records planted on their laws, and one of them for real."""

import json

import pytest
from rich.console import Console

from experiments import d_ladder, footprint, n_ladder, stages, sweep
from experiments.stages import Stage, freeze_plan
from experiments.workspace import Workspace, read_json
from model.accounting import count_params
from train.records import read_run
from train.row import describe_spec


class Available:
    """Windows of a run: as many as its unique tokens allow, out of ten million tokens."""

    def __init__(self, spec):
        self.total = 10_000_000 // spec.model.seq_len
        wanted = spec.data.n_tokens_unique
        self.unique = self.total if wanted is None else wanted // spec.model.seq_len


@pytest.fixture
def concluded(workspace, commit):
    """Freeze a plan, commit its runs with planted losses, conclude; its tables and sentences."""

    def concluded(plan, loss_of, diverged=()):
        freeze_plan(plan, workspace.sweep(plan.name))
        for cell in plan.cells:
            spec = cell.spec
            columns = describe_spec(spec, Available(spec), spec.n_steps)
            if spec.run_id in diverged:
                columns |= {"status": "diverged", "loss_nats": None}
            else:
                columns["loss_nats"] = loss_of(spec)
            commit(spec, **columns)
        found = stages.conclude(plan.name, Stage(workspace, Console(quiet=True)))
        assert workspace.sweep(plan.name).report.exists()
        return found

    return concluded


def test_l_of_n_gives_back_its_law_and_names_what_diverged(corpus, concluded):
    plan = n_ladder.plan(n_ladder.Options(tokens=2e6), corpus)

    def loss_of(spec):
        return 1.1 + 40 / count_params(spec.model).total ** 0.5

    found = concluded(plan, loss_of, diverged={plan.cells[0].spec.run_id})
    law = found.values["laws"]["L = E + A / N^alpha, N total"]
    assert law["ok"] and law["n_rows"] == len(plan.cells) - 1
    assert law["parameters"]["alpha"] == pytest.approx(0.5, rel=1e-3)
    assert law["parameters"]["E"] == pytest.approx(1.1, rel=1e-3)
    assert "1 runs diverged and are in no fit" in found.sentences
    assert len(found.tables["Runs"]) == len(plan.cells)


def test_repeated_tokens_are_weighed_against_fresh_ones(corpus, concluded):
    plan = d_ladder.plan(d_ladder.Options(), corpus)

    def worth(spec):
        """A second epoch is worth half of a first, later ones nothing."""
        unique = spec.data.n_tokens_unique or spec.n_tokens
        return (
            unique + min(spec.n_tokens - unique, unique) / 2 if spec.n_tokens > unique else unique
        )

    found = concluded(plan, lambda spec: 1.2 + 300 / worth(spec) ** 0.5)
    (law,) = found.values["laws"].values()
    assert law["ok"] and law["parameters"]["alpha"] == pytest.approx(0.5, rel=1e-2)
    for row in found.values["worth"]:
        unique = int(row["unique tokens"].replace(",", ""))
        assert float(row["worth fresh tokens"]) == pytest.approx(1.5 * unique, rel=0.02)
    assert len(found.values["worth"]) == 7
    assert any("needs 3 sizes, here are 1" in sentence for sentence in found.sentences)


def test_a_sweep_names_its_best_and_the_edge(corpus, concluded):
    plan = sweep.plan(sweep.Options(seeds=2), corpus)

    def loss_of(spec):
        return 2 + (spec.optimizer.lr - 0.02) ** 2 + 1 / spec.batch_size + 0.01 * spec.seed_init

    found = concluded(plan, loss_of, diverged={plan.cells[0].spec.run_id})
    (rows,) = found.tables.values()
    assert len(rows) == 9
    assert [(r["batch"], r["lr"]) for r in rows if r["best"]] == [("16", "0.02")]
    assert "lowest loss 2.0675 nats/token at batch 16 and rate 0.02" in found.sentences[0]
    assert "at the edge of the batches tried: widen them" in found.sentences[0]
    assert "1 runs diverged and are not in the table" in found.sentences


FLAGS = ("--seq-len", "16", "--batch-size", "4")


def test_a_grid_too_small_for_a_law_ends_in_its_table_and_a_reason(told, tmp_path):
    """For real: planned, trained, estimated, and what is on disk is what was told."""
    out, path = tmp_path / "out", tmp_path / "plan.json"
    asked = ("grid", "--sizes", "1x8", "--tokens", "6e3", "1.2e4", *FLAGS, "--out", out)
    code, text, err = told("plan", *asked, "--json", path)
    assert (code, err) == (0, "") and "a probe of this machine" in text
    code, text, err = told("run", *asked)
    assert (code, err) == (0, "")
    assert "no law of L(N, D) is fitted to these runs: too few points" in text
    planned = json.loads(path.read_text())
    workspace = Workspace(out)
    (name,) = workspace.sweep_names()
    written = read_json(workspace.sweep(name).path / "estimates.json")
    assert set(written["seconds"]) == {r["run_id"] for r in planned["table"]}
    for row in planned["table"]:
        record = read_run(workspace.runs, row["run_id"])
        for column in ("n_tokens", "n_tokens_unique", "n_epochs", "train_flops_matmul_full",
                       "train_flops_charged", "n_params_total", "lr"):  # fmt: skip
            assert record[column] == row[column], column
        assert record["loss_nats"] is not None and f"{row['run_id'][:8]}" in text
        folder = workspace.runs / row["run_id"]
        files = {p.stat().st_ino: p.stat().st_size for p in folder.rglob("*") if p.is_file()}
        assert row["disk_bytes"] == pytest.approx(sum(files.values()), rel=0.2)
    code, text, _ = told("plan", *asked)
    assert code == 0 and "from 2 runs finished here" in text and "not yet trained: 0 s" in text


def test_checkpoints_take_what_was_told(tiny, tmp_path):
    import jax
    import numpy as np

    from model.functional import init_params
    from train import checkpoint
    from train.config import Budget, DataConfig, OptimizerConfig, RunSpec
    from train.optimizer import hyperparameters, init_moments
    from train.step import TrainState

    data = DataConfig("x", "x", "x", "x", "x")
    spec = RunSpec(tiny, data, OptimizerConfig(lr=0.01), Budget(steps=500))
    rng, params = np.random.default_rng(0), init_params(tiny, 0)
    state = TrainState(params, init_moments(params, hyperparameters(spec.optimizer)))
    # Zeros would be packed to nothing.
    state = jax.tree.map(lambda x: rng.normal(size=np.shape(x)).astype(np.float32), state)
    history = rng.normal(size=checkpoint.no_history(500).shape).astype(np.float32)
    checkpoint.save(tmp_path, state, 500, history, {})
    actual = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    assert footprint.checkpoint_bytes(spec) == pytest.approx(actual, rel=0.3)
