"""The settings of a store: one flat set of names, from five sources.

docs/settings.md lists them. From the strongest source to the weakest:

1. keywords of ``SessionStore.open``; ``retention=`` and ``limits=`` give all of their fields,
2. the query of the URL, for options of the backend alone,
3. the environment, ``SESSIONSTORE_`` and the name in upper case,
4. ``sessionstore.toml`` in the working directory, keys at its top level,
5. ``[tool.sessionstore]`` of ``pyproject.toml`` in the working directory.

``SESSIONSTORE_CONFIG`` names one TOML file that is read instead of 4 and 5. The values of secrets
never appear in a message or a ``repr``.
"""

from __future__ import annotations

import os
import re
from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable
from urllib.parse import urlsplit

from sessionstore import parsers, registry
from sessionstore.backend import Backend
from sessionstore.errors import SettingsError
from sessionstore.limits import Limits
from sessionstore.model import Location
from sessionstore.parsers import Parser, show_duration, text
from sessionstore.retention import Retention
from sessionstore.settings.location import parse_url, redacted
from sessionstore.settings.sources import PREFIX, Source, Value, environment, files

_is_secret = re.compile("secret|password|token|credential|key|storage_options").search

KEYWORD = "the keyword"  # the source of the arguments of ``open``
SECRET_LENGTH = 16  # characters of ``secret`` at least: it signs URLs, and must not be guessed

Restart = Literal["keep", "drop"]
"""The action for the files that dead processes left, when the store opens."""

Group = TypeVar("Group", Retention, Limits)


def secret(value: object) -> str:
    """Parse a text that is too long to be guessed."""
    if len(text(value)) < SECRET_LENGTH:
        raise ValueError(f"write at least {SECRET_LENGTH} characters, random ones")
    return text(value)


def base_url(value: object) -> str:
    """Parse the place where the app serves stored files: a path, or a URL of http or https."""
    parts = urlsplit(text(value))
    absolute = parts.scheme in {"http", "https"} and parts.netloc
    relative = not parts.scheme and not parts.netloc and parts.path.startswith("/")
    if not (absolute or relative) or parts.query or parts.fragment:
        raise ValueError("write a path such as /files, or a URL such as https://example.org/files")
    return text(value)


X_SENDFILE = "X-Sendfile"
"""The header by which Apache's mod_xsendfile is told to send a file."""

_is_location = re.compile(r"/([\w.~-]+/)+", re.ASCII).fullmatch


def sendfile(value: object) -> str:
    """Parse how a proxy sends local files: an internal location of nginx, or X-Sendfile."""
    given = text(value)
    if given.lower() == X_SENDFILE.lower():
        return X_SENDFILE
    if _is_location(given) is None or "/../" in given:
        raise ValueError("write an internal location of nginx such as /_files/, or X-Sendfile")
    return given


def local_path(value: object) -> Path:
    """Parse a local path, which need not exist yet; ``~`` is expanded in text."""
    return Path(value) if isinstance(value, os.PathLike) else Path(text(value)).expanduser()


OF_RETENTION: Mapping[str, Parser] = {
    "max_age": parsers.optional(parsers.duration),
    "idle": parsers.optional(parsers.duration),
    "linger": parsers.duration,
    "sweep_live": parsers.boolean,
}
OF_LIMITS: Mapping[str, Parser] = {
    "max_file": parsers.optional(parsers.size),
    "max_session": parsers.optional(parsers.size),
    "max_session_files": parsers.optional(parsers.number),
    "max_owner": parsers.optional(parsers.size),
    "max_owner_files": parsers.optional(parsers.number),
    "max_store": parsers.optional(parsers.size),
    "min_free": parsers.optional(parsers.size),
}
OF_OPEN: Mapping[str, Parser] = {
    "restart": parsers.choice("keep", "drop"),
    "secret": secret,
    "base_url": base_url,
    "redirect": parsers.boolean,
    "sendfile": sendfile,
    "cache_dir": local_path,
    "cache_size": parsers.optional(parsers.size),
    "audit": parsers.optional(local_path),
    "audit_fsync": parsers.boolean,
}
GROUPS: Mapping[str, Mapping[str, Parser]] = {"retention": OF_RETENTION, "limits": OF_LIMITS}
"""The keywords that set several settings at once."""

CORE: Mapping[str, Parser] = {**OF_RETENTION, **OF_LIMITS, **OF_OPEN}
"""The settings of every store, except ``url``, each with its parser."""


class Shown(NamedTuple):
    """A row of ``Settings.shown``."""

    name: str
    value: str
    source: str


@runtime_checkable
class Chooses(Protocol):
    """A backend class that chooses the values of some settings when a store is opened."""

    @classmethod
    def effective(
        cls, location: Location, options: Mapping[str, object]
    ) -> Mapping[str, object]: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that a store is opened with.

    ``sources`` has the source of each setting: "the keyword", "the URL",
    "environment SESSIONSTORE_IDLE", "sessionstore.toml", "default".
    """

    location: Location = field(repr=False)  # may hold a password
    backend: type[Backend]
    backend_options: Mapping[str, object] = field(repr=False)  # may hold one too
    retention: Retention
    limits: Limits
    sources: Mapping[str, str]
    restart: Restart = "keep"
    secret: str | None = field(default=None, repr=False)
    base_url: str | None = None
    redirect: bool = False
    sendfile: str | None = None
    cache_dir: Path | None = None
    cache_size: int | None = None
    audit: Path | None = None
    audit_fsync: bool = False

    def shown(self) -> list[Shown]:
        """Return every setting of this store, for people: its effective value and its source.

        Secrets, and parts of tables that could be secrets, are masked.
        """
        values: dict[str, object] = {"url": redacted(self.location.url)}
        for group in (self.retention, self.limits):
            values |= {field.name: getattr(group, field.name) for field in fields(group)}
        values |= {key: getattr(self, key) for key in OF_OPEN}
        values |= {key: self.backend_options.get(key) for key in self.backend.options}
        if isinstance(self.backend, Chooses):
            values |= self.backend.effective(self.location, self.backend_options)
        known = {**CORE, **self.backend.options}
        return [
            Shown(
                key,
                _unset(known[key]) if value is None else _shown_value(key, value),
                self.sources.get(key, "default"),
            )
            for key, value in values.items()
        ]


def resolve(
    url: str | os.PathLike[str] | None,
    keywords: Mapping[str, object],
    environ: Mapping[str, str],
    cwd: str | os.PathLike[str],
    *,
    outside: bool = True,
) -> Settings:
    """Return the settings of the store that ``SessionStore.open(url, **keywords)`` opens.

    Keywords that are None count as left out. ``outside=False`` reads neither the environment nor a
    TOML file. Raises SettingsError for the first wrong setting. The message has its name, its
    value, its source and a valid value.
    """
    here = Path(cwd)
    named = Source(KEYWORD, {key: value for key, value in keywords.items() if value is not None})
    read = [environment(environ), *files(environ, here)] if outside else []
    origin = _url(url, read)
    location, query = _locate(origin, here)
    in_query = Source("the URL", query)
    backend = registry.find(location.scheme, _described("url", origin))
    options = _options(backend)

    refuse_unknown = partial(_refuse_unknown, location.scheme)
    refuse_unknown({"retention", "limits", *OF_OPEN, *options}, named)
    refuse_unknown({*options}, in_query)
    for place in read:
        refuse_unknown({"url", *CORE, *options, *_options_elsewhere(place, origin, here)}, place)

    whole = {key for group in GROUPS if group in named.values for key in GROUPS[group]}
    chosen = ChainMap(*(place.given() for place in (named, in_query, *read)))
    values = {
        key: _parse(key, chosen[key], parser)
        for key, parser in {**CORE, **options}.items()
        if key in chosen and key not in whole
    }
    sources = {key: KEYWORD if key in whole else "default" for key in CORE}
    return Settings(
        location=location,
        backend=backend,
        backend_options={key: values[key] for key in options if key in values},
        retention=_group(Retention, named.values.get("retention"), values, chosen),
        limits=_group(Limits, named.values.get("limits"), values, chosen),
        **{key: values[key] for key in OF_OPEN if key in values},
        sources=sources | {key: chosen[key].source for key in values} | {"url": origin.source},
    )


def _url(url: object, read: Iterable[Source]) -> Value:
    """Return the store's URL as it was written, by the caller or in the first source with one."""
    if url is not None:
        return Value(url, KEYWORD)
    for place in read:
        if "url" in place.values:
            return place.given()["url"]
    raise SettingsError(
        "url is not set, so there is no store to open: pass one, as in "
        "SessionStore.open('file:///var/lib/app'), set SESSIONSTORE_URL, or write url = \"...\" "
        "into sessionstore.toml."
    )


def _locate(origin: Value, cwd: Path) -> tuple[Location, dict[str, str]]:
    try:
        return parse_url(origin.value, cwd)
    except ValueError as error:
        raise _invalid("url", origin, error) from None  # the cause may quote a password


def _options(backend: type[Backend]) -> Mapping[str, Parser]:
    """Return the backend's own settings. Raises SettingsError if one has the name of ours."""
    ours = {"url", "retention", "limits", "clock", "settings", *CORE}
    if taken := backend.options.keys() & ours:
        raise SettingsError(
            f"{backend.__name__} has an option {min(taken)!r}, which is a setting of every store: "
            "give it another name."
        )
    return backend.options


def _options_elsewhere(place: Source, origin: Value, cwd: Path) -> set[str]:
    """Return the options of the backend of the source's own URL, if a stronger source has another.

    They are ignored: an unknown name is refused in every source.
    """
    own = place.given().get("url", origin)
    if own == origin:
        return set()
    try:
        return {*registry.find(_locate(own, cwd)[0].scheme).options}
    except SettingsError:
        return {*place.values}  # its backend is not installed and not needed: accept all names


def _refuse_unknown(scheme: str, known: Collection[str], place: Source) -> None:
    """Raise SettingsError for an unknown name, without its value, which may be a secret."""
    for key in place.values:
        if key not in known:
            remedy = _remedy(scheme, known, place, key)
            raise SettingsError(f"invalid {place.spell(key)} ({place.name}): {remedy}.")


def _remedy(scheme: str, known: Collection[str], place: Source, key: str) -> str:
    if key in CORE and place.name == KEYWORD:
        group = "retention=Retention" if key in OF_RETENTION else "limits=Limits"
        return f"pass {group}({key}=...)"
    if key in CORE:
        return (
            "the query is for options of the backend; set "
            f"{PREFIX}{key.upper()}, or {key} in sessionstore.toml"
        )
    import difflib  # here, since it is needed for a mistake only

    if close := difflib.get_close_matches(key.lower(), known):
        return f"there is no such setting; perhaps {place.spell(close[0])} is meant"
    names = ", ".join(sorted(map(place.spell, known)))
    return f"a {scheme} store has no such setting" + (f"; there are {names}" if names else "")


def _parse(key: str, given: Value, parser: Parser) -> Any:  # the parser's type of value
    if isinstance(given.value, str) and not given.value.strip():
        raise _invalid(key, given, "it is empty; write a value, or leave it out")
    try:
        return parser(given.value)
    except ValueError as error:
        raise _invalid(key, given, error) from None  # the message has the parser's whole text


def _group(
    kind: type[Group], given: object, values: Mapping[str, Any], chosen: Mapping[str, Value]
) -> Group:
    if isinstance(given, kind):
        return given
    if given is not None:
        name = kind.__name__
        raise SettingsError(f"invalid {name.lower()}={given!r} ({KEYWORD}): give a {name}.")
    names = [field.name for field in fields(kind)]
    own = {name: values[name] for name in names if name in values}
    try:
        return kind(**own)
    except SettingsError as error:
        text = str(error).removesuffix(".")
        blamed = [key for key in own if re.search(rf"\b{key}\b", text)]
        sources = ", ".join(f"{key} from {chosen[key].source}" for key in blamed)
        raise SettingsError(f"{text} ({sources}).") from error


def _described(key: str, given: Value) -> str:
    shown = repr(redacted(given.value) if key == "url" else given.value)
    value = "..." if _is_secret(key) else shown
    return f"{key}={value} ({given.source})"


def _unset(parser: Parser) -> str:
    """Return the words for a setting without a value: ``none`` only where that can be written."""
    try:
        return "none" if parser("none") is None else "not set"
    except ValueError:
        return "not set"


def _shown_value(key: str, value: object) -> str:
    if _is_secret(key):
        return "***"
    if isinstance(value, Mapping):
        return ", ".join(
            f"{name}={_shown_value(str(name).lower(), part)}" for name, part in value.items()
        )
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return show_duration(value)
    return str(value)


def _invalid(key: str, given: Value, remedy: object) -> SettingsError:
    return SettingsError(f"invalid {_described(key, given)}: {remedy}.")
