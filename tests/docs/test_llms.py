"""The site's llms.txt lists every page of the navigation, with a sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_each_page_is_listed_once_with_its_first_sentence() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "scripts" / "llms.py"], capture_output=True, text=True, check=True
    ).stdout
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    pages = [page for page in re.findall(r"(\S+)\.md", navigation) if page != "reference/cli"]
    listed = re.findall(r"^- \[[^\]]+\]\((\S+)\.html\): \S", made, re.MULTILINE)

    assert made.startswith("# sessionstore\n\n> ")
    assert sorted(listed) == sorted(pages)
