"""Files that a command is told to write are tried before its work begins, and left as they are."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from plinth import cli
from plinth.compare import run as comparison
from plinth.errors import UserError
from plinth.system.output_files import output_files

OPTIONS = ("--json-out", "--html-out", "--junit-out")
closed = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


def unwritable(place: Path, kind: str) -> Path:
    """A path of this kind at which no file can be written."""
    (place / "file").write_text("before")
    (place / "directory").mkdir()
    (place / "to-nowhere").symlink_to(place / "missing" / "x")
    return {
        "a directory": place / "directory",
        "below nothing": place / "missing" / "x",
        "below a file": place / "file" / "x",
        "below what the kernel has": Path("/proc/plinth"),
        "of the kernel": Path("/proc/version"),
        "a name too long": place / ("x" * 300),
        "a link to nowhere": place / "to-nowhere",
        "of nobody's home": Path("~nobody-has-this-name/x"),
        "empty": Path(),
    }[kind]


KINDS = (
    *("a directory", "below nothing", "below a file", "below what the kernel has", "of the kernel", "a name too long"),
    *("a link to nowhere", "of nobody's home", "empty"),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", OPTIONS)
def test_the_load_gate_refuses_before_it_opens_a_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, kind: str
) -> None:
    if kind == "of the kernel" and os.geteuid() == 0:
        pytest.skip("root opens it")
    path = unwritable(tmp_path, kind)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["plinth", "load", "x", option, str(path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert f"{option} " in (printed := " ".join(capsys.readouterr().err.split()))
    assert "cannot be written" in printed
    assert (tmp_path / "file").read_text() == "before"


@pytest.mark.parametrize("kind", KINDS[:4])
def test_the_comparison_refuses_before_it_measures(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=r"--out .* cannot be written"):
        comparison.main(["--out", str(unwritable(tmp_path, kind))])


@closed
@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_closed_directory_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "closed"
    directory.mkdir(mode=mode)
    with pytest.raises(UserError, match="Permission denied"):
        output_files({"--html-out": directory / "x"})


def test_what_can_be_written_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.json").write_text("before")
    (tmp_path / "old.json").chmod(0o640)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("HOME", str(tmp_path))
    files = {
        "--json-out": tmp_path / "old.json",
        "--html-out": Path("~/new.html"),
        "--junit-out": tmp_path / "pipe",
        "--a": Path("/dev/null"),
        "--b": None,
    }
    found = output_files(files)
    assert found["--html-out"] == tmp_path / "new.html"
    assert (tmp_path / "old.json").read_text() == "before"
    assert stat.S_IMODE((tmp_path / "old.json").stat().st_mode) == 0o640
    assert not (tmp_path / "new.html").exists()


@pytest.mark.parametrize("second", ["x.json", "./x.json", "link.json", "../{}/x.json"])
def test_two_reports_are_not_written_over_each_other(tmp_path: Path, second: str) -> None:
    (tmp_path / "x.json").touch()
    (tmp_path / "link.json").symlink_to("x.json")
    files = {"--json-out": tmp_path / "x.json", "--html-out": tmp_path / second.format(tmp_path.name)}
    with pytest.raises(UserError, match="--json-out and --html-out both name"):
        output_files(files)
