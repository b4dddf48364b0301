"""From a URL's scheme to the backend's class, for ours and for other packages' alike."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sessionstore import SessionStore, SettingsError, registry
from sessionstore.backends.local import LocalBackend
from sessionstore.backends.memory import MemoryBackend
from sessionstore.registry import BUILTIN, Builtin, find, schemes

PLUGIN = """
from sessionstore.backends.memory import MemoryBackend

class PluginBackend(MemoryBackend):
    pass

not_a_class = 5
"""


class Packages:
    """Installed packages of other people, as their metadata shows them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "plugin_of_others.py").write_text(PLUGIN)

    def install(self, name: str, scheme: str, target: str) -> None:
        info = self.folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[sessionstore.backends]\n{scheme} = {target}\n")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packages:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "plugin_of_others", raising=False)
    return Packages(tmp_path)


def test_our_own_schemes() -> None:
    assert find("file") is LocalBackend
    assert find("memory") is MemoryBackend


@pytest.mark.parametrize("scheme", BUILTIN)
def test_every_scheme_in_the_table_has_a_class_with_options(scheme: str) -> None:
    assert all(callable(parser) for parser in find(scheme).options.values())


def test_another_package_plugs_in(packages: Packages) -> None:
    packages.install("plugin", "redis", "plugin_of_others:PluginBackend")

    with SessionStore.open("redis://") as store:
        assert type(store.backend).__name__ == "PluginBackend"
    assert "redis" in schemes()


def test_another_package_cannot_take_our_scheme(packages: Packages) -> None:
    packages.install("plugin", "file", "plugin_of_others:PluginBackend")

    assert find("file") is LocalBackend


def test_listing_the_schemes_imports_no_backend(packages: Packages) -> None:
    packages.install("plugin", "redis", "plugin_of_others:PluginBackend")

    assert schemes() == sorted([*BUILTIN, "redis"])
    assert "plugin_of_others" not in sys.modules


def test_the_same_offer_seen_twice_counts_once(packages: Packages) -> None:
    packages.install("plugin", "redis", "plugin_of_others:PluginBackend")
    packages.install("plugin_copy", "redis", "plugin_of_others:PluginBackend")

    assert find("redis").__name__ == "PluginBackend"


def test_two_offers_for_one_scheme_are_refused(packages: Packages) -> None:
    packages.install("plugin", "redis", "plugin_of_others:PluginBackend")
    packages.install("rival", "redis", "rival:Backend")

    with pytest.raises(SettingsError, match="plugin_of_others:PluginBackend and rival:Backend"):
        find("redis")


def test_an_unknown_scheme_names_those_there_are() -> None:
    with pytest.raises(SettingsError) as caught:
        find("ftp")

    assert str(caught.value).startswith("invalid url='ftp://...': ")
    assert str(caught.value).endswith(f" {', '.join(sorted(BUILTIN))}.")


def test_an_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"s3": Builtin("no_such_cloud.client:Backend", "s3")}
    monkeypatch.setattr(registry, "BUILTIN", table)

    with pytest.raises(SettingsError) as caught:
        find("s3", "url='s3://bucket' (environment SESSIONSTORE_URL)")

    assert str(caught.value) == (
        "url='s3://bucket' (environment SESSIONSTORE_URL) needs the module 'no_such_cloud', which "
        "is not installed: pip install 'sessionstore[s3]'."
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_package_whose_own_needs_are_missing_is_refused(packages: Packages) -> None:
    packages.install("plugin", "redis", "no_such_client:Backend")

    with pytest.raises(SettingsError, match="needs the module 'no_such_client'"):
        find("redis")


@pytest.mark.parametrize("target", ["plugin_of_others:not_a_class", "plugin_of_others:Nothing"])
def test_what_is_no_backend_class_is_refused(packages: Packages, target: str) -> None:
    packages.install("plugin", "redis", target)

    with pytest.raises(SettingsError, match="which is not a backend class"):
        find("redis")
