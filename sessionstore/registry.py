"""The registry of backends: the scheme of a URL selects the ``Backend`` class.

There are two sources, tried in this order:

1. The table ``BUILTIN`` below: scheme -> ``"module:Class"``, the backends that are part of this
   library. They cannot be replaced. ``fsspec+<name>`` is any file system of fsspec.
2. The entry-point group ``sessionstore.backends``: an installed package offers a backend with the
   scheme as the entry point's name. In its ``pyproject.toml``::

       [project.entry-points."sessionstore.backends"]
       redis = "sessionstore_redis:RedisBackend"

   and ``SessionStore.open("redis://...")`` finds it. ``sessionstore.backend`` is the interface of
   the class; ``sessionstore.testing.BackendContract`` tests it.

A backend's module is imported only when its scheme is used, so that importing the package loads no
cloud library.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from sessionstore.backend import Backend
from sessionstore.errors import SettingsError

GROUP = "sessionstore.backends"
"""The entry-point group in which other packages offer their backends."""


@dataclass(frozen=True, slots=True)
class Builtin:
    """A backend of this library: its ``module:Class``, and the extra that installs its packages."""

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

ANY = "fsspec+"  # of the scheme of any file system of fsspec, as in ``fsspec+s3://``


def schemes() -> list[str]:
    """Return every scheme that ``find`` knows, sorted, without importing a backend."""
    return sorted({*BUILTIN, *_entry_points()})


def find(scheme: str, setting: str = "") -> type[Backend]:
    """Return the backend class for URLs of ``scheme``, which is in lower case.

    ``setting`` is the text for the URL in messages; the default is made from ``scheme``. Raises
    SettingsError for an unknown scheme, for a scheme of two packages, and for a backend that needs
    a library that is not installed.
    """
    setting = setting or f"url='{scheme}://...'"
    builtin = BUILTIN.get("gs" if scheme.startswith(ANY) else scheme)
    if builtin is not None:
        extra = builtin.extra
        remedy = f"pip install 'sessionstore[{extra}]'" if extra else "install sessionstore again"
        return _load(setting, builtin.target, remedy)
    offers = _entry_points().get(scheme, set())
    if not offers:
        raise SettingsError(
            f"invalid {setting}: no backend has the scheme {scheme!r} "
            f"(a file system of fsspec is {ANY}<its name>); "
            f"the schemes known are {', '.join(schemes())}."
        )
    if len(offers) > 1:
        raise SettingsError(
            f"ambiguous {setting}: {' and '.join(sorted(offers))} both offer this scheme; "
            "uninstall all but one of their packages."
        )
    (target,) = offers
    return _load(setting, target, "install it")


def _load(setting: str, target: str, remedy: str) -> type[Backend]:
    """Import and return the class at ``"module:Class"``."""
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
            "sessionstore.backend.Backend for the interface."
        )
    return cast("type[Backend]", backend)


def _entry_points() -> dict[str, set[str]]:
    """Return the backends of other packages: scheme -> "module:Class" of each.

    A package that is twice on the path (an editable install beside its checkout) counts once.
    """
    from importlib.metadata import entry_points  # slow, and rarely needed

    offers: dict[str, set[str]] = {}
    for entry in entry_points(group=GROUP):
        offers.setdefault(entry.name, set()).add(entry.value)
    return offers
