"""The sources of settings: the environment and TOML files. Values are not parsed here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sessionstore.errors import SettingsError

PREFIX = "SESSIONSTORE_"  # the prefix of a setting's upper-case name in the environment
CONFIG = f"{PREFIX}CONFIG"  # the variable that names the TOML file

RESERVED = frozenset({CONFIG, f"{PREFIX}TEST_GRACE"})  # not settings

# Kubernetes puts such variables into every container beside a Service called "sessionstore" or
# "sessionstore-web" (its documentation, "Accessing the Service: environment variables").
_is_kubernetes = re.compile(
    rf"{PREFIX}(?:[A-Z0-9_]+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
).fullmatch


class Value(NamedTuple):
    """A value as it was written, and its source, such as "environment SESSIONSTORE_IDLE"."""

    value: object
    source: str


@dataclass(frozen=True, slots=True)
class Source:
    """The unparsed values of one source. With a ``prefix`` its names are upper case after it."""

    name: str
    values: Mapping[str, object]
    prefix: str = ""

    def spell(self, key: str) -> str:
        return f"{self.prefix}{key.upper()}" if self.prefix else key

    def given(self) -> dict[str, Value]:
        return {
            key: Value(value, f"{self.name} {self.spell(key)}" if self.prefix else self.name)
            for key, value in self.values.items()
        }


def environment(environ: Mapping[str, str]) -> Source:
    """Return the variables with our prefix. A name not all in upper case stays, to be refused."""
    values: dict[str, object] = {}
    for name, value in environ.items():
        key = name.removeprefix(PREFIX)
        if key != name and name not in RESERVED and not _is_kubernetes(name):
            values[key.lower() if key.isupper() else key] = value
    return Source("environment", values, PREFIX)


def files(environ: Mapping[str, str], cwd: Path) -> list[Source]:
    """Return the values of the TOML files, the stronger first.

    If ``SESSIONSTORE_CONFIG`` names a file, only that one is read, and it must exist. Raises
    SettingsError for an unreadable file.
    """
    named = environ.get(CONFIG)
    if named is not None:
        path = cwd / named
        if not os.path.isfile(path):
            raise SettingsError(
                f"invalid {CONFIG}={named!r}: there is no such file; name a TOML file."
            )
        return [_place(path, named)]
    # os.path.isfile, because Path.is_file raises in a working directory that cannot be searched.
    usual = (cwd / name for name in ("sessionstore.toml", "pyproject.toml"))
    return [_place(path, path.name) for path in usual if os.path.isfile(path)]


def _place(path: Path, name: str) -> Source:
    values = _read(path, name)
    if path.name != "pyproject.toml":
        return Source(name, values)
    table = _table(_table(values, "tool", name), "sessionstore", name)
    return Source(f"[tool.sessionstore] in {name}", table)


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
        raise SettingsError(f"invalid {name}: it is not valid TOML, {error}.") from error


def _table(values: Mapping[str, object], key: str, name: str) -> Mapping[str, object]:
    table = values.get(key, {})
    if not isinstance(table, Mapping):
        raise SettingsError(f"invalid {key}={table!r} in {name}: make it a table.")
    return table
