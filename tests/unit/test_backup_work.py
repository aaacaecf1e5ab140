"""Who holds the lock of the backups' directory is said so that it can be found, in a pod as well."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from plinth.backup.config import Config
from plinth.backup.work import Busy, working


def test_whoever_waits_is_told_of_the_process_and_its_host(tmp_path: Path) -> None:
    repository = {"location": str(tmp_path / "r"), "password_file": str(tmp_path / "p")}
    state = {"name": "t", "directory": str(tmp_path / "w"), "state": str(tmp_path / "s"), "repository": repository}
    config = Config.model_validate(state)
    with (
        working(config, lambda _: None),
        pytest.raises(Busy, match=f"pid {os.getpid()} on {socket.gethostname()}"),
        working(config, lambda _: None),
    ):
        pass
