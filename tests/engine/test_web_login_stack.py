"""Prometheus and Alertmanager of a local stack: who may ask them, and whom their alerts reach."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from tests.answers import Answers, close, serve
from tests.conftest import free_port
from tests.project import Environment, needs_prometheus, needs_pulumi
from tests.runbooks import typed
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.engine,
    needs_pulumi,
    needs_prometheus,
    pytest.mark.skipif(
        shutil.which("prometheus-alertmanager") is None, reason="no Alertmanager on this machine: run `make bootstrap`"
    ),
]
OFF = {"enabled": False}
SERVERS = ("prometheus", "alertmanager")
TOKEN = "SECRETTOKEN123"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    settings: dict[str, Any] = {
        "plinth:target": "local",
        "plinth:qdrant": {"engine": "embedded", "http_port": free_port(), "grpc_port": free_port()},
        "plinth:postgres": OFF,
        "plinth:redis": OFF,
        "plinth:backup": OFF,
        "plinth:collections": {"only": []},
        "plinth:monitoring": {
            **{server: {"port": free_port()} for server in SERVERS},
            "grafana": OFF,
            "exporters": OFF,
        },
    }
    directory = tmp_path_factory.mktemp(f"login{secrets.token_hex(3)}")
    made = Environment(directory, settings)
    try:
        made.up()
        yield made
    finally:
        made.plinth("down", made.env, "--yes")


def code(section: dict[str, Any], path: str, password: str | None = None) -> int:
    auth = (section["user"], password) if password else None
    return httpx.get(section["url"] + path, auth=auth).status_code


@pytest.mark.requirement("S1-14")
def test_a_generated_password_opens_each_and_shows_in_no_argument_environment_or_plain_output(
    project: Environment,
) -> None:
    outputs = project.outputs()
    masked = project.plinth("outputs", project.env, "--json") + project.plinth("outputs", project.env)
    seen = ""
    for process in psutil.process_iter(["cmdline"]):
        seen += " ".join(process.info["cmdline"] or ())
        # Some have ended since, and others are not ours to look into.
        with suppress(psutil.Error):
            seen += " ".join(process.environ().values())
    for server in SERVERS:
        section = outputs[server]
        assert len(section["password"]) >= 24
        assert section["password"] not in masked + seen + project.states()
        assert "$2b$" not in masked + seen + project.states()
        assert code(section, "/-/ready") == code(section, "/api/v1/status/config", "wrong") == 401
        assert code(section, "/-/ready", section["password"]) == 200
    assert outputs["prometheus"]["password"] != outputs["alertmanager"]["password"]
    status = project.json("status", project.env)
    assert all(status["deps"][server]["ok"] for server in SERVERS)


def test_another_up_changes_nothing(project: Environment) -> None:
    assert "nothing to change" in project.up()


def test_the_runbooks_words_log_in_and_no_argument_has_the_password(project: Environment) -> None:
    outputs = project.outputs()
    lines = [
        *("login prometheus", "ask prometheus /-/ready", "ask alertmanager /-/healthy", "prom 'vector(42)'", "alerts"),
        "am silence add alertname=FromARunbook --duration=1m --comment=why",
        "am silence query",
    ]
    if shutil.which("amtool") is None:
        lines = [line for line in lines if not line.startswith("am ")]
    printed = typed(project.root, *lines)
    assert f"plinth {outputs['prometheus']['password']}\n" in printed
    assert "Prometheus" in printed
    assert "42\t{}" in printed
    assert shutil.which("amtool") is None or "FromARunbook" in printed


def test_a_password_of_ones_own_takes_the_place_of_the_generated_one(project: Environment) -> None:
    before = project.outputs()
    for server in SERVERS:
        project.plinth("secret", project.env, f"monitoring.{server}.password", said=f"of-our-own.{server}")
    project.up()
    after = project.outputs()
    for server in SERVERS:
        assert after[server]["password"] == f"of-our-own.{server}"
        assert code(after[server], "/-/ready", after[server]["password"]) == 200
        assert code(after[server], "/-/ready", before[server]["password"]) == 401
    assert "nothing to change" in project.up()


def test_a_receivers_token_reaches_it_and_an_address_that_would_be_shown_is_refused(project: Environment) -> None:
    calls: dict[str, str] = {}

    class Hook(Answers):
        def do_POST(self) -> None:
            self.content()
            calls[self.path] = self.headers.get("Authorization", "")
            self.reply(200)

    server = serve(Hook)
    try:
        address = f"http://127.0.0.1:{server.server_port}/beat"
        project.plinth("secret", project.env, "monitoring.alertmanager.heartbeat_url", said=address)
        version = subprocess.run(["prometheus-alertmanager", "--version"], capture_output=True, text=True, check=True)
        named = re.search(r"version 0\.(\d+)", version.stdout + version.stderr)
        if named and int(named[1]) < 26:
            refused = project.plinth("up", project.env, "--no-verify", expect=2)
            assert "put its secret into heartbeat_token" in " ".join(refused.split())
            assert address not in refused
        project.plinth("secret", project.env, "monitoring.alertmanager.heartbeat_token", said=TOKEN)
        project.up()
        wait_for(lambda: "/beat" in calls, "no heartbeat came")
    finally:
        close(server)
    assert calls["/beat"] == f"Bearer {TOKEN}"
    section = project.outputs()["alertmanager"]
    shown = httpx.get(f"{section['url']}/api/v2/status", auth=(section["user"], section["password"])).text
    assert "credentials_file" in shown
    assert TOKEN not in shown + project.states()
