"""The scripts of the charts, run against the real servers that they are for."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import redis
import yaml

from plinth.admin.postgres import MONITOR_RIGHTS
from plinth.services.redis import EXPORTER_RULES
from tests.charts.rendering import CHARTS, Object, needs_helm, objects, one
from tests.charts.test_founding import JOINED, SCRIPT, Nodes
from tests.conftest import KEY, Server, free_port
from tests.conftest import server as server
from tests.waiting import wait_for

POSTGRES = shutil.which("postgres") or next(
    iter(sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")))), None
)
# Words that a careless script would trip over.
PASSWORDS = {"postgres-password": "su'per \"$x\\ `id`", "a-password": "a'; DROP ROLE a; --", "b-password": "b"}


def script(chart: str, values: str, kind: str, name: str | None = None) -> tuple[list[str], Object]:
    """The command of an object's pod, and its container."""
    made = one(objects(chart, values), kind, name)
    pod = made if kind == "Pod" else made["spec"]["template"]
    container: Object = pod["spec"]["containers"][0]
    return [*container["command"], *container.get("args", [])], container


def run(command: list[str], replaced: dict[str, str], **environment: str) -> subprocess.CompletedProcess[str]:
    for words, others in replaced.items():
        command = [argument.replace(words, others) for argument in command]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


@needs_helm
def test_helms_test_writes_to_a_server_and_is_refused_without_the_key(server: Server) -> None:
    command, _ = script("qdrant", "auth: {existingSecret: k}", "Pod")
    done = run(command, {}, HOST="127.0.0.1", PORT=str(server.port), API_KEY=KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok:") == 4
    wrong = run(command, {}, HOST="127.0.0.1", PORT=str(server.port), API_KEY="wrong")
    assert wrong.returncode == 1
    assert "failed: create" in wrong.stdout


@needs_helm
def test_helms_test_of_a_server_with_tls_asks_for_the_port(server: Server) -> None:
    command, _ = script("qdrant", "auth: {existingSecret: k}\ntls: {enabled: true, existingSecret: t}", "Pod")
    assert run(command, {}, HOST="127.0.0.1", PORT=str(server.port)).returncode == 0
    assert run(command, {}, HOST="127.0.0.1", PORT=str(free_port())).returncode != 0


def as_user(name: str) -> list[str]:
    """Postgres refuses to run as root."""
    return ["setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups"] if os.geteuid() == 0 else []


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The pod's own command, in a directory; its port and what stands for the paths of a pod."""
    port = free_port()
    values = yaml.safe_dump({"auth": {"existingSecret": "k"}, "service": {"port": port}})
    command, _ = script("postgres", values, "StatefulSet")
    config = one(objects("postgres", values), "ConfigMap")["data"]
    place = {
        "/etc/plinth-secrets/superuser": str(tmp_path / "secrets/superuser"),
        "/etc/plinth-secrets/": f"{tmp_path}/secrets/",
        "/etc/plinth/": f"{tmp_path}/config/",
        "/var/lib/postgresql/data": str(tmp_path / "data"),
    }
    for folder in ("secrets", "config", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "secrets/superuser").write_text(PASSWORDS["postgres-password"])
    for name, text in config.items():
        for words, others in place.items():
            text = text.replace(words, others)
        (tmp_path / "config" / name).write_text(text.replace("0.0.0.0", "127.0.0.1"))
    if os.geteuid() == 0:
        for path in [tmp_path, *tmp_path.rglob("*")]:
            shutil.chown(path, "postgres", "postgres")
        for above in tmp_path.parents:
            if above == Path(tempfile.gettempdir()):
                break
            above.chmod(above.stat().st_mode | 0o111)
    for words, others in place.items():
        command = [argument.replace(words, others) for argument in command]
    assert POSTGRES is not None
    path = f"{Path(POSTGRES).parent}{os.pathsep}{os.environ['PATH']}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*as_user("postgres"), *command], env={**os.environ, "PATH": path}, stdout=log, stderr=log, cwd="/"
        )

    def answers() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        with suppress(psycopg.OperationalError):
            psycopg.connect(
                host="127.0.0.1", port=port, user="postgres", password=PASSWORDS["postgres-password"], connect_timeout=5
            ).close()
            return True
        return False

    wait_for(answers, lambda: (tmp_path / "log").read_text())
    yield port, place
    process.terminate()
    process.wait(timeout=60)


@needs_helm
@pytest.mark.requirement("S1-01")
@pytest.mark.skipif(POSTGRES is None, reason="no postgres binary: install the package postgresql")
def test_databases_are_made_once_and_each_is_its_owners_alone(
    postgres: tuple[int, dict[str, str]], tmp_path: Path
) -> None:
    port, place = postgres
    secrets = tmp_path / "secrets"
    (secrets / "a.owner").write_text(PASSWORDS["a-password"])
    (secrets / "second.owner").write_text(PASSWORDS["b-password"])
    (secrets / "monitor").write_text("m")
    values = """
        auth: {existingSecret: k, monitorKey: m}
        databases: [{name: a, passwordKey: a}, {name: second, owner: b, passwordKey: b}]
    """
    made = next(o for o in objects("postgres", values) if o["kind"] == "Job")
    command, _ = script("postgres", values, "Job", made["metadata"]["name"])
    assert POSTGRES is not None
    path = f"{Path(POSTGRES).parent}{os.pathsep}{os.environ['PATH']}"
    for _ in range(2):
        done = run(command, place, HOST="127.0.0.1", PORT=str(port), PATH=path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not any(password in done.stdout + done.stderr for password in PASSWORDS.values() if len(password) > 1)

    def enter(role: str, password: str, database: str) -> object:
        with psycopg.connect(host="127.0.0.1", port=port, user=role, password=password, dbname=database) as connection:
            row = connection.execute("SELECT current_user::text").fetchone()
            return row[0] if row else None

    assert enter("a", PASSWORDS["a-password"], "a") == "a"
    assert enter("b", PASSWORDS["b-password"], "second") == "b"
    assert enter("plinth_monitor", "m", "postgres") == "plinth_monitor"
    for role, password, database in (
        ("a", PASSWORDS["a-password"], "second"),
        ("a", PASSWORDS["a-password"], "postgres"),
        ("plinth_monitor", "m", "a"),
        ("plinth_monitor", "m", "template1"),
    ):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            enter(role, password, database)
    for right in MONITOR_RIGHTS:
        assert right.replace("{}", "%I").replace("'", "''") in " ".join(command)
    log = (tmp_path / "log").read_text()
    assert not any(password in log for password in PASSWORDS.values() if len(password) > 1)
    test, _ = script("postgres", values, "Pod")
    done = run(test, {**place, "PGHOST=r-postgres PGPORT=5432": f"PGHOST=127.0.0.1 PGPORT={port}"}, PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok:" in done.stdout


@needs_helm
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server: install the package redis-server")
@pytest.mark.parametrize("password", ["plain", 'with "quotes" and \\ and $x `id`'])
def test_redis_asks_for_the_password_of_its_secret(tmp_path: Path, password: str) -> None:
    port = free_port()
    auth = {"existingSecret": "k", "exporterPasswordKey": "e"}
    values = yaml.safe_dump({"auth": auth, "service": {"port": port}})
    command, container = script("redis", values, "StatefulSet")
    place = {
        "/etc/plinth-secrets/": f"{tmp_path}/secrets/",
        "/etc/plinth/": f"{tmp_path}/config/",
        "/run/plinth/": f"{tmp_path}/run/",
        '"/data"': f'"{tmp_path}/data"',
    }
    for folder in ("secrets", "config", "run", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "secrets/password").write_text(password)
    (tmp_path / "secrets/exporter-password").write_text(f"{password}-of-the-exporter")
    text = one(objects("redis", values), "ConfigMap")["data"]["redis.conf"].replace("0.0.0.0", "127.0.0.1")
    for words, others in place.items():
        text = text.replace(words, others)
        command = [argument.replace(words, others) for argument in command]
    (tmp_path / "config/redis.conf").write_text(text)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        client = redis.Redis(port=port, password=password)

        def answers() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            with suppress(redis.ConnectionError):
                return bool(client.ping())
            return False

        wait_for(answers, lambda: (tmp_path / "log").read_text())
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        probe = container["readinessProbe"]["exec"]["command"]
        assert run(probe, place).returncode == 0
        assert (tmp_path / "run/password.conf").stat().st_mode & 0o077 == 0
        rules = EXPORTER_RULES
        assert f"{password}-of-the-exporter" not in (tmp_path / "run/password.conf").read_text()
        assert rules in (tmp_path / "run/password.conf").read_text()
        exporter = redis.Redis(port=port, username="plinth_exporter", password=f"{password}-of-the-exporter")
        assert exporter.info()
        with pytest.raises(redis.exceptions.NoPermissionError):
            exporter.get("x")
        assert password not in " ".join(command)
        test, _ = script("redis", values, "Pod")
        done = run(test, {**place, "-h r-redis": "-h 127.0.0.1"})
        assert done.returncode == 0, done.stdout + done.stderr
        (tmp_path / "secrets/password").write_text("another")
        assert run(probe, place).returncode != 0
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.parametrize("more", ["", "replicas: 3\ncluster: {allowSingleReplica: true}"])
def test_a_node_takes_as_many_open_files_as_it_may(tmp_path: Path, more: str) -> None:
    command, _ = script("qdrant", f"auth: {{existingSecret: k}}\n{more}", "StatefulSet")
    nodes = Nodes(tmp_path, tmp_path / "qdrant")
    nodes.qdrant.write_text("#!/usr/bin/env bash\necho $(ulimit -Sn) $(ulimit -Hn) $1\n")
    nodes.qdrant.chmod(0o755)
    nodes.record(0, JOINED)
    fewer = ["bash", "-c", 'ulimit -Sn 256; ulimit -Hn 512; cd "$0"; exec "$@"', str(tmp_path)]
    done = run([*fewer, *command], {"/opt/plinth/start.sh": str(SCRIPT)}, **nodes.given(0))
    assert done.stdout == "512 512 --config-path\n", done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_scripts_are_clean() -> None:
    scripts = [str(path) for path in CHARTS.glob("*/files/*.sh")]
    done = subprocess.run(
        ["shellcheck", "--shell=bash", "--severity=warning", *scripts], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
