"""The check of the site's search, which ``make docs`` runs on the index that it built."""

from __future__ import annotations

import re

from scripts.check_search import PAGES, missing
from tests.docs.test_readme import ROOT

SEPARATOR = re.findall(r"separator: '(.+)'", (ROOT / "mkdocs.yml").read_text())[0]


def index(text: str, separator: str = SEPARATOR) -> dict[str, object]:
    """Return an index in which each page has this text, with {} for the word that leads to it."""
    docs = [
        {"location": f"{page}#part", "title": "Part", "text": f"<p>{text.format(word)}</p>"}
        for word, page in PAGES.items()
    ]
    return {"config": {"separator": separator}, "docs": docs}


def test_a_word_is_found_behind_a_bracket_and_before_a_full_stop() -> None:
    assert missing(index("a server (<code>{}</code>), or others")) == []
    assert missing(index("read about {}.")) == []


def test_the_default_separator_does_not_find_a_word_behind_a_bracket() -> None:
    assert missing(index("a server ({}) of yours", r"[\s\-]+")) == [*PAGES]


def test_a_word_without_its_page_is_reported() -> None:
    assert missing(index("nothing")) == [*PAGES]
