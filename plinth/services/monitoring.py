"""Prometheus, Alertmanager and Grafana (S1-05, S1-09)."""

from __future__ import annotations

from collections.abc import Sequence

from plinth.monitoring.slo_rules import RUNBOOKS
from plinth.programs.healthchecks import login, wget
from plinth.programs.spec import Container, Limits, Program
from plinth.services import mutual_tls
from plinth.services.spec import Copy, File, Health, Scrape, Service
from plinth.services.web_login import ALERTMANAGER, PROMETHEUS, USER
from plinth.services.webhooks import receivers
from plinth.settings import Settings

GRAFANA_PASSWORD = "grafana_admin_password"  # noqa: S105 - the secret's name
GRAFANA_SECRET_KEY = "grafana_secret_key"  # noqa: S105 - likewise
# The secret of the snapshot sidecar, which serves the database to backups where they cannot mount its volume.
GRAFANA_COPY_PASSWORD = "grafana_copy_password"  # noqa: S105 - the secret's name
RULES = "monitoring/prometheus/rules"
DASHBOARDS = "monitoring/grafana/dashboards"
OVERVIEW = "plinth-overview"
# The address that alerts link to; by default the machine's or the container's name, where nothing is published.
_PAGE = "--web.external-url=http://127.0.0.1:{{ port('http') }}"
# No page has an empty origin, so no page of another site may read the answers.
_NO_ORIGIN = "--web.cors.origin=^$"
LOGS_BOARD = "logs.json"


def prometheus(settings: Settings, scraped: Sequence[Service], rules: Sequence[str]) -> Service:
    """Return Prometheus, scraping every service that has a metrics page; ``rules`` are the names of its rule files."""
    wanted = settings.monitoring.prometheus
    pages = [(service, service.scrape) for service in scraped if service.scrape]
    identity, mutual = mutual_tls.Identity("prometheus"), any(page.mutual for _, page in pages)
    alertmanager = settings.monitoring.alertmanager.enabled
    secrets = {name for _, page in pages for name in (page.secret, page.ca) if name} | {
        *(PROMETHEUS.password, PROMETHEUS.config),
        *((ALERTMANAGER.password,) if alertmanager else ()),
        *(identity.files if mutual else ()),
    }
    return Service(
        name="prometheus",
        program=Program(
            image="prometheus",
            binaries=("prometheus",),
            package="prometheus",
            container=Container(
                entrypoint=("prometheus",),
                volumes={"data": "/prometheus"},
                check=login("http", "/-/ready", USER, PROMETHEUS.password_file),
            ),
        ),
        arguments=(
            "--config.file={{ file('prometheus.yml') }}",
            "--storage.tsdb.path={{ volume('data') }}",
            f"--storage.tsdb.retention.time={wanted.retention_days}d",
            "--web.listen-address={{ bind }}:{{ port('http') }}",
            PROMETHEUS.argument,
            _NO_ORIGIN,
            _PAGE,
        ),
        files={
            "prometheus.yml": File(
                "monitoring/prometheus/prometheus.yml.j2",
                {
                    "scrape_interval_sec": wanted.scrape_interval_sec,
                    "user": USER,
                    "password": PROMETHEUS.password,
                    "alertmanager": ALERTMANAGER.password if alertmanager else None,
                    "rules": list(rules),
                    "identity": identity,
                    "scrapes": [{"job": service.name, **vars(page)} for service, page in pages],
                },
            ),
            **{name: Copy(f"{RULES}/{name}", _runbooks(settings)) for name in rules},
        },
        secret_files=tuple(sorted(secrets)),
        ports={"http": wanted.port},
        volumes={"data": settings.size.prometheus_disk_gib},
        health=Health("http", "http", "/-/ready", PROMETHEUS.password, USER),
        scrape=Scrape("http"),
        identity="client" if mutual else None,
        limits=Limits(1, 1024),
        run_as=("prometheus", "plinth-prometheus"),
    )


def alertmanager(settings: Settings) -> Service:
    """Return Alertmanager, on one node without a gossip port."""
    wanted = settings.monitoring.alertmanager
    called = receivers(settings)
    secrets = {name for receiver in called for name in (receiver.url, receiver.token) if name}
    return Service(
        name="alertmanager",
        program=Program(
            image="alertmanager",
            binaries=("prometheus-alertmanager", "alertmanager"),
            package="prometheus-alertmanager",
            container=Container(
                entrypoint=("alertmanager",),
                volumes={"data": "/alertmanager"},
                check=login("http", "/-/ready", USER, ALERTMANAGER.password_file),
            ),
        ),
        arguments=(
            "--config.file={{ file('alertmanager.yml') }}",
            "--storage.path={{ volume('data') }}",
            "--web.listen-address={{ bind }}:{{ port('http') }}",
            ALERTMANAGER.argument,
            _PAGE,
            "--cluster.listen-address=",
        ),
        files={"alertmanager.yml": File("monitoring/alertmanager/alertmanager.yml.j2", {"receivers": called})},
        secret_files=(ALERTMANAGER.config, ALERTMANAGER.password, *sorted(secrets)),
        ports={"http": wanted.port},
        volumes={"data": 1},
        health=Health("http", "http", "/-/ready", ALERTMANAGER.password, USER),
        scrape=Scrape("http", secret=ALERTMANAGER.password, user=USER),
        limits=Limits(0.5, 128),
        run_as=("plinth-alertmanager",),
    )


def _runbooks(settings: Settings) -> dict[str, str]:
    url = settings.monitoring.runbooks_url
    return {f"runbook_url: {RUNBOOKS}/": f"runbook_url: {url.rstrip('/')}/"} if url else {}


def grafana(settings: Settings, dashboards: Sequence[str], *, logs: bool) -> Service:
    """Return Grafana with its data sources and the dashboards; skipped where no binary of it exists."""
    source = PROMETHEUS.password if settings.monitoring.prometheus.enabled else None
    identity = mutual_tls.Identity("grafana") if logs else None
    values = {"user": USER, "prometheus": source, "logs": identity}
    return Service(
        name="grafana",
        program=Program(
            image="grafana",
            # Not grafana-server: it is a wrapper that adds the argument `server` itself.
            binaries=("grafana",),
            package="",
            variable="PLINTH_GRAFANA",
            search=("/usr/share/grafana/bin",),
            container=Container(
                entrypoint=("grafana",),
                user="472:0",
                volumes={"data": "/var/lib/grafana"},
                check=wget("http", "/api/health"),
            ),
            home="/usr/share/grafana",
            landmark="conf/defaults.ini",
        ),
        arguments=("server", "--homepath={{ home }}", "--config={{ file('grafana.ini') }}"),
        files={
            "grafana.ini": File("monitoring/grafana/grafana.ini.j2"),
            "provisioning/datasources/plinth.yaml": File("monitoring/grafana/datasource.yaml.j2", values),
            "provisioning/dashboards/plinth.yaml": File("monitoring/grafana/dashboards.yaml.j2"),
            **{f"dashboards/{name}": Copy(f"{DASHBOARDS}/{name}") for name in dashboards if logs or name != LOGS_BOARD},
        },
        secret_files=(
            *(GRAFANA_PASSWORD, GRAFANA_SECRET_KEY),
            *((source,) if source else ()),
            *(identity.files if identity else ()),
        ),
        identity="client" if identity else None,
        ports={"http": settings.monitoring.grafana.port},
        volumes={"data": 1},
        health=Health("http", "http", "/api/health"),
        scrape=Scrape("http"),
        limits=Limits(0.5, 512),
        run_as=("grafana", "plinth-grafana"),
        optional=True,
    )
