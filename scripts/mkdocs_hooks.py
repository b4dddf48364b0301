"""What mkdocs does here besides its own: one source for the site and for who reads the repository.

* README, CONTRIBUTING, CHANGELOG and each example are pages of the site, made from the files
  themselves. Links between them and the guides are turned into the site's own; a link into the
  source keeps its text alone.
* A callout of GitHub (``> [!WARNING]``) becomes an admonition, so that it shows in both places.
* ``reference/cli.md`` is what ``--help`` says, of every command.
* The entry ``examples`` of the navigation stands for all of them.
* ``llms.txt`` at the root of the site lists its pages (``scripts/llms.py``).
* A page that the navigation names and that is not there is left out. The build complains of the
  opposite: a page that no entry leads to (``omitted_files`` in mkdocs.yml).
"""

from __future__ import annotations

import ast
import importlib.util
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
}
CLI = "reference/cli.md"
EXAMPLES = "examples"

_link = re.compile(
    r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?://|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)"
)
_callout = re.compile(r"^> \[!(NOTE|TIP|WARNING)\]\n((?:>.*\n?)+)", re.MULTILINE)
_fence = re.compile(r"^(```|~~~).*?^\1$", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out of the navigation what is not there."""
    made = {*PAGES.values(), CLI, *(_page_of(each) for each in _examples())}
    config.nav = _present(config.nav, made, Path(config.docs_dir))
    return config


def on_post_build(config: MkDocsConfig) -> None:
    """Write llms.txt beside the pages."""
    spec = importlib.util.spec_from_file_location("llms", ROOT / "scripts" / "llms.py")
    assert spec is not None  # noqa: S101 - for mypy; the file is beside this one
    assert spec.loader is not None  # noqa: S101 - likewise
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    Path(config.site_dir, "llms.txt").write_text(module.text(), encoding="utf-8")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from other files."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    for example in _examples():
        files.append(File.generated(config, _page_of(example), content=_shown(example)))
    files.append(File.generated(config, CLI, content=_cli()))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    """Turn links that are right in the repository into links that are right on the site."""
    source = _source_of(page.file.src_uri)
    kept, last = [], 0
    for fence in _fence.finditer(markdown):
        kept += [_relinked(markdown[last : fence.start()], source, page, files), fence[0]]
        last = fence.end()
    whole = "".join([*kept, _relinked(markdown[last:], source, page, files)])
    return _callout.sub(_admonition, whole)


def _admonition(callout: re.Match[str]) -> str:
    """Return a callout of GitHub as an admonition; a first line in bold is its title."""
    lines = [re.sub("^> ?", "", line) for line in callout[2].splitlines()]
    title = re.fullmatch(r"\*\*(.+)\*\*", lines[0])
    body = "\n".join(f"    {line}".rstrip() for line in (lines[1:] if title else lines))
    return f"!!! {callout[1].lower()}" + (f' "{title[1]}"' if title else "") + f"\n{body}\n"


def _present(nav: Any, made: set[str], docs: Path) -> Any:
    if nav == EXAMPLES:
        return [_page_of(each) for each in _examples()]
    if isinstance(nav, str):
        return nav if nav in made or (docs / nav).exists() else None
    if isinstance(nav, dict):
        left = {title: _present(each, made, docs) for title, each in nav.items()}
        return {title: each for title, each in left.items() if each} or None
    return [each for each in (_present(it, made, docs) for it in nav) if each]


def _examples() -> list[Path]:
    return sorted((ROOT / "examples").glob("*.py"))


def _page_of(example: Path) -> str:
    return f"examples/{example.stem}.md"


def _shown(example: Path) -> str:
    code = example.read_text()
    said = (ast.get_docstring(ast.parse(code)) or "").replace("``", "`")
    return f"# examples/{example.name}\n\n{said}\n\n```python\n{code}```\n"


def _source_of(page: str) -> str:
    """The file of the repository that a page is made from."""
    for name, made in PAGES.items():
        if page == made:
            return name
    return f"docs/{page}"


def _relinked(markdown: str, source: str, page: Page, files: Files) -> str:
    def relink(match: re.Match[str]) -> str:
        image, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        there = PAGES.get(place) or place.removeprefix("docs/")
        if place.startswith("examples/"):
            there = re.sub(r"\.py$", ".md", place)
        if files.get_file_from_path(there) is None:
            # Ours in the source, or mkdocs' to complain of.
            return text if (ROOT / place).exists() and not image else match[0]
        here = posixpath.dirname(page.file.src_uri)
        return f"{image}[{text}]({posixpath.relpath(there, here or '.')}{anchor})"

    return _link.sub(relink, markdown)


def _cli() -> str:
    """Every command's own words."""
    try:
        from sessionstore.cli.app import app
    except ModuleNotFoundError:
        return "# Commands\n\nThis version has no commands.\n"
    from typer.main import get_command
    from typer.testing import CliRunner

    runner = CliRunner()
    names = [[], *([name] for name in getattr(get_command(app), "commands", {}))]
    said = []
    for words in names:
        shown = runner.invoke(
            app, [*words, "--help"], prog_name="sessionstore",
            env={"COLUMNS": "88", "NO_COLOR": "1", "TERM": "dumb"},
        ).output  # fmt: skip
        lines = "\n".join(line.rstrip() for line in shown.strip().splitlines())
        said.append(f"## `{' '.join(['sessionstore', *words])}`\n\n```text\n{lines}\n```\n")
    return "# Commands\n\nWhat `--help` says.\n\n" + "\n".join(said)
