"""Grafana's database in a backup: whole while it is written, and a sentence where it cannot be had."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import yaml

from plinth.backup import grafana
from plinth.backup.config import Config, GrafanaStore, Repository
from plinth.backup.deployed import config_of
from plinth.backup.work import Work, working
from plinth.environment import parse
from plinth.home import Home
from plinth.services import services
from plinth.services.render import files
from plinth.services.secrets import secrets
from tests.conftest import ROOT
from tests.unit.test_services import Elsewhere

pytestmark = pytest.mark.requirement("S1-06")
# Two rows for each transaction, so that a copy of a moment within one shows.
WRITER = """
import itertools, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
for number in itertools.count():
    database.execute("BEGIN IMMEDIATE")
    database.executemany("INSERT INTO pairs VALUES (?, randomblob(2000))", [(number,), (number,)])
    database.execute("COMMIT")
    print(number, flush=True)
"""
KILLED = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN EXCLUSIVE")
database.executemany("INSERT INTO pairs VALUES (?, randomblob(2000))", [(n,) for n in range(500)])
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "of grafana" / "grafana.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE pairs (number INTEGER, filling BLOB)")
        made.commit()
    return path


@contextmanager
def written(database: Path) -> Iterator[None]:
    """A process that writes it all the time."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(database)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "20":
            assert process.poll() is None
        yield
        process.kill()


def pairs(database: Path) -> list[int]:
    """How many rows each number has."""
    with closing(sqlite3.connect(database)) as found:
        return [count for (count,) in found.execute("SELECT count(*) FROM pairs GROUP BY number")]


def taken(database: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    store = GrafanaStore(database=database)
    repository = Repository(location=str(tmp_path / "repository"), password_file=tmp_path / "password")
    config = Config(directory=tmp_path / "work", state=tmp_path / "state", repository=repository, grafana=store)
    with working(config, lambda _: None) as work:
        return _staged(work, store)


def _staged(work: Work, store: GrafanaStore) -> tuple[Path, list[str]]:
    work.stage.mkdir()
    part, said = grafana.take(work, store)
    file = work.stage / grafana.PATH
    assert (part is not None) == file.exists() == (not said)
    return file, said


def test_a_copy_of_a_database_that_is_written_is_of_one_moment(database: Path, tmp_path: Path) -> None:
    with written(database):
        for number in range(5):
            copied = tmp_path / f"{number}.db"
            grafana.copy(database, copied)
            found = pairs(copied)
            assert len(found) > 20
            assert set(found) == {2}


def test_the_original_is_only_read(database: Path, tmp_path: Path) -> None:
    before = (database.read_bytes(), sorted(database.parent.iterdir()))
    file, said = taken(database, tmp_path)
    assert said == []
    assert pairs(file) == []
    assert (database.read_bytes(), sorted(database.parent.iterdir())) == before


def test_one_that_stays_locked_is_given_up(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="it was locked for 1 s"):
            grafana.copy(database, tmp_path / "copy.db", locked_s=1)
        writer.execute("ROLLBACK")
    grafana.copy(database, tmp_path / "again.db", locked_s=1)


def test_one_that_was_killed_within_a_write_waits_for_grafana(database: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(database)], check=False)
    before = {path.name: path.read_bytes() for path in database.parent.iterdir()}
    assert set(before) == {"grafana.db", "grafana.db-journal"}
    _, said = taken(database, tmp_path)
    assert "was not taken" in said[0]
    assert "run the backup again" in said[0]
    assert {path.name: path.read_bytes() for path in database.parent.iterdir()} == before


def test_one_that_is_missing_or_damaged_is_a_sentence(database: Path, tmp_path: Path) -> None:
    _, said = taken(database.with_name("none.db"), tmp_path / "missing")
    assert "unable to open database file" in said[0]
    with closing(sqlite3.connect(database)) as made:
        made.execute("CREATE INDEX by_number ON pairs (number)")
        made.executemany("INSERT INTO pairs VALUES (?, randomblob(2000))", [(n,) for n in range(500)])
        made.commit()
        (root,) = made.execute("SELECT rootpage FROM sqlite_master WHERE name = 'by_number'").fetchone()
    page = 4096 * (root - 1)
    content = database.read_bytes()
    database.write_bytes(content[:page] + b"\xff" * 4096 + content[page + 4096 :])
    _, said = taken(database, tmp_path / "damaged")
    assert "was not taken" in said[0]


@pytest.mark.parametrize("target", ["local", "docker"])
def test_the_backups_beside_it_read_its_volume(target: str) -> None:
    settings = parse({"target": target}, source="x")
    (backups,) = [each for each in services(settings, ROOT) if each.name == "plinth-backup"]
    assert backups.reads == (("grafana", "data"),)
    text = files(backups, Elsewhere(), dict.fromkeys(secrets(settings), "x"), ROOT)["config.yaml"]
    store = GrafanaStore.model_validate(yaml.safe_load(text)["grafana"])
    assert store.database.name == "grafana.db"
    without = parse({"target": target, "monitoring": {"grafana": {"enabled": False}}}, source="x")
    assert not [each for each in services(without, ROOT) if each.name == "plinth-backup" and each.reads]


def test_a_backup_from_this_machine_says_that_a_containers_volume_is_out_of_reach(tmp_path: Path) -> None:
    outputs = {
        "backup": {"repository": "s3:https://s3.test/b", "password": "p"},
        "qdrant": {"url": "http://127.0.0.1:1"},
        "grafana": {"url": "http://127.0.0.1:2"},
    }
    settings = parse({"target": "docker", "backup": {"repository": "s3:https://s3.test/b"}}, source="x")
    with config_of("t", "run", settings, outputs, Home(tmp_path, tmp_path / "t")) as config:
        assert config.grafana is None
        assert "plinth-backup takes it by schedule" in config.not_taken["grafana"]
    outputs.pop("grafana")
    with config_of("t", "run", settings, outputs, Home(tmp_path, tmp_path / "t")) as config:
        assert config.not_taken == {}
