"""The page that holds two studies against each other, in a real browser."""

import pytest

pytestmark = pytest.mark.slow


def test_two_studies_are_compared(open_page, comparison, study):
    opened = open_page(comparison)
    page = opened.page
    words = page.inner_text("main")
    assert "gain" in words and "Better" in words
    assert page.locator("#runs-table tbody tr").count() == 2 * len(study.runs)
    before = page.inner_text("#law-text")
    page.get_by_test_id("n-convention").select_option("non_embedding")
    opened.settled()
    assert page.inner_text("#law-text") != before
    assert page.title() != "pwned" and page.locator('img[src="x"]').count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.console == [] and opened.requests == []
