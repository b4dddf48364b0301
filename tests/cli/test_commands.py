"""The command line: what each command does and says, and with which exit status."""

from __future__ import annotations

import base64
import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from sessionstore import Retention, SessionStore
from sessionstore.backends.objects import ObjectBackend
from sessionstore.cli.app import app
from sessionstore.cli.stores import counted_reads, reads
from sessionstore.doctor import Check, Report
from sessionstore.testing import FakeClock
from tests.support.cli_rig import ROOT, run
from tests.support.hostile import HOSTILE
from tests.support.object_client import FakeBucket, FakeObjectClient
from tests.support.stores import names


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from a file, and a place for what is fetched."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def store(root: Path) -> Iterator[SessionStore]:
    with SessionStore.open(root) as made:
        made.session("ada").put("cat.png", b"12345")
        made.session("ada").put("notes/a.txt", b"hello\n")
        made.session("bob", "bob@example.org").put("cat.png", b"12345")
        made.shared.put("logo.svg", b"<svg>")
        yield made


def sid(store: SessionStore, id_: str, owner: str | None = None) -> str:
    return store.session(id_, owner).sid


# Looking


def test_the_version_is_shown_without_a_store() -> None:
    assert run("--version").out == f"sessionstore {version('sessionstore')}\n"


def test_ls_lists_a_sessions_files(store: SessionStore, root: Path) -> None:
    done = run("ls", "ada", "--store", root)
    assert done.status == 0
    assert [(row[0], row[-1]) for row in done.rows] == [("5 B", "cat.png"), ("6 B", "notes/a.txt")]
    assert store.session("ada").files()


def test_ls_without_a_session_lists_all(store: SessionStore, root: Path) -> None:
    done = run("ls", "--store", root)
    assert {(row[0], row[-1]) for row in done.rows} == {
        (sid(store, "ada"), "cat.png"),
        (sid(store, "ada"), "notes/a.txt"),
        (sid(store, "bob", "bob@example.org"), "cat.png"),
        (store.shared.sid, "logo.svg"),
    }


def test_ls_in_json(store: SessionStore, root: Path) -> None:
    file = store.session("ada").put("cat.png", b"12345", ttl=timedelta(hours=1))
    first, _ = run("ls", "ada", "--json", "--store", root).value
    assert first == {
        "session": "ada", "owner": None, "stored_name": sid(store, "ada"), "name": "cat.png",
        "size": 5, "digest": file.digest, "media_type": "image/png",
        "created": file.created.isoformat(), "expires": str(file.expires).replace(" ", "T"),
    }  # fmt: skip


def test_ls_of_an_empty_store_in_json_is_an_empty_list(root: Path) -> None:
    SessionStore.open(root).close()
    assert run("ls", "--json", "--store", root).value == []


def test_the_settings_say_which_store(
    store: SessionStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIONSTORE_URL", str(root))
    assert len(run("ls", "ada").rows) == len(store.session("ada").files())


@pytest.mark.parametrize("written", ["@shared", "sid"])
def test_the_apps_own_session_has_a_name(store: SessionStore, root: Path, written: str) -> None:
    which = store.shared.sid if written == "sid" else written
    assert run("cat", which, "logo.svg", "--store", root).out == "<svg>"


def test_a_stored_name_and_an_owner_say_which_session(store: SessionStore, root: Path) -> None:
    store.session("bob").put("mine.txt", b"1")
    owned = sid(store, "bob", "bob@example.org")
    assert run("ls", "bob", "-s", root).rows[0][-1] == "mine.txt"
    assert run("ls", owned, "-s", root).rows[0][-1] == "cat.png"
    assert run("ls", "bob", "--owner", "bob@example.org", "-s", root).rows[0][-1] == "cat.png"


def test_an_id_that_one_owner_has_is_enough(store: SessionStore, root: Path) -> None:
    assert store
    assert run("cat", "bob", "cat.png", "-s", root).out == "12345"


def test_an_id_that_several_owners_have_is_not(store: SessionStore, root: Path) -> None:
    for owner in ("one", "two"):
        store.session("same", owner).put("a", b"1")
    done = run("ls", "same", "-s", root)
    assert (done.status, "2 owners have a session of this id" in done.err) == (2, True)


def test_du_is_by_size_and_counts_equal_bytes_once(store: SessionStore, root: Path) -> None:
    done = run("du", "-s", root)
    assert done.rows[0][:3] == ["11 B", "2", "ada"]
    assert sorted(row[:3] for row in done.rows[1:]) == [["5 B", "1", "bob"], ["5 B", "1", "shared"]]
    assert "3 sessions, 4 files, 21 B; 16 B stored in 3 blobs (24% saved)." in done.err
    total = run("du", "--json", "--top", "1", "-s", root).value
    assert total["total"] == {
        "sessions": 3, "files": 4, "bytes": 21, "stored_blobs": 3, "stored_bytes": 16
    }  # fmt: skip
    assert [each["session"] for each in total["sessions"]] == ["ada"]
    assert store


def test_sessions_says_whose_and_in_what_state(store: SessionStore, root: Path) -> None:
    store.session("ada").end()
    done = {row["session"]: row for row in run("sessions", "--json", "-s", root).value}
    assert {name: row["state"] for name, row in done.items()} == {
        "ada": "lingering", "bob": "live", "shared": "shared"
    }  # fmt: skip
    assert done["bob"]["owner"] == "bob@example.org"
    shown = {row[0]: row for row in run("sessions", "-s", root).rows}
    assert shown["ada"][5].startswith("lingering, dropped in 4m")


def test_cat_writes_the_bytes(store: SessionStore, root: Path) -> None:
    data = bytes(range(256)) * 10_000
    store.session("ada").put("raw", data)
    command = [sys.executable, "-m", "sessionstore.cli", "cat", "ada", "raw", "-s", str(root)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    assert done.stdout == data


def test_cat_in_json_has_the_bytes_in_base64(store: SessionStore, root: Path) -> None:
    store.session("ada").put("raw", b"\xff\x00")
    value = run("cat", "ada", "raw", "--json", "-s", root).value
    assert (base64.b64decode(value["base64"]), value["size"]) == (b"\xff\x00", 2)


# Moving


def test_get_writes_below_a_folder_of_the_sessions_name(store: SessionStore, root: Path) -> None:
    done = run("get", "ada", "-s", root)
    folder = Path(sid(store, "ada"))
    assert done.status == 0
    assert (folder / "cat.png").read_bytes() == b"12345"
    assert (folder / "notes" / "a.txt").read_bytes() == b"hello\n"
    assert not list(folder.glob("**/.*.part"))


def test_get_of_one_file_elsewhere_in_json(store: SessionStore, root: Path) -> None:
    done = run("get", "ada", "cat.png", "--to", "there", "--json", "-s", root)
    assert done.value == [{"name": "cat.png", "path": os.path.join("there", "cat.png")}]
    assert [path.name for path in Path("there").iterdir()] == ["cat.png"]
    assert store


def test_get_overwrites_nothing_unless_it_is_told_to(store: SessionStore, root: Path) -> None:
    Path("there").mkdir()
    Path("there/cat.png").write_text("mine")
    done = run("get", "ada", "--to", "there", "-s", root)
    assert (done.status, "use --force" in done.err) == (1, True)
    assert Path("there/cat.png").read_text() == "mine"
    assert not Path("there/notes").exists()
    assert run("get", "ada", "--to", "there", "--force", "-s", root).status == 0
    assert Path("there/cat.png").read_bytes() == b"12345"
    assert store


def test_get_goes_through_no_link(store: SessionStore, root: Path) -> None:
    Path("elsewhere").mkdir()
    Path("there").mkdir()
    Path("there/notes").symlink_to("../elsewhere")
    done = run("get", "ada", "--to", "there", "-s", root)
    assert (done.status, "through a link" in done.err) == (1, True)
    assert not list(Path("elsewhere").iterdir())
    assert store


def test_get_replaces_a_link_and_not_what_it_leads_to(store: SessionStore, root: Path) -> None:
    Path("there").mkdir()
    Path("precious").write_text("mine")
    Path("there/cat.png").symlink_to("../precious")
    run("get", "ada", "cat.png", "--to", "there", "--force", "-s", root)
    assert Path("precious").read_text() == "mine"
    assert Path("there/cat.png").read_bytes() == b"12345"
    assert store


def test_put_saves_files_folders_and_stdin(root: Path) -> None:
    Path("one.txt").write_text("1")
    Path("folder/deep").mkdir(parents=True)
    Path("folder/deep/two.txt").write_text("2")
    Path("folder/link").symlink_to("/etc/passwd")
    assert run("put", "ada", "one.txt", "folder", "-s", root).status == 0
    assert run("put", "ada", "-", "--name", "in.txt", "-s", root, typed="typed").status == 0
    assert run("put", "ada", "one.txt", "--name", "x/y", "--ttl", "1h", "-s", root).status == 0
    with SessionStore.open(root) as store:
        session = store.session("ada")
        assert names(session) == ["deep/two.txt", "in.txt", "one.txt", "x/y"]
        assert session.read("in.txt") == b"typed"
        assert session.get("x/y").expires is not None


def test_put_in_json(root: Path) -> None:
    Path("one.txt").write_text("1")
    (saved,) = run("put", "ada", "one.txt", "--json", "-s", root).value
    assert (saved["name"], saved["size"], len(saved["digest"])) == ("one.txt", 1, 64)


def test_put_keeps_to_the_limits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONSTORE_MAX_FILE", "3")
    Path("one.txt").write_text("1234")
    done = run("put", "ada", "one.txt", "-s", root)
    assert (done.status, "max_file=3 B" in done.err) == (1, True)


def test_put_into_another_owners_session_by_its_stored_name(
    store: SessionStore, root: Path
) -> None:
    Path("one.txt").write_text("1")
    run("put", sid(store, "bob", "bob@example.org"), "one.txt", "-s", root)
    assert "one.txt" in store.session("bob", "bob@example.org")


def test_copy_is_whole_and_goes_on(store: SessionStore, root: Path) -> None:
    done = run("copy", root, "copied", "--json")
    assert done.value == {"files": 4, "bytes": 21, "skipped": 0, "gone": 0, "findings": []}
    again = run("copy", root, "copied")
    assert "0 files copied, 0 B; 4 already there, 0 deleted during the copy; 0 findings." in (
        again.err
    )
    with SessionStore.open(Path("copied")) as there:
        assert there.session("bob", "bob@example.org").read("cat.png") == b"12345"
    assert store


# Looking after


@pytest.fixture
def due(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> SessionStore:
    """The store, with one session that the settings in force would drop."""
    monkeypatch.setenv("SESSIONSTORE_LINGER", "0")
    store.retention = Retention(linger=timedelta(hours=1))  # or its own timer is faster
    store.session("ada").end()
    return store


def test_plan_has_a_reason_in_each_row(due: SessionStore, root: Path) -> None:
    (row,) = run("plan", "-s", root).rows
    assert row[:5] == ["drop", "ada", "-", "-", "11 B"]
    assert row[5].startswith("it ended, and its linger of 0s was over")
    (value,) = run("plan", "--json", "-s", root).value
    assert (value["action"], value["session_id"], value["size"]) == ("drop", "ada", 11)
    assert names(due.session("ada"))


def test_sweep_does_nothing_where_nobody_can_be_asked(due: SessionStore, root: Path) -> None:
    done = run("sweep", "-s", root)
    assert done.status == 2
    assert "linger=0s (environment SESSIONSTORE_LINGER)" in done.err
    assert "Nothing was deleted" in done.err
    assert names(due.session("ada"))


def test_sweep_of_a_dry_run_deletes_nothing(due: SessionStore, root: Path) -> None:
    assert len(run("sweep", "--dry-run", "-s", root).rows) == 1
    assert names(due.session("ada"))


def test_sweep_deletes_when_it_is_told_to(due: SessionStore, root: Path) -> None:
    (value,) = run("sweep", "--yes", "--json", "-s", root).value
    assert value["action"] == "drop"
    assert not names(due.session("ada"))


def test_a_sweep_that_is_held_says_so_and_has_a_status_of_its_own(
    due: SessionStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = type(due.backend).collect

    def held(*args: Any, **options: Any) -> Any:
        from dataclasses import replace

        return replace(real(*args, **options), held="the store looks wrong")

    monkeypatch.setattr(type(due.backend), "collect", held)
    done = run("sweep", "--yes", "-s", root)
    assert (done.status, "Held: the store looks wrong" in done.err) == (4, True)


def test_no_command_drops_by_opening(
    store: SessionStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    monkeypatch.setenv("SESSIONSTORE_RESTART", "drop")
    assert len(run("ls", "-s", root).rows) == 4


def test_what_the_command_line_deletes_is_in_the_audit_log(
    due: SessionStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIONSTORE_AUDIT", "audit.jsonl")
    run("sweep", "--yes", "-s", root)
    entries = [json.loads(line) for line in Path("audit.jsonl").read_text().splitlines()]
    assert [entry["action"] for entry in entries] == ["dropping", "dropped", "swept"]
    assert {entry["by"].partition(", ")[2] for entry in entries} == {"on the command line"}
    assert due


def damage(store: SessionStore, root: Path) -> None:
    file = store.session("ada").get("notes/a.txt")
    (path,) = root.glob(f"blobs/*/{file.digest}")
    was = path.stat()
    path.chmod(0o600)
    path.write_bytes(b"HELLO\n")
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


def test_verify_finds_nothing_in_a_sound_store(store: SessionStore, root: Path) -> None:
    done = run("verify", "-s", root)
    assert (done.status, done.out, done.err) == (0, "", "0 findings.\n")
    assert run("verify", "--json", "-s", root).value == []
    assert store


def test_verify_shows_damage_and_repairs_it(store: SessionStore, root: Path) -> None:
    damage(store, root)
    found = run("verify", "-s", root)
    assert found.status == 4
    assert found.rows[0][:4] == ["damaged", "ada", "notes/a.txt", "no"]
    assert "With --repair: The file is deleted" in found.out
    (value,) = run("verify", "--repair", "--json", "-s", root).value
    assert (value["name"], value["repaired"]) == ("notes/a.txt", True)
    assert run("verify", "-s", root).status == 0


def test_reads_from_a_bucket_are_counted_and_foretold(root: Path) -> None:
    clock = FakeClock()
    bucket = FakeBucket(clock.now)
    backend = ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)
    with SessionStore(backend, clock=clock) as store:
        for name in ("a", "b", "c"):
            store.session("s").put(name, name.encode())
        seen: list[int] = []
        foretold = reads(store)
        counted_reads(store, seen.append)
        store.verify()
    assert foretold == 3 + 1
    assert len(seen) >= 3
    with SessionStore.open(root) as local:
        assert reads(local) is None


def test_doctor_says_what_it_finds_and_makes_no_store(root: Path) -> None:
    done = run("doctor", root.as_uri())
    assert done.status == 0
    assert {row[0] for row in done.rows} <= {"good", "note", "unknown"}
    assert "a store is safe here" in done.err
    assert not list(root.glob("*"))
    value = run("doctor", root.as_uri(), "--json").value
    assert (value["safe"], len(value["checks"])) == (True, len(done.rows))


def test_doctor_has_a_status_for_a_place_that_is_unfit(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfit = Report("file:///x", [Check("links", "bad", "a \x1b[2J file system without links")])
    monkeypatch.setattr("sessionstore.cli.maintain.examine", lambda _: unfit)
    done = run("doctor", root)
    assert done.status == 4
    assert done.rows == [["bad", "links", r"a \x1b[2J file system without links"]]


def test_config_says_what_is_in_force_and_whence(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("sessionstore.toml").write_text('idle = "2h"\ndurable = true\n')
    monkeypatch.setenv("SESSIONSTORE_SECRET", "correct horse battery")
    shown = {each["name"]: each for each in run("config", "--json", "-s", root).value}
    assert shown["url"] == {"name": "url", "value": root.as_uri(), "source": "--store"}
    assert shown["idle"] == {"name": "idle", "value": "2h", "source": "sessionstore.toml"}
    assert shown["secret"] == {
        "name": "secret", "value": "***", "source": "environment SESSIONSTORE_SECRET"
    }  # fmt: skip
    assert shown["durable"]["value"] == "true"
    assert shown["linger"] == {"name": "linger", "value": "5m", "source": "default"}
    assert not root.exists()


def test_config_tells_a_setting_that_is_off_from_one_that_is_not_set() -> None:
    done = run("config", "-s", "s3://bucket/prefix")
    shown = {row[0]: (row[1], row[2]) for row in done.rows}
    assert shown["max_age"] == ("none", "default")  # can be written: no age is too high
    assert shown["cache_size"] == ("none", "default")
    for name in ("grace", "secret", "cache_dir", "region", "put_args"):
        assert shown[name] == ("not set", "default"), name


def test_config_shows_no_secret_of_a_bucket() -> None:
    url = (
        "s3://key:hidden1@bucket/prefix?access_key_id=hidden2&secret_access_key=hidden3"
        '&put_args={"Metadata": {"token": "hidden4"}, "StorageClass": "STANDARD"}'
    )
    done = run("config", "-s", url)
    assert done.status == 0
    assert "hidden" not in done.out + done.err
    shown = {row[0]: row[1] for row in done.rows}
    assert shown["url"] == "s3://***@bucket/prefix"
    assert shown["secret_access_key"] == "***"
    assert shown["put_args"] == "Metadata=token=***, StorageClass=STANDARD"


# When something is wrong


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["ls", "nobody"], 3, "There is no session 'nobody'"),
        (["cat", "ada", "nothing"], 3, "No file 'nothing'"),
        (["get", "ada", "nothing"], 3, "No file 'nothing'"),
        (["ls", ""], 2, "session id is empty"),
        (["put", "ada", "nothing"], 1, "cannot be read: No such file"),
        (["put", "ada", "-"], 2, "needs a --name"),
        (["put", "ada", ".", "--name", "x"], 2, "--name is for one file"),
        (["put", "ada", "-", "--name", "../x"], 2, "has an empty"),
        (["put", "ada", "-", "--name", "x", "--ttl", "long"], 2, "write a duration"),
        (["put", "ada", "-", "--name", "x", "--ttl", "99999999d"], 2, "hundred years are allowed"),
        (["put", "ada", "-", "--name", "x", "--ttl", "0"], 2, "longer than zero"),
        (["frobnicate"], 2, "No such command"),
        (["ls", "--frobnicate"], 2, "No such option"),
    ],
)
def test_errors_are_a_line_on_stderr_and_a_status(
    store: SessionStore, root: Path, words: list[str], status: int, said: str
) -> None:
    done = run(*words, *([] if "frob" in words[-1] else ["-s", str(root)]))
    assert (done.status, done.out) == (status, "")
    assert said in done.err
    assert store


@pytest.mark.parametrize("words", [["ls"], ["du"], ["plan"], ["verify"], ["copy", "x", "y"]])
def test_looking_makes_no_store(words: list[str]) -> None:
    done = run(*words, *([] if "copy" in words else ["-s", "nowhere"]))
    assert (done.status, "There is no store at" in done.err) == (2, True)
    assert not Path("nowhere").exists()
    assert not Path("y").exists()


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONSTORE_IDLE", "5 parsecs")
    done = run("ls", "-s", "file:x")
    assert done.status == 2
    assert "invalid idle='5 parsecs' (environment SESSIONSTORE_IDLE): " in done.err


def test_ctrl_c_has_a_status_of_its_own(
    store: SessionStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SessionStore, "plan", interrupted)
    done = run("plan", "-s", root)
    assert (done.status, "interrupted" in done.err) == (130, True)
    assert store


def test_a_full_disk_while_fetching_leaves_nothing(
    store: SessionStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    done = run("get", "ada", "cat.png", "--to", "there", "-s", root)
    assert (done.status, "'cat.png' cannot be written: No space left" in done.err) == (1, True)
    assert not list(Path("there").iterdir())
    assert store


def test_hostile_names_are_listed_one_a_line(root: Path) -> None:
    with SessionStore.open(root) as store:
        session = store.session("a\nb", "o\x1b[2J")
        for name in HOSTILE:
            try:
                session.put(name, b"1")
            except ValueError:
                continue
        kept = names(session)
        which = session.sid
    done = run("ls", which, "-s", root)
    assert len(done.rows) == len(kept)
    assert done.out.replace("\n", "").replace("\t", "").isprintable()
    assert [each["name"] for each in run("ls", which, "--json", "-s", root).value] == kept
    got = run("get", which, "--to", "there", "--json", "-s", root)
    fetched = {path.relative_to("there").as_posix() for path in Path("there").rglob("*")}
    # A folder cannot have "a" beside "a/b", as a session can: what stands in the way is said.
    missed = set(kept) - fetched
    assert {each.partition("/")[0] for each in missed} <= set(kept)
    assert (got.status, len(got.value)) == (1, len(kept) - len(missed))
    assert all(f"{each!r} cannot be written" in got.err for each in missed)


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['typer'] = None; sys.argv = ['sessionstore'];"
        "from sessionstore.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'sessionstore[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_program_is_installed_and_completes_its_commands() -> None:
    program = Path(sys.executable).with_name("sessionstore")
    environment = {
        **os.environ, "_SESSIONSTORE_COMPLETE": "complete_bash",
        "COMP_WORDS": "sessionstore se", "COMP_CWORD": "1",
    }  # fmt: skip
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["sessions"]


def test_every_command_answers_in_json() -> None:
    from typer.main import get_command

    commands = getattr(get_command(app), "commands", {})
    without = [
        name
        for name, command in commands.items()
        if not any("--json" in each.opts for each in command.params)
    ]
    assert len(commands) >= 11
    assert without == []
