"""Whoever asks Prometheus or Alertmanager has to log in: another user of the machine, and a page in a browser.

Against the real servers, as their services declare them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest

from plinth.errors import UserError
from plinth.health.probes import Probe, ProbeFailed
from plinth.health.status import Policy, check, dependencies
from plinth.programs.healthchecks import login as login_check
from plinth.services.web_config import web_config
from plinth.settings.loader import parse
from tests.waiting import wait_for
from tests.web import NEWER, PASSWORDS, login, needs_servers, running, settings

EVIL = "http://evil.example"
ROUTES = {
    "prometheus": (
        *("GET /", "GET /graph", "GET /metrics", "GET /federate?match[]=up", "GET /debug/pprof/"),
        *("GET /debug/pprof/cmdline", "GET /-/ready", "GET /-/healthy", "POST /-/reload", "PUT /-/quit"),
        *("GET /api/v1/query?query=up", "POST /api/v1/query", "GET /api/v1/targets", "GET /api/v1/status/config"),
        *("POST /api/v1/write", "POST /api/v1/read", "POST /api/v1/admin/tsdb/delete_series?match[]=up"),
        *("GET /api/v1/nothing", "GET /nothing", "OPTIONS /api/v1/query", "HEAD /", "GET //-/ready", "TRACE /"),
    ),
    "alertmanager": (
        *("GET /", "GET /metrics", "GET /debug/pprof/", "GET /-/ready", "GET /-/healthy", "POST /-/reload"),
        *("GET /api/v2/status", "GET /api/v2/alerts", "POST /api/v2/alerts", "GET /api/v2/silences"),
        *("POST /api/v2/silences", "DELETE /api/v2/silence/0", "GET /api/v2/receivers", "OPTIONS /api/v2/silences"),
        *("GET /api/v1/status", "GET /nothing", "HEAD /", "GET //-/ready", "TRACE /"),
    ),
}
LOGINS: dict[str, dict[str, str]] = {
    "none": {},
    "a wrong password": {"Authorization": "Basic cGxpbnRoOndyb25n"},
    "no password": {"Authorization": "Basic cGxpbnRoOg=="},
    "another user": {"Authorization": "Basic YWRtaW46YWRtaW4="},
    "a token": {"Authorization": "Bearer of-prometheus-alone"},
    "no base64": {"Authorization": "Basic ????"},
    "a page's origin": {"Origin": EVIL},
    "a name that was bound anew": {"Host": "evil.example"},
    "a name that was bound anew and an origin": {"Host": "evil.example", "Origin": EVIL},
    "a forwarded host": {"X-Forwarded-Host": "localhost", "X-Forwarded-For": "127.0.0.1"},
}
CLIENT = httpx.Client(trust_env=False)
SILENCE = {
    "matchers": [{"name": "alertname", "value": ".+", "isRegex": True}],
    "startsAt": "2026-01-01T00:00:00Z",
    "endsAt": "2036-01-01T00:00:00Z",
    "createdBy": "nobody",
    "comment": "of a page",
}


@pytest.fixture(scope="module", params=["installed", *(["newer"] if NEWER else [])])
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    other = {"alertmanager": NEWER} if NEWER and request.param == "newer" else {}
    with running(tmp_path_factory.mktemp("web"), settings(), **other) as urls:
        yield urls


@needs_servers
@pytest.mark.parametrize("headers", LOGINS.values(), ids=list(LOGINS))
@pytest.mark.parametrize(("server", "route"), [(s, route) for s, routes in ROUTES.items() for route in routes])
def test_no_route_answers_who_is_not_logged_in(
    servers: dict[str, str], server: str, route: str, headers: dict[str, str]
) -> None:
    method, path = route.split(" ")
    answer = CLIENT.request(method, servers[server] + path, headers=headers)
    assert answer.status_code == 401
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert answer.text.strip() in ("Unauthorized", "")


@needs_servers
@pytest.mark.parametrize("server", PASSWORDS)
def test_one_servers_login_is_not_the_others(servers: dict[str, str], server: str) -> None:
    other = next(name for name in PASSWORDS if name != server)
    assert httpx.get(f"{servers[server]}/-/ready", auth=login(other)).status_code == 401
    assert httpx.get(f"{servers[server]}/-/ready", auth=login(server)).status_code == 200


def silences(servers: dict[str, str]) -> Any:
    return httpx.get(f"{servers['alertmanager']}/api/v2/silences", auth=login("alertmanager")).json()


@needs_servers
def test_a_page_of_another_site_makes_no_silence_even_in_a_browser_that_is_logged_in(servers: dict[str, str]) -> None:
    url = f"{servers['alertmanager']}/api/v2/silences"
    origin = {"Origin": EVIL}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    # JSON needs the browser's preflight, which never has a login.
    assert httpx.options(url, headers=asked).status_code == 401
    assert httpx.post(url, json=SILENCE, headers=origin).status_code == 401
    # What a form or a script sends without a preflight, with the login that the browser remembers.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        sent = {**origin, "Content-Type": kind}
        for path, body in (("silences", SILENCE), ("alerts", [{"labels": {"alertname": "A"}}])):
            answer = httpx.post(
                f"{servers['alertmanager']}/api/v2/{path}",
                content=json.dumps(body),
                headers=sent,
                auth=login("alertmanager"),
            )
            assert answer.status_code == 415, (path, kind)
    assert silences(servers) == []
    # The same is made by who is logged in and asks as the API wants it, so that the test could have failed.
    made = httpx.post(url, json=SILENCE, auth=login("alertmanager"))
    assert made.status_code == 200
    assert [silence["comment"] for silence in silences(servers)] == ["of a page"]


@needs_servers
@pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1:1", "http://localhost"])
def test_no_page_of_another_site_may_read_what_prometheus_answers_or_show_it_in_a_frame(
    servers: dict[str, str], origin: str
) -> None:
    for path in ("/api/v1/query?query=up", "/api/v1/status/config", "/metrics"):
        answer = httpx.get(servers["prometheus"] + path, headers={"Origin": origin}, auth=login("prometheus"))
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers
    for server, url in servers.items():
        assert httpx.get(url, auth=login(server)).headers["x-frame-options"] == "deny"


@needs_servers
@pytest.mark.parametrize(
    ("server", "route", "why"),
    [
        ("prometheus", "POST /-/quit", "Lifecycle API is not enabled"),
        ("prometheus", "POST /-/reload", "Lifecycle API is not enabled"),
        ("prometheus", "POST /api/v1/write", "remote write receiver"),
        ("prometheus", "POST /api/v1/admin/tsdb/delete_series?match[]=up", "admin APIs disabled"),
        ("prometheus", "POST /api/v1/admin/tsdb/clean_tombstones", "admin APIs disabled"),
        ("prometheus", "POST /api/v1/admin/tsdb/snapshot", "admin APIs disabled"),
        ("alertmanager", "POST /-/quit", "not found"),
    ],
)
def test_who_is_logged_in_may_look_and_neither_stop_a_server_nor_write_or_delete_samples(
    servers: dict[str, str], server: str, route: str, why: str
) -> None:
    method, path = route.split(" ")
    answer = CLIENT.request(method, servers[server] + path, auth=login(server))
    assert answer.is_error
    assert why in answer.text
    assert CLIENT.get(f"{servers[server]}/-/healthy", auth=login(server)).status_code == 200


@needs_servers
@pytest.mark.requirement("S1-09")
def test_prometheus_knows_its_own_login_and_alertmanagers(servers: dict[str, str]) -> None:
    def read() -> bool:
        asked = {"query": 'up{job=~"prometheus|alertmanager"} == 1'}
        answer = httpx.get(f"{servers['prometheus']}/api/v1/query", params=asked, auth=login("prometheus"))
        return len(answer.json()["data"]["result"]) == 2

    def alerted() -> bool:
        answer = httpx.get(f"{servers['alertmanager']}/api/v2/alerts", auth=login("alertmanager"))
        return "Watchdog" in {alert["labels"]["alertname"] for alert in answer.json()}

    wait_for(read, "Prometheus does not read itself and Alertmanager", 60)
    wait_for(alerted, "no alert reaches Alertmanager", 60)


@needs_servers
@pytest.mark.skipif(shutil.which("busybox") is None, reason="no busybox: apt-get install busybox")
@pytest.mark.parametrize("shell", ["busybox", "sh"])
@pytest.mark.parametrize("server", PASSWORDS)
def test_a_containers_health_command_logs_in_from_the_file_and_no_argument_has_the_password(
    servers: dict[str, str], server: str, shell: str, tmp_path: Path
) -> None:
    # The images have busybox' programs alone, which are not quite like others of the same names.
    for name in ("base64", "cat", "grep", "head", "nc", "tr", *(("sh",) if shell == "busybox" else ())):
        (tmp_path / name).symlink_to(str(shutil.which("busybox")))
    given = tmp_path / "password"
    _, _, script, *named = login_check("http", "/-/ready", "plinth", str(given))
    named[-2] = servers[server].rpartition(":")[2]
    assert PASSWORDS[server] not in " ".join([script, *named])
    path = f"{tmp_path}:/bin" if shell == "sh" else str(tmp_path)
    program = str(shutil.which("sh", path=path))

    def ends() -> int:
        return subprocess.run([program, "-c", script, *named], env={"PATH": path}, check=False).returncode

    for password, code in ((PASSWORDS[server], 0), (PASSWORDS[server] + "\n", 0), ("wrong", 1), ("w" * 72, 1)):
        given.write_text(password)
        assert ends() == code, password
    named[-2] = "9"
    assert ends() == 1


@needs_servers
@pytest.mark.parametrize("server", PASSWORDS)
def test_the_gate_and_status_ask_with_the_login_and_say_when_it_is_refused(
    servers: dict[str, str], server: str
) -> None:
    port = int(servers[server].rpartition(":")[2])
    probe = Probe("http", "127.0.0.1", port, "/-/ready", "plinth")
    probe.run(PASSWORDS[server], timeout_s=5)
    with pytest.raises(ProbeFailed, match="answered 401: Unauthorized") as refused:
        probe.run("wrong-" + PASSWORDS[server], timeout_s=5)
    assert PASSWORDS[server] not in str(refused.value)
    outputs = {"qdrant": {"url": "http://127.0.0.1:9", "api_key": None}}
    where = {"url": servers[server], "user": "plinth", "password": PASSWORDS[server]}
    for password, ok in ((PASSWORDS[server], True), ("wrong", False)):
        status = check("x", dependencies(outputs | {server: where | {"password": password}}, {}), Policy(3000))
        assert status.deps[server].ok is ok


def test_the_hash_is_the_passwords_and_stays_from_one_deploy_to_the_next() -> None:
    first = web_config("plinth", "a-password", "a-salt")
    assert first == web_config("plinth", "a-password", "a-salt")
    made = {first, web_config("plinth", "a-password", "b-salt"), web_config("plinth", "b-password", "a-salt")}
    hashes = [json.loads(text)["basic_auth_users"]["plinth"] for text in made]
    assert len(set(hashes)) == 3
    (own,) = json.loads(first)["basic_auth_users"].values()
    assert bcrypt.checkpw(b"a-password", own.encode())
    assert not bcrypt.checkpw(b"b-password", own.encode())
    assert "a-password" not in first
    assert "a-salt" not in first


@pytest.mark.parametrize("given", ["short", "with space", "dollar$dollar", "x" * 73, "umlaut-äöüß", 'quote"quote', ""])
@pytest.mark.parametrize("server", PASSWORDS)
def test_a_password_that_a_file_or_bcrypt_would_change_is_refused_and_not_shown(server: str, given: str) -> None:
    with pytest.raises(UserError) as refused:
        parse({"target": "local", "monitoring": {server: {"password": given}}}, source="x")
    assert f"monitoring.{server}.password" in str(refused.value)
    assert not given or given not in str(refused.value)
    assert "8 to 72 letters" in str(refused.value)
