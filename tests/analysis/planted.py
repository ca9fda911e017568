"""Planted tables: known laws, sampled on an isoFLOP staircase."""

import numpy as np
import pandas as pd

from analysis.laws import Law, predict
from analysis.load import Points

CHINCHILLA = {"E": 1.2, "A": 40.0, "B": 900.0, "alpha": 0.38, "beta": 0.52}
KAPLAN = {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103}
SIZES = (3072, 6144, 13824, 24576, 57600, 112896, 196608)
BUDGETS = (1e11, 2e11, 4e11, 8e11)


def table(n_params, n_tokens, loss_nats, *, budget=None) -> Points:
    n_params, n_tokens = np.asarray(n_params, float), np.asarray(n_tokens, float)
    n_rows = len(n_params)
    return Points(
        n_params=n_params,
        n_tokens=n_tokens,
        train_flops=6 * n_params * n_tokens,
        loss_nats=np.asarray(loss_nats, float),
        loss_se=np.full(n_rows, np.nan),
        budget=np.full(n_rows, np.nan) if budget is None else np.asarray(budget, float),
        run_id=tuple(f"r{i}" for i in range(n_rows)),
        cluster=np.arange(n_rows),
        flags=((),) * n_rows,
        n_convention="as_given",
        c_convention="6nd",
    )


def staircase(law: Law, parameters, *, noise=0.0, seed=0, sizes=6) -> Points:
    """Four budgets of 6ND, sizes spread about the optimum of each."""
    exponent = 0.5
    n_params, n_tokens, budget = [], [], []
    for flops in BUDGETS:
        middle = 14000 * (flops / 1e11) ** exponent
        for n in middle * np.geomspace(0.2, 5, sizes):
            n_params.append(n)
            n_tokens.append(flops / (6 * n))
            budget.append(flops)
    n_params, n_tokens = np.array(n_params), np.array(n_tokens)
    loss = predict(
        law, parameters, n_params=n_params, n_tokens=n_tokens, train_flops=6 * n_params * n_tokens
    )
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(loss)))
    return table(n_params, n_tokens, loss, budget=budget)


def runs(**changes) -> pd.DataFrame:
    """A sweep's table: the quickstart's shapes, a law in total N, one held-out run."""
    rows = []
    shapes = ((1, 16), (2, 16), (2, 24), (2, 32), (3, 40), (3, 56), (4, 64), (4, 80))
    for index, flops in enumerate((*BUDGETS, 2.4e12)):
        held_out = flops > BUDGETS[-1]
        chosen = shapes[-1:] if held_out else shapes[max(0, index - 1) : index + 5]
        for layers, width in chosen:
            body, embedding = 12 * layers * width**2, (256 + 64) * width
            per_token = 6 * (body + 256 * width + 2 * layers * 64 * width)
            n_tokens = flops / per_token
            total = body + embedding + width * (2 * layers + 1)
            loss = 1.2 + 40 / total**0.38 + 900 / n_tokens**0.52
            rows.append(
                {
                    "run_id": f"{layers}-{width}-{flops:.0e}",
                    "status": "finished",
                    "role": "held_out" if held_out else "grid",
                    "isoflop_budget": np.nan if held_out else flops,
                    "n_steps": int(n_tokens / 512),
                    "diverged_step": None,
                    "n_epochs": 0.5,
                    "n_params_total": total,
                    "n_params_non_embedding": body,
                    "n_tokens": n_tokens,
                    "loss_nats": loss,
                    "loss_se_document": 0.004,
                    "train_flops_matmul_full": flops,
                    "train_flops_matmul_causal": flops * 0.9,
                    "train_flops_6n_total": 6 * total * n_tokens,
                    "train_flops_6n_non_embedding": 6 * body * n_tokens,
                }
            )
    return pd.DataFrame(rows).assign(**changes)
