"""The page of a planted sweep: what it says, and what it must not let through."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from analysis.report import html_page, write_report

HOSTILE = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(inputs, drawn, tmp_path_factory):
    path = write_report(inputs, drawn, tmp_path_factory.mktemp("report") / "new" / "report.html")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return Page(path.read_text(encoding="utf-8"))


def test_contains_every_figure_with_a_caption(page, drawable):
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == len(drawable)
    assert all(i["src"].startswith("data:image/png;base64,iVBOR") and i["alt"] for i in images)
    assert all(drawing.caption in page.text for drawing in drawable)


def test_is_self_contained(page):
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe")]
    addresses = [v for _, attrs in page.tags for k, v in attrs.items() if k in ("src", "href")]
    assert all(address.startswith("data:") for address in addresses)


def test_says_what_came_out_and_what_was_left_out(page, inputs):
    for text in (
        "26 runs: 20 fitted, 1 diverged, 1 held out, 4 pre_asymptotic",
        "diverged: at step 120",
        "steps < 900",
        "embedding_dominated: embeddings are",
        "converged: interior and convex",
        "Kaplan 2020 0.73",
        "pair bootstrap by run",
        inputs.main.fit.status,
        inputs.main.fit.table_hash,
    ):
        assert text in page.text
    for row in inputs.conventions:
        assert f"N {row.n_convention}, C {row.c_convention}: a = " in page.text
    for run_id in inputs.runs["run_id"]:
        assert run_id in page.text


def test_says_hit_and_miss_plainly(inputs):
    held_out = inputs.held_out[0]
    certain = replace(held_out.prediction, new_run_interval=(1.0, 1.1))
    wide = replace(held_out.prediction, new_run_interval=(1.0, 3.0))

    def text(changed):
        return Page(html_page(replace(inputs, held_out=(changed,)), {})).text

    assert "a MISS. Measured" in text(replace(held_out, prediction=certain))
    assert "a hit. Measured" in text(replace(held_out, prediction=wide))
    assert "not trained yet" in text(replace(held_out, measured_loss_nats=None))


def test_names_from_outside_are_escaped(inputs):
    runs = inputs.runs.assign(device=HOSTILE, role=HOSTILE)
    hostile = replace(inputs, corpus=HOSTILE, title=HOSTILE, unit=HOSTILE, runs=runs)
    page = Page(html_page(hostile, {}))
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert page.text.count(HOSTILE) > len(runs)


def test_missing_pieces_are_said(sparse, inputs):
    text = Page(html_page(replace(sparse, held_out=(), all_cells=inputs.conventions), {})).text
    assert "The figure allocation was not drawn." in text
    assert "No held-out run has been predicted yet." in text
    assert "too few points" in text
    assert "no flagged run left out" in text
    assert "no prediction, as the fit failed" in Page(html_page(sparse, {})).text
