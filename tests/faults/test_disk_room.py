"""Disks that are too small: what will not fit is refused before it begins, and one that fills up meanwhile is said."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from plinth.backup import drill, inspection, restore
from plinth.backup import run as backup_run
from plinth.backup.restore_source import Wish
from plinth.backup.session import BackupError
from tests.faults.world import Backups, Live

MIB = 1 << 20


@pytest.fixture
def small(place: Path) -> Iterator[Path]:
    """A disk of 1 GiB, in memory."""
    directory = place / "small"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1g", "plinth", directory], check=False, capture_output=True
    )
    if mounted.returncode:
        directory.rmdir()
        pytest.skip("no tmpfs can be mounted here: only root may")
    yield directory
    subprocess.run(["umount", directory], check=True)
    directory.rmdir()


def fill(disk: Path, leave: int) -> Path:
    """Fill a disk up to some bytes."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - leave)
    return filler


@pytest.mark.requirement("S1-06")
def test_what_will_not_fit_is_refused_before_anything_is_begun(stock: Backups, live: Live, small: Path) -> None:
    made = stock
    good = made.sets()[0]["snapshot"]
    made.settings["directory"] = str(small / "work")
    # Less than the set, which each part asks for.
    filler = fill(small, 24 * MIB)
    refused = r"needs about \d+ MiB on the disk of .*, and 2\d MiB are free there; .* Nothing was begun\.$"
    with pytest.raises(BackupError, match=f"The backup {refused}"):
        backup_run.run(made.config, made.say)
    with pytest.raises(BackupError, match=f"A drill of set {good[:8]} {refused}"):
        drill.run(made.config, made.say)
    there = Backups(made.directory / "there", live)
    with pytest.raises(BackupError, match=f"A restore of set {good[:8]} {refused}"):
        restore.run(made.config, there.config, Wish(replace=True), made.say)
    assert made.state.backup
    assert made.state.drill
    assert (made.state.backup.result, made.state.drill.result) == ("failed", "failed")
    assert not (small / "work" / "stage").exists()
    assert not list((small / "work").glob("restore/*"))
    assert not [line for line in made.progress if line.startswith(("taking", "drilling", "restoring", "fetching"))]
    assert [each["snapshot"] for each in made.sets()] == [good]
    filler.unlink()
    assert backup_run.run(made.config, made.say).manifest.complete
    assert drill.run(made.config, made.say).result == "ok"


def test_a_disk_that_fills_up_meanwhile_is_said_and_the_last_good_set_stays(stock: Backups, small: Path) -> None:
    made = stock
    good = made.sets()[0]["snapshot"]
    made.settings["directory"] = str(small / "work")

    def say(line: str) -> None:
        if line.startswith("taking postgres roles"):
            fill(small, 0)

    with pytest.raises(BackupError):
        backup_run.run(made.config, say)
    assert not (small / "work" / "stage").exists()
    assert made.state.backup
    assert made.state.backup.result == "failed"
    assert "No space left on device" in made.state.backup.detail
    made.settings["directory"] = str(made.directory / "work")
    assert [each["snapshot"] for each in made.sets()] == [good]
    assert inspection.verify(made.config, made.say).problems == ()
