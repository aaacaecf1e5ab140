"""A program that is kept out of directories: what it reads, writes and sees of others, by the kernel's own word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.system import sandbox

needs_landlock = pytest.mark.skipif(sandbox.version() == 0, reason="this kernel has no Landlock")


def run(hide: Path, write: Path, script: str) -> list[str]:
    """The lines that a confined shell prints."""
    argv = [sys.executable, "-I", sandbox.__file__, f"--hide={hide}", f"--write={write}", "--", "sh", "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "not confined" not in done.stderr
    return done.stdout.split()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("hidden/store", "open", "secret"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("content")
    return tmp_path


@needs_landlock
def test_it_reads_all_but_what_is_hidden_and_writes_where_it_may(place: Path) -> None:
    script = f"for f in hidden/file hidden/store/file open/file secret/file; do cat {place}/$f && echo :$f; done"
    (place / "hidden" / "file").write_text("content")
    assert run(place / "hidden", place / "hidden" / "store", script) == [
        "content:hidden/store/file",
        "content:open/file",
        "content:secret/file",
    ]
    script = f"for f in hidden/n hidden/store/n open/n secret/n; do echo x >{place}/$f && echo $f; done; id -u"
    assert run(place / "hidden", place / "hidden" / "store", script) == ["hidden/store/n", str(os.getuid())]
    assert not (place / "open" / "n").exists()


@needs_landlock
def test_one_file_is_hidden_and_those_beside_it_are_not(place: Path) -> None:
    (place / "open" / "other").write_text("content")
    assert run(place / "open" / "file", place / "secret", f"cat {place}/open/file; cat {place}/open/other") == [
        "content"
    ]


@needs_landlock
def test_a_link_leads_nowhere_that_is_hidden(place: Path) -> None:
    (place / "open" / "link").symlink_to(place / "hidden")
    assert run(place / "hidden", place / "open", f"cat {place}/open/link/store/file; echo end") == ["end"]
    assert run(place / "open" / "link", place / "open", f"cat {place}/hidden/store/file; echo end") == ["end"]


@given(st.sets(st.sampled_from(["/a/b/c", "/a/b", "/a/x", "/d", "/e/f"]).map(Path), min_size=1))
def test_no_path_that_is_read_leads_to_what_is_hidden(hidden: set[Path]) -> None:
    tree = {"/": ["a", "d", "e"], "/a": ["b", "x"], "/a/b": ["c", "y"], "/e": ["f"]}

    class Tree(type(Path())):  # type: ignore[misc]
        def iterdir(self) -> list[Path]:  # type: ignore[override]
            return [type(self)(self, name) for name in tree.get(str(self), [])]

    read = [Path(each) for each in sandbox.readable(sorted(hidden), Tree("/"))]
    for each in hidden:
        assert not any(each.is_relative_to(path) or path.is_relative_to(each) for path in read)
