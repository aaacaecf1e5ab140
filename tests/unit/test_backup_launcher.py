"""What root does for a backup that has no rights: the requests that are served, and those that are not."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.backup.config import Config, GrafanaStore, QdrantStore, Repository
from plinth.backup.repository import reachability
from plinth.backup.session import BackupError, working
from plinth.backup.temporary import launcher
from plinth.backup.temporary.launch import Here
from plinth.backup.temporary.recipes import ACCOUNTS
from plinth.services.backup import service
from plinth.settings.loader import parse

SNAPSHOTS, DATABASE = Path("/live/qdrant/snapshots"), Path("/live/grafana/grafana.db")


class Recorded(Here):
    """A launcher that does nothing and remembers what."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[str, ...]] = []

    def start(self, kind: Any, directory: Path, seed: BinaryIO | None = None) -> Any:
        self.done.append(("start", kind, str(directory.parent)))
        return Running(self.done)

    def clear(self, directory: Path) -> None:
        self.done.append(("clear", str(directory)))

    def copy_database(self, database: Path, to: BinaryIO) -> None:
        self.done.append(("copy", str(database)))
        to.write(b"copied")

    def place(self, snapshots: Path, file: BinaryIO) -> Path:
        self.done.append(("place", str(snapshots), file.read().decode()))
        return snapshots / "restored-1.snapshot"

    def remove(self, placed: Path) -> None:
        self.done.append(("remove", str(placed)))


class Running:
    def __init__(self, done: list[tuple[str, ...]]) -> None:
        self.told, self._done = {"port": 1, "password": "p"}, done

    def words(self) -> str | None:
        return "ended"

    def stop(self) -> None:
        self._done.append(("stop",))


def config(directory: Path) -> Config:
    return Config(
        directory=directory / "work",
        state=directory / "state" / "backups.json",
        repository=Repository(location=str(directory / "repository"), password_file=directory / "password"),
        qdrant=QdrantStore(urls=("http://127.0.0.1:1",), snapshots=SNAPSHOTS),
        grafana=GrafanaStore(database=DATABASE),
    )


@pytest.fixture
def here() -> Recorded:
    return Recorded()


@pytest.fixture
def serving(here: Recorded, tmp_path: Path) -> Any:
    return launcher._Serving(here, tmp_path, [config(tmp_path)])


@pytest.fixture
def asking(serving: Any) -> Iterator[launcher.Asking]:
    """A worker whose requests are served, each before the next."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    class Served(launcher.Asking):
        def ask(self, request: Any, file: BinaryIO | None = None) -> Any:
            sent = launcher._send
            sent(theirs, request, [file.fileno()] if file else [])
            message = launcher._receive(ours)
            assert message is not None
            answer = serving.answer(*message)
            json.dumps(answer)
            if "error" in answer:
                raise BackupError(answer["error"])
            return answer["answer"]

    with ours, theirs:
        yield Served(theirs)


def test_what_a_backup_needs_is_served(asking: launcher.Asking, here: Recorded, tmp_path: Path) -> None:
    (tmp_path / "seed").write_bytes(b"snapshot")
    with (tmp_path / "seed").open("rb") as seed, (tmp_path / "copy").open("wb") as copy:
        store = asking.start("redis", tmp_path, seed)
        assert (store.told["port"], store.words()) == (1, "ended")
        placed = asking.place(SNAPSHOTS, seed)
        asking.remove(placed)
        asking.copy_database(DATABASE, copy)
        store.stop()
        asking.clear(tmp_path)
    assert (tmp_path / "copy").read_bytes() == b"copied"
    assert [each[0] for each in here.done] == ["start", "place", "remove", "copy", "stop", "clear"]
    # Wherever the worker wanted it, root's own place is taken.
    assert here.done[0] == ("start", "redis", str(tmp_path / "drill"))
    assert here.done[-1] == ("clear", str(tmp_path / "drill"))


@pytest.mark.parametrize(("mode", "one"), [(0o700, True), (0o755, True), (0o770, False), (0o707, False)])
def test_a_snapshot_is_not_copied_to_a_qdrant_of_the_same_account(tmp_path: Path, mode: int, one: bool) -> None:
    """Where another account writes too, its engine may not read what is this one's alone."""
    snapshots, fetched = tmp_path / "snapshots", tmp_path / "fetched"
    snapshots.mkdir()
    snapshots.chmod(mode)
    fetched.write_bytes(b"snapshot")
    with fetched.open("rb") as file:
        placed = Here().place(snapshots, file)
    assert placed.read_bytes() == b"snapshot"
    assert placed.samefile(fetched) is one
    Here().remove(placed)
    assert fetched.read_bytes() == b"snapshot"
    assert list(snapshots.iterdir()) == []


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"request": "start"},
        {"request": "start", "kind": "sh"},
        {"request": "start", "kind": ["postgres"]},
        {"request": "start", "kind": "../postgres"},
        {"request": "stop", "store": 7},
        {"request": "words", "store": "1"},
        {"request": "words", "store": []},
        {"request": "copy", "database": "/etc/shadow"},
        {"request": "copy", "database": str(DATABASE) + "/../../../etc/shadow"},
        {"request": "copy"},
        {"request": "place", "snapshots": "/root/.ssh"},
        {"request": "place", "snapshots": str(SNAPSHOTS / ".." / ".." / "root")},
        {"request": "remove", "placed": "/etc/passwd"},
        {"request": "remove", "placed": str(SNAPSHOTS / "another.snapshot")},
        {"request": "remove", "placed": 3},
        {"request": "exec", "argv": ["id"]},
        {"request": None},
    ],
)
def test_nothing_else_is_served(serving: Any, here: Recorded, tmp_path: Path, request_: dict[str, Any]) -> None:
    with (tmp_path / "file").open("w+b") as file:
        answer = serving.answer({"reads": True, **request_}, os.dup(file.fileno()))
    assert set(answer) == {"error"}
    assert here.done == []


@pytest.mark.parametrize("kind", sorted(ACCOUNTS))
def test_no_descriptor_but_of_a_file_is_read(serving: Any, here: Recorded, tmp_path: Path, kind: str) -> None:
    read, write = os.pipe()
    os.close(write)
    for descriptor in (read, os.open(tmp_path, os.O_RDONLY), os.open("/dev/zero", os.O_RDONLY)):
        assert set(serving.answer({"request": "start", "kind": kind, "reads": True}, descriptor)) == {"error"}
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(descriptor)
    assert here.done == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from([*ACCOUNTS, "start", "copy"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["request", "kind", "store", "database", "snapshots", "placed"]), VALUES))
def test_no_message_ends_it(request_: dict[str, Any]) -> None:
    serving = launcher._Serving(Recorded(), Path("/proc/nowhere"), [config(Path("/proc/nowhere"))])
    assert set(serving.answer(request_, None)) <= {"error", "answer"}


def test_what_is_no_message_is_none_that_is_served() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for text in (b"\xff", b"[1]", b"{", b'"start"'):
            theirs.send(text)
            assert launcher._receive(ours) == ({}, None)
        theirs.close()
        assert launcher._receive(ours) is None


PLANTED = {"AWS_SECRET_ACCESS_KEY": "planted", "PGPASSWORD": "planted", "RESTIC_REPOSITORY": "planted", "X": "planted"}


def test_a_program_gets_what_is_named_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    with working(config(tmp_path), lambda _: None) as work:
        lines = work.run(["env"], {"PGHOST": "h"}).out.splitlines()
    assert "PGHOST=h" in lines
    assert not [line for line in lines if "planted" in line]


@pytest.mark.parametrize(
    ("location", "no_proxy", "names"),
    [
        ("s3:https://s3.example.org/b", "", {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"}),
        ("rest:https://s3.example.org/b", "", {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"}),
        ("s3:https://s3.example.org/b", "example.org", set()),
        ("s3:http://127.0.0.1:9000/b", "", set()),
        ("/srv/repository", "", set()),
        ("sftp:me@host:/r", "", {"SSH_AUTH_SOCK"}),
    ],
)
def test_restic_goes_by_a_proxy_to_a_server_that_is_elsewhere(
    monkeypatch: pytest.MonkeyPatch, location: str, no_proxy: str, names: set[str]
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("HTTPS_PROXY", "http://p:1"), ("HTTP_PROXY", "http://p:1"), ("NO_PROXY", no_proxy)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SSH_AUTH_SOCK", "/tmp/agent")
    assert set(reachability.way(location)) == names


@pytest.mark.parametrize(
    ("proxy", "repository", "target", "names"),
    [
        ("http://p:1", "s3:https://s3.example.org/b", "local", {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"}),
        ("http://me:word@p:1", "s3:https://s3.example.org/b", "local", set()),
        ("http://p:1", "s3:http://127.0.0.1:9000/b", "local", set()),
        ("http://p:1", None, "local", set()),
        ("http://p:1", "s3:https://s3.example.org/b", "docker", set()),
    ],
)
def test_the_schedule_goes_by_the_proxy_of_whoever_deploys(
    monkeypatch: pytest.MonkeyPatch, proxy: str, repository: str | None, target: str, names: set[str]
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setenv("HTTP_PROXY", proxy)
    settings = parse({"target": target, "backup": {"repository": repository}}, source="x")
    assert set(service(settings, []).environment) - {"TMPDIR"} == names
