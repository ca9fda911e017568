"""The page of a study in a real browser: charts, table, calculator, keyboard, small screens."""

import csv
import json
import math

import numpy as np
import pytest
from browser.conftest import HOSTILE

from analysis.fit import fit
from analysis.intervals.uncertainty import predict_run
from analysis.laws import optimum, predict
from analysis.load import select
from analysis.report.payload import thinned

pytestmark = pytest.mark.slow

UNNAMED = """() => [...document.querySelectorAll(
    'button, input, select, textarea, a[href], summary, img, [role=button], [role=img], [tabindex]'
  )]
  .filter((e) => !e.closest('.modebar') && e.getClientRects().length)
  .filter((e) => !(e.getAttribute('aria-label') || e.alt || e.innerText?.trim()
    || [...(e.labels ?? [])].map((l) => l.innerText).join('').trim()))
  .map((e) => e.outerHTML.slice(0, 120))"""
POINT = """([chart, id]) => {
  const place = document.getElementById(chart), { xaxis, yaxis } = place._fullLayout;
  for (const trace of place._fullData) {
    const i = (trace.customdata ?? []).indexOf(id);
    if (i < 0) continue;
    const box = place.getBoundingClientRect();
    const [x, y] = [xaxis._offset + xaxis.d2p(trace.x[i]), yaxis._offset + yaxis.d2p(trace.y[i])];
    return [box.x + x, box.y + y];
  }
}"""
LOW_CONTRAST = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = (e) => {
    for (; e; e = e.parentElement) {
      const rgb = numbers(getComputedStyle(e).backgroundColor);
      if (rgb.length === 3 || rgb[3] === 1) return rgb;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('p, li, th, td, a, button, label, h1, h2, h3, figcaption')]
    .filter((e) => e.innerText?.trim() && e.getClientRects().length).map((e) => {
      const [a, b] = [light(numbers(getComputedStyle(e).color)), light(paper(e))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 100)];
    }).filter(([ratio]) => ratio < 4.5);
}"""


@pytest.fixture(scope="module")
def opened(open_page, report):
    return open_page(report)


@pytest.fixture
def page(opened):
    """The page with its controls as they are when it is opened, and no complaint after the test."""
    yield opened.page
    assert opened.console == [] and opened.requests == []
    opened.page.get_by_test_id("runs-filter").fill("")
    for control, value in (("n-convention", "total"), ("c-convention", "matmul_full")):
        opened.page.get_by_test_id(control).select_option(value)
    opened.page.get_by_test_id("show-all").click()
    opened.settled()


def law(page) -> tuple[bool, list[float]]:
    """Whether the law shown is refitted in the page, and its parameters."""
    text = page.get_by_test_id("law-text")
    return text.get_attribute("data-refit") == "true", json.loads(
        text.get_attribute("data-parameters")
    )[0]


def in_sight(page, name: str):
    """The place of a chart, scrolled to and drawn."""
    chart = page.get_by_test_id(f"chart-{name}")
    chart.scroll_into_view_if_needed()
    page.wait_for_selector(f'#chart-{name}[data-drawn="true"]')
    return chart


def cells(page, column: str) -> list[str]:
    """What a column of the table of runs shows, from the top."""
    place = page.locator("#runs-table th").evaluate_all(
        "(heads, name) => heads.findIndex((h) => h.dataset.column === name)", column
    )
    return page.locator(f"#runs-table tbody td:nth-child({place + 1})").all_inner_texts()


def test_hovering_shows_run_spec_and_loss(page, study):
    run = study.runs[study.runs["run_id"] == "run-2-2"].iloc[0]
    chart = in_sight(page, "isoflop")
    x, y = page.evaluate(POINT, ["chart-isoflop", "run-2-2"])
    page.mouse.move(x - 30, y - 30)
    page.mouse.move(x, y, steps=3)
    chart.locator(".hoverlayer .hovertext", has_text="run-2-2").first.wait_for()
    shown = chart.locator(".hoverlayer").text_content()
    assert "run-2-2" in shown and f"{run['n_layers']} layers × {run['d_model']}" in shown
    assert f"{run['loss_nats']:.4f}" in shown


def test_charts_are_drawn_when_they_come_into_sight(page, opened):
    page.evaluate("scrollTo(0, 0)")
    page.get_by_test_id("n-convention").select_option("non_embedding")
    opened.settled()
    last = page.get_by_test_id("chart-curves")
    assert last.get_attribute("data-drawn") == "false" and last.get_attribute("aria-label")
    in_sight(page, "curves")
    assert "learning curves" in last.get_attribute("aria-label")
    assert last.locator(".main-svg").count() > 0
    page.get_by_test_id("c-convention").select_option("6n_non_embedding")
    opened.settled()
    assert page.get_by_test_id("chart-compute").get_attribute("data-drawn") == "false"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function(
        "[...document.querySelectorAll('.chart')].every((c) => c.dataset.drawn === 'true')"
    )
    assert "6n_non_embedding" in page.get_by_test_id("chart-compute").inner_text()


def test_a_run_that_diverged_does_not_stretch_the_axis_of_losses(page):
    curves = [{"l": [5.5, 4.0, 3.0]}, {"l": [5.4, 60.0, 4.0]}]
    view = {"curves": curves, "runs": [{"loss_nats": 2.9}], "state": {"scale": "linear"}}
    found = page.evaluate("(view) => curveSight(view)", view)
    assert found["axis"]["range"] == pytest.approx([2.9 / 1.03, 1.1 * 5.5])
    assert "1 run goes beyond the vertical axis, up to 60" in found["beyond"]
    calm = page.evaluate("(view) => curveSight(view)", {**view, "curves": curves[:1]})
    assert calm == {"axis": {}, "beyond": ""}


def test_another_count_of_parameters_is_another_law(page, study, opened):
    before = law(page)
    assert before == (False, pytest.approx(list(study.main.fit.parameters.values()), rel=1e-4))
    page.get_by_test_id("n-convention").select_option("non_embedding")
    opened.settled()
    row = next(r for r in study.conventions if r.n_convention == "non_embedding")
    assert law(page) == (False, pytest.approx(list(row.fit.parameters.values()), rel=1e-4))
    assert law(page)[1] != before[1]


def test_hiding_a_size_refits_as_python_does(page, study, opened):
    page.locator("#size-2x24").uncheck()
    opened.settled()
    is_refit, found = law(page)
    points = study.main_points
    hidden = set(study.runs.loc[study.runs["d_model"].eq(24), "run_id"])
    kept = select(points, ["hidden" if i in hidden else None for i in points.run_id])
    assert 0 < len(kept) < len(points)
    expected = fit(study.main.fit.law, kept, "ls_log", n_bootstrap=0)
    assert is_refit and f"{len(kept)} of {len(points)} runs" in page.inner_text("#law-text")
    assert found == pytest.approx(list(expected.parameters.values()), rel=2e-3)
    variables = {"n_params": kept.n_params, "n_tokens": kept.n_tokens}
    values = dict(zip(expected.parameters, found, strict=True))
    assert np.allclose(
        predict(expected.law, values, **variables), expected.predict(**variables), rtol=1e-5
    )


def test_the_table_sorts_and_filters(page, study):
    losses = study.runs["loss_nats"].dropna().sort_values()
    heading = page.locator('#runs-table button[data-column="loss_nats"]')
    heading.click()
    shown = [float(text) for text in cells(page, "loss_nats") if text not in ("", "–")]
    assert shown == pytest.approx(list(losses), rel=1e-3)
    heading.click()
    shown = [float(text) for text in cells(page, "loss_nats") if text not in ("", "–")]
    assert shown == pytest.approx(list(losses)[::-1], rel=1e-3)
    page.get_by_test_id("runs-filter").fill("n_layers > 2 status = finished")
    few = study.runs[(study.runs["n_layers"] > 2) & (study.runs["status"] == "finished")]
    assert sorted(cells(page, "run_id")) == sorted(few["run_id"])
    page.get_by_test_id("runs-filter").fill("no such run at all")
    assert cells(page, "run_id") == [] and "0 of 26 runs" in page.inner_text("#runs-count")


def test_the_table_sorts_by_keyboard(page):
    page.get_by_test_id("runs-filter").focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.column") == "n_tokens":
            break
    else:
        pytest.fail("no way by Tab from the filter to the headings of the table")
    page.keyboard.press("Enter")
    head = page.locator('#runs-table th[data-column="n_tokens"]')
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"


def test_the_calculator_says_what_python_says(page, study):
    joint = study.main.fit
    n, d = 30_000.0, 2e6
    page.get_by_test_id("calc-params").fill(f"{n}")
    page.get_by_test_id("calc-tokens").fill(f"{d}")
    answer = page.locator("#calc-output [data-loss]")
    expected = predict_run(thinned(joint), n_params=n, n_tokens=d)
    assert float(answer.get_attribute("data-loss")) == pytest.approx(expected.loss_nats, rel=1e-6)
    mean = json.loads(answer.get_attribute("data-mean"))
    assert mean == pytest.approx(expected.mean_interval, rel=2e-3)
    assert "Extrapolated" not in page.inner_text("#calc-output")

    page.get_by_test_id("calc-compute").fill("1e12")
    assert page.get_by_test_id("calc-params").input_value() == ""
    row = page.locator('#calc-output tr[data-approach="3"]')
    values = json.loads(row.get_attribute("data-values"))
    n_star, d_star = optimum(joint.law, joint.parameters, 1e12)
    assert (values["n"], values["d"]) == pytest.approx((n_star, d_star), rel=1e-4)
    best = joint.predict(n_params=n_star, n_tokens=d_star)
    assert values["loss"] == pytest.approx(float(best), rel=1e-4)
    page.get_by_test_id("calc-compute").fill("1e15")
    assert "Extrapolated: C ×" in page.inner_text("#calc-output")
    page.get_by_test_id("calc-compute").fill("a lot")
    assert "C is not a positive number" in page.inner_text("#calc-output")


def test_the_csv_holds_the_records(page, study):
    with page.expect_download() as download:
        page.get_by_test_id("download-csv").click()
    with open(download.value.path(), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_id = study.runs.set_index("run_id")
    assert [row["run_id"] for row in rows] == list(study.runs["run_id"]) and HOSTILE in by_id.index
    for row in rows:
        record = by_id.loc[row["run_id"]]
        for name in ("n_params_total", "n_tokens", "train_flops_matmul_full", "loss_nats"):
            value = record[name]
            said = float(row[name]) if row[name] else math.nan
            assert said == pytest.approx(value, rel=1e-9, nan_ok=True), (row["run_id"], name)
    with page.expect_download() as download:
        page.get_by_test_id("download-json").click()
    kept = json.loads(download.value.path().read_text())
    assert [row["run_id"] for row in kept] == list(study.runs["run_id"])


def test_markup_in_names_is_text(page, study, opened):
    assert page.title() != "pwned" and HOSTILE in page.inner_text("h1")
    page.get_by_test_id("runs-filter").fill("onerror")
    assert cells(page, "run_id") == [HOSTILE]
    in_sight(page, "isoflop")
    x, y = page.evaluate(POINT, ["chart-isoflop", HOSTILE])
    page.mouse.move(x - 30, y - 30)
    page.mouse.move(x, y, steps=3)
    page.locator("#chart-isoflop .hoverlayer .hovertext").first.wait_for()
    assert page.title() != "pwned"
    assert page.locator('img[src="x"]').count() == 0


def test_every_control_has_a_name(page):
    assert page.evaluate(UNNAMED) == []
    assert page.get_attribute("html", "lang")
    assert page.locator("h1").count() == 1 and page.locator("main").count() == 1
    ids = page.evaluate("[...document.querySelectorAll('main [id], header [id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_text_is_readable_by_day_and_by_night(page, opened):
    assert page.evaluate(LOW_CONTRAST) == []
    papers = []
    for _ in range(2):
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.get_by_test_id("theme-toggle").click()
        opened.settled()
        assert page.evaluate(LOW_CONTRAST) == []
    assert papers[0] != papers[1]


def test_a_phone_shows_it_in_the_dark(open_page, report):
    phone = open_page(
        report, viewport={"width": 375, "height": 700}, color_scheme="dark", has_touch=True
    )
    wide = phone.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 375
    ink, paper = phone.page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert sum(numbers(ink)) > sum(numbers(paper))
    assert phone.console == [] and phone.requests == []


def numbers(rgb: str) -> list[float]:
    return [float(part) for part in rgb[rgb.index("(") + 1 : -1].split(",")[:3]]
