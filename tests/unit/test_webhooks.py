"""Where alerts go: the secret of a receiver reaches it, and nobody else is shown it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from plinth.deployment.preflight import preflight
from plinth.deployment.program import check
from plinth.errors import UserError
from plinth.programs.executables import Found, version
from plinth.services.webhooks import TOKENS, image_refusals, version_refusals
from plinth.settings import Settings
from plinth.settings.loader import parse
from tests.answers import Answers, close, serve
from tests.services import plan_of
from tests.waiting import wait_for
from tests.web import NEWER, PROGRAMS, login, needs_servers, running, settings

NO_NEWER = "no Alertmanager 0.26 or later: name one in PLINTH_TESTS_ALERTMANAGER"
SECRET = "SECRETTOKEN123"
ALERTS = {
    "webhook_url": {"alertname": "A", "severity": "page"},
    "ticket_webhook_url": {"alertname": "B", "severity": "ticket"},
    "heartbeat_url": {"alertname": "Watchdog", "severity": "info"},
}


def chosen(**alertmanager: Any) -> Settings:
    return parse({"target": "local", "monitoring": {"alertmanager": alertmanager}}, source="x")


@pytest.fixture
def heard() -> Iterator[tuple[str, dict[str, str]]]:
    """A receiver's address, and the Authorization with which each of its paths was called."""
    calls: dict[str, str] = {}

    class Hook(Answers):
        def do_POST(self) -> None:
            self.content()
            calls[self.path] = self.headers.get("Authorization", "")
            self.reply(200)

    server = serve(Hook)
    yield f"http://127.0.0.1:{server.server_port}", calls
    close(server)


def call(url: str, labels: dict[str, str]) -> None:
    alert = {"labels": labels, "endsAt": "2100-01-01T00:00:00Z"}
    assert httpx.post(f"{url}/api/v2/alerts", json=[alert], auth=login("alertmanager")).status_code == 200


def told(url: str) -> str:
    """All that Alertmanager tells who is logged in."""
    pages = ("/api/v2/status", "/api/v2/receivers", "/api/v2/alerts", "/metrics", "/debug/pprof/cmdline")
    return "".join(httpx.get(url + page, auth=login("alertmanager")).text for page in pages)


@needs_servers
@pytest.mark.requirement("S1-09")
def test_each_receiver_is_called_with_its_token_and_debians_alertmanager_shows_none(
    heard: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    where, calls = heard
    hooks = {url: f"{where}/{url}" for url in TOKENS} | {token: f"{SECRET}-{token}" for token in TOKENS.values()}
    with running(tmp_path, settings(**hooks)) as urls:
        for url, token in TOKENS.items():
            call(urls["alertmanager"], ALERTS[url])
            wait_for(lambda url=url: f"/{url}" in calls, f"nothing came to {url}", 30)
            assert calls[f"/{url}"] == f"Bearer {SECRET}-{token}"
        assert where in told(urls["alertmanager"])
        assert SECRET not in told(urls["alertmanager"])
    assert SECRET not in (tmp_path / "alertmanager.log").read_text()


@needs_servers
@pytest.mark.skipif(NEWER is None, reason=NO_NEWER)
def test_a_newer_alertmanager_reads_each_address_from_a_file_and_shows_none(
    heard: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    where, calls = heard
    found = version(Found((str(NEWER),)))
    assert found
    assert found >= (0, 26)
    hooks = {url: f"{where}/{SECRET}-{url}" for url in TOKENS} | {"heartbeat_token": SECRET}
    with running(tmp_path, settings(**hooks), alertmanager=str(NEWER)) as urls:
        for url in TOKENS:
            call(urls["alertmanager"], ALERTS[url])
            wait_for(lambda url=url: f"/{SECRET}-{url}" in calls, f"nothing came to {url}", 30)
        assert calls[f"/{SECRET}-heartbeat_url"] == f"Bearer {SECRET}"
        assert where not in told(urls["alertmanager"])
        assert SECRET not in told(urls["alertmanager"])
    assert SECRET not in (tmp_path / "alertmanager.log").read_text()


@needs_servers
def test_an_address_that_debians_alertmanager_would_show_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    found = version(Found((str(PROGRAMS["alertmanager"]),)))
    assert found, "it says which it is"
    if found >= (0, 26):
        pytest.skip("this machine's Alertmanager reads addresses from files")
    url = f"http://127.0.0.1:9/hook/{SECRET}"
    alone = {"postgres": {"enabled": False}, "redis": {"enabled": False}, "backup": {"enabled": False}}
    for given, passes in (
        ({}, False),
        ({"webhook_token": "t"}, True),
        ({"public_urls": ["webhook_url"]}, True),
        ({"public_urls": ["heartbeat_url"]}, False),
    ):
        monitoring = {"alertmanager": {"webhook_url": url, **given}, "exporters": {"enabled": False}}
        values = {"target": "local", "qdrant": {"engine": "embedded"}, "monitoring": monitoring, **alone}
        wanted = parse(values, source="x")
        if passes:
            check(plan_of(wanted, tmp_path))
            continue
        with pytest.raises(UserError) as refused:
            check(plan_of(wanted, tmp_path))
        assert str(refused.value) == (
            f"Alertmanager {'.'.join(map(str, found))} shows plinth:monitoring.alertmanager.webhook_url to whoever is "
            "logged in; put its secret into webhook_token, list webhook_url in public_urls if the address holds none, "
            "or install Alertmanager 0.26 or later."
        )


@pytest.mark.parametrize("url", TOKENS)
@pytest.mark.parametrize("running_version", [None, (0, 25, 0), (0, 9), (0, 25, 99)])
def test_every_address_is_taken_for_a_secret_where_it_would_be_shown(
    url: str, running_version: tuple[int, ...] | None
) -> None:
    for address, given, refused in (
        ("https://a.test/hook", {}, True),
        ("https://a.test/hook", {TOKENS[url]: "t"}, False),
        ("https://a.test/hook", {"public_urls": [url]}, False),
        ("https://u:p@a.test/hook", {"public_urls": [url]}, True),
        ("https://u@a.test/hook", {TOKENS[url]: "t"}, True),
    ):
        sentences = list(version_refusals(chosen(**{url: address}, **given), running_version))
        assert bool(sentences) is refused, (address, given)
        assert all(url in sentence and address not in sentence for sentence in sentences)
    assert not list(version_refusals(chosen(**{url: "https://u:p@a.test/hook"}), (0, 26)))
    assert not list(version_refusals(chosen(), running_version))


@pytest.mark.parametrize(("url", "token"), TOKENS.items())
def test_a_token_that_nobody_would_be_called_with_is_refused(url: str, token: str) -> None:
    with pytest.raises(UserError, match=f"{token} is set and {url} is not"):
        preflight(chosen(**{token: SECRET}))
    preflight(chosen(**{token: SECRET, url: "https://a.test"}))


@pytest.mark.parametrize(
    ("image", "refused"),
    [
        ("docker.io/prom/alertmanager:v0.28.1", False),
        ("docker.io/prom/alertmanager:v0.26.0", False),
        ("docker.io/prom/alertmanager:v0.25.1", True),
        ("registry.test:5000/prom/alertmanager:0.9", True),
        ("registry.test:5000/prom/alertmanager:v1.0.0", False),
        ("registry.test:5000/own/alertmanager:abcdef", False),
        ("registry.test:5000/own/alertmanager@sha256:" + "0" * 64, False),
    ],
)
def test_an_image_that_reads_no_address_from_a_file_is_refused(image: str, refused: bool) -> None:
    assert bool(list(image_refusals(chosen(webhook_url="https://a.test", webhook_token="t"), image))) is refused
    assert not list(image_refusals(chosen(), image))


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("alertmanager, version 0.25.0 (branch: debian/sid, revision: 0.25.0-1+b4)", (0, 25, 0)),
        ("alertmanager, version 0.28.1 (branch: HEAD, revision: b2099eaa)", (0, 28, 1)),
        ("alertmanager, version  (branch: , revision: unknown)", None),
        ("", None),
    ],
)
def test_a_programs_version_is_what_it_says(printed: str, expected: tuple[int, ...] | None, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho '{printed}' >&2\n")
    program.chmod(0o755)
    assert version(Found((str(program),))) == expected
    assert version(Found((str(tmp_path / "nothing"),))) is None
