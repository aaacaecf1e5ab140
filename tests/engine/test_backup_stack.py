"""Backups of a deployed local stack: its schedule runs one, and the command line lists, drills and restores it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.engine.project import BUILT, Project

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        shutil.which("pulumi") is None and not (BUILT / "pulumi").exists(),
        reason="no pulumi binary: run `make bootstrap`",
    ),
    pytest.mark.skipif(shutil.which("restic") is None, reason="no restic on this machine: run `make bootstrap`"),
]


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with tempfile.TemporaryDirectory(prefix="plinth-backup-") as directory:
        Path(directory).chmod(0o711)
        made = Project(Path(directory), "embedded")
        for name in ("prometheus", "alertmanager", "exporters"):
            made.settings["plinth:monitoring"][name]["enabled"] = False
        made.settings["plinth:collections"] = {"only": ["trades"]}
        soon = datetime.now(UTC) + timedelta(minutes=2)
        made.settings["plinth:backup"]["schedule"] = f"{soon.minute} {soon.hour} * * *"
        made.save()
        made.up()
        yield made
        made.plinth("down", "t", "--yes")


@pytest.mark.requirement("S1-06")
def test_the_schedule_makes_a_backup_by_itself_and_status_tells_its_age(project: Project) -> None:
    assert "backup never ran, drill never ran" in project.plinth("status", "t")
    end = time.monotonic() + 300
    while not (project.json("status", "t")["backups"] or {}).get("backup"):
        assert time.monotonic() < end
        time.sleep(2)
    status = project.json("status", "t")
    assert status["ready"] is True
    assert status["backups"]["backup"]["result"] == "ok"
    assert status["backups"]["backup"]["stores"] == {"qdrant": "ok", "redis": "ok", "postgres": "ok"}
    (only,) = project.json("backup", "list", "t")
    assert only["complete"]
    assert set(only["databases"]) == {"digi_core", "postgres"}


def test_a_drill_passes_and_what_was_deleted_comes_back_only_when_asked(project: Project) -> None:
    assert project.json("backup", "drill", "t")["result"] == "ok"
    with project.qdrant() as client:
        point = {"id": 1, "vector": [0.5] * 768, "payload": {}}
        client.call("PUT", "/collections/trades/points?wait=true", {"points": [point]})
        assert project.json("backup", "run", "t")["complete"]
        client.call("POST", "/collections/trades/points/delete?wait=true", {"points": [1]})
        client.call("PUT", "/collections/trades/points?wait=true", {"points": [{**point, "id": 2}]})
        said = project.plinth("backup", "restore", "t", "--store", "qdrant", expect=1)
        assert "trades_v1 holds 1 points. Nothing was touched." in said
        said = project.plinth("backup", "restore", "t", "--store", "qdrant", "--replace", expect=2)
        assert "add --yes if you mean it" in said
        project.plinth("backup", "restore", "t", "--store", "qdrant", "--replace", "--yes")
        found = client.call("POST", "/collections/trades/points/scroll", {"limit": 9})["points"]
        assert [each["id"] for each in found] == [1]
    assert project.json("collections", "diff", "t")["in_sync"] is True


def test_the_repositorys_password_is_shown_only_when_asked(project: Project) -> None:
    password = project.outputs()["backup"]["password"]
    assert password
    assert password not in project.plinth("outputs", "t", "--json")
    assert project.json("outputs", "t")["backup"]["repository"].endswith("plinth-backup/repository")
