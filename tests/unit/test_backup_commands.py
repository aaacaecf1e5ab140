"""The commands of `python -m plinth.backup`, as people and documents write them."""

from __future__ import annotations

import re
import shlex
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from plinth.backup.__main__ import parser
from tests.conftest import ROOT

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", *sorted((ROOT / "monitoring").rglob("*.md"))]


def documented() -> list[str]:
    """What follows `python3 -m plinth.backup` in the documents."""
    return [
        found.strip()
        for page in PAGES
        for line in page.read_text().splitlines()
        for found in re.findall(r"python3 -m plinth\.backup ([^`|#]+)", line)
    ]


def test_every_documented_command_is_one() -> None:
    assert documented()
    for command in documented():
        # Help ends a program that knows the command.
        with suppress(SystemExit) if command.endswith("--help") else nullcontext():
            parser().parse_args(shlex.split(command))


@pytest.mark.parametrize("command", ["restore", "verify", "drill"])
def test_a_set_may_be_named_before_the_command_and_after_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", "c.yaml"]
    for words in ([command], ["--snapshot", "1a", command], [command, "--snapshot", "1a"]):
        given = parser().parse_args([*config, *words])
        assert given.snapshot == ("1a" if len(words) > 1 else None)
        assert given.config == Path("c.yaml")
    with pytest.raises(SystemExit):
        parser().parse_args([*config, command, "--help"])
    assert "--snapshot" in capsys.readouterr().out
