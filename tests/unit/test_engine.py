"""What is made of Pulumi's words, and the directories that it works in."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from plinth.deployment.automation import _workspace, last_error
from plinth.paths import Home


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Updating\n  error: update failed: rpc error: code = Unknown", "update failed: rpc error: code = Unknown"),
        (" code: 1\n stdout: \n stderr: error: incorrect passphrase", "incorrect passphrase"),
        ("error: the first\nerror: the last\n", "the last"),
        ("nothing that it calls one\nthe end\n", "the end"),
    ],
)
def test_the_last_error_is_told_whole(said: str, found: str) -> None:
    assert last_error(said) == found


def test_services_go_through_the_directory_of_files_that_lie_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.t.yaml").write_text("config: {plinth:target: local}\n")
    monkeypatch.setattr(
        "plinth.deployment.automation._command", lambda _: SimpleNamespace(command="pulumi", version=None)
    )
    place = Home(tmp_path / ".plinth", tmp_path / "var" / "project-1234" / "t")
    before = os.umask(0o077)
    try:
        _workspace(tmp_path, "t", place, None)
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.place.parent.stat().st_mode) == 0o711
    assert stat.S_IMODE(place.base.stat().st_mode) == 0o711
