"""Every port of every service asks who is there, or is one of four pages that take no orders and stay on loopback."""

from __future__ import annotations

from typing import get_args

import pytest
import yaml

from plinth.services.render import command, files
from plinth.settings.loader import parse
from plinth.settings.targets import Publishable
from plinth.targets.docker.container_spec import LOOPBACK, Options, declare
from plinth.targets.docker.naming import Layout
from tests.conftest import ROOT
from tests.services import services_of
from tests.unit.test_services import Elsewhere, secret_names

# Those with accounts, keys, tokens or a login of their own.
PASSWORD = {"qdrant", "postgres", "redis", "neo4j", "grafana", "prometheus", "alertmanager", "gateway"}
# Metrics and health, which take no orders.
OPEN = {"plinth-exporter", "plinth-backup", "fluent-bit", "gateway-worker"}
EVERYTHING = {
    "neo4j": {"enabled": True},
    "gateway": {"enabled": True},
    "monitoring": {"loki": {"enabled": True}},
}


@pytest.mark.parametrize("target", ["local", "docker"])
def test_whoever_has_no_password_asks_for_a_certificate(target: str) -> None:
    settings = parse({"target": target, **EVERYTHING}, source="x")
    secrets = dict.fromkeys(secret_names(settings), "s")
    found = {service.name: service for service in services_of(settings)}
    assert set(found) >= PASSWORD | OPEN
    for name in found.keys() - PASSWORD - OPEN:
        service = found[name]
        assert service.identity in ("server", "peer"), name
        assert service.health.mutual, name
        assert service.scrape, name
        assert service.scrape.mutual, name
        text = " ".join(
            [*command(service, Elsewhere()).arguments, *files(service, Elsewhere(), secrets, ROOT).values()]
        )
        assert "client_auth_type: RequireAndVerifyClientCert" in text or "--tls-server-ca-cert-file=" in text, name


def test_what_may_be_published_asks_for_a_password_and_the_open_pages_never_are() -> None:
    assert set(get_args(Publishable)) <= PASSWORD
    names = list(get_args(Publishable))
    values = {"target": "docker", "bind_address": "0.0.0.0", "docker": {"publish": names}, **EVERYTHING}
    settings = parse(values, source="x")
    found = {service.name: service for service in services_of(settings)}
    for name, service in found.items():
        declared = declare(service, Layout("t", found), Options(settings.published))
        addresses = {port.address for port in declared.ports}
        assert addresses == ({"0.0.0.0"} if name in names else {LOOPBACK}), name


def test_the_agents_page_takes_no_orders() -> None:
    settings = parse({"target": "local", **EVERYTHING}, source="x")
    (agent,) = [service for service in services_of(settings) if service.name == "fluent-bit"]
    text = files(agent, Elsewhere(), dict.fromkeys(secret_names(settings), "s"), ROOT)["fluent-bit.yaml"]
    # POST /api/v2/reload answers "not enabled" without the first, and nothing traces without the second.
    assert not {"hot_reload", "enable_chunk_trace"} & set(yaml.safe_load(text)["service"])
    inputs = {each["name"] for each in yaml.safe_load(text)["pipeline"]["inputs"]}
    assert inputs <= {"tail", "forward"}
