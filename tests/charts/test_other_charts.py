"""What the other charts write for their programs is what the other targets write."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from plinth.backup.config import Config as BackupConfig
from plinth.exporter.config import Config as ExporterConfig
from plinth.services import monitoring, postgres, redis, webhooks
from plinth.services.mutual_tls import Identity
from plinth.services.qdrant import service as qdrant
from plinth.services.render import command, files
from plinth.services.spec import Service
from plinth.settings import Settings
from tests.charts.rendering import CHARTS, Object, Place, needs_helm, objects, of, one
from tests.conftest import ROOT

pytestmark = needs_helm
RULES = ROOT / monitoring.RULES
M = {
    "qdrant": {"targets": ["r-monitoring-qdrant:6333"], "existingSecret": "q"},
    "login": {"existingSecret": "l"},
    "grafana": {"existingSecret": "g"},
}
LOGINS = {
    f"{server}_{part}.secret": f"/etc/plinth-secrets/{server}-{file}"
    for server in ("prometheus", "alertmanager")
    for part, file in (("password", "password"), ("web_config", "web.yml"))
}


class Pods(Place):
    """Hosts are called after the release, secrets have a directory of their own."""

    def __init__(self, paths: dict[str, str], ports: dict[str, int]) -> None:
        self.paths, self.ports = paths, ports

    def address(self, service: str, port: str) -> str:
        return "loki:3100" if service == "loki" else f"r-monitoring-{service}:{self.ports[service]}"

    def file(self, service: str, name: str) -> str:
        return self.paths[name]

    def volume(self, service: str, name: str) -> str:
        return {"postgres": "/var/lib/postgresql/data", "redis": "/data", "grafana": "/var/lib/grafana"}[service]


def written(service: Service, paths: dict[str, str], secrets: dict[str, str], **ports: int) -> dict[str, str]:
    return files(service, Pods(paths, ports), secrets, ROOT)


def settings(**given: Any) -> Settings:
    return Settings.model_validate({"target": "docker", **given})


def lines(text: str) -> set[str]:
    """The lines that say something, with spaces as one."""
    return {" ".join(line.split()) for line in text.splitlines() if line.strip() and not line.strip().startswith("#")}


@pytest.mark.requirement("S1-04")
def test_redis_is_configured_as_elsewhere_but_for_where_its_password_is() -> None:
    chosen = settings(redis={"maxmemory_mib": 512, "maxmemory_policy": "noeviction", "appendonly": False})
    secrets = {"redis_password": "pw", "redis_exporter_password": "e"}
    wanted = lines(written(redis.service(chosen), {}, secrets)["redis.conf"])
    values = {"maxmemoryMib": 512, "maxmemoryPolicy": "noeviction", "appendonly": False}
    found = lines(one(objects("redis", {**values, "auth": {"existingSecret": "k"}}), "ConfigMap")["data"]["redis.conf"])
    assert found - wanted == {"include /run/plinth/password.conf"}
    user = f"user plinth_exporter on #{hashlib.sha256(b'e').hexdigest()} {redis.EXPORTER_RULES}"
    assert wanted - found == {'requirepass "pw"', user}


@pytest.mark.requirement("S1-01")
@pytest.mark.parametrize(("memory", "connections"), [(512, 50), (4096, 200), (128, 300)])
def test_postgres_is_configured_as_elsewhere(memory: int, connections: int) -> None:
    chosen = settings(postgres={"memory_mib": memory, "max_connections": connections})
    paths = {"pg_hba.conf": "/etc/plinth/pg_hba.conf", "postgres_password.secret": "s"}
    wanted = written(postgres.service(chosen), paths, {"postgres_password": "pw"})["postgresql.conf"]
    values = {"memoryMib": memory, "maxConnections": connections, "auth": {"existingSecret": "k"}}
    found = one(objects("postgres", values), "ConfigMap")["data"]["postgresql.conf"]
    assert parameters(found) == parameters(wanted)


def parameters(text: str) -> dict[str, str]:
    pairs = (line.partition(" = ") for line in lines(text))
    return {name: value.strip("'") for name, _, value in pairs}


@pytest.mark.requirement("S1-09")
@pytest.mark.parametrize("page", [None, "https://a.example"])
@pytest.mark.parametrize("ticket", [None, "https://b.example"])
@pytest.mark.parametrize("heartbeat", [None, "https://c.example"])
@pytest.mark.parametrize("tokens", [False, True])
def test_alertmanager_routes_as_elsewhere(
    page: str | None, ticket: str | None, heartbeat: str | None, tokens: bool
) -> None:
    urls = {"webhook_url": page, "ticket_webhook_url": ticket, "heartbeat_url": heartbeat}
    given = {key: url for key, url in urls.items() if url}
    given |= {webhooks.TOKENS[key]: "t" for key in given if tokens}
    service = monitoring.alertmanager(settings(monitoring={"alertmanager": given}))
    secrets = dict.fromkeys(service.secret_files, "k")
    paths = {f"alertmanager_{key}.secret": f"/etc/plinth-secrets/{key}" for key in given}
    wanted = yaml.safe_load(written(service, paths, secrets)["alertmanager.yml"])
    keys = {
        "webhookKey": "webhook_url",
        "webhookTokenKey": "webhook_token",
        "ticketWebhookKey": "ticket_webhook_url",
        "ticketWebhookTokenKey": "ticket_webhook_token",
        "heartbeatKey": "heartbeat_url",
        "heartbeatTokenKey": "heartbeat_token",
    }
    values = {value: key if key in given else "" for value, key in keys.items()}
    found = objects("monitoring", {**M, "alertmanager": {"existingSecret": "a" if given else "", **values}})
    config = yaml.safe_load(one(found, "ConfigMap", "r-monitoring-alertmanager-config")["data"]["alertmanager.yml"])
    by_name = {receiver["name"]: receiver for receiver in config.pop("receivers")}
    assert by_name == {receiver["name"]: receiver for receiver in wanted.pop("receivers")}
    assert config == wanted


@pytest.mark.requirement("S1-09")
@pytest.mark.parametrize("tls", [False, True])
def test_prometheus_scrapes_as_elsewhere(tls: bool) -> None:
    chosen = settings(qdrant={"tls": {} if tls else None})
    scraped = [qdrant(chosen), monitoring.alertmanager(chosen), monitoring.grafana(chosen, (), logs=False)]
    service = monitoring.prometheus(chosen, scraped, sorted(path.name for path in RULES.glob("*.yml")))
    secrets = dict.fromkeys(service.secret_files, "")
    rules = {path.name: f"/etc/plinth-rules/{path.name}" for path in RULES.glob("*.yml")}
    paths = (
        rules
        | LOGINS
        | {
            "qdrant_read_only_api_key.secret": "/etc/plinth-secrets/qdrant-read-only-api-key",
            "qdrant_tls_ca.secret": "/etc/plinth-secrets/qdrant-ca",
        }
    )
    ports = {"qdrant": 6333, "alertmanager": 9093, "grafana": 3000, "prometheus": 9090}
    wanted = yaml.safe_load(written(service, paths, secrets, **ports)["prometheus.yml"])
    given = {**M["qdrant"], "tls": tls, "caSecret": "t" if tls else ""}
    found = objects("monitoring", {**M, "stack": "t", "qdrant": given})
    assert yaml.safe_load(one(found, "ConfigMap", "r-monitoring-prometheus-config")["data"]["prometheus.yml"]) == wanted


@pytest.mark.requirement("S1-14")
@pytest.mark.parametrize("server", ["prometheus", "alertmanager"])
def test_both_servers_ask_for_a_login_as_elsewhere_and_probes_have_it_from_a_file(server: str) -> None:
    chosen = settings()
    services = {
        "prometheus": monitoring.prometheus(chosen, [monitoring.alertmanager(chosen)], ()),
        "alertmanager": monitoring.alertmanager(chosen),
    }
    place = Pods({**LOGINS, f"{server}.yml": "c"}, {})
    place.volume = lambda _service, _name: "v"  # type: ignore[method-assign]
    filled = command(services[server], place)
    found = one(of(CHARTS / "monitoring/ci/everything-values.yaml"), "StatefulSet", f"r-monitoring-{server}")
    spec = found["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    web = [word for word in filled.arguments if word.startswith(("--web.config", "--web.cors"))]
    assert web == [word for word in container["command"] if word.startswith(("--web.config", "--web.cors"))]
    for probe, path in (("startupProbe", "/-/ready"), ("readinessProbe", "/-/ready"), ("livenessProbe", "/-/healthy")):
        assert tuple(container[probe]["exec"]["command"]) == (*filled.check[:-1], path)
        assert "httpGet" not in container[probe]
    (secrets,) = [volume["projected"] for volume in spec["volumes"] if volume["name"] == "secrets"]
    items = {item["path"]: item["key"] for source in secrets["sources"] for item in source["secret"]["items"]}
    assert {f"{server}-password", f"{server}-web.yml"} <= set(items)
    # Alertmanager has no use for the other's password.
    assert ("prometheus-password" in items) == (server == "prometheus")
    assert "env" not in container


@pytest.mark.parametrize("logs", [False, True])
def test_rules_and_dashboards_are_those_of_the_stack(logs: bool) -> None:
    found = objects("monitoring", with_logs(logs))
    for name, folder in (("prometheus-rules", "prometheus/rules"), ("grafana-dashboards", "grafana/dashboards")):
        data = one(found, "ConfigMap", f"r-monitoring-{name}")["data"]
        wanted = {path.name for path in (ROOT / "monitoring" / folder).iterdir()}
        assert set(data) == wanted - (set() if logs else {monitoring.LOGS_BOARD})
        for file, text in data.items():
            assert text.strip() == (ROOT / "monitoring" / folder / file).read_text().strip()


def with_logs(logs: bool) -> dict[str, Any]:
    return {**M, "grafana": {**M["grafana"], "lokiUrl": "http://loki:3100" if logs else ""}}


def test_alerts_lead_to_the_runbooks_that_are_named() -> None:
    found = of(CHARTS / "monitoring/ci/everything-values.yaml")
    rules = "".join(one(found, "ConfigMap", "r-monitoring-prometheus-rules")["data"].values())
    assert "runbook_url: https://example.org/runbooks/QdrantDown.md" in rules
    assert "runbook_url: monitoring/" not in rules


@pytest.mark.parametrize("logs", [False, True])
def test_grafana_is_configured_as_elsewhere(logs: bool) -> None:
    paths = {
        "dashboards/overview.json": "/etc/plinth-dashboards/overview.json",
        "dashboards": "/etc/plinth-dashboards",
        "provisioning": "/etc/plinth/provisioning",
        "grafana_admin_password.secret": "/etc/plinth-secrets/admin-password",
        "grafana_secret_key.secret": "/etc/plinth-secrets/secret-key",
        **LOGINS,
        **{f"{name}.secret": name for name in Identity("grafana").files},
    }
    service = monitoring.grafana(settings(), (), logs=logs)
    wanted = written(service, paths, dict.fromkeys(service.secret_files, "of nobody"), prometheus=9090)
    found = one(objects("monitoring", with_logs(logs)), "ConfigMap", "r-monitoring-grafana-config")["data"]
    # A chart's own paths need no quotes.
    assert lines(found["grafana.ini"]) == lines(wanted["grafana.ini"].replace('"""', ""))
    assert "of nobody" not in wanted["grafana.ini"] + wanted["provisioning/datasources/plinth.yaml"]
    for key, kind in (("datasource.yaml", "datasources"), ("dashboards.yaml", "dashboards")):
        expected = yaml.safe_load(wanted[f"provisioning/{kind}/plinth.yaml"])
        for source in expected.get("datasources", []):
            if source["type"] == "loki":
                # The chart's is another's Loki, which `lokiUrl` names whole.
                assert source.pop("jsonData") == {"tlsAuth": True, "tlsAuthWithCACert": True}
                assert set(source.pop("secureJsonData")) == {"tlsCACert", "tlsClientCert", "tlsClientKey"}
                source["url"] = source["url"].replace("https:", "http:")
        assert yaml.safe_load(found[key]) == expected


def test_an_existing_operator_gets_rules_monitors_and_boards_and_nothing_that_runs_them() -> None:
    found = of(CHARTS / "monitoring/ci/operator-values.yaml")
    kinds = {o["kind"] for o in found}
    assert "StatefulSet" not in kinds
    names = {o["metadata"]["name"] for o in found if o["kind"] == "PrometheusRule"}
    assert {"r-monitoring-qdrant", "r-monitoring-slo"} <= names
    assert "r-monitoring-watching" not in names
    for o in found:
        if o["kind"] in {"PrometheusRule", "ServiceMonitor"}:
            assert o["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    boards = [o for o in found if o["metadata"]["labels"].get("grafana_dashboard") == "1"]
    assert len(boards) == len(list((ROOT / monitoring.DASHBOARDS).glob("*.json"))) - 1
    assert one(found, "ServiceMonitor")["spec"]["jobLabel"] == "app.kubernetes.io/component"


def test_the_exporter_can_read_its_configuration() -> None:
    found = of(CHARTS / "monitoring/ci/everything-values.yaml")
    text = one(found, "ConfigMap", "r-monitoring-plinth-exporter-config")["data"]["config.yaml"]
    config = ExporterConfig.model_validate(yaml.safe_load(text))
    assert config.qdrant.peers == 3
    assert config.qdrant.api_key_file == Path("/etc/plinth-secrets/qdrant-read-only-api-key")
    assert config.backup_state == Path("/var/lib/plinth/state/backups.json")


@pytest.mark.requirement("S1-06")
@pytest.mark.parametrize("name", ["default", "everything"])
def test_the_backup_can_read_its_configuration_and_finds_its_secrets(name: str) -> None:
    found = of(CHARTS / f"backup/ci/{name}-values.yaml")
    text = one(found, "ConfigMap")["data"]["config.yaml"]
    config = BackupConfig.model_validate(yaml.safe_load(text))
    assert config.qdrant is not None
    for job in (o for o in found if o["kind"] == "CronJob"):
        mounted = {
            f"/etc/plinth-secrets/{item['path']}"
            for volume in pod(job)["volumes"]
            for source in volume.get("projected", {}).get("sources", [])
            for item in source["secret"]["items"]
        }
        assert mounted == set(re.findall(r"/etc/plinth-secrets/[\w-]+", text))
        mounts = {mount["mountPath"] for mount in pod(job)["containers"][0]["volumeMounts"]}
        assert {str(config.directory), str(config.state.parent)} <= mounts


@pytest.mark.requirement("S1-06")
def test_every_run_of_a_backup_is_its_own_and_none_overtakes_another() -> None:
    jobs = {
        o["metadata"]["name"]: o["spec"] for o in of(CHARTS / "backup/ci/default-values.yaml") if o["kind"] == "CronJob"
    }
    assert set(jobs) == {"r-backup-run", "r-backup-check", "r-backup-drill"}
    for name, spec in jobs.items():
        assert spec["concurrencyPolicy"] == "Forbid"
        assert spec["timeZone"] == "Etc/UTC"
        command = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
        assert command == [
            *("python3", "-m", "plinth.backup", "--config", "/etc/plinth/backup/config.yaml"),
            name.removeprefix("r-backup-"),
        ]


def pod(job: Object) -> Object:
    spec: Object = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return spec


def test_a_cluster_of_the_operator_has_the_databases_and_their_owners() -> None:
    found = of(CHARTS / "postgres/ci/operator-values.yaml")
    spec = one(found, "Cluster")["spec"]
    assert spec["instances"] == 3
    assert spec["storage"] == {"size": "10Gi"}
    assert spec["superuserSecret"] == {"name": "postgres-superuser"}
    assert spec["managed"]["roles"][0]["passwordSecret"] == {"name": "digi-core-owner"}
    assert spec["postgresql"]["parameters"]["shared_buffers"] == "128MB"
    assert all(isinstance(value, str) for value in spec["postgresql"]["parameters"].values())
    database = one(found, "Database")["spec"]
    assert database["cluster"] == {"name": "r-postgres"}
    assert (database["name"], database["owner"]) == ("digi_core", "digi_core")
    assert {o["kind"] for o in found} == {"Cluster", "Database"}


def test_the_redis_exporter_has_its_password_in_a_file_and_scrapes_one_address() -> None:
    found = of(CHARTS / "monitoring/ci/everything-values.yaml")
    pod = one(found, "Deployment", "r-monitoring-redis-exporter")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert not container.get("env")
    assert {"--disable-scrape-endpoint", "--redis.user=plinth_exporter"} <= set(container["command"])
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "secrets"]
    assert volume["projected"]["sources"] == [
        {"secret": {"name": "redis-keys", "items": [{"key": "passwords.json", "path": "passwords.json"}]}}
    ]
