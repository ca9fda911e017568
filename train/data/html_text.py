"""The running text of an HTML page, by the standard library's parser."""

import re
from html.parser import HTMLParser

_SKIPPED = frozenset(("script", "style", "nav", "header", "footer", "head", "noscript", "svg"))
_BLOCKS = frozenset(
    (
        "p", "div", "section", "article", "main", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol",
        "dl", "dt", "dd", "table", "tr", "pre", "blockquote", "br", "hr", "li", "figure",
    )
)  # fmt: skip
_ARTICLES = ("main", "article")
_MENUS = frozenset(
    (
        "tocset", "navsettop", "navsetbottom", "navheader", "navfooter", "toc", "sphinxsidebar",
        "related", "sidebar", "leftnav",
    )
)  # fmt: skip
"""Classes and ids of <div>s that hold menus: Racket's, DocBook's, Sphinx's, Erlang's."""


class _Reader(HTMLParser):
    def __init__(self, *, is_article: bool):
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipped = 0
        self._kept = 0 if is_article else 1
        self._pre = 0
        self._is_menu: list[bool] = []

    def handle_starttag(self, tag, attrs):
        if tag == "div":
            names = {word for key, value in attrs if key in ("class", "id") and value
                     for word in value.split()}  # fmt: skip
            self._is_menu.append(not names.isdisjoint(_MENUS))
            self._skipped += self._is_menu[-1]
        self._skipped += tag in _SKIPPED
        self._kept += tag in _ARTICLES
        self._pre += tag == "pre"
        if tag in _BLOCKS:
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" ")

    def handle_endtag(self, tag):
        if tag == "div" and self._is_menu:
            self._skipped -= self._is_menu.pop()
        self._skipped = max(0, self._skipped - (tag in _SKIPPED))
        self._kept = max(0, self._kept - (tag in _ARTICLES))
        self._pre = max(0, self._pre - (tag == "pre"))
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data):
        if not self._skipped and self._kept:
            self.parts.append(data if self._pre else re.sub(r"\s+", " ", data))


def text_of(page: str) -> str:
    """The text of a page: of its <main> or <article> where it has one, without menus and scripts.

    Blocks are on lines of their own, preformatted text keeps its form, blank lines are single.
    """
    is_article = any(f"<{tag}" in page for tag in _ARTICLES)
    reader = _Reader(is_article=is_article)
    reader.feed(page)
    reader.close()
    text = re.sub(r"[ \t]+\n", "\n", "".join(reader.parts))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"(?m)^ (?=\S)", "", text)).strip("\n") + "\n"
