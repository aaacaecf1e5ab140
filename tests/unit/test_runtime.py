"""The Python of services under accounts that cannot reach Plinth's own: copied, run, and made again when it changes."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from plinth.programs import python_runtime
from plinth.programs.python_runtime import provide, python, reachable
from tests.accounts import as_account, needs_accounts


@pytest.fixture
def open_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="plinth-runtime-") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


@pytest.fixture(autouse=True)
def looked_at_again() -> Iterator[None]:
    python_runtime._parts.cache_clear()
    yield
    python_runtime._parts.cache_clear()


def test_what_lies_behind_a_closed_directory_or_a_link_to_one_is_out_of_reach(open_path: Path) -> None:
    (open_path / "closed").mkdir(mode=0o700)
    (open_path / "open").mkdir()
    (open_path / "open").chmod(0o755)
    for path in ("closed/f", "open/f", "open/private"):
        (open_path / path).touch()
        (open_path / path).chmod(0o644)
    (open_path / "open" / "private").chmod(0o600)
    (open_path / "open" / "link").symlink_to(open_path / "closed" / "f")
    (open_path / "closed" / "link").symlink_to(open_path / "open" / "f")
    reached = {
        name: reachable(open_path / name) for name in ("open", "open/f", "open/private", "open/link", "closed/link")
    }
    assert reached == {"open": True, "open/f": True, "open/private": False, "open/link": False, "closed/link": False}


def test_where_all_is_within_reach_nothing_is_copied(open_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_runtime, "reachable", lambda _: True)
    used = python(open_path)
    assert (used.executable, dict(used.environment), used.copy) == (sys.executable, {}, "")


@needs_accounts
@pytest.mark.parametrize("closed", ["plinth alone", "everything"])
def test_an_account_runs_plinth_from_a_copy(open_path: Path, closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = reachable

    def as_if_closed(path: Path) -> bool:
        return False if closed == "everything" or path.is_relative_to(python_runtime.PACKAGE) else real(path)

    monkeypatch.setattr(python_runtime, "reachable", as_if_closed)
    used = python(open_path)
    assert list(open_path.iterdir()) == []
    provide(Path(used.copy))
    provide(Path(used.copy))
    names = " ".join(f"{name}='{value}'" for name, value in used.environment.items())
    program = "import plinth, orjson, ssl; print(plinth.__file__, orjson.__file__, ssl.__file__, sep='\\n')"
    done = as_account("plinth-qdrant", f'env {names} {used.executable} -c "{program}"')
    assert done.returncode == 0, done.stderr
    copied = [line.startswith(used.copy) for line in done.stdout.splitlines()]
    assert copied == ([True] * 3 if closed == "everything" else [True, *copied[1:]])
    assert as_account("plinth-qdrant", f"touch {used.copy}/plinth/plinth/new").returncode


@needs_accounts
def test_changed_sources_are_another_copy_and_the_one_before_stays(
    open_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = open_path / "closed" / "plinth"
    shutil.copytree(python_runtime.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    package.parent.chmod(0o700)
    monkeypatch.setattr(python_runtime, "PACKAGE", package)
    copies = []
    for number in range(3):
        (package / "new.py").write_text(f"number = {number}")
        copies.append(Path(python(open_path / "run").copy))
        (open_path / "run").mkdir(exist_ok=True)
        provide(copies[-1])
        os.utime(copies[-1], (number, number))
    assert len(set(copies)) == 3
    assert sorted(path.name for path in (open_path / "run").iterdir()) == sorted(path.name for path in copies[1:])
    assert (copies[2] / "plinth" / "plinth" / "new.py").read_text() == "number = 2"
