"""The commands of `python -m plinth.backup`, as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from plinth.backup.__main__ import parser


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
