"""Grafana's database in a backup: whole while it is written, and a sentence where it cannot be had."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import yaml

from plinth.backup.config import Config, GrafanaStore, LentGrafana, Repository
from plinth.backup.environment_config import config_of
from plinth.backup.session import Work, working
from plinth.backup.stores.grafana import backup as grafana_backup
from plinth.grafana_snapshot import sqlite_copy
from plinth.grafana_snapshot.server import MOST_BYTES, PATH
from plinth.paths import Home
from plinth.services.render import files
from plinth.settings.loader import parse
from tests.conftest import ROOT, free_port
from tests.services import services_of
from tests.unit.test_services import Elsewhere, secret_names

pytestmark = pytest.mark.requirement("S1-06")
# Two rows for each transaction, so that a copy of a moment within one shows.
WRITER = """
import itertools, sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
for number in itertools.count():
    database.execute("BEGIN IMMEDIATE")
    database.executemany("INSERT INTO pairs VALUES (?, randomblob(2000))", [(number,), (number,)])
    database.execute("COMMIT")
    print(number, flush=True)
    time.sleep(0.005)
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


def taken(store: GrafanaStore | LentGrafana, tmp_path: Path) -> tuple[Path, list[str]]:
    repository = Repository(location=str(tmp_path / "repository"), password_file=tmp_path / "password")
    config = Config(directory=tmp_path / "work", state=tmp_path / "state", repository=repository, grafana=store)
    with working(config, lambda _: None) as work:
        return _staged(work, store)


def _staged(work: Work, store: GrafanaStore | LentGrafana) -> tuple[Path, list[str]]:
    work.stage.mkdir()
    part, said = grafana_backup.take(work, store)
    file = work.stage / grafana_backup.PATH
    assert (part is not None) == file.exists() == (not said)
    return file, said


def test_a_copy_of_a_database_that_is_written_is_of_one_moment(database: Path, tmp_path: Path) -> None:
    with written(database):
        for number in range(5):
            copied = tmp_path / f"{number}.db"
            sqlite_copy.copy(database, copied)
            found = pairs(copied)
            assert len(found) > 20
            assert set(found) == {2}


def test_the_original_is_only_read(database: Path, tmp_path: Path) -> None:
    before = (database.read_bytes(), sorted(database.parent.iterdir()))
    file, said = taken(GrafanaStore(database=database), tmp_path)
    assert said == []
    assert pairs(file) == []
    assert (database.read_bytes(), sorted(database.parent.iterdir())) == before


def test_one_that_stays_locked_is_given_up(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="it was locked for 1 s"):
            sqlite_copy.copy(database, tmp_path / "copy.db", locked_s=1)
        writer.execute("ROLLBACK")
    sqlite_copy.copy(database, tmp_path / "again.db", locked_s=1)


def test_one_that_was_killed_within_a_write_waits_for_grafana(database: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(database)], check=False)
    before = {path.name: path.read_bytes() for path in database.parent.iterdir()}
    assert set(before) == {"grafana.db", "grafana.db-journal"}
    _, said = taken(GrafanaStore(database=database), tmp_path)
    assert "was not taken" in said[0]
    assert "run the backup again" in said[0]
    assert {path.name: path.read_bytes() for path in database.parent.iterdir()} == before


def test_one_that_is_missing_or_damaged_is_a_sentence(database: Path, tmp_path: Path) -> None:
    _, said = taken(GrafanaStore(database=database.with_name("none.db")), tmp_path / "missing")
    assert "unable to open database file" in said[0]
    with closing(sqlite3.connect(database)) as made:
        made.execute("CREATE INDEX by_number ON pairs (number)")
        made.executemany("INSERT INTO pairs VALUES (?, randomblob(2000))", [(n,) for n in range(500)])
        made.commit()
        (root,) = made.execute("SELECT rootpage FROM sqlite_master WHERE name = 'by_number'").fetchone()
    page = 4096 * (root - 1)
    content = database.read_bytes()
    database.write_bytes(content[:page] + b"\xff" * 4096 + content[page + 4096 :])
    _, said = taken(GrafanaStore(database=database), tmp_path / "damaged")
    assert "was not taken" in said[0]


@contextmanager
def lender(database: Path, directory: Path) -> Iterator[LentGrafana]:
    """The real process that lends it."""
    port, password = free_port(), directory / "password"
    password.write_text("the password\n")
    words = ["--database", str(database), "--password-file", str(password), "--port", str(port)]
    argv = [sys.executable, "-m", "plinth.grafana_snapshot.server", *words, "--directory", str(directory)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "lending" in process.stderr.readline()
        yield LentGrafana(url=f"http://127.0.0.1:{port}{PATH}", password_file=password)
        process.terminate()
        said = process.stderr.read()
    assert process.returncode == 0
    assert "the password" not in said
    assert not (directory / "copy").exists()


@pytest.fixture
def lent(database: Path, tmp_path: Path) -> Iterator[LentGrafana]:
    (tmp_path / "lender").mkdir()
    with lender(database, tmp_path / "lender") as found:
        yield found


def test_a_lent_copy_of_a_database_that_is_written_is_of_one_moment(
    database: Path, lent: LentGrafana, tmp_path: Path
) -> None:
    with written(database):
        file, said = taken(lent, tmp_path)
    assert said == []
    found = pairs(file)
    assert len(found) > 20
    assert set(found) == {2}


def test_it_is_lent_to_who_knows_the_password_and_by_one_path_alone(lent: LentGrafana) -> None:
    right = {"Authorization": "Bearer the password"}
    assert httpx.get(lent.url, headers=right).content.startswith(b"SQLite format 3")
    for given in (None, "Bearer", "Bearer another", "Bearer ä"):
        headers = {"Authorization": given.encode()} if given else {}
        answer = httpx.get(lent.url, headers=headers)
        assert (answer.status_code, "SQLite" in answer.text) == (401, False)
    for path in ("/", "/database/", "/../lender/password", "/database?x"):
        assert httpx.get(lent.url.replace(PATH, path), headers=right).status_code == 404
    assert httpx.post(lent.url, headers=right).status_code == 501


def test_a_database_that_cannot_be_lent_is_a_sentence_and_the_next_copy_is_well(
    database: Path, lent: LentGrafana, tmp_path: Path
) -> None:
    database.rename(tmp_path / "away")
    _, said = taken(lent, tmp_path / "missing")
    assert "it answers 503" in said[0]
    assert "the container `copy` of Grafana's pod" in said[0]
    database.write_bytes(b"no database at all, and long enough to be looked at" * 100)
    assert "file is not a database" in taken(lent, tmp_path / "none")[1][0]
    with database.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    assert f"{MOST_BYTES} are the most" in taken(lent, tmp_path / "large")[1][0]
    (tmp_path / "away").replace(database)
    assert taken(lent, tmp_path / "well")[1] == []
    lent.password_file.write_text("another")
    assert "it answers 401" in taken(lent, tmp_path / "refused")[1][0]


def test_who_does_not_answer_or_gives_something_else_is_a_sentence(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("p")
    nobody = LentGrafana(url=f"http://127.0.0.1:{free_port()}{PATH}", password_file=password)
    assert "Connection refused" in taken(nobody, tmp_path / "nobody")[1][0]
    for number, body in enumerate((b"no database at all" * 100, b"SQLite format 3\0" + b"x" * 8000)):
        with answering(lambda wire, body=body: wire.sendall(head(len(body)) + body)) as url:
            _, said = taken(LentGrafana(url=url, password_file=password), tmp_path / f"else{number}")
            assert "was not taken" in said[0]
    with answering(lambda wire: wire.sendall(head(9000) + b"SQLite format 3\0")) as url:
        assert "peer closed" in taken(LentGrafana(url=url, password_file=password), tmp_path / "cut")[1][0]


def test_one_who_drips_or_never_ends_holds_no_backup_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    password = tmp_path / "password"
    password.write_text("p")

    def drip(wire: socket.socket) -> None:
        wire.sendall(head(1 << 40))
        while True:
            wire.sendall(b"x")
            time.sleep(0.05)

    with answering(drip) as url, pytest.raises(grafana_backup.NotLent, match="takes longer than 1 s"):
        grafana_backup.borrow(LentGrafana(url=url, password_file=password), tmp_path / "drip", within_s=1)

    def pour(wire: socket.socket) -> None:
        wire.sendall(head(1 << 40))
        while True:
            wire.sendall(bytes(1 << 16))

    monkeypatch.setattr(grafana_backup, "MOST_BYTES", 1 << 20)
    with answering(pour) as url, pytest.raises(grafana_backup.NotLent, match="gives more than"):
        grafana_backup.borrow(LentGrafana(url=url, password_file=password), tmp_path / "poured")
    assert (tmp_path / "poured").stat().st_size <= 1 << 20


def head(size: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()


@contextmanager
def answering(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """Somebody who answers one request in a way of his own."""

    def serve() -> None:
        wire, _ = listening.accept()
        with wire, suppress(OSError):
            wire.recv(65536)
            answer(wire)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}{PATH}"
        thread.join(10)


def test_a_lender_without_a_password_does_not_start(database: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    argv = [
        sys.executable,
        "-m",
        "plinth.grafana_snapshot.server",
        "--database",
        str(database),
        "--password-file",
        str(empty),
    ]
    argv += ["--directory", str(tmp_path), "--port", "0"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is empty, and a password was expected" in done.stderr


@pytest.mark.parametrize("target", ["local", "docker"])
def test_the_backups_beside_it_read_its_volume(target: str) -> None:
    settings = parse({"target": target}, source="x")
    (backups,) = [each for each in services_of(settings) if each.name == "plinth-backup"]
    assert backups.reads == (("grafana", "data"),)
    text = files(backups, Elsewhere(), dict.fromkeys(secret_names(settings), "x"), ROOT)["config.yaml"]
    store = GrafanaStore.model_validate(yaml.safe_load(text)["grafana"])
    assert store.database.name == "grafana.db"
    without = parse({"target": target, "monitoring": {"grafana": {"enabled": False}}}, source="x")
    assert not [each for each in services_of(without) if each.name == "plinth-backup" and each.reads]


def test_this_machine_takes_no_volume_of_a_container(tmp_path: Path) -> None:
    outputs = {
        "backup": {"repository": "s3:https://s3.test/b", "password": "p"},
        "qdrant": {"url": "http://127.0.0.1:1"},
        "grafana": {"url": "http://127.0.0.1:2"},
    }
    settings = parse({"target": "docker", "backup": {"repository": "s3:https://s3.test/b"}}, source="x")
    with config_of(settings, outputs, Home(tmp_path, tmp_path / "t")) as config:
        assert config.grafana is None
