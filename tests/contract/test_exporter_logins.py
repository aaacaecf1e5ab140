"""What the exporters' logins open on real stores: counters, and nothing that an owner wrote."""

from __future__ import annotations

import json
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import psycopg
import pytest
import redis

from plinth.admin.postgres import Server, ensure_database, ensure_monitor
from plinth.backup.temporary import instances
from tests.conftest import ROOT
from tests.databases import enter
from tests.standing import Stack, ports
from tests.waiting import wait_for

needs_redis = pytest.mark.skipif(
    not (shutil.which("redis-server") and shutil.which("prometheus-redis-exporter")),
    reason="no redis-server or no redis exporter: run `make bootstrap`",
)
needs_postgres = pytest.mark.skipif(
    not (shutil.which("postgres") or list(Path("/usr/lib/postgresql").glob("*/bin/postgres"))),
    reason="no Postgres on this machine: run `make bootstrap`",
)
VALUE = "TOPSECRETVALUE"
# What rules and dashboards ask of Redis.
USED = {
    name
    for path in (*ROOT.glob("monitoring/prometheus/rules/*.yml"), *ROOT.glob("monitoring/grafana/dashboards/*.json"))
    for name in re.findall(r"\bredis_[a-z_]+[a-z]\b", path.read_text())
}
DENIED = [
    ("GET", "session:42"),
    ("SET", "session:42", "x"),
    ("DEL", "session:42"),
    ("EXISTS", "session:42"),
    ("TYPE", "session:42"),
    ("STRLEN", "session:42"),
    ("MEMORY", "USAGE", "session:42"),
    ("OBJECT", "ENCODING", "session:42"),
    ("DUMP", "session:42"),
    ("RESTORE", "x", "0", "y"),
    ("SCAN", "0"),
    ("KEYS", "*"),
    ("RANDOMKEY",),
    ("DBSIZE",),
    ("SELECT", "1"),
    ("EVAL", "return 1", "0"),
    ("FUNCTION", "LIST"),
    ("SCRIPT", "FLUSH"),
    ("SUBSCRIBE", "c"),
    ("PUBLISH", "c", "m"),
    ("MONITOR",),
    ("SLOWLOG", "GET", "1"),
    ("SLOWLOG", "RESET"),
    ("LATENCY", "RESET"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "plinth_exporter", "+@all"),
    ("FLUSHALL",),
    ("SAVE",),
    ("SHUTDOWN",),
    ("REPLICAOF", "127.0.0.1", "1"),
    ("SYNC",),
    ("PSYNC", "?", "-1"),
    ("MODULE", "LIST"),
    ("MULTI",),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Redis with a value in it and its exporter."""
    secrets = {"redis_password": "of-the-default-user", "redis_exporter_password": "of-the-exporter"}
    made = Stack(
        tmp_path_factory.mktemp("stack"),
        secrets,
        redis=ports("port"),
        monitoring={"exporters": ports("redis_port", "node_port")},
    )
    with made.running("redis"), made.running("redis-exporter"):
        owner = redis.Redis(port=made.port("redis", "resp"), password="of-the-default-user")

        def answers() -> bool:
            with suppress(redis.ConnectionError, httpx.TransportError):
                return bool(owner.ping()) and page(made).is_success
            return False

        wait_for(answers, lambda: made.log("redis") + made.log("redis-exporter"), seconds=30)
        owner.set("session:42", VALUE)
        yield made


def page(stack: Stack, path: str = "/metrics", **asked: str) -> httpx.Response:
    return stack.get("redis-exporter", path, "prometheus", **asked)


def login(stack: Stack) -> tuple[str, str]:
    """The name and the password that the exporter was given, whatever they are."""
    arguments = " ".join(stack.services["redis-exporter"].arguments)
    user = re.search(r"--redis\.user=(\S+)", arguments)
    passwords = set(json.loads(stack.contents("redis-exporter")["passwords.json"]).values())
    assert len(passwords) == 1
    return (user[1] if user else "default", passwords.pop())


@needs_redis
def test_the_exporters_metrics_that_rules_and_dashboards_use_come(stack: Stack) -> None:
    samples = dict(re.findall(r"^(redis_\w+)(?:\{[^}]*\})? (\S+)$", page(stack).text, re.MULTILINE))
    assert samples["redis_up"] == "1"
    assert samples["redis_exporter_last_scrape_error"] == "0"
    assert set(samples) >= USED, USED - set(samples)
    assert len(USED) > 10


@needs_redis
@pytest.mark.parametrize("words", DENIED, ids=" ".join)
def test_the_exporters_login_has_no_right_to_anything_else(stack: Stack, words: tuple[str, ...]) -> None:
    user, password = login(stack)
    client = redis.Redis(port=stack.port("redis", "resp"), username=user, password=password)
    assert client.ping()
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*words)


@needs_redis
def test_config_is_nobodys_and_the_default_user_is_as_before(stack: Stack) -> None:
    for user, password in (login(stack), ("default", "of-the-default-user")):
        client = redis.Redis(port=stack.port("redis", "resp"), username=user, password=password)
        with pytest.raises(redis.ResponseError, match="unknown command"):
            client.execute_command("CONFIG", "SET", "dir", "/tmp")
    assert client.get("session:42") == VALUE.encode()


@needs_redis
@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        ("check-keys", "*"),
        ("check-single-keys", "session:42"),
        ("check-streams", "*"),
        ("count-keys", "db0=session:42"),
    ],
)
def test_a_scrape_of_our_own_redis_shows_no_key_and_no_value(stack: Stack, asked: str, keys: str) -> None:
    text = page(stack, "/scrape", **{"target": f"redis://{stack.address('redis', 'resp')}", asked: keys}).text
    assert VALUE not in text
    assert "session:42" not in text


@needs_redis
def test_redis_own_files_hold_the_exporters_password_as_a_hash_alone(stack: Stack) -> None:
    _, password = login(stack)
    assert password not in stack.contents("redis")["redis.conf"]
    assert "of-the-default-user" not in " ".join(stack.contents("redis-exporter").values())


@needs_redis
def test_no_other_address_is_sent_a_password(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sent = bytearray()

        def answer() -> None:
            with suppress(OSError), listener.accept()[0] as connection:
                connection.settimeout(5)
                while data := connection.recv(4096):
                    sent.extend(data)
                    connection.sendall(b"+OK\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        for target in (f"redis://127.0.0.1:{port}", f"redis://plinth_exporter@127.0.0.1:{port}"):
            with suppress(httpx.HTTPError):
                page(stack, "/scrape", target=target)
        thread.join(10)
    _, password = login(stack)
    assert b"AUTH" not in sent
    assert password.encode() not in sent


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A real Postgres with the monitor role and a database of an owner's, with a table in it."""
    # Not pytest's own directory: no other account may enter that, and Postgres does not run as root.
    with (
        tempfile.TemporaryDirectory(prefix="plinth-") as directory,
        instances.postgres(Path(directory) / "work" / "postgres") as made,
    ):
        ensure_database(made, "digi", "digi", "of-the-owner")
        with enter(replace(made, user="digi", password="of-the-owner"), "digi") as connection:
            connection.execute("CREATE TABLE secret AS SELECT %s AS value", [VALUE])
        for _ in range(2):
            ensure_monitor(made, "plinth_monitor", "of-the-monitor")
        yield made


@pytest.fixture
def monitor(server: Server) -> Server:
    return replace(server, user="plinth_monitor", password="of-the-monitor")


@needs_postgres
def test_the_monitor_reads_statistics(monitor: Server) -> None:
    with enter(monitor, "postgres") as connection:
        assert connection.execute("SELECT pg_database_size('digi')").fetchone()
        settings = {
            name: connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            for name in ("statement_timeout", "default_transaction_read_only", "search_path")
        }
    assert settings == {
        "statement_timeout": ("10s",),
        "default_transaction_read_only": ("on",),
        "search_path": ("pg_catalog",),
    }


@needs_postgres
@pytest.mark.parametrize("database", ["digi", "template1"])
def test_the_monitor_enters_no_other_database(server: Server, monitor: Server, database: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(
            host=monitor.host, port=monitor.port, user=monitor.user, password=monitor.password, dbname=database
        )
    server.connect(database).close()


@needs_postgres
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMP TABLE t (i int)",
        "CREATE TABLE public.t (i int)",
        "CREATE SCHEMA s",
        "SELECT * FROM pg_catalog.pg_authid",
        "SELECT pg_catalog.pg_read_file('postgresql.conf')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SET ROLE digi",
        "ALTER ROLE plinth_monitor SUPERUSER",
        "ALTER ROLE plinth_monitor CONNECTION LIMIT -1",
        "CREATE DATABASE d",
        "CREATE EXTENSION dblink",
    ],
)
def test_the_monitor_may_do_nothing_else(monitor: Server, statement: str) -> None:
    with monitor.connect() as connection:
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFile)):
            connection.execute(statement)  # type: ignore[arg-type]


@needs_postgres
def test_the_monitor_is_in_no_role_but_pg_monitor_and_has_few_connections(server: Server) -> None:
    with server.connect() as connection:
        roles = connection.execute(
            "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = 'plinth_monitor'::regrole"
        ).fetchall()
        limit = connection.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'plinth_monitor'").fetchone()
    assert roles == [("pg_monitor",)]
    assert limit == (5,)
