"""The experiments on the core papers: their plans, and what they say of planted sweeps."""

import dataclasses
import re
from collections import Counter

import numpy as np
import planted_sweep
import pytest

from analysis.figures import draw
from analysis.figures.catalog import DRAWINGS
from analysis.laws import Chinchilla, predict
from experiments import (
    hoffmann_2022,
    hoffmann_report,
    kaplan_2020,
    paper_laws,
    papers,
    porian_2024,
    porian_ladder,
    results,
    wsd_2024,
)
from experiments.kaplan_reading import along_trunks
from experiments.plan import plan_from_json
from experiments.porian_report import slope
from experiments.workspace import write_json
from model.accounting import count_params, train_flops
from train.config import SpecError
from train.jobs import shared_steps

MODULES = {
    "hoffmann_2022": hoffmann_2022,
    "wsd_2024": wsd_2024,
    "kaplan_2020": kaplan_2020,
    "porian_2024": porian_2024,
}
A = planted_sweep.LAW["beta"] / (planted_sweep.LAW["alpha"] + planted_sweep.LAW["beta"])


@pytest.fixture(scope="module")
def plans(corpus):
    return {name: module.plan(module.Options(), corpus) for name, module in MODULES.items()}


@pytest.fixture(scope="module")
def endings(plans):
    """What every experiment concludes from a sweep on which the planted law holds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper_laws, "N_BOOTSTRAP", 20)
        patch.setattr(hoffmann_report, "N_DRAWS", 20)
        patch.setattr(porian_ladder, "N_DRAWS", 20)
        patch.setattr(paper_laws, "drawn", lambda inputs, names: ({}, ()))
        return {
            name: MODULES[name].conclude(plan, planted_sweep.planted(plan, noise=0.002))
            for name, plan in plans.items()
        }


def first_number(text):
    return float(re.findall(r"^[-+]?[\d.]+(?:e[-+]?\d+)?", text)[0])


@pytest.mark.parametrize("scale", ["laptop", "smoke", "gpu", "pod"])
@pytest.mark.parametrize("name", MODULES)
def test_every_scale_is_planned(name, scale, corpus):
    module = MODULES[name]
    plan = module.plan(module.Options(scale=scale), corpus)
    assert len(plan.of_role("held_out")) == 1
    assert {i for ids in plan.options["parts"].values() for i in ids} == {
        cell.spec.run_id for cell in plan.cells
    }
    (held_out,) = plan.of_role("held_out")
    flops = train_flops(held_out.spec.model, held_out.spec.n_tokens, "matmul_full")
    budgets = [c.isoflop_budget for c in plan.cells if c.isoflop_budget is not None]
    assert flops > 1.2 * max(budgets)
    assert plan_from_json(plan.to_json()) == plan


def test_experiments_share_their_runs(plans):
    ids = {name: {c.spec.run_id for c in plan.cells} for name, plan in plans.items()}
    hoffmann = {c.spec.run_id for c in plans["hoffmann_2022"].of_role("grid", "seed")}
    assert hoffmann <= ids["wsd_2024"] and hoffmann <= ids["porian_2024"]
    trunks = {c.spec.run_id for c in plans["wsd_2024"].of_role("trunk")}
    assert trunks <= ids["kaplan_2020"]
    held_out = [plan.of_role("held_out")[0].spec.run_id for plan in plans.values()]
    counts = Counter(i for members in ids.values() for i in members)
    assert all(counts[run_id] == 1 for run_id in held_out)


def test_branches_pay_for_their_cooldown_alone(plans):
    plan = plans["wsd_2024"]
    for run_id in plan.options["parts"]["branches"]:
        job = plan.jobs[run_id]
        assert 0.75 < shared_steps(job.trunk, job.spec) / job.spec.n_steps < 0.82


def test_branches_have_a_cosine_run_of_the_same_tokens_and_batches(plans):
    plan = plans["wsd_2024"]
    specs = {c.spec.run_id: c.spec for c in plan.cells}
    cosine = {
        (s.model, s.n_tokens, s.optimizer, s.seed_data)
        for s in (specs[i] for i in plan.options["parts"]["cosine"])
    }
    assert all(
        (s.model, s.n_tokens, s.optimizer, s.seed_data) in cosine
        for s in (specs[i] for i in plan.options["parts"]["branches"])
    )


def test_the_neighbours_of_the_tuned_choices_differ_in_one_thing(plans):
    plan = plans["porian_2024"]
    specs = {c.spec.run_id: c.spec for c in plan.cells}
    tuned = [specs[i] for i in plan.options["parts"]["tuned"]]
    for run_id in plan.options["parts"]["neighbours"]:
        spec = specs[run_id]
        flops = train_flops(spec.model, spec.n_tokens, "matmul_full")
        (same,) = [
            t for t in tuned if t.model == spec.model
            and abs(train_flops(t.model, t.n_tokens, "matmul_full") / flops - 1) < 0.01
        ]  # fmt: skip
        changed = [
            spec.optimizer.beta2 != same.optimizer.beta2,
            spec.batch_size != same.batch_size,
            spec.batch_size == same.batch_size and spec.optimizer.lr != same.optimizer.lr,
        ]
        assert sum(changed) == 1


def test_shapes_have_nearly_one_size(plans):
    plan = plans["kaplan_2020"]
    members = set(plan.options["parts"]["shapes"])
    sizes = [
        count_params(c.spec.model).non_embedding for c in plan.cells if c.spec.run_id in members
    ]
    assert max(sizes) / min(sizes) < 1.15 and len(set(sizes)) > 1


def test_only_batches_ask_for_more_rates(plans):
    plan = plans["kaplan_2020"]
    rows = {c.spec.run_id: {"loss_nats": 2.0 + c.spec.optimizer.lr} for c in plan.cells}
    more = kaplan_2020.extend(plan, rows)
    assert len(more) == len({(c.spec.batch_size) for c in more}) == 7
    assert all(c.spec.optimizer.lr < 0.016 for c in more if c.spec.batch_size == 8)


def test_a_cooldown_is_a_share(corpus):
    with pytest.raises(SpecError, match="cooldown_fraction=1.5"):
        wsd_2024.plan(wsd_2024.Options(cooldown_fraction=1.5), corpus)


def test_hoffmann_finds_the_planted_exponents(endings):
    named = endings["hoffmann_2022"].values["named"]
    assert abs(first_number(named["alpha"]) - planted_sweep.LAW["alpha"]) < 0.06
    assert abs(first_number(named["beta"]) - planted_sweep.LAW["beta"]) < 0.06
    rows = next(iter(endings["hoffmann_2022"].tables.values()))
    (closed,) = [r for r in rows if r["method"].startswith("closed") and r["C"] == "matmul_full"]
    assert abs(first_number(closed["a"]) - A) < 0.05
    assert named["seed_degrees"] == "2"


def test_wsd_finds_no_difference_where_there_is_none(endings):
    named = endings["wsd_2024"].values["named"]
    # A branch has the warm-up of the shortest run of its size, so a few more tokens at full rate.
    assert abs(first_number(named["difference"])) < 0.4
    assert abs(first_number(named["gained"]) + 2.0) < 0.3
    rows = dict.fromkeys(("trunks", "cooldowns"))
    (table,) = [t for k, t in endings["wsd_2024"].tables.items() if k.startswith("FLOPs")]
    shares = {row["way"]: first_number(row["of the separate"]) for row in table}
    assert abs(shares["trunks and cooldowns"] - sum(shares[k] for k in rows)) <= 1
    assert named["saved"] == f"{100 - shares['trunks and cooldowns']:.0f}%"


def test_porian_moves_from_counting_and_warming_up_to_the_planted_exponent(endings):
    ending = endings["porian_2024"]
    (rungs,) = [t for k, t in ending.tables.items() if k.startswith("The exponent")]
    joint = [first_number(row["joint fit"]) for row in rungs]
    assert joint[1] > joint[2]  # a warm-up of equal length for all sizes
    assert abs(joint[3] - joint[4]) < 0.06
    (near,) = [t for k, t in ending.tables.items() if k.startswith("Around")]
    assert len(near) == 18
    named = ending.values["named"]
    measured, alone = first_number(named["a_body"]), first_number(named["a_counted"])
    assert alone > first_number(named["a_all"]) + 0.05
    assert abs(measured - alone) < 0.08


def test_a_law_without_an_optimum_has_no_slope():
    n = np.array([3e3, 2e5])
    law = {**planted_sweep.LAW, "A": np.float64(0.0)}
    assert np.isnan(slope(law, n, 338.0))
    # With embeddings negligible the count changes nothing.
    assert slope(planted_sweep.LAW, n, 1e-9) == pytest.approx(A)


def test_kaplan_gives_every_law(endings):
    ending = endings["kaplan_2020"]
    named = ending.values["named"]
    assert all(
        first_number(named[k]) > 0 for k in ("alpha_n", "alpha_d_joint", "alpha_s", "alpha_c")
    )
    (critical,) = [t for k, t in ending.tables.items() if "critical batch by loss" in k]
    found = [first_number(row["B_crit"]) for row in critical]
    assert all(abs(np.log(b / planted_sweep.B_CRIT)) < np.log(2) for b in found)
    # Planted losses know of no shape but by embeddings, which are wide where layers are few.
    assert first_number(named["head_spread"]) < 4.0


def test_a_trunk_is_every_shorter_run(plans):
    plan = plans["kaplan_2020"]
    read = along_trunks(plan, planted_sweep.planted(plan))
    assert read["run_id"].is_unique
    assert set(read["trunk_run_id"]) == set(
        plan.options["parts"]["trunks"] + plan.options["parts"]["more_seeds"]
    )
    for row in read.to_dict("records"):
        law = predict(
            Chinchilla(), planted_sweep.LAW, n_params=row["n_params_total"],
            n_tokens=(row["n_steps"] - 0.5 * row["warmup_steps"]) * row["batch_tokens"] / 1.512,
        )  # fmt: skip
        assert row["loss_nats"] == pytest.approx(float(law), rel=0.04)
        assert row["train_flops_matmul_full"] == pytest.approx(row["isoflop_budget"], rel=0.01)


def test_runs_that_are_missing_or_diverged_are_told(plans):
    plan = plans["hoffmann_2022"]
    sweep = planted_sweep.planted(plan)
    sweep.runs.loc[0, ["status", "loss_nats", "diverged_step"]] = ["diverged", np.nan, 7.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper_laws, "N_BOOTSTRAP", 0)
        patch.setattr(paper_laws, "drawn", lambda inputs, names: ({}, ()))
        named = hoffmann_2022.conclude(plan, sweep).values["named"]
    assert named["n_diverged"] == "1"


@pytest.fixture
def home(tmp_path, plans, monkeypatch):
    """Kept records of one experiment, with a prediction and its score."""
    monkeypatch.setattr(paper_laws, "N_BOOTSTRAP", 20)
    folder = results.kept("wsd_2024", tmp_path)
    plan = plans["wsd_2024"]
    planted_sweep.write(plan, planted_sweep.planted(plan), folder)
    entry = {
        "version": "chinchilla", "n_convention": "total", "n_params": 1e5, "loss_nats": 1.7,
        "mean_interval": [1.6, 1.8], "new_run_interval": [1.5, 1.9], "ok": True, "status": "fine",
    }  # fmt: skip
    written = {"run_id": "c0ffee00", "is_blind": True, "n_tokens": 1000, "predictions": [entry]}
    write_json(folder.prediction, written)
    scored = {**entry, "error_nats": 0.3, "hit": False}
    write_json(folder.score, {"measured_loss_nats": 2.0, "predictions": [scored]})
    (tmp_path / "prose").mkdir()
    (tmp_path / "prose" / "wsd_2024.txt").write_text("A branch ends {difference} above.\n")
    return tmp_path


def test_a_page_is_a_function_of_its_records(home):
    flags = results.ResultsFlags(home=home)
    assert results.results(flags) == 0
    pages = {path.name: path.read_bytes() for path in home.glob("*.md")}
    assert set(pages) == {"wsd_2024.md", "predictions.md", "README.md", "summary.md"}
    assert (home / "figures" / "wsd_2024" / "cooldown.png").stat().st_size > 1000
    text = pages["wsd_2024.md"].decode()
    _, _, ending = results.concluded(results.kept("wsd_2024", home))
    assert f"A branch ends {ending.values['named']['difference']} above." in text
    for rows in ending.tables.values():
        for row in rows:
            assert f"| {' | '.join(row.values())} |" in text
    assert "| miss |" in text and "0 of 1 predictions hit" in pages["predictions.md"].decode()
    results.results(flags)
    assert {path.name: path.read_bytes() for path in home.glob("*.md")} == pages


def test_prose_names_only_numbers_that_there_are(home):
    (home / "prose" / "wsd_2024.txt").write_text("It is {no_such}.")
    with pytest.raises(SpecError, match="no_such.*difference"):
        results.results(results.ResultsFlags(home=home))


def test_without_records_there_is_nothing_to_draw(tmp_path):
    with pytest.raises(SpecError, match="holds no records"):
        results.results(results.ResultsFlags(home=tmp_path))


@pytest.mark.slow
def test_from_nothing_to_a_page(launched, tmp_path, monkeypatch):
    """Every experiment at smoke scale: trained, predicted, concluded, kept and drawn."""
    small = dataclasses.replace(papers.SCALES["smoke"], setting={"seq_len": 16, "batch_size": 4})
    monkeypatch.setitem(papers.SCALES, "smoke", small)
    monkeypatch.setattr(paper_laws, "N_BOOTSTRAP", 40)
    monkeypatch.setattr(draw, "DRAWINGS", DRAWINGS)
    out, home = tmp_path / "out", tmp_path / "home"
    for name in MODULES:
        assert launched("run", name, "--scale", "smoke", "--out", out) == 0
    flags = ("--keep-from", out, "--scale", "smoke", "--home", home)
    assert launched("results", *flags) == 0
    assert {path.stem for path in home.glob("*.md")} >= set(MODULES)
    scores = [row for name in MODULES for row in results.scores_of(name, home)]
    assert len({row["run"] for row in scores}) == 4 and {row["blind"] for row in scores} == {"yes"}
    assert all(row["measured"] != "-" for row in scores)
    sizes = {path: path.stat().st_size for path in (home / "data").rglob("*.parquet")}
    assert sum(sizes.values()) < 3e6
