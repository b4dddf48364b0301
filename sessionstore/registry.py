"""Which class keeps a store: the scheme of its URL leads to a ``Backend``.

There are two ways in, tried in this order:

1. The table ``BUILTIN`` below: scheme -> ``"module:Class"``, the backends that come with this
   library. They cannot be replaced. ``fsspec+<name>`` is any file system of fsspec.
2. The entry-point group ``sessionstore.backends``: an installed package offers a backend with the
   scheme as the entry point's name. In its ``pyproject.toml``::

       [project.entry-points."sessionstore.backends"]
       redis = "sessionstore_redis:RedisBackend"

   and ``SessionStore.open("redis://...")`` finds it. ``sessionstore.backend`` is what the class has
   to do, ``sessionstore.testing.BackendContract`` tests that it does.

A backend's module is imported when its scheme is asked for and not before, so that a cloud library
is loaded by those who use it only.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from sessionstore.errors import SettingsError

if TYPE_CHECKING:
    from sessionstore.backend import Backend

GROUP = "sessionstore.backends"
"""The entry-point group in which other packages offer their backends."""


@dataclass(frozen=True, slots=True)
class Builtin:
    """Where a backend of this library is, and the extra that installs what it needs."""

    target: str
    extra: str | None = None


BUILTIN: Mapping[str, Builtin] = {
    "file": Builtin("sessionstore.backends.local:LocalBackend"),
    "memory": Builtin("sessionstore.backends.memory:MemoryBackend"),
    "s3": Builtin("sessionstore.backends.s3:S3Backend", "s3"),
    "gs": Builtin("sessionstore.backends.fsspec:FsspecBackend", "fsspec"),
    "az": Builtin("sessionstore.backends.fsspec:FsspecBackend", "fsspec"),
    "hf": Builtin("sessionstore.backends.fsspec:FsspecBackend", "fsspec"),
}
"""The backends of this library by the scheme of their URLs."""

ANY = "fsspec+"
"""What begins the scheme of any file system of fsspec, as in ``fsspec+s3://``."""


def schemes() -> list[str]:
    """Every scheme that ``find`` knows, sorted, without importing a backend."""
    return sorted({*BUILTIN, *_entry_points()})


def find(scheme: str, setting: str = "") -> type[Backend]:
    """The backend class for URLs of ``scheme``, which is in lower case.

    ``setting`` is how messages call the URL, where the caller knows more of it. Raises
    SettingsError for a scheme that nobody offers or two packages do, and for a backend whose
    library is not installed.
    """
    setting = setting or f"url='{scheme}://...'"
    builtin = BUILTIN.get("gs" if scheme.startswith(ANY) else scheme)
    if builtin is not None:
        return _load(setting, builtin.target, _pip_hint(builtin.extra))
    offers = _entry_points().get(scheme, set())
    if not offers:
        raise SettingsError(
            f"invalid {setting}: no backend has the scheme {scheme!r} "
            f"(a file system of fsspec is {ANY}<its name>); "
            f"the schemes known are {', '.join(schemes())}."
        )
    if len(offers) > 1:
        raise SettingsError(
            f"{setting} is not clear: {' and '.join(sorted(offers))} both offer "
            "this scheme; uninstall all but one of the packages that they come from."
        )
    (target,) = offers
    return _load(setting, target, "install it")


def _load(setting: str, target: str, remedy: str) -> type[Backend]:
    """The class at ``"module:Class"``."""
    module_name, _, class_name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        raise SettingsError(
            f"{setting} needs the module {missing!r}, which is not installed: {remedy}."
        ) from error
    backend = getattr(module, class_name, None)
    if not (isinstance(backend, type) and hasattr(backend, "connect")):
        raise SettingsError(
            f"{setting} leads to {target}, which is not a backend class; see "
            "sessionstore.backend.Backend for what one is."
        )
    return cast("type[Backend]", backend)


def _pip_hint(extra: str | None) -> str:
    return f"pip install 'sessionstore[{extra}]'" if extra else "install sessionstore again"


def _entry_points() -> dict[str, set[str]]:
    """What other packages offer: scheme -> "module:Class" of each backend offered for it.

    A package that the path shows twice (an editable install beside its checkout) counts once.
    """
    from importlib.metadata import entry_points  # slow, and rarely needed

    offers: dict[str, set[str]] = {}
    for each in entry_points(group=GROUP):
        offers.setdefault(each.name, set()).add(each.value)
    return offers
