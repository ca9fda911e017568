import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_study

import launch
from experiments import stages
from experiments.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV of twenty runs on a Chinchilla law."""
    lines = ["N,D,L"]
    rng = np.random.default_rng(0)
    for n_params in (1e4, 3e4, 1e5, 3e5):
        for n_tokens in (1e6, 3e6, 1e7, 3e7, 1e8):
            loss = 1.5 + 60 / n_params**0.5 + 200 / n_tokens**0.4
            lines.append(f"{n_params},{n_tokens},{loss * np.exp(rng.normal(0, 1e-3))}")
    path = tmp_path_factory.mktemp("table") / "runs.csv"
    path.write_text("\n".join(lines))
    return path


FITS = {}


@pytest.fixture
def fitted_once(launched, monkeypatch):
    """Commands that draw fit first: of a table that was fitted here before, the fits are taken."""
    made = stages.study

    def remembered(runs, objective):
        key = objective, runs.to_json()
        if key not in FITS:
            FITS[key] = made(runs, objective)
        return FITS[key]

    monkeypatch.setattr(stages, "study", remembered)


def sweep_name(out):
    return Workspace(out).sweep_names()[0]


def test_list_names_experiments_and_sweeps(told, finished_study, tmp_path):
    code, out, _ = told("list", "--out", finished_study)
    assert code == 0
    assert "quickstart: " in out and sweep_name(finished_study) in out
    assert "none yet" in told("list", "--out", tmp_path)[1]


def test_plan_shows_every_run_and_trains_none(told, tmp_path):
    path = tmp_path / "plan.json"
    code, out, err = told(
        "plan", "quickstart", *tiny_study.FLAGS, "--json", path, "--workers", 2,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert (code, err) == (0, "")
    values = json.loads(path.read_text())
    assert len(values["table"]) == len(values["cells"]) == tiny_study.N_RUNS
    assert all(cell["run_id"][:8] in out for cell in values["cells"])
    assert values["overrides"] == {
        "scale": "smoke", "recipe.seq_len": 16, "recipe.batch_size": 4,
    }  # fmt: skip
    assert values["seconds_left"] > 0
    assert "training FLOPs" in out and "overrides" in out
    assert not (tmp_path / "out" / "runs").exists()
    assert not (tmp_path / "out" / "sweeps").exists()


def test_status_shows_finished_runs(told, finished_study):
    code, out, _ = told("status", sweep_name(finished_study), "--out", finished_study)
    assert code == 0
    assert sum("  finished  " in line for line in out.splitlines()) == tiny_study.N_RUNS
    assert f"{tiny_study.N_RUNS} runs: {tiny_study.N_RUNS} finished" in out
    assert "held_out" in out


def test_data_list_and_inspect(told, finished_study, tmp_path):
    code, out, _ = told("data", "list", "--out", finished_study)
    assert code == 0 and "python-code  " in out and "lang:dyck  " in out
    assert "Prepared in" in out and " bytes " in out
    code, out, _ = told("data", "inspect", "sotu", "--out", finished_study)
    assert code == 0 and "content: sha256 " in out and "validation  " in out
    path = tmp_path / "report.json"
    code, out, _ = told("data", "inspect", "sotu", "--out", finished_study, "--json", path)
    assert code == 0 and json.loads(path.read_text())["n_documents"]["train"] > 50
    code, out, _ = told("data", "prepare", "sotu", "--out", finished_study)
    assert code == 0 and "sotu is ready" in out
    name = "lang:dyck:train=1000,validation=500"
    code, out, _ = told("data", "prepare", name, "--out", tmp_path)
    code, out, _ = told("data", "inspect", name, "--out", tmp_path)
    assert code == 0 and "any length  1.00006" in out and "kinds=2 depth=0" in out
    (tmp_path / "data/tokens/broken").mkdir()
    (tmp_path / "data/tokens/broken/meta.json").write_text("{")
    code, out, _ = told("data", "list", "--out", tmp_path)
    assert code == 0 and "damaged: prepare it again" in out and name in out


def test_fit_of_a_csv_recovers_its_law_and_writes_json(told, table, tmp_path):
    path = tmp_path / "fit.json"
    code, out, err = told("fit", table, "--objective", "ls_log", "--bootstrap", 20, "--json", path)
    assert (code, err) == (0, "")
    found = json.loads(path.read_text())
    names = {
        "law", "objective", "objective_value", "n_rows", "parameters", "intervals", "allocation",
        "status",
    }  # fmt: skip
    assert names <= set(found)
    assert (found["law"], found["objective"], found["n_rows"]) == ("chinchilla", "ls_log", 20)
    assert found["parameters"]["alpha"] == pytest.approx(0.5, rel=0.05)
    assert found["parameters"]["beta"] == pytest.approx(0.4, rel=0.05)
    assert found["allocation"]["a"] == pytest.approx(0.4 / 0.9, rel=0.05)
    assert set(found["intervals"]) >= set(found["parameters"])
    assert "alpha" in out and "status:" in out


def test_fit_of_a_sweep_is_that_of_its_run(told, finished_study, tmp_path):
    name, path = sweep_name(finished_study), tmp_path / "fit.json"
    before = json.loads((finished_study / "sweeps" / name / "fits.json").read_text())
    code, _, _ = told("fit", name, "--out", finished_study, "--json", path)
    assert code == 0
    found = json.loads(path.read_text())
    for version in ("settled", "all_cells"):
        for row, old in zip(found[version], before[version], strict=True):
            assert row["fit"]["parameters"] == old["fit"]["parameters"]


@pytest.mark.usefixtures("fitted_once")
@pytest.mark.parametrize("command", ["figures", "report"])
def test_drawing_again_says_where_things_are(told, finished_study, monkeypatch, command):
    drawn = []
    monkeypatch.setattr(stages, "draw", lambda plan, *rest: drawn.append(plan.name))
    name = sweep_name(finished_study)
    code, out, _ = told(command, name, "--out", finished_study)
    assert code == 0 and drawn == [name]
    assert "report.html" in out


@pytest.mark.usefixtures("fitted_once")
def test_two_sweeps_make_one_page(told, finished_study, tmp_path):
    out, name = tmp_path / "out", sweep_name(finished_study)
    shutil.copytree(finished_study, out)
    shutil.copytree(out / "sweeps" / name, out / "sweeps" / "other")
    code, said, _ = told("report", name, "other", "--out", out)
    page = out / "sweeps" / "other" / f"report-against-{name}.html"
    assert code == 0 and str(page) in said.replace("\n", "")
    assert "Laws side by side" in page.read_text()
    code, _, err = told("report", name, name, "--out", out)
    assert code == 2 and "compares a sweep with itself" in err
    code, _, err = told("report", name, "nothing", "--out", out)
    assert code == 2 and "sweep nothing has no plan" in err


@pytest.mark.usefixtures("fitted_once")
def test_one_figure_is_drawn_by_name(told, finished_study, tmp_path):
    out, name = tmp_path / "out", sweep_name(finished_study)
    shutil.copytree(finished_study, out)
    figures = Workspace(out).sweep(name).figures
    shutil.rmtree(figures)
    code, said, _ = told(
        "figures", name, "--only", "residuals", "position", "--formats", "png", "svg", "--out", out
    )
    assert code == 0
    assert "position: not drawn" not in said and "learning_curves" not in said
    drawn = {path.name for path in figures.iterdir()}
    assert {"residuals.png", "residuals.svg"} <= drawn and "residuals.pdf" not in drawn
    assert all(path.startswith(("residuals", "position")) for path in drawn)


@pytest.mark.slow
def test_a_figure_stands_beside_the_paper_s(told, finished_study, tmp_path):
    points = Path(__file__).parents[2] / "shared" / "data"
    if not points.is_dir():
        pytest.skip(f"published points are not at {points.name}/")
    out, name = tmp_path / "out", sweep_name(finished_study)
    shutil.copytree(finished_study, out)
    code, _, _ = told("figures", name, "--only", "residuals", "--data", points, "--out", out)
    figure = Workspace(out).sweep(name).figures / "residuals-published.png"
    assert code == 0 and figure.stat().st_size > 10_000


@pytest.mark.usefixtures("fitted_once")
def test_an_unknown_figure_and_folder_are_refused(told, finished_study, tmp_path):
    name = sweep_name(finished_study)
    code, _, err = told("figures", name, "--only", "fig1", "--out", finished_study)
    assert code == 2 and "only='fig1' is no figure; use one of allocation, " in err
    where = ("--data", tmp_path / "none", "--only", "residuals", "--out", finished_study)
    code, _, err = told("figures", name, *where)
    assert code == 2 and "is no folder; give the one that holds the published points" in err


def test_inspect_draws_a_run_from_the_inside(told, finished_study, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished_study, out)
    code, said, _ = told("inspect", "largest", "--out", out, "--prompt", "abc cab")
    paths = said.split()
    assert code == 0 and len(paths) == 12
    for name in ("attention", "embeddings", "next_tokens", "training"):
        (path,) = [p for p in paths if p.endswith(f"{name}.png")]
        assert Path(path).stat().st_size > 10_000
    code, _, err = told("inspect", "--out", out, "--prompt", "")
    assert code == 2 and "prompt is empty" in err


def test_sample_continues_the_prompt(told, finished_study):
    ask = ("sample", "--out", finished_study, "--prompt", "abc", "--tokens", 20)
    code, out, _ = told(*ask)
    assert code == 0 and out.startswith("abc") and len(out.rstrip("\n")) == 23
    assert told(*ask)[1] == out
    assert told(*ask, "--seed", 1)[1] != out
    greedy = told(*ask, "--temperature", 0)[1]
    assert told(*ask, "--top-k", 1, "--seed", 5)[1] == greedy
    nucleus = told(*ask, "--top-p", 1e-6, "--seed", 5)[1]
    assert nucleus == greedy
    both = told(*ask[:3], "--prompt", "abc", "xyz", *ask[5:], "--temperature", 0)[1]
    assert both.startswith(greedy) and "\nxyz" in both
    stopped = told(*ask, "--temperature", 0, "--stop", greedy[8])[1].removesuffix("\n")
    assert greedy.startswith(stopped) and stopped[-1] == greedy[8] and len(stopped) <= 9
    some_run = next((finished_study / "runs").iterdir()).name
    assert told("sample", some_run, *ask[1:])[0] == 0


def test_sample_next_prints_probabilities(told, finished_study):
    code, out, _ = told("sample", "--out", finished_study, "--prompt", "abc", "--next", 5)
    rows = [line.split() for line in out.splitlines()]
    assert code == 0 and len(rows) == 5
    probabilities = [float(probability) for probability, _ in rows]
    assert probabilities == sorted(probabilities, reverse=True) and sum(probabilities) <= 1.0


WRONG = {
    "command": (["tarin"], "no command 'tarin'; use list, plan"),
    "no experiment": (["run"], "run needs the name of an experiment"),
    "experiment": (["plan", "quikstart"], "no experiment 'quikstart'; there are: quickstart"),
    "flag": (["plan", "quickstart", "--scael", "smoke"], "--scael"),
    "value of a flag": (["run", "quickstart", "--scale", "huge"], "huge"),
    "type of a flag": (["sample", "--tokens", "many"], "many"),
    "recipe": (["plan", "quickstart", "--d-head", "7"], "d_head=7"),
    "seed": (["plan", "quickstart", "--seed", "-1"], "seed"),
    "learning rate": (["plan", "quickstart", "--lr-max", "nan"], "lr=nan"),
    "batch": (["plan", "quickstart", "--batch-size", "0"], "batch_size=0"),
    "sweep of status": (["status", "nothing"], "sweep nothing has no plan"),
    "sweep of fit": (["fit", "nothing"], "sweep nothing has no plan"),
    "sweep of figures": (["figures", "nothing"], "sweep nothing has no plan"),
    "sweep of report": (["report", "nothing"], "sweep nothing has no plan"),
    "csv": (["fit", "gone.csv"], "gone.csv"),
    "law": (["fit", "gone.csv", "--law", "moore"], "moore"),
    "corpus": (["data", "inspect", "bible"], "corpus='bible' is unknown"),
    "corpus not prepared": (["data", "inspect", "python-code"], "data prepare python-code"),
    "action": (["data", "drop"], "drop"),
    "no run": (["sample"], "no finished run"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_code_2(case, launched, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = WRONG[case]
    try:
        code = launched(*arguments)
    except SystemExit as stop:
        code = stop.code
    complaint = capsys.readouterr().err
    assert code == 2
    assert complaint.startswith("launch.py: ") and complaint.count("\n") == 1
    assert message in complaint


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--temperature", -1), "temperature=-1"),
        (("--temperature", "nan"), "temperature=nan"),
        (("--prompt", ""), "prompt is empty"),
        (("--top-k", 0), "top_k=0"),
        (("--stop", "ab"), "stop='ab' is 2 tokens"),
        (("--pretrained", "nowhere"), "nowhere/config.json cannot be read"),
        (("--tokens", -1), "n_tokens=-1"),
        (("--next", 0), "k=0"),
        (("--next", 257), "k=257"),
        (("xyz",), "run 'xyz' names 0 finished runs"),
    ],
)
def test_wrong_questions_to_a_run(told, finished_study, flags, message):
    code, _, err = told("sample", "--out", finished_study, *flags)
    assert code == 2
    assert err.startswith("launch.py: ") and err.count("\n") == 1 and message in err


def test_missing_columns_and_bad_numbers_of_a_csv(told, tmp_path):
    path = tmp_path / "short.csv"
    path.write_text("N,L\n1,2\n")
    code, _, err = told("fit", path)
    assert code == 2 and "needs D (n_tokens)" in err and "the table has N, L" in err
    path.write_text("")
    assert told("fit", path)[0] == 2
    path.write_text("N,D,L\n1e4,1e6,2.0\n")
    assert told("fit", path, "--delta", -1)[0] == 2


def test_a_changed_plan_does_not_mix_with_the_old_one(told, finished_study, monkeypatch):
    """The same options, but another text: the frozen plan stays."""
    from train.data import builders

    other = list(tiny_study.documents())[1:]
    monkeypatch.setattr(builders, "build_documents", lambda name, data_dir: other)
    out = finished_study.parent / "changed-plan"
    shutil.copytree(finished_study / "sweeps", out / "sweeps")
    code, _, err = told("run", "quickstart", *tiny_study.FLAGS, "--out", out)
    assert code == 2 and "holds plan" in err and "move" in err
    assert not (out / "runs").exists()


@pytest.mark.usefixtures("fitted_once")
def test_a_prediction_of_another_version_is_refused(told, finished_study, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished_study, out)
    path = Workspace(out).sweep(sweep_name(out)).prediction
    written = json.loads(path.read_text())
    del written["is_blind"]
    path.write_text(json.dumps(written))
    code, _, err = told("figures", sweep_name(out), "--out", out)
    assert code == 2 and "lacks is_blind" in err and "move" in err


def test_too_many_workers_are_refused_before_anything_is_made(told, tmp_path):
    out = tmp_path / "out"
    code, _, err = told("run", "quickstart", *tiny_study.FLAGS, "--workers", 99, "--out", out)
    assert code == 2 and "workers=99" in err and not out.exists()


@pytest.mark.parametrize("command", sorted(launch.COMMANDS))
def test_every_command_explains_itself(command, launched, capsys):
    """One with an experiment to name explains itself with and without it."""
    asked = [[command, "--help"]]
    if command in ("plan", "run"):
        asked.append([command, "quickstart", "--help"])
    for arguments in asked:
        with pytest.raises(SystemExit) as stop:
            launched(*arguments)
        assert stop.value.code in (0, None)
        assert "usage: launch.py" in capsys.readouterr().out


def test_help_names_every_command(launched, capsys):
    for arguments, code in (([], 2), (["--help"], 0), (["-h"], 0)):
        assert launched(*arguments) == code
        out = capsys.readouterr().out
        assert all(f"  {name}" in out or f"{name}|" in out for name in launch.COMMANDS)


def test_ctrl_c_and_bugs(launched, capsys, monkeypatch):
    def stopped(args):
        raise KeyboardInterrupt

    def broken(args):
        raise ZeroDivisionError

    monkeypatch.setitem(launch.COMMANDS, "list", stopped)
    assert launched("list") == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    monkeypatch.setitem(launch.COMMANDS, "list", broken)
    with pytest.raises(ZeroDivisionError):
        launched("list")


def test_the_script_itself_runs_in_a_fresh_process(table, tmp_path):
    """fit configures XLA before jax is imported, which only a fresh process can show."""

    def ran(*arguments):
        return subprocess.run(
            [sys.executable, "launch.py", *map(str, arguments), "--out", str(tmp_path)],
            cwd=ROOT, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    done = ran("fit", table, "--law", "power_floor_N", "--bootstrap", "20")
    assert done.returncode == 0, done.stderr
    assert "status:" in done.stdout
    done = ran("fit", "gone.csv")
    assert done.returncode == 2
    assert done.stderr.startswith("launch.py: ") and done.stderr.count("\n") == 1
