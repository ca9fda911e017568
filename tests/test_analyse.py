"""The commands that ask questions of a table, from a file to what is printed and written."""

import csv
import functools
import io
import json

import numpy as np
import pytest

from analysis.laws import Chinchilla, predict
from analysis.validity import extrapolation
from experiments.workspace import Workspace

TRUTH = {"E": 1.5, "A": 60.0, "B": 200.0, "alpha": 0.5, "beta": 0.4}


def write_table(path, *, saving=1.0, seed=0, header="N,D,L", unit=1.0):
    """An isoFLOP staircase on Chinchilla's law; `saving` multiplies the compute that counts."""
    rng = np.random.default_rng(seed)
    lines = [header]
    for flops in (1e12, 4e12, 1.6e13, 6.4e13):
        middle = 2.2e4 * (flops / 1e12) ** 0.45
        for n_params in middle * np.geomspace(0.25, 4, 6):
            n_tokens = flops / (6 * n_params)
            worth = {"n_params": n_params * saving**0.5, "n_tokens": n_tokens * saving**0.5}
            loss = predict(Chinchilla(), TRUTH, **worth) * np.exp(rng.normal(0, 1e-3))
            lines.append(f"{n_params / unit},{n_tokens},{loss}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("tables") / "runs.csv")


def test_a_fit_is_one_answer_in_every_format(told, table, tmp_path):
    path = tmp_path / "fit.json"
    asked = ("fit", table, "--bootstrap", 40, "--json", path, "--format")
    code, text, _ = told(*asked, "text")
    assert code == 0 and "status: converged" in text
    written = json.loads(path.read_text())
    assert written["parameters"]["alpha"] == pytest.approx(0.5, rel=0.1)
    code, text, err = told(*asked, "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert code == 0 and "wrote" in err
    assert {r["parameter"] for r in rows} == {"E", "A", "B", "alpha", "beta", "a", "b"}
    assert float(rows[3]["value"]) == pytest.approx(written["parameters"]["alpha"], rel=1e-5)
    assert "| alpha |" in told(*asked, "markdown")[1]
    latex = told(*asked, "latex")[1]
    assert latex.count(r"\\") == 8 and r"huber\_log" in latex and r"90\% interval" in latex


def test_a_foreign_csv_is_mapped_with_its_units(told, table, tmp_path):
    foreign = write_table(tmp_path / "f.csv", header="params (M),tokens,val loss", unit=1e6)
    ours, theirs = tmp_path / "a.json", tmp_path / "b.json"
    told("fit", table, "--bootstrap", 0, "--json", ours)
    columns = "n=params (M)*1e6,d=tokens,l=val loss"
    code, _, err = told("fit", foreign, "--columns", columns, "--bootstrap", 0, "--json", theirs)
    assert code == 0, err
    one, other = (json.loads(p.read_text())["parameters"] for p in (ours, theirs))
    assert other == pytest.approx(one, rel=1e-6)


@pytest.mark.parametrize("method", ["residual", "delta", "profile"])
def test_intervals_by_another_method_hold_the_truth(told, table, tmp_path, method):
    path = tmp_path / "fit.json"
    code, _, err = told(
        "fit", table, "--objective", "ls_log", "--intervals", method, "--bootstrap", 100,
        "--json", path,
    )  # fmt: skip
    assert code == 0, err
    written = json.loads(path.read_text())
    assert method in written["interval_method"]
    for name, (low, high) in written["intervals"].items():
        assert low - (high - low) < TRUTH[name] < high + (high - low)


def test_held_parameters_and_forecasts(told, table, tmp_path):
    path = tmp_path / "fit.json"
    code, text, err = told(
        "fit", table, "--fix", "E=1.5", "--at", "1e14", "--bootstrap", 60, "--json", path
    )
    assert code == 0, err
    written = json.loads(path.read_text())
    assert written["parameters"]["E"] == pytest.approx(1.5)
    (ahead,) = written["forecasts"]
    low, high = ahead["new_run_interval"]
    assert low < ahead["loss_nats"] < high and "extrapolated" in ahead["status"]
    assert 6 * ahead["n_params"] * ahead["n_tokens"] == pytest.approx(1e14)
    assert "held" in text and "extrapolated" in text


def test_an_optimum_is_certified(told, table, tmp_path):
    path = tmp_path / "fit.json"
    code, text, err = told("fit", table, "--objective", "ls_log", "--certify", "--json", path)
    assert code == 0, err
    assert json.loads(path.read_text())["certificate"]["ok"]
    assert text.count("holds: ") == 3 and "seeds: not known" in text


def test_corpora_share_their_exponents(told, tmp_path):
    """Two corpora of one law but for their floors, in one table."""
    lines = ["N,D,L,dataset"]
    for name, floor in (("web", 1.5), ("code", 0.9)):
        for n_params in np.geomspace(1e5, 1e8, 5):
            for n_tokens in np.geomspace(1e7, 1e10, 4):
                loss = predict(Chinchilla(), TRUTH, n_params=n_params, n_tokens=n_tokens)
                lines.append(f"{n_params},{n_tokens},{loss - 1.5 + floor},{name}")
    source, path = tmp_path / "two.csv", tmp_path / "fit.json"
    source.write_text("\n".join(lines) + "\n")
    asked = ("fit", source, "--law", "per_corpus", "--bootstrap", 0, "--json", path)
    code, _, err = told(*asked, "--columns", "corpus=dataset")
    assert code == 0, err
    found = json.loads(path.read_text())["parameters"]
    assert found["E_web"] == pytest.approx(1.5, rel=1e-5)
    assert found["E_code"] == pytest.approx(0.9, rel=1e-5)
    assert found["alpha"] == pytest.approx(0.5, rel=1e-5)
    code, _, err = told(*asked)
    assert code == 2 and "needs a column corpus" in err


def test_the_end_of_runs_is_foreseen(told, finished_study, tmp_path):
    """On a finished study there is nothing going; cut, its runs get estimates and their ends."""
    name, path = Workspace(finished_study).sweep_names()[0], tmp_path / "final.json"
    code, text, err = told("final", name, "--out", finished_study)
    assert code == 0 and "0 runs" in text, err
    code, _, err = told("final", name, "--until", 0.9, "--out", finished_study, "--json", path)
    assert code == 0, err
    rows = json.loads(path.read_text())["runs"]
    assert rows and all(row["measured"] != "-" for row in rows)
    assert told("final", name, "--until", 1.5, "--out", finished_study)[0] == 2


def test_check_lists_findings_and_rows_left_out(told, tmp_path):
    path = write_table(tmp_path / "runs.csv")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1], "1e5,-3,2.0"]) + "\n")
    code, text, _ = told("check", path)
    assert code == 0 and "duplicate" in text and "D='-3'" in text
    assert "25 rows usable, 1 left out" in text or "26 rows usable, 1 left out" in text


def test_approaches_stand_side_by_side_with_their_bias(told, table, tmp_path):
    path = tmp_path / "rows.json"
    code, text, err = told("approaches", table, "--json", path)
    assert code == 0, err
    rows = json.loads(path.read_text())["rows"]
    assert {"1", "2", "3"} <= {row["approach"] for row in rows}
    assert any(row["method"] == "akima" for row in rows) and "bias" in text


def test_the_true_law_extrapolates_best(told, table, tmp_path, monkeypatch):
    """With few bootstraps: no rank depends on them."""
    few = functools.partial(extrapolation.rollouts, n_bootstrap=10)
    monkeypatch.setattr(extrapolation, "rollouts", few)
    path = tmp_path / "validate.json"
    code, _, err = told("validate", table, "--json", path)
    assert code == 0, err
    names = [row["forecast"] for row in json.loads(path.read_text())["scores"]]
    assert names[0] in ("chinchilla", "chinchilla_shared", "overtraining")
    assert {"nearest run", "power_C"} <= set(names)


def test_a_planted_gain_is_measured(told, table, tmp_path):
    new, path = write_table(tmp_path / "new.csv", saving=1.5, seed=1), tmp_path / "gain.json"
    code, text, err = told("gain", table, new, "--bootstrap", 100, "--json", path)
    assert code == 0, err
    middle = json.loads(path.read_text())["gains"][1]
    low, high = middle["interval"]
    assert low / 1.03 < 1.5 < high * 1.03 and 1 < high / low < 1.3
    assert told("gain", table)[0] == 2


def test_reproduce_without_data_says_what_it_skipped(told, tmp_path):
    code, text, _ = told("reproduce", "pearce")
    assert code == 0 and "0.7805" in text and "agrees" in text
    code, text, _ = told("reproduce", "gadre")
    assert code == 0 and "skipped" in text
    code, _, err = told("reproduce", "moore")
    assert code == 2 and "unknown paper 'moore'" in err
    assert told("reproduce", "all", "--data", tmp_path / "none")[0] == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--law", "moore"), "unknown law 'moore'"),
        (("--fix", "E"), "--fix 'E' is not name=number"),
        (("--fix", "A=3"), "A can only be held together with its exponent"),
        (("--weights", "se"), "loss_se"),
        (("--weights", "replicates"), "no cell has two runs"),
        (("--columns", "n"), "is not letter=header"),
        (("--columns", "n=params"), "params"),
        (("--law", "b_crit"), "law b_crit needs B (batch_tokens)"),
        (("--at", "-1e21"), "train_flops=-1e+21 must be positive"),
        (("--c-convention", "petaflops"), "c_convention='petaflops'"),
    ],
)
def test_wrong_flags_are_one_line(told, table, flags, message):
    code, _, err = told("fit", table, *flags)
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["fit", "check", "approaches", "validate", "gain"])
@pytest.mark.parametrize("rows", [["1,2,NaN"], ["1e4,1e6,2.5"], ["1e4,1e6,2.5", "2e4,2e6,2.4"]])
def test_tables_of_next_to_nothing_are_no_bug(told, tmp_path, command, rows):
    path = tmp_path / "few.csv"
    path.write_text("\n".join(["N,D,L", *rows]) + "\n")
    code, text, err = told(command, path, *([path] if command == "gain" else []))
    assert code in (0, 2) and "zero-size" not in err
    assert text if code == 0 else len(err.strip().splitlines()) == 1


def test_conventions_need_a_sweep(told, table):
    code, _, err = told("conventions", table)
    assert code == 2 and "refits a sweep" in err
    code, _, err = told("check", "no-such-sweep")
    assert code == 2 and "no-such-sweep" in err
