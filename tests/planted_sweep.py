"""Sweeps that nobody trained: the records of a plan if a known law held."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from analysis.laws import Chinchilla, predict
from analysis.load import Sweep
from experiments.cells import cell_rows
from train.columns import CURVE_COLUMNS, EVALUATION_COLUMNS, RUN_COLUMNS
from train.row import describe_spec

LAW = {"E": 1.2, "A": 40.0, "B": 900.0, "alpha": 0.38, "beta": 0.52}
N_POINTS = 60
B_CRIT = 1000.0
"""Tokens: at a batch B, D tokens are worth D / (1 + B / B_CRIT), up to a constant."""


def loss_of(spec, n_params, steps, *, gain=0.0):
    """The law in all parameters, of tokens worth less at a large batch and while warming up."""
    worth = steps - 0.5 * np.minimum(spec.schedule.warmup_steps, steps)
    tokens = worth * spec.batch_tokens / (1 + spec.batch_tokens / B_CRIT)
    loss = predict(Chinchilla(), LAW, n_params=n_params, n_tokens=tokens)
    return loss * (1 - gain if spec.schedule.kind != "constant" else 1.0)


def planted(plan, *, noise=0.0, seed=0, gain=0.02):
    """The sweep of a plan: runs with a decay end `gain` lower than those of constant rate."""
    generator = np.random.default_rng(seed)
    runs, curves = [], []
    parts = {row.run_id: row for row in cell_rows(plan)}
    for cell in plan.cells:
        spec, part = cell.spec, parts[cell.spec.run_id]
        windows: Any = SimpleNamespace(unique=10**9)
        columns = describe_spec(spec, windows, spec.n_steps)
        steps = np.unique(np.geomspace(1, spec.n_steps, N_POINTS).round())
        size, error = columns["n_params_total"], np.exp(noise * generator.standard_normal())
        final = float(loss_of(spec, size, np.array(float(spec.n_steps)), gain=gain)) * error
        runs.append(
            {
                **dict.fromkeys(RUN_COLUMNS), **columns, "attempt": 1, "status": "finished",
                "loss_nats": final, "loss_se_document": 0.002, "git_commit": "0" * 8,
                "train_flops_charged": part.train_flops_charged, "mode": "planted",
                "role": part.role, "isoflop_budget": part.isoflop_budget,
                "trunk_run_id": part.trunk_run_id,
            }
        )  # fmt: skip
        flops = columns["train_flops_matmul_full"] / spec.n_steps
        curves.append(
            pd.DataFrame(
                {
                    **dict.fromkeys(CURVE_COLUMNS, np.nan), "run_id": spec.run_id, "attempt": 1,
                    "step": steps, "n_tokens": steps * spec.batch_tokens,
                    "train_flops_matmul_full": steps * flops,
                    "loss_nats": loss_of(spec, size, steps) * error, "lr": columns["lr"],
                }
            )
        )  # fmt: skip
    frame = pd.DataFrame(runs)
    reals = ["diverged_step", "noise_scale_tokens", "noise_scale_se"]
    frame[reals] = frame[reals].astype(float)
    return Sweep(frame, pd.concat(curves), pd.DataFrame(columns=list(EVALUATION_COLUMNS)), {})


def write(plan, sweep, folder):
    """Lay a sweep out as `results` keeps it."""
    from experiments.workspace import write_json

    write_json(folder.plan, plan.to_json())
    sweep.runs.to_parquet(folder.runs_table)
    sweep.curves.to_parquet(folder.curves_table)
    sweep.evaluations.to_parquet(folder.evaluations_table)
