"""Backups of a deployed local stack: its schedule runs one, and the command line lists, drills and restores it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import yaml

from plinth.qdrant.client import Qdrant
from tests.conftest import free_port
from tests.engine.project import Project
from tests.project import needs_pulumi

pytestmark = [
    pytest.mark.engine,
    needs_pulumi,
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
        made.save()
        made.up()
        yield made
        made.plinth("down", "t", "--yes")


@pytest.mark.requirement("S1-06")
def test_the_schedule_makes_a_backup_by_itself_and_status_tells_its_age(project: Project) -> None:
    assert project.json("status", "t")["backups"] == {"backup": None, "check": None, "drill": None, "problem": None}
    assert project.json("status", "t")["deps"]["backup"]["ok"] is True
    assert project.plinth("status", "t").count("never ran") == 3
    # After that, however long a busy machine took.
    soon = datetime.now(UTC) + timedelta(minutes=2)
    project.settings["plinth:backup"]["schedule"] = f"{soon.minute} {soon.hour} * * *"
    project.save()
    project.up()
    end = time.monotonic() + 400
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


@pytest.fixture(scope="module")
def other(project: Project) -> Iterator[dict[str, Any]]:
    """The outputs of a second environment of the project: the same stores on other ports, and no backups."""
    settings = {
        **project.settings,
        "plinth:qdrant": {"engine": "embedded", "http_port": free_port(), "grpc_port": free_port()},
        "plinth:postgres": {"port": free_port(), "databases": [{"name": "digi_core"}]},
        "plinth:redis": {"port": free_port()},
        "plinth:backup": {"enabled": False},
    }
    (project.root / "stacks" / "Pulumi.dr.yaml").write_text(yaml.safe_dump({"config": settings}))
    project.plinth("up", "dr", "--no-verify")
    yield project.json("outputs", "dr", "--show-secrets")
    project.plinth("down", "dr", "--yes")


def database(outputs: dict[str, Any]) -> psycopg.Connection[Any]:
    about = outputs["postgres"]
    return psycopg.connect(
        host=about["host"], port=about["port"], user=about["user"], password=about["password"], dbname="digi_core"
    )


def keys(outputs: dict[str, Any]) -> redis.Redis:
    about = outputs["redis"]
    return redis.Redis(host=about["host"], port=about["port"], password=about["password"])


@pytest.mark.requirement("S1-06")
def test_a_set_is_restored_into_another_environment_and_never_over_what_lives_there(
    project: Project, other: dict[str, Any]
) -> None:
    here = project.outputs()
    point = {"id": 7, "vector": [0.5] * 768, "payload": {}}
    with project.qdrant() as client:
        client.call("PUT", "/collections/trades/points?wait=true", {"points": [point]})
        before = client.call("POST", "/collections/trades/points/count", {"exact": True})
    with database(here) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    keys(here).set("kept", "42")
    project.plinth("backup", "run", "t")
    said = project.plinth("backup", "restore", "t", "--to", "dr")
    assert "is restored into 'dr'" in said
    about = other["qdrant"]
    with Qdrant(about["url"], about["api_key"]) as client:
        assert client.call("POST", "/collections/trades/points/count", {"exact": True}) == before
        (found,) = client.call("POST", "/collections/trades/points", {"ids": [7]})
        assert found["id"] == 7
    with database(other) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchall() == [(42,)]
    assert keys(other).get("kept") == b"42"
    # It lives there now.
    said = project.plinth("backup", "restore", "t", "--to", "dr", expect=1)
    assert "The database digi_core holds rows." in said
    assert "Nothing was touched." in said
    said = project.plinth("backup", "restore", "t", "--to", "dr", "--replace", expect=2)
    assert "what is live in 'dr'" in said
    assert "leave it out" in project.plinth("backup", "restore", "t", "--to", "t", expect=2)
    said = project.plinth("backup", "restore", "t", "--to", "nowhere", "--replace", "--yes", expect=2)
    assert "There is no environment 'nowhere'" in said
    # What was restored from is as it was.
    with database(here) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchall() == [(42,)]


def test_the_repositorys_password_is_shown_only_when_asked(project: Project) -> None:
    password = project.outputs()["backup"]["password"]
    assert password
    assert password not in project.plinth("outputs", "t", "--json")
    assert project.json("outputs", "t")["backup"]["repository"].endswith("plinth-backup/repository")
