"""The kit itself: a third party's test file works, and cannot lose a test by accident."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sessionstore.testing
from sessionstore import names
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.testing import BackendContract, FakeClock, Secret, Subject, overrides_contract
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.contract.optional import ABILITIES
from sessionstore.testing.contract.reading import ODD_NAMES

THIRD_PARTY = """
from datetime import timedelta

import pytest
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.testing import BackendContract, FreeSpace, Restored, Secret


class TheirBackend(MemoryBackend):
    {fault}


class TestTheirBackend(BackendContract, FreeSpace, Restored, Secret):
    keeps_content_in_memory = True
    many = 50
    rounds = 5

    @pytest.fixture
    def open_backend(self):
        place = Place()
        return lambda clock: TheirBackend(place, clock)
"""


def run_third_party(folder: Path, fault: str) -> subprocess.CompletedProcess[str]:
    file = folder / "test_theirs.py"
    file.write_text(THIRD_PARTY.format(fault=fault))
    arguments = ["-q", "-p", "no:cacheprovider", "-k", "not memory", f"--rootdir={folder}", file]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def test_a_third_party_s_file_runs_the_whole_contract(tmp_path: Path) -> None:
    ran = run_third_party(tmp_path, "'''Good.'''")
    assert ran.returncode == 0, ran.stdout
    tests = [name for name in dir(BackendContract) if name.startswith("test_")]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    assert int(passed[1]) >= len(tests) - 10  # those of memory are left out


def test_a_third_party_s_fault_is_told_in_full(tmp_path: Path) -> None:
    ran = run_third_party(tmp_path, "def end(self, sid): self.touch(sid)")
    assert ran.returncode == 1, ran.stdout
    assert "FAILED" in ran.stdout
    assert "test_the_latest_end_is_noted_and_is_activity" in ran.stdout
    assert "assert None is not None" in ran.stdout  # the values, as in a test file of one's own


def test_every_assert_of_the_kit_is_told_in_full() -> None:
    folder = Path(sessionstore.testing.__file__).parent
    asserting = {
        path.relative_to(folder).with_suffix("").parts[0]
        for path in folder.rglob("*.py")
        if any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text())))
    }
    assert asserting == set(sessionstore.testing._WITH_ASSERTS)


def test_the_model_of_a_test_file_is_short() -> None:
    model = Path(__file__).parents[1] / "test_memory_backend.py"
    assert len(model.read_text().splitlines()) < 40


def test_hiding_a_test_is_refused() -> None:
    with pytest.raises(TypeError, match="test_deleted_file_is_gone hides a test of the contract"):

        class Careless(BackendContract):
            def test_deleted_file_is_gone(self, subject: Subject) -> None:
                pass


def test_switching_a_test_off_is_refused() -> None:
    with pytest.raises(TypeError, match="test_deleted_file_is_gone"):
        type("Careless", (BackendContract,), {"test_deleted_file_is_gone": None})


def test_two_parts_with_a_test_of_one_name_are_refused() -> None:
    class One(Rig):
        def test_a(self) -> None: ...

    class Other(Rig):
        def test_a(self) -> None: ...

    with pytest.raises(TypeError, match="test_a"):
        type("Both", (One, Other), {})


def test_hiding_a_test_with_a_reason_is_allowed() -> None:
    class Deliberate(BackendContract):
        @overrides_contract("This backend lists at most 1,000 files.")
        def test_lists_very_many_files(self, subject: Subject) -> None: ...

    class Derived(Deliberate):
        many = 5

    assert Derived.test_lists_very_many_files is Deliberate.test_lists_very_many_files


def test_a_reason_is_one() -> None:
    with pytest.raises(ValueError, match="The reason is empty: write why"):
        overrides_contract(" ")


def test_names_of_their_own_are_allowed() -> None:
    class Derived(BackendContract):
        def test_of_our_own(self) -> None: ...

    assert "test_of_our_own" in dir(Derived)


def test_an_ability_without_its_tests_is_found() -> None:
    class WithoutFreeSpace(BackendContract, Secret):
        pass

    subject = Subject(lambda clock: MemoryBackend(Place(), clock), FakeClock())
    with pytest.raises(AssertionError, match="Inherit the test class"):
        WithoutFreeSpace().test_every_ability_it_has_is_tested(subject)


def test_every_optional_protocol_has_its_tests() -> None:
    from sessionstore import backend

    protocols = {
        it
        for it in vars(backend).values()
        if isinstance(it, type) and getattr(it, "_is_runtime_protocol", False)
    }
    assert set(ABILITIES) == protocols


def test_odd_names_are_legal_names() -> None:
    assert [names.file_name(name) for name in ODD_NAMES] == list(ODD_NAMES)
    assert len(set(ODD_NAMES)) == len(ODD_NAMES)


def test_public_names_are_listed_once_and_in_order() -> None:
    public = sessionstore.testing.__all__
    assert public == sorted(set(public))
    assert all(hasattr(sessionstore.testing, name) for name in public)


def test_the_library_does_not_load_the_kit() -> None:
    code = "import sessionstore, sys; sys.exit('sessionstore.testing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
