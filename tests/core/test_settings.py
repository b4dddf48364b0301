"""Settings: five places, one order among them, and every wrong one refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore import Limits, Retention, SessionStore, SettingsError, registry
from sessionstore.parsers import Parser, number, show_duration, text
from sessionstore.settings.resolver import CORE, OF_LIMITS, OF_RETENTION, Settings, resolve

SECRET = "correct horse battery staple"


class Toy:
    """As much of a backend as the settings ask for."""

    options: ClassVar[Mapping[str, Parser]] = {"colour": text, "count": number, "toy_token": text}
    connect = None


class Other(Toy):
    options: ClassVar[Mapping[str, Parser]] = {"endpoint": text}


class Grabby(Toy):
    options: ClassVar[Mapping[str, Parser]] = {"idle": text}


@pytest.fixture(autouse=True)
def toy_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    toys = {each.__name__.lower(): registry.Builtin(f"{__name__}:{each.__name__}") for each in
            (Toy, Other, Grabby)}  # fmt: skip
    missing = {"missing": registry.Builtin("sessionstore_no_such_module:Backend", "missing")}
    monkeypatch.setattr(registry, "BUILTIN", {**registry.BUILTIN, **toys, **missing})


class Desk:
    """A working directory with its files, an environment, and ``resolve`` between them."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.environ: dict[str, str] = {}

    def toml(self, body: str, name: str = "sessionstore.toml") -> None:
        (self.cwd / name).write_text(body)

    def pyproject(self, body: str) -> None:
        self.toml(f"[tool.sessionstore]\n{body}", "pyproject.toml")

    def resolve(self, url: Any = "toy://", **keywords: object) -> Settings:
        return resolve(url, keywords, self.environ, self.cwd)

    def refusal(self, url: Any = "toy://", **keywords: object) -> str:
        """The message, which is one sentence."""
        with pytest.raises(SettingsError) as caught:
            self.resolve(url, **keywords)
        message = str(caught.value)
        assert message.endswith(".")
        assert "\n" not in message
        return message


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# What is there


def test_each_field_of_retention_and_limits_is_a_setting_of_the_same_name() -> None:
    assert set(OF_RETENTION) == {each.name for each in fields(Retention)}
    assert set(OF_LIMITS) == {each.name for each in fields(Limits)}


def test_with_a_url_alone_all_the_rest_is_as_documented(desk: Desk) -> None:
    settings = desk.resolve()

    assert settings.backend.__name__ == "Toy"
    assert settings.backend_options == {}
    assert settings.retention == Retention()
    assert settings.limits == Limits()
    assert (settings.restart, settings.secret, settings.base_url) == ("keep", None, None)
    assert settings.sources == {**dict.fromkeys(CORE, "default"), "url": "the keyword"}


RIGHT: dict[str, tuple[str, object]] = {
    "max_age": ("90s", timedelta(seconds=90)),
    "idle": ("1d", timedelta(days=1)),
    "linger": ("0", timedelta(0)),
    "sweep_live": ("true", True),
    "max_file": ("500MB", 500_000_000),
    "max_session": ("2GiB", 2 << 30),
    "max_session_files": ("100", 100),
    "max_owner": ("1GB", 10**9),
    "max_owner_files": ("1000", 1000),
    "max_store": ("none", None),
    "min_free": ("1GiB", 1 << 30),
    "restart": ("drop", "drop"),
    "secret": (SECRET, SECRET),
    "base_url": ("https://example.org/files", "https://example.org/files"),
    "redirect": ("yes", True),
    "sendfile": ("/_files/", "/_files/"),
    "cache_dir": ("/var/cache/app", Path("/var/cache/app")),
    "cache_size": ("2GiB", 2 << 30),
    "audit": ("/var/log/app/audit", Path("/var/log/app/audit")),
    "audit_fsync": ("1", True),
    "colour": ("red", "red"),
    "count": ("3", 3),
    "toy_token": ("t", "t"),
}


def value_of(settings: Settings, key: str) -> object:
    for part in (settings.retention, settings.limits, settings):
        if hasattr(part, key):
            return getattr(part, key)
    return settings.backend_options[key]


def in_environment(desk: Desk, key: str, value: str) -> str:
    desk.environ[f"SESSIONSTORE_{key.upper()}"] = value
    return f"environment SESSIONSTORE_{key.upper()}"


def in_toml(desk: Desk, key: str, value: str) -> str:
    desk.toml(f"{key} = {json.dumps(value)}")
    return "sessionstore.toml"


def in_pyproject(desk: Desk, key: str, value: str) -> str:
    desk.pyproject(f"{key} = {json.dumps(value)}")
    return "[tool.sessionstore] in pyproject.toml"


WRITE = [in_environment, in_toml, in_pyproject]


@pytest.mark.parametrize("write", WRITE)
@pytest.mark.parametrize("key", RIGHT)
def test_every_setting_is_read_from_every_place(
    desk: Desk, key: str, write: Callable[[Desk, str, str], str]
) -> None:
    source = write(desk, key, RIGHT[key][0])

    settings = desk.resolve()

    assert value_of(settings, key) == RIGHT[key][1]
    assert settings.sources[key] == source


def test_the_table_above_has_every_setting() -> None:
    assert set(RIGHT) == {*CORE, *Toy.options}


@pytest.mark.parametrize(
    ("body", "key", "value"),
    [
        ("sweep_live = true", "sweep_live", True),
        ("max_file = 1_000", "max_file", 1000),
        ("max_session_files = 7", "max_session_files", 7),
        ("linger = 0", "linger", timedelta(0)),
    ],
)
def test_toml_has_types_of_its_own(desk: Desk, body: str, key: str, value: object) -> None:
    desk.toml(body)

    assert value_of(desk.resolve(), key) == value


@given(
    idle=st.timedeltas(timedelta(milliseconds=1), timedelta(days=99)), size=st.integers(0, 2**60)
)
def test_the_environment_and_toml_are_read_alike(
    tmp_path_factory: pytest.TempPathFactory, idle: timedelta, size: int
) -> None:
    written, read = Desk(tmp_path_factory.mktemp("a")), Desk(tmp_path_factory.mktemp("b"))
    written.toml(f'idle = "{show_duration(idle)}"\nmax_file = {size}')
    read.environ = {"SESSIONSTORE_IDLE": show_duration(idle), "SESSIONSTORE_MAX_FILE": str(size)}

    assert written.resolve().retention == read.resolve().retention
    assert written.resolve().limits == read.resolve().limits == Limits(max_file=size)


# Which place is the stronger


def test_the_order_of_the_places(desk: Desk) -> None:
    seen = []
    desk.pyproject('colour = "pyproject"')
    seen.append(desk.resolve().backend_options["colour"])
    desk.toml('colour = "toml"')
    seen.append(desk.resolve().backend_options["colour"])
    desk.environ["SESSIONSTORE_COLOUR"] = "environment"
    seen.append(desk.resolve().backend_options["colour"])
    seen.append(desk.resolve("toy://?colour=query").backend_options["colour"])
    seen.append(desk.resolve("toy://?colour=query", colour="keyword").backend_options["colour"])

    assert seen == ["pyproject", "toml", "environment", "query", "keyword"]


def test_the_url_has_the_same_order(desk: Desk) -> None:
    seen = []
    desk.pyproject('url = "toy://pyproject"')
    seen.append(desk.resolve(None).location.netloc)
    desk.toml('url = "toy://toml"')
    seen.append(desk.resolve(None).location.netloc)
    desk.environ["SESSIONSTORE_URL"] = "toy://environment"
    seen.append(desk.resolve(None).location.netloc)
    seen.append(desk.resolve("toy://keyword").location.netloc)

    assert seen == ["pyproject", "toml", "environment", "keyword"]


def test_places_complete_each_other(desk: Desk) -> None:
    desk.toml('idle = "2h"\nlinger = "1m"')
    desk.environ["SESSIONSTORE_LINGER"] = "9m"

    settings = desk.resolve(base_url="/files")

    assert settings.retention == Retention(idle=timedelta(hours=2), linger=timedelta(minutes=9))
    assert settings.base_url == "/files"
    assert settings.sources["idle"] == "sessionstore.toml"
    assert settings.sources["linger"] == "environment SESSIONSTORE_LINGER"
    assert settings.sources["base_url"] == "the keyword"


def test_a_retention_or_limits_as_keyword_gives_all_of_its_fields(desk: Desk) -> None:
    desk.environ = {"SESSIONSTORE_MAX_AGE": "1h", "SESSIONSTORE_MAX_FILE": "1MB"}

    settings = desk.resolve(retention=Retention(), limits=Limits(max_store=5))

    assert settings.retention == Retention()
    assert settings.limits == Limits(max_store=5)
    assert {settings.sources[key] for key in (*OF_RETENTION, *OF_LIMITS)} == {"the keyword"}


def test_a_keyword_that_is_none_is_not_given(desk: Desk) -> None:
    desk.environ["SESSIONSTORE_RESTART"] = "drop"

    assert desk.resolve(restart=None, retention=None, colour=None).restart == "drop"


def test_open_reads_the_environment_and_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESSIONSTORE_URL", "memory://")
    Desk(tmp_path).toml('idle = "3h"')

    with SessionStore.open() as store:
        assert store.retention.idle == timedelta(hours=3)


# SESSIONSTORE_CONFIG


def test_config_names_the_only_file_that_is_read(desk: Desk) -> None:
    desk.toml('linger = "1m"')
    desk.pyproject('linger = "2m"')
    desk.toml('idle = "3h"', "other.toml")
    desk.environ["SESSIONSTORE_CONFIG"] = "other.toml"

    settings = desk.resolve()

    assert settings.retention == Retention(idle=timedelta(hours=3))
    assert settings.sources["idle"] == "other.toml"


def test_config_may_name_a_pyproject(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    desk.toml('[tool.sessionstore]\nidle = "3h"', "elsewhere/pyproject.toml")
    desk.environ["SESSIONSTORE_CONFIG"] = str(tmp_path / "elsewhere" / "pyproject.toml")

    assert desk.resolve().retention.idle == timedelta(hours=3)


def test_config_that_names_no_file_is_refused(desk: Desk) -> None:
    desk.environ["SESSIONSTORE_CONFIG"] = "gone.toml"

    assert desk.refusal().startswith("invalid SESSIONSTORE_CONFIG='gone.toml': ")


# Wrong values

WRONG = {
    "url": ("ftp://example.org", "the schemes known are"),
    "max_age": ("5 parsecs", "write a duration such as 90s"),
    "idle": ("90", "write the unit too"),
    "linger": ("none", "write a duration"),
    "sweep_live": ("perhaps", "write true or false"),
    "max_file": ("big", "write a size such as 500MB"),
    "max_session": ("-1", "write a size"),
    "max_session_files": ("1.5", "write a whole number"),
    "max_owner": ("much", "write a size"),
    "max_owner_files": ("many", "write a whole number"),
    "max_store": ("1 ZB", "write a size"),
    "min_free": ("10%", "write a size"),
    "restart": ("maybe", "choose keep or drop"),
    "secret": ("hunter2", "at least 16 characters"),
    "base_url": ("files", "write a path such as /files"),
    "redirect": ("perhaps", "write true or false"),
    "sendfile": ("/_files/../", "write an internal location of nginx such as /_files/"),
    "cache_dir": ("", "empty"),
    "cache_size": ("much", "write a size such as"),
    "audit": ("", "empty"),
    "audit_fsync": ("perhaps", "write true or false"),
    "count": ("many", "write a whole number"),
}


@pytest.mark.parametrize("write", WRITE)
@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_value_is_refused_with_name_value_source_and_remedy(
    desk: Desk, key: str, write: Callable[[Desk, str, str], str]
) -> None:
    value, remedy = WRONG[key]
    source = write(desk, key, value)

    message = desk.refusal(None if key == "url" else "toy://")

    shown = "..." if key == "secret" else repr(value)
    assert message.startswith(f"invalid {key}={shown} ({source}): ")
    assert remedy in message


def test_the_table_above_has_every_setting_that_can_be_wrong() -> None:
    assert set(WRONG) == {"url", *CORE, "count"}


@pytest.mark.parametrize("write", WRITE)
@pytest.mark.parametrize("key", ["idle", "max_store", "secret", "colour", "url"])
@pytest.mark.parametrize("blank", ["", "  "])
def test_an_empty_value_is_refused(
    desk: Desk, key: str, write: Callable[[Desk, str, str], str], blank: str
) -> None:
    write(desk, key, blank)

    message = desk.refusal(None if key == "url" else "toy://")

    assert message.startswith("invalid ")
    assert ": it is empty; " in message


@pytest.mark.parametrize(
    ("keywords", "start"),
    [
        ({"restart": "no"}, "invalid restart='no' (the keyword): "),
        ({"base_url": 5}, "invalid base_url=5 (the keyword): "),
        ({"secret": 5}, "invalid secret=... (the keyword): "),
        ({"count": "many"}, "invalid count='many' (the keyword): "),
        ({"retention": 5}, "invalid retention=5 (the keyword): give a Retention"),
        ({"limits": {}}, "invalid limits={} (the keyword): give a Limits"),
    ],
)
def test_a_wrong_keyword_is_refused(desk: Desk, keywords: dict[str, object], start: str) -> None:
    assert desk.refusal(**keywords).startswith(start)


def test_a_wrong_option_in_the_query_is_refused(desk: Desk) -> None:
    message = desk.refusal("toy://?count=many")

    assert message.startswith("invalid count='many' (the URL): write a whole number")


def test_values_that_do_not_go_together_are_traced_to_their_sources(desk: Desk) -> None:
    desk.toml('idle = "none"\nlinger = "1m"')

    message = desk.refusal()

    assert "nothing would ever be deleted" in message
    assert message.endswith("(idle from sessionstore.toml).")


def test_a_duration_that_retention_refuses_is_traced_to_its_source(desk: Desk) -> None:
    desk.environ["SESSIONSTORE_IDLE"] = "0s"

    assert desk.refusal().endswith("(idle from environment SESSIONSTORE_IDLE).")


@pytest.mark.parametrize(
    "value", ["/", "/files", "http://example.org", "https://example.org:8443/a/b/"]
)
def test_base_urls_that_are_right(desk: Desk, value: str) -> None:
    assert desk.resolve(base_url=value).base_url == value


@pytest.mark.parametrize(
    "value", ["//example.org/x", "ftp://x", "https:///x", "/files?a=1", "/files#a", "javascript:a"]
)
def test_base_urls_that_are_wrong(desk: Desk, value: str) -> None:
    assert "base_url=" in desk.refusal(base_url=value)


def test_without_a_url_it_says_how_to_give_one(desk: Desk) -> None:
    message = desk.refusal(None)

    assert message.startswith("url is not set")
    for way in ("SessionStore.open('file:///", "SESSIONSTORE_URL", "sessionstore.toml"):
        assert way in message


def test_a_scheme_without_backend_names_those_there_are(desk: Desk) -> None:
    message = desk.refusal("gopher://hole")

    assert message.startswith("invalid url='gopher://hole' (the keyword): ")
    assert f"the schemes known are {', '.join(sorted(registry.BUILTIN))}." in message


# Unknown names


def test_an_unknown_variable_is_refused_with_a_near_one(desk: Desk) -> None:
    desk.environ["SESSIONSTORE_IDEL"] = SECRET

    message = desk.refusal()

    assert message.startswith("invalid SESSIONSTORE_IDEL (environment): ")
    assert "perhaps SESSIONSTORE_IDLE is meant" in message
    assert SECRET not in message


def test_a_variable_in_lower_case_is_refused_and_not_passed_over(desk: Desk) -> None:
    desk.environ["SESSIONSTORE_Idle"] = "1h"

    assert "perhaps SESSIONSTORE_IDLE is meant" in desk.refusal()


@pytest.mark.parametrize("write", [in_toml, in_pyproject])
def test_an_unknown_key_is_refused_with_a_near_one(
    desk: Desk, write: Callable[[Desk, str, str], str]
) -> None:
    source = write(desk, "max_sesion", "1GB")

    message = desk.refusal()

    assert message.startswith(f"invalid max_sesion ({source}): ")
    assert "perhaps max_session is meant" in message


def test_a_key_that_is_like_none_is_refused_with_all_there_are(desk: Desk) -> None:
    desk.toml('xyzzy = "1"')

    message = desk.refusal()

    assert "a toy store has no such setting; there are audit, audit_fsync, base_url, c" in message


def test_an_unknown_option_in_the_query_is_refused(desk: Desk) -> None:
    assert "perhaps colour is meant" in desk.refusal("toy://?color=red")


def test_the_query_takes_options_of_the_backend_alone(desk: Desk) -> None:
    message = desk.refusal("toy://?idle=1h")

    assert message.startswith("invalid idle (the URL): ")
    assert "set SESSIONSTORE_IDLE" in message


def test_an_unknown_keyword_is_refused(desk: Desk) -> None:
    assert "perhaps retention is meant" in desk.refusal(retension=Retention())


@pytest.mark.parametrize(
    ("key", "group"), [("idle", "retention=Retention(idle"), ("max_file", "limits=Limits(max_file")]
)
def test_a_single_field_as_keyword_is_refused_with_the_right_one(
    desk: Desk, key: str, group: str
) -> None:
    assert group in desk.refusal(**{key: "1h"})


@pytest.mark.parametrize(
    "name",
    [
        "SESSIONSTORE_TEST_GRACE",
        "SESSIONSTORE_SERVICE_HOST",
        "SESSIONSTORE_SERVICE_PORT",
        "SESSIONSTORE_SERVICE_PORT_HTTP",
        "SESSIONSTORE_PORT",
        "SESSIONSTORE_PORT_8333_TCP",
        "SESSIONSTORE_PORT_8333_TCP_ADDR",
        "SESSIONSTORE_WEB_SERVICE_HOST",
        "SESSIONSTORE_WEB_PORT_80_TCP_PROTO",
        "OTHER_IDLE",
    ],
)
def test_variables_that_are_no_settings_are_passed_over(desk: Desk, name: str) -> None:
    """Those of Kubernetes come by themselves, beside a Service called sessionstore."""
    desk.environ[name] = "tcp://10.0.0.1:80"

    assert set(desk.resolve().sources.values()) == {"default", "the keyword"}


# Options of another backend


def test_an_option_for_an_overridden_url_is_passed_over(desk: Desk) -> None:
    desk.toml('url = "other://x"\nendpoint = "e"\nidle = "2h"')

    settings = desk.resolve("toy://")

    assert settings.backend_options == {}
    assert settings.retention.idle == timedelta(hours=2)


def test_beside_an_overridden_url_an_unknown_key_is_still_refused(desk: Desk) -> None:
    desk.toml('url = "other://x"\nendpont = "e"')

    assert desk.refusal("toy://").startswith("invalid endpont (sessionstore.toml): ")


def test_an_option_of_another_backend_is_refused_without_its_url(desk: Desk) -> None:
    desk.toml('endpoint = "e"')

    assert desk.refusal("toy://").startswith("invalid endpoint (sessionstore.toml): ")


def test_what_stands_beside_a_url_whose_backend_is_not_installed_is_passed_over(desk: Desk) -> None:
    desk.toml('url = "missing://x"\nanything = "e"')

    assert desk.resolve("toy://").backend_options == {}


def test_a_backend_whose_option_is_a_setting_of_every_store_is_refused(desk: Desk) -> None:
    assert desk.refusal("grabby://").startswith("Grabby has an option 'idle'")


# Files that cannot be read


@pytest.mark.parametrize("name", ["sessionstore.toml", "pyproject.toml"])
@pytest.mark.parametrize("body", [b"idle = ", b"\xff", b"= 1"])
def test_a_file_that_is_no_toml_is_refused(desk: Desk, name: str, body: bytes) -> None:
    (desk.cwd / name).write_bytes(body)

    assert desk.refusal().startswith(f"invalid {name}: it is not valid TOML, ")


@pytest.mark.parametrize("body", ["tool = 5", "[tool]\nsessionstore = 5"])
def test_a_pyproject_without_the_table_is_refused(desk: Desk, body: str) -> None:
    desk.toml(body, "pyproject.toml")

    message = desk.refusal()
    assert message.startswith("invalid ")
    assert " in pyproject.toml: make it a table" in message


def test_a_pyproject_about_other_things_is_nothing_to_us(desk: Desk) -> None:
    desk.toml("[tool.other]\nidle = 5", "pyproject.toml")

    assert desk.resolve().retention == Retention()


def test_a_file_that_may_not_be_read_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError(13, "Permission denied")

    desk.toml("")
    monkeypatch.setattr(Path, "open", refuse)

    assert desk.refusal().startswith("sessionstore.toml cannot be read (Permission denied): ")


# Secrets


@pytest.mark.parametrize(
    ("url", "keywords"),
    [
        ("toy://", {"secret": SECRET, "restart": "no"}),
        ("toy://", {"secret": SECRET[:15]}),
        (f"toy://user:{SECRET}@host?count=x", {}),
        (f"toy://user:{SECRET}/more@host?count=x", {}),
        (f"nobody://user:{SECRET}@host", {}),
        (f"toy://{SECRET}@host#x", {}),
        (f"toy://host?toy_token={SECRET}&colour=", {}),
        (f"toy://host?{SECRET}", {}),
        ("toy://", {"toy_token": [SECRET]}),
    ],
)
def test_a_secret_is_in_no_message(desk: Desk, url: str, keywords: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as caught:
        desk.resolve(url.replace(" ", "-"), **keywords)

    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET[:15] not in str(error).replace("-", " ")
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__


def test_a_secret_is_in_no_repr(desk: Desk) -> None:
    settings = desk.resolve(f"toy://u:{SECRET[:7]}@h?toy_token={SECRET[:7]}", secret=SECRET)

    assert settings.secret == SECRET
    assert settings.location.netloc == f"u:{SECRET[:7]}@h"
    assert SECRET[:7] not in repr(settings)
    assert SECRET[:7] not in settings.location.url
