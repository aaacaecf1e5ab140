"""Throw-away instances on loopback, for a drill and for reading a saved Redis: this machine's own binaries, empty data.

A killed run may leave one behind; it works in the backups' directory, and the next run ends what does.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import redis
from neo4j.exceptions import GqlError

from plinth.accounts import first_account
from plinth.backup.config import Neo4jStore
from plinth.backup.neo4j import connect as connect_neo4j
from plinth.backup.redis import Client, connect
from plinth.backup.work import BackupError, tool
from plinth.child import Child
from plinth.errors import UserError
from plinth.postgres import Server
from plinth.scratch import Kind, Scratch, free_port, scratch
from plinth.services.neo4j import credential

STOP_DEADLINE_S = 30.0


@contextmanager
def postgres(directory: Path) -> Iterator[Server]:
    """An empty Postgres server over ``directory``, which is made and removed."""
    account = first_account(("postgres", "nobody"))
    server = Server("127.0.0.1", free_port(), "postgres", secrets.token_hex(16))
    directory.mkdir(parents=True)
    try:
        _open_way(directory, account)
        data, password = directory / "data", directory / "password"
        password.write_text(server.password)
        _give(password, account)
        made = subprocess.run(
            [
                *_as(account),
                tool("initdb", "postgresql"),
                f"--pgdata={data}",
                f"--username={server.user}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise BackupError(f"A throw-away Postgres could not be made: {made.stderr.strip() or made.stdout.strip()}")
        settings = {
            "port": server.port,
            "listen_addresses": server.host,
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            # What a restore copies into new tables then needs no log.
            "wal_level": "minimal",
            "max_wal_senders": "0",
            "autovacuum": "off",
            "maintenance_work_mem": "256MB",
            "max_wal_size": "4GB",
        }
        argv = [*_as(account), tool("postgres", "postgresql"), "-D", str(data)]
        argv += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with Child(argv, directory, stop_signal=signal.SIGINT) as child:
            child.wait(f"A throw-away Postgres in {directory}", lambda: server.connect().close(), UserError)
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def redis_server(directory: Path, rdb: Path | None) -> Iterator[tuple[Client, int, str]]:
    """A Redis server with the content of an RDB; its client, port and password. ``directory`` is made and removed.

    It runs without an append-only file: with one it would not look at the RDB.
    """
    port, password = free_port(), secrets.token_hex(16)
    directory.mkdir(parents=True)
    try:
        if rdb:
            shutil.copyfile(rdb, directory / "dump.rdb")
        lines = ("bind 127.0.0.1", f"port {port}", f"requirepass {password}", f'dir "{directory}"', 'save ""')
        config = directory / "redis.conf"
        config.touch(mode=0o600)
        config.write_text("\n".join((*lines, "appendonly no", "repl-diskless-sync-delay 0", "daemonize no", "")))
        argv = [tool("redis-server", "redis-server"), str(config)]
        with Child(argv, directory) as child, connect("127.0.0.1", port, password) as client:
            child.wait(f"A throw-away Redis in {directory}", client.ping, redis.RedisError)
            yield client, port, password
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def neo4j(directory: Path, program: str) -> Iterator[Neo4jStore]:
    """An empty Neo4j, by its program; ``directory`` is made and removed."""
    store = Neo4jStore(host="127.0.0.1", port=free_port(), password_file=directory / "password")
    password = secrets.token_hex(16)
    lines = (
        f"server.bolt.listen_address={store.host}:{store.port}",
        "server.http.enabled=false",
        "server.https.enabled=false",
        *(f"server.directories.{name}={directory / name}" for name in ("data", "logs", "run", "import", "plugins")),
        "db.tx_log.preallocate=false",
        "server.memory.heap.max_size=512m",
        "server.memory.pagecache.size=128m",
        "dbms.usage_report.enabled=false",
    )
    (directory / "data" / "dbms").mkdir(parents=True)
    try:
        (directory / "neo4j.conf").write_text("\n".join((*lines, "")))
        for path, text in (
            (store.password_file, password),
            (directory / "data" / "dbms" / "auth.ini", f"{store.user}:{credential(password)}:\n"),
        ):
            path.touch(mode=0o600)
            path.write_text(text)
        with Child([program, "console"], directory, environment={"NEO4J_CONF": str(directory)}) as child:
            child.wait(f"A throw-away Neo4j in {directory}", lambda: _answers(store), GqlError)
            yield store
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def qdrant(kind: Kind, directory: Path) -> Iterator[Scratch]:
    """An empty Qdrant; a real server runs as the only node of a cluster, for shard keys need one."""
    if kind == "embedded":
        with scratch("embedded", directory) as engine:
            yield engine
        return
    with scratch("server", directory, peer_port=free_port()) as engine:
        yield engine


def _answers(store: Neo4jStore) -> None:
    with connect_neo4j(store) as session:
        session.run("RETURN 1").consume()


def end_strays(directory: Path) -> None:
    """End what works in a directory of ours and outlived the run that started it."""
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(directory):
                process.kill()
                process.wait(STOP_DEADLINE_S)
        except (psutil.Error, OSError):
            continue  # it ended meanwhile, or is another user's


def _as(account: str | None) -> list[str]:
    if account is None:
        return []
    owner = pwd.getpwnam(account)
    return ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", "--"]


def _open_way(directory: Path, account: str | None) -> None:
    """Let another account into its directory: through the ones above it, which it cannot read."""
    if account is None:
        return
    _give(directory, account)
    # The backups' own three; those above are as open as the data's, or it says so.
    for above in directory.parents[:3]:
        above.chmod(above.stat().st_mode | 0o011)


def _give(path: Path, account: str | None) -> None:
    if account:
        owner = pwd.getpwnam(account)
        os.chown(path, owner.pw_uid, owner.pw_gid)
