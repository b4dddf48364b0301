"""The site's llms.txt: a list of its pages for language models, made from mkdocs.yml and the pages.

python scripts/llms.py      prints it; `make docs` writes it to the root of the site

A page has its title and first sentence. See llmstxt.org for the format.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MADE = {
    "index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changes.md": "CHANGELOG.md",
}  # fmt: skip
"""The pages of the site that are made from a file outside of docs/."""

_entry = re.compile(r"^ +- (?:(?P<title>[^:]+): *)?(?P<page>\S+\.md)?$")


def text() -> str:
    """Return the content of llms.txt."""
    readme = (ROOT / "README.md").read_text()
    summary = _plain(re.search(r"^\*\*(.+?)\*\*$", readme, re.DOTALL | re.MULTILINE)[1])
    return f"# sessionstore\n\n> {summary}\n\n" + "".join(_lines()).replace("\n\n\n", "\n\n")


def _lines() -> Iterator[str]:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    yield "## Start\n\n"
    for line in navigation.splitlines():
        entry = _entry.match(line.partition("#")[0].rstrip())
        if entry is None or (page := entry["page"]) is None:
            if entry is not None and entry["title"]:
                yield f"\n## {entry['title']}\n\n"
            continue
        if not page.startswith("reference/"):
            path = MADE.get(page, f"docs/{page}")
            title, first = _head((ROOT / path).read_text())
            yield f"- [{entry['title'] or title}]({page[:-3]}.html): {first}\n"
    yield from _reference()


def _reference() -> Iterator[str]:
    """Return a line for each page of the reference that has a text of its own in docs/."""
    for path in sorted((ROOT / "docs" / "reference").glob("*.md")):
        title, _ = _head(path.read_text())
        yield f"- [{title}](reference/{path.stem}.html): signatures and docstrings\n"


def _head(page: str) -> tuple[str, str]:
    """Return the title of a page and its first sentence."""
    title, _, rest = page.partition("\n")
    prose = re.split(
        r"\n{2,}", re.sub(r"^(```|~~~).*?^\1$", "", rest, flags=re.DOTALL | re.MULTILINE)
    )
    first = next((each for each in map(str.strip, prose) if re.match(r"[\w`\[]|\*\*", each)), "")
    sentence = re.split(r"(?<=[.:!?]) (?=[A-Z`*])", _plain(first))[0]
    return title.removeprefix("# "), sentence.rstrip(":")


def _plain(markdown: str) -> str:
    """Return text on one line, without links and emphasis."""
    unlinked = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return " ".join(unlinked.replace("**", "").split())


if __name__ == "__main__":
    sys.stdout.write(text())
