"""The dollars on docs/costs.md, computed again from the counted requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks import sweeps
from tests.gradio.test_visitor_requests import IDLE, VISIT, billed

PAGE: Final = (Path(__file__).parents[2] / "docs" / "costs.md").read_text()
LIST_OR_PUT, GET = 0.005 / 1000, 0.0004 / 1000
REPLICAS: Final = (1, 4, 16)


def rows(head: str) -> Iterator[list[str]]:
    """Yield the cells of the table whose first line begins with ``head``."""
    table = PAGE[PAGE.index(f"\n{head}") :].partition("\n\n")[0].splitlines()
    for line in table[3:]:
        yield [cell.strip(" *").replace(",", "") for cell in line.strip("|").split("|")]


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The functions that the page gives its readers."""
    found: dict[str, Any] = {"print": lambda _: None}
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], found)
    return found


def test_the_apps(page: dict[str, Any]) -> None:
    apps: list[Callable[[int], dict[str, float]]] = [
        lambda replicas: page["gradio_app"](100, replicas),
        lambda replicas: page["gradio_app"](10_000, replicas),
        lambda replicas: page["service"](1_000_000, replicas),
    ]
    table = {name: cells for name, *cells in rows("| | 100 visitors a day")}
    names = {
        "requests": "requests for files and sessions",
        "storage": "storage",
        "sweeps": "sweeps",
    }
    for key, name in names.items():
        assert table[name] == [f"{app(1)[key]:.2f}" for app in apps]
    for replicas, name in zip(
        REPLICAS, ("together 1 replica", "4 replicas", "16 replicas"), strict=True
    ):
        assert table[name] == [f"{sum(app(replicas).values()):.2f}" for app in apps]


def test_a_visit_takes_what_is_counted(page: dict[str, Any]) -> None:
    """The page has five pictures, the counted visit one."""
    picture = 3
    counted = sum(billed(step) for step in VISIT.values()) + 4 * picture
    assert page["gradio_app"](1)["requests"] == pytest.approx(counted * 30 * LIST_OR_PUT)


def test_an_idle_replica_takes_what_is_counted(page: dict[str, Any]) -> None:
    one, two = (page["gradio_app"](1, replicas)["replicas"] for replicas in (1, 2))
    assert one == pytest.approx(IDLE * 720 * LIST_OR_PUT)
    assert two - one == pytest.approx(10 * 720 * LIST_OR_PUT)


@pytest.mark.parametrize("replicas", REPLICAS)
def test_the_sweeps_take_what_is_counted(page: dict[str, Any], replicas: int) -> None:
    *_, dollars = sweeps.idle(2_000, replicas, hours=1)
    assert page["sweeps"](2_000, replicas) == pytest.approx(float(dollars), rel=0.03)


def test_an_idle_store(page: dict[str, Any]) -> None:
    for files, replicas, lists, puts, gets, dollars in rows("| files | replicas |"):
        hour = (float(lists) + float(puts)) * LIST_OR_PUT + float(gets) * GET
        assert f"{720 * hour:.2f}" == dollars
        assert page["sweeps"](int(files.replace(" million", "000000")), int(replicas)) == (
            pytest.approx(float(dollars), rel=0.01)
        )


def test_a_sweep() -> None:
    for files, lists, _, dollars, *_ in rows("| files | LIST | source |"):
        count = int(files.replace(" million", "000000"))
        assert int(lists) == 2 * -(-count // 1000) + 2
        assert float(dollars) == pytest.approx(int(lists) * LIST_OR_PUT, rel=0.2)


def test_a_million_operations() -> None:
    """Those that are only PUT and LIST."""
    for name, *cells in rows("| cost of 1 million operations |"):
        if name.startswith(("`add`", "`put`")):
            millions, dollars = (re.findall(r"[0-9.]+", cell) for cell in cells)
            assert [float(each) * 5 for each in millions] == [float(each) for each in dollars]
