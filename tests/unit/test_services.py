"""Services say what they need without knowing the target; secrets go to files alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from plinth.services import gateway
from plinth.services.mutual_tls import Identity, identities
from plinth.services.render import command, files
from plinth.services.secrets import secrets
from plinth.services.web_login import web_logins
from plinth.settings import Settings
from plinth.settings.loader import load_settings, parse
from tests.conftest import ROOT
from tests.services import services_of


class Elsewhere:
    """A place that is none of the targets'."""

    stack = "t"
    bind = "127.0.0.1"
    output = "/var/log/*.log"
    cgroups = None

    def address(self, service: str, port: str) -> str:
        return f"{service}.test:{port}"

    node = 0

    def addresses(self, service: str, port: str) -> list[str]:
        return [self.address(service, port)]

    def peer(self, service: str, node: int, port: str) -> str:
        return f"{service}-{node}.test:{port}"

    def file(self, service: str, name: str) -> str:
        return f"/etc/{service}/{name}"

    def volume(self, service: str, name: str) -> str:
        return f"/var/{service}/{name}"

    def read(self, service: str, name: str) -> dict[str, str]:
        return {service: self.volume(service, name)}

    def takes_url_files(self) -> bool:
        return True


def secret_names(settings: Settings) -> set[str]:
    """The secrets that a service's files may ask for: of the settings, and what is made of those."""
    names = {*secrets(settings), *(login.config for login in web_logins(settings))}
    served = gateway.TLS if settings.gateway.tls else ()
    return names.union(served, *(Identity(name).files for name in identities(services_of(settings))))


def rendered(**values: Any) -> dict[str, dict[str, str]]:
    settings = parse({"target": "local", **values}, source="x")
    known = {name: f"secret-of-{name}" for name in secret_names(settings)}
    return {s.name: files(s, Elsewhere(), known, ROOT) for s in services_of(settings)}


@pytest.mark.parametrize("env", ["local", "dev", "cluster", "staging", "prod"])
@pytest.mark.requirement("S1-14")
def test_every_service_of_every_environment_renders_and_shows_no_secret(env: str) -> None:
    settings = load_settings(ROOT, env)
    known = {name: f"secret-of-{name}" for name in secret_names(settings)}
    for service in services_of(settings):
        assert set(service.secret_files) <= set(known)
        filled = command(service, Elsewhere())
        contents = files(service, Elsewhere(), known, ROOT)
        assert all(contents.values())
        assert "secret-of-" not in " ".join([*filled.arguments, *filled.initialise, *filled.environment.values()])


@pytest.mark.requirement("S1-07")
def test_qdrants_config_has_keys_no_telemetry_and_no_cors() -> None:
    config = yaml.safe_load(rendered()["qdrant"]["config.yaml"])
    assert config["telemetry_disabled"] is True
    assert config["service"]["enable_cors"] is False
    assert config["service"]["api_key"] == "secret-of-qdrant_api_key"
    assert config["service"]["read_only_api_key"] == "secret-of-qdrant_read_only_api_key"
    assert config["storage"]["storage_path"] == "/var/qdrant/storage"


def test_qdrant_without_auth_has_no_key_in_its_config() -> None:
    config = yaml.safe_load(rendered(qdrant={"auth": False})["qdrant"]["config.yaml"])
    assert "api_key" not in config["service"]


@pytest.mark.requirement("S1-04")
def test_redis_is_persistent_bounded_and_locked() -> None:
    lines = rendered(redis={"maxmemory_mib": 64})["redis"]["redis.conf"].splitlines()
    assert {"appendonly yes", "maxmemory 64mb", "maxmemory-policy allkeys-lru"} <= set(lines)
    assert 'requirepass "secret-of-redis_password"' in lines


@pytest.mark.requirement("S1-09")
def test_prometheus_scrapes_exporters_and_never_the_stores_themselves() -> None:
    config = yaml.safe_load(rendered()["prometheus"]["prometheus.yml"])
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert {"qdrant", "redis-exporter", "postgres-exporter", "node-exporter", "alertmanager"} <= set(jobs)
    assert not {"redis", "postgres"} & set(jobs)
    assert jobs["qdrant"]["authorization"]["credentials_file"] == "/etc/prometheus/qdrant_read_only_api_key.secret"


def test_what_is_left_out_is_not_scraped() -> None:
    settings = parse({"target": "local"}, source="x")
    found = {service.name: service for service in services_of(settings, left_out=("grafana",))}
    assert "grafana" not in found
    values = dict.fromkeys(secret_names(settings), "k")
    assert "grafana" not in files(found["prometheus"], Elsewhere(), values, ROOT)["prometheus.yml"]


def test_a_disabled_service_takes_its_exporter_with_it() -> None:
    assert not {"redis", "redis-exporter"} & set(rendered(redis={"enabled": False}))


def test_the_redis_exporter_finds_the_password_by_address() -> None:
    passwords = json.loads(rendered()["redis-exporter"]["passwords.json"])
    password = "secret-of-redis_exporter_password"
    assert passwords == {
        "redis://redis.test:resp": password,
        "redis://plinth_exporter@redis.test:resp": password,
    }


@pytest.mark.requirement("S1-14")
@pytest.mark.parametrize("provider", [{}, {"name": "http", "url": "https://m.test/v1", "model": "m", "api_key": "k"}])
@pytest.mark.parametrize("tracing", [{}, {"endpoint": "https://t.test:4318", "headers": "x-key=k"}])
def test_the_gateways_worker_has_the_keys_of_the_stores_and_none_that_admits_callers(
    provider: dict[str, Any], tracing: dict[str, Any]
) -> None:
    wanted: dict[str, Any] = {"enabled": True, "tls": {}}
    wanted |= ({"provider": provider} if provider else {}) | ({"tracing": tracing} if tracing else {})
    found = rendered(gateway=wanted)
    keys = {name: {file for file in contents if file.endswith(".secret")} for name, contents in found.items()}
    admitting = {
        "gateway_signing_key.secret",
        "gateway_metrics_token.secret",
        *(f"{name}.secret" for name in gateway.TLS),
    }
    # Who signed its certificate is for those who ask it.
    assert keys["gateway"] - keys["gateway-worker"] == admitting - {f"{gateway.TLS[2]}.secret"}
    assert keys["gateway-worker"] == {
        "qdrant_api_key.secret",
        "postgres_plinth_gateway_password.secret",
        "redis_password.secret",
        *(["gateway_provider_key.secret"] if provider else []),
        *(["gateway_tracing_headers.secret"] if tracing else []),
    }
    for name, role in (("gateway", "server"), ("gateway-worker", "worker")):
        config = yaml.safe_load(found[name]["gateway.yaml"])
        assert {"tokens", "metrics_token_file"} - set(config) == (
            set() if role == "server" else {"tokens", "metrics_token_file"}
        )
        assert ("cert_file" in config["listen"]) == (role == "server")
        assert config.get("tracing", {}).get("endpoint") == tracing.get("endpoint")


def test_prometheus_and_the_gate_follow_the_gateway_to_tls_and_scrape_it_with_its_token() -> None:
    for tls, scheme, ca in (({}, "http", False), ({"tls": {}}, "https", True)):
        settings = parse({"target": "docker", "gateway": {"enabled": True, **tls}}, source="x")
        found = {service.name: service for service in services_of(settings)}
        values = dict.fromkeys(secret_names(settings), "k")
        config = yaml.safe_load(files(found["prometheus"], Elsewhere(), values, ROOT)["prometheus.yml"])
        (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "gateway"]
        assert (job.get("scheme", "http"), "tls_config" in job) == (scheme, ca)
        assert job["authorization"]["credentials_file"] == "/etc/prometheus/gateway_metrics_token.secret"
        assert (found["gateway"].health.tls, found["gateway"].health.ca) == (ca, gateway.TLS[2] if ca else None)


def test_services_stand_behind_those_they_need() -> None:
    seen: set[str] = set()
    for service in services_of(load_settings(ROOT, "local")):
        assert set(service.needs) <= seen
        seen.add(service.name)


def test_plinths_exporter_follows_qdrant_to_tls_and_asks_with_the_read_only_key() -> None:
    for values, scheme, ca in (({}, "http", False), ({"tls": {}}, "https", True)):
        settings = parse({"target": "local", "qdrant": values}, source="x")
        (service,) = [found for found in services_of(settings) if found.name == "plinth-exporter"]
        known = {name: f"secret-of-{name}" for name in service.secret_files}
        contents = files(service, Elsewhere(), known, ROOT)
        asked = yaml.safe_load(contents["config.yaml"])["qdrant"]
        assert asked["url"].startswith(f"{scheme}://qdrant")
        assert asked["api_key_file"] == "/etc/plinth-exporter/qdrant_read_only_api_key.secret"
        assert ("ca_file" in asked) is ca
        assert "qdrant_api_key" not in known


ODD = '/srv/it\'s "odd" #c ;d: 50%\\n [a]*ü/plinth'


class Odd(Elsewhere):
    """A place below a directory that every format reads otherwise unless it is quoted."""

    def file(self, service: str, name: str) -> str:
        return f"{ODD}/etc/{service}/{name}"

    def volume(self, service: str, name: str) -> str:
        return f"{ODD}/var/{service}/{name}"


def strings(value: Any) -> list[str]:
    """Every string in a YAML document."""
    if isinstance(value, dict):
        return [found for inner in value.values() for found in strings(inner)]
    if isinstance(value, list):
        return [found for inner in value for found in strings(inner)]
    return [value] if isinstance(value, str) else []


def test_every_path_in_a_file_is_quoted_as_its_reader_wants_it() -> None:
    """F15: a `#` began a comment, a `:` a mapping, a quote ended the string."""
    everything = {"neo4j": {"enabled": True}, "monitoring": {"loki": {"enabled": True}}}
    settings = parse({"target": "docker", **everything}, source="x")
    known = dict.fromkeys(secret_names(settings), "s")
    seen: set[str] = set()
    for service in services_of(settings):
        for name, text in files(service, Odd(), known, ROOT).items():
            if "/plinth/" not in text:
                continue
            if name.endswith((".yaml", ".yml")):
                paths = [found for found in strings(yaml.safe_load(text)) if "/srv/it" in found]
                expected = ODD.replace("\\", "\\\\").replace("[", "\\[").replace("*", "\\*")
                assert all(ODD in path or expected in path for path in paths), name
                assert len(paths) == text.count("/plinth/etc/") + text.count("/plinth/var/"), (service.name, name)
            elif name == "redis.conf":
                assert f'dir "{_escaped(ODD, chr(34))}/var/redis/data"\n' in text
            elif name == "postgresql.conf":
                doubled = _escaped(ODD, "").replace("'", "''")
                assert f"hba_file = '{doubled}/etc/postgres/pg_hba.conf'\n" in text
            elif name == "grafana.ini":
                assert f'data = """{ODD}/var/grafana/data"""\n' in text
            elif name == "neo4j.conf":
                assert f"server.directories.data={_escaped(ODD, '')}/var/neo4j/data\n" in text
            seen.add(name)
    assert {"redis.conf", "postgresql.conf", "prometheus.yml", "grafana.ini", "neo4j.conf", "loki.yaml"} <= seen


def test_redis_finds_its_file_where_the_name_would_be_a_pattern() -> None:
    """It started on its default port, without a password and without a word."""
    [redis] = [s for s in services_of(parse({"target": "local"}, source="x")) if s.name == "redis"]
    [argument] = command(redis, Odd()).arguments
    assert argument == f"{ODD}/etc/redis/redis.conf".replace("\\", "\\\\").replace("[", "\\[").replace("*", "\\*")
    assert command(redis, Elsewhere()).arguments == ("/etc/redis/redis.conf",)


def _escaped(path: str, also: str) -> str:
    escaped = path.replace("\\", "\\\\")
    return escaped.replace(also, f"\\{also}") if also else escaped
