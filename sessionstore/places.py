"""The places that settings are read from: the environment and TOML files, nothing parsed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sessionstore.errors import SettingsError

PREFIX = "SESSIONSTORE_"
"""Before the upper-case name of a setting in the environment."""

CONFIG = f"{PREFIX}CONFIG"
"""The variable that names the TOML file."""

RESERVED = frozenset({CONFIG, f"{PREFIX}TEST_GRACE"})
"""Variables that are no settings."""

# Kubernetes puts such variables into every container beside a Service called "sessionstore" or
# "sessionstore-web" (its documentation, "Accessing the Service: environment variables").
_is_kubernetes = re.compile(
    rf"{PREFIX}(?:[A-Z0-9_]+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
).fullmatch


class Given(NamedTuple):
    """A value as somebody wrote it, and where: "environment SESSIONSTORE_IDLE"."""

    value: object
    source: str


@dataclass(frozen=True, slots=True)
class Place:
    """What one place says, unparsed. ``prefix`` stands before the names it writes in upper case."""

    name: str
    values: Mapping[str, object]
    prefix: str = ""

    def spell(self, key: str) -> str:
        """The name of a setting as this place writes it."""
        return f"{self.prefix}{key.upper()}" if self.prefix else key

    def given(self) -> dict[str, Given]:
        """Its values, each with its source."""
        return {
            key: Given(value, f"{self.name} {self.spell(key)}" if self.prefix else self.name)
            for key, value in self.values.items()
        }


def environment(environ: Mapping[str, str]) -> Place:
    """Every variable that is ours. One that is not all upper case keeps its case, to be refused."""
    values: dict[str, object] = {}
    for name, value in environ.items():
        key = name.removeprefix(PREFIX)
        if key != name and name not in RESERVED and not _is_kubernetes(name):
            values[key.lower() if key.isupper() else key] = value
    return Place("environment", values, PREFIX)


def files(environ: Mapping[str, str], cwd: Path) -> list[Place]:
    """What the TOML files say, the stronger first. Raises SettingsError for one that is unreadable.

    The file that ``SESSIONSTORE_CONFIG`` names is the only one then, and has to be there.
    """
    named = environ.get(CONFIG)
    if named is not None:
        path = cwd / named
        if not os.path.isfile(path):
            raise SettingsError(
                f"invalid {CONFIG}={named!r}: there is no such file; name a TOML file."
            )
        return [_place(path, named)]
    # os.path.isfile, because Path.is_file raises in a working directory one may not look into.
    usual = (cwd / name for name in ("sessionstore.toml", "pyproject.toml"))
    return [_place(path, path.name) for path in usual if os.path.isfile(path)]


def _place(path: Path, name: str) -> Place:
    values = _read(path, name)
    if path.name != "pyproject.toml":
        return Place(name, values)
    table = _table(_table(values, "tool", name), "sessionstore", name)
    return Place(f"[tool.sessionstore] in {name}", table)


def _read(path: Path, name: str) -> dict[str, object]:
    import tomllib  # needed when a store is opened, not when the package is imported

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(
            f"{name} cannot be read ({error.strerror}): let this process's user read it, or move "
            "it away."
        ) from error
    except ValueError as error:
        raise SettingsError(f"invalid {name}: it is no TOML, {error}.") from error


def _table(values: Mapping[str, object], key: str, name: str) -> Mapping[str, object]:
    table = values.get(key, {})
    if not isinstance(table, Mapping):
        raise SettingsError(f"invalid {key}={table!r} in {name}: make it a table.")
    return table
