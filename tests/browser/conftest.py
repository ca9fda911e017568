"""A headless Chromium and the page of a planted sweep whose names carry markup."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from figures.conftest import make_inputs, planted_tables

HOSTILE = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"
"""Runs as a script wherever it is not escaped."""
PATIENCE_MS = 120_000


@dataclass
class Opened:
    """A page with whatever it said or asked for; `page` is playwright's."""

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def settled(self) -> None:
        """Wait until the charts show what the controls say."""
        self.page.wait_for_selector('body[data-ready="true"]', timeout=PATIENCE_MS)


def chromium() -> str | None:
    """Path of the browser, which CHROMIUM overrides."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator:
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: make test-browser installs it"
    )
    path = chromium()
    if path is None:
        pytest.skip("no chromium on this machine: make test-browser installs it on Debian")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def study():
    """The planted sweep; its title, its corpus and the id and role of one run are markup."""
    runs, curves = planted_tables()
    names = {"seed-1": HOSTILE}
    runs = runs.assign(run_id=runs["run_id"].replace(names))
    runs.loc[runs["run_id"] == HOSTILE, "role"] = HOSTILE
    curves = curves.assign(run_id=curves["run_id"].replace(names))
    made = make_inputs(runs, curves, drop=("pre_asymptotic",))
    return replace(made, title=f"Planted {HOSTILE}", corpus=HOSTILE)


@pytest.fixture(scope="session")
def report(study, tmp_path_factory) -> Path:
    from analysis.report import write_report

    return write_report(study, [], tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="session")
def comparison(study, tmp_path_factory) -> Path:
    from analysis.report import Compared, write_comparison

    runs = study.runs.assign(loss_nats=study.runs["loss_nats"] * 0.97)
    better = replace(make_inputs(runs, study.curves, drop=("pre_asymptotic",)), title="Better")
    path = tmp_path_factory.mktemp("comparison") / "report-against.html"
    better = replace(better, corpus=study.corpus)
    return write_comparison(Compared(study, better), path)


@pytest.fixture(scope="module")
def open_page(browser):
    """Open a file in a browser without a network; every request but for the file is refused."""
    contexts = []

    def opened(path: Path, **options) -> Opened:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        own = path.as_uri()
        made = Opened(context.new_page())

        def guard(route) -> None:
            if route.request.url == own:
                route.continue_()
                return
            made.requests.append(route.request.url)
            route.abort()

        def hear(message) -> None:
            if message.type in ("error", "warning"):
                made.console.append(message.text)

        made.page.on("console", hear)
        made.page.on("pageerror", lambda error: made.console.append(str(error)))
        context.route("**/*", guard)
        made.page.goto(own)
        made.settled()
        return made

    yield opened
    for context in contexts:
        context.close()
