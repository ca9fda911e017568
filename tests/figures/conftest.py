"""A sweep whose law is known, with every run and curve column that figures and report read."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.conventions import fit_conventions
from analysis.figures import DRAWINGS, FigureInputs, HeldOut, not_drawn
from analysis.frontier.critical_batch import CriticalLaw
from analysis.frontier.loss_of_compute import curve_envelope, fit_frontiers
from analysis.intervals.uncertainty import predict_run
from analysis.load import drop_flagged, points_from_runs
from model.accounting import FLOPS_CONVENTIONS, count_params, train_flops_per_token
from model.config import ModelConfig

LAW = {"E": 1.0, "A": 200.0, "B": 160.0, "alpha": 0.6, "beta": 0.42}
NOISE = 0.006
BATCH_TOKENS = 512
SHAPES = ((1, 16), (2, 16), (2, 24), (2, 32), (3, 40), (3, 56), (4, 64))
HELD_OUT = (4, 80, 2.4e12)
CORPUS = "planted-corpus"
NGRAMS = {1: 3.1, 2: 2.42, 3: 1.96, 4: 1.71}
N_BOOTSTRAP = 40
SMALL_DPI = 30


def config(n_layers: int, d_model: int) -> ModelConfig:
    return ModelConfig(
        n_layers=n_layers, d_model=d_model, n_heads=d_model // 8, d_head=8, d_ff=4 * d_model,
        vocab_size=256, seq_len=64,
    )  # fmt: skip


def planted_loss(n_params: float, n_tokens: np.ndarray | float) -> np.ndarray | float:
    return LAW["E"] + LAW["A"] / n_params ** LAW["alpha"] + LAW["B"] / n_tokens ** LAW["beta"]


def run_row(
    label: str, shape: tuple[int, int], budget: float, noise: float, role: str = "grid", seed=0
) -> dict:
    cfg = config(*shape)
    counts = count_params(cfg)
    n_steps = round(budget / train_flops_per_token(cfg, "matmul_full") / BATCH_TOKENS)
    n_tokens = n_steps * BATCH_TOKENS
    loss = float(planted_loss(counts.total, n_tokens) * np.exp(noise))
    return {
        "run_id": label, "attempt": 1, "status": "finished", "diverged_step": np.nan,
        "role": role, "isoflop_budget": budget if role != "held_out" else np.nan,
        "corpus": CORPUS, "corpus_hash": "c0ffee", "tokenizer": "bytes",
        **{k: getattr(cfg, k) for k in ("n_layers", "d_model", "n_heads", "d_head", "d_ff")},
        "vocab_size": 256, "seq_len": 64, "batch_size": 8, "batch_tokens": BATCH_TOKENS,
        "n_steps": n_steps, "lr": 0.48 / shape[1], "weight_decay": 0.1, "beta2": 0.98,
        "warmup_steps": n_steps // 20, "schedule": "linear", "seed_init": seed, "seed_data": seed,
        "dtype": "float32", "parametrization": "standard",
        "n_params_embedding": counts.embedding, "n_params_non_embedding": counts.non_embedding,
        "n_params_norm": counts.norm, "n_params_head": 0, "n_params_total": counts.total,
        "n_tokens": n_tokens, "n_tokens_unique": n_tokens, "n_epochs": 0.3,
        **{
            f"train_flops_{name}": float(n_tokens * train_flops_per_token(cfg, name))
            for name in FLOPS_CONVENTIONS
        },
        "loss_nats": loss, "loss_se_iid": 0.003, "loss_se_document": 0.012,
        "bits_per_byte": loss / np.log(2), "train_loss_nats_final": loss - 0.02,
        "n_validation_tokens": 100_000, "seconds": 12.0, "seconds_compile": 2.0,
        "resumed_from_step": 0, "is_exact": True, "device": "cpu", "mode": "one thread",
        "jax_version": "0.10.2", "git_commit": "abcdef0", "record_version": 1,
    }  # fmt: skip


def curve_rows(row: dict, generator: np.random.Generator) -> list[dict]:
    steps = np.unique(np.geomspace(1, row["n_steps"], 90).astype(int))
    tokens = steps * BATCH_TOKENS
    loss = np.minimum(planted_loss(row["n_params_total"], tokens), 5.5)
    loss = loss * np.exp(0.01 * generator.standard_normal(len(steps)))
    per_token = row["train_flops_matmul_full"] / row["n_tokens"]
    return [
        {"run_id": row["run_id"], "attempt": 1, "step": int(s), "n_tokens": int(d),
         "train_flops_matmul_full": float(d * per_token), "loss_nats": float(y),
         "lr": 0.01, "grad_norm": 1.0}
        for s, d, y in zip(steps, tokens, loss, strict=True)
    ]  # fmt: skip


SEQ_LEN = 64


def evaluation_row(run: dict) -> dict:
    """The run's loss by position as a power law whose mean over the window is the run's loss."""
    t = np.arange(1, SEQ_LEN + 1)
    gain = 1.2 * t**-0.7
    losses = run["loss_nats"] + gain - gain.mean()
    return {
        "run_id": run["run_id"], "attempt": 1, "step": run["n_steps"], "is_result": True,
        "corpus": CORPUS, "corpus_hash": "c0ffee", "split": "validation",
        **{k: run[k] for k in ("loss_nats", "loss_se_iid", "loss_se_document", "bits_per_byte")},
        "n_tokens": run["n_validation_tokens"], "position_edges": [*t.tolist(), SEQ_LEN + 1],
        "position_loss_nats": losses.tolist(), "position_se_document": [0.02] * SEQ_LEN,
    }  # fmt: skip


def planted_evaluations(runs):
    """One a finished run, and what the figure must leave out: other text, weights on the way."""
    rows = [evaluation_row(run) for run in runs.to_dict("records") if run["status"] == "finished"]
    lower = {"loss_nats": 0.1, "position_loss_nats": [0.1] * SEQ_LEN}
    elsewhere = {**rows[0], **lower, "corpus": "other", "corpus_hash": "bad"}
    on_the_way = {**rows[0], **lower, "is_result": False, "step": 1}
    part = {**rows[0], **lower, "split": "validation[:99]"}
    return pd.DataFrame([*rows, elsewhere, on_the_way, part])


def planted_tables():
    """(runs, curves): four budgets of five or six sizes, seeds, one diverged, one held out."""
    generator = np.random.default_rng(3)
    rows = []
    for b, budget in enumerate((1e11, 2e11, 4e11, 8e11)):
        for s, shape in enumerate(SHAPES[max(b - 2, 0) : 5 + max(b - 1, 0)]):
            noise = NOISE * generator.standard_normal()
            rows.append(run_row(f"run-{b}-{s}", shape, budget, noise))
    for seed in (1, 2):
        noise = NOISE * generator.standard_normal()
        rows.append(run_row(f"seed-{seed}", (2, 24), 2e11, noise, "seed", seed))
    diverged = run_row("diverged", (3, 56), 1e11, 0.0)
    rows.append(diverged | {"status": "diverged", "diverged_step": 120, "loss_nats": np.nan})
    *shape, budget = HELD_OUT
    rows.append(run_row("held-out", tuple(shape), budget, 0.004, "held_out"))
    curves = [point for row in rows for point in curve_rows(row, generator)]
    return pd.DataFrame(rows), pd.DataFrame(curves)


def make_inputs(runs, curves, *, drop=(), is_predicted=True, is_trained=True) -> FigureInputs:
    """Fit everything as a sweep does and gather it for the figures."""
    rows = fit_conventions(runs, drop=drop, n_bootstrap=N_BOOTSTRAP)
    points = {
        (r.n_convention, r.c_convention): drop_flagged(
            points_from_runs(runs, r.n_convention, r.c_convention), *drop
        )
        for r in rows
    }
    every = points_from_runs(runs)
    frontiers = fit_frontiers(every, rows[0].minima, n_bootstrap=N_BOOTSTRAP)
    return FigureInputs(
        title="Planted sweep",
        corpus=CORPUS,
        runs=runs,
        curves=curves,
        points=points,
        conventions=rows,
        frontiers=frontiers,
        envelope=curve_envelope(curves),
        held_out=held_out(runs, rows, is_trained) if is_predicted else (),
        ngram_entropies=NGRAMS,
    )


def held_out(runs, rows, is_trained: bool) -> tuple[HeldOut, ...]:
    run = runs[runs["role"] == "held_out"].iloc[0]
    found = []
    for row in rows:
        where = {
            "n_params": float(run[f"n_params_{row.n_convention}"]),
            "n_tokens": float(run["n_tokens"]),
        }
        found.append(
            HeldOut(
                run_id=run["run_id"],
                n_convention=row.n_convention,
                c_convention=row.c_convention,
                **where,
                train_flops=float(run[f"train_flops_{row.c_convention}"]),
                prediction=predict_run(row.fit, **where),
                measured_loss_nats=float(run["loss_nats"]) if is_trained else None,
                measured_loss_se=float(run["loss_se_document"]) if is_trained else None,
            )
        )
    return tuple(found)


def written_on(figure) -> str:
    """Every text of a figure, one a line, line breaks within a text as spaces."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    texts = [artist.get_text() for artist in figure.findobj(Text)]
    return "\n".join(" ".join(text.split()) for text in texts)


def planted_critical() -> CriticalLaw:
    """B_crit = 3000 / L^2 tokens, known at every loss of the planted sweep."""
    return CriticalLaw(np.full(41, 3000.0), np.full(41, 0.5), (0.5, 6.0), "as fitted")


def many_runs(n_runs: int):
    """Twenty budgets of 50 runs each over 25 shapes, two seeds a shape, with their curves."""
    generator = np.random.default_rng(0)
    shapes = [(1 + k // 6, 8 * (2 + k // 2)) for k in range(25)]
    budgets = np.geomspace(2e11, 2e13, n_runs // 50)
    rows = [
        run_row(f"{b}-{k}-{seed}", shape, budget, NOISE * generator.standard_normal(), seed=seed)
        for b, budget in enumerate(budgets)
        for k, shape in enumerate(shapes)
        for seed in (0, 1)
    ]
    curves = [point for row in rows for point in curve_rows(row, generator)]
    return pd.DataFrame(rows), pd.DataFrame(curves)


@pytest.fixture(scope="session")
def inputs_of_many_runs():
    return lambda n_runs: make_inputs(*many_runs(n_runs), is_predicted=False)


@pytest.fixture(scope="session")
def tables():
    return planted_tables()


@pytest.fixture(scope="session")
def inputs(tables):
    """As a sweep draws them: pre-asymptotic cells are left out of the joint fits."""
    made = make_inputs(*tables, drop=("pre_asymptotic",))
    evaluations = planted_evaluations(tables[0])
    return replace(made, evaluations=evaluations, critical=planted_critical())


@pytest.fixture(scope="session")
def sparse(tables):
    """One budget of three sizes, and too few runs for any fit."""
    runs, curves = tables
    few = runs[runs["isoflop_budget"] == 1e11].head(3)
    few = pd.concat([few, runs[runs["role"] == "held_out"]], ignore_index=True)
    return make_inputs(few, curves[curves["run_id"].isin(few["run_id"])])


@pytest.fixture(scope="session")
def drawable(inputs):
    """The figures that the planted sweep has records for."""
    left_out = not_drawn(inputs)
    return [drawing for drawing in DRAWINGS if drawing.name not in left_out]


@pytest.fixture(scope="session")
def figures(inputs, drawable):
    """Every figure of the planted sweep, by name."""
    return {drawing.name: drawing.draw(inputs) for drawing in drawable}


@pytest.fixture(scope="session")
def drawn(figures, tmp_path_factory):
    """The same as small PNG files."""
    folder = tmp_path_factory.mktemp("figures")
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=SMALL_DPI)
    return [folder / f"{name}.png" for name in figures]


@pytest.fixture
def texts():
    return written_on
