"""The monitoring of the stack, and its latency targets."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from plinth.settings.base import ENCRYPTED, HeaderSecret, Model, Port, ProjectPath, Secret, SecretUrl, Url

# Unreserved in addresses, so no file, shell or client reads anything into one; bcrypt hashes 72 bytes at most.
WEB_PASSWORD = re.compile(r"[A-Za-z0-9._~-]{8,72}")


def _is_web_password(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text != ENCRYPTED and not WEB_PASSWORD.fullmatch(text):
        raise ValueError("a password here is 8 to 72 letters, digits and . _ ~ -")
    return value


WebPassword = Annotated[SecretStr, AfterValidator(_is_web_password)]


class Prometheus(Model):
    """Prometheus and how long it retains what it scraped."""

    enabled: bool = Field(True, description="Deploy Prometheus.")
    port: Port = Field(9090, description="Web interface and API.")
    password: WebPassword | None = Field(None, description="Of the user plinth. Generated and kept when absent.")
    retention_days: int = Field(15, ge=1, description="Days that metrics are kept.")
    scrape_interval_sec: int = Field(15, ge=5, description="How often each target is scraped.")


class Alertmanager(Model):
    """Alertmanager; without a webhook alerts are shown only in its own page."""

    enabled: bool = Field(True, description="Deploy Alertmanager.")
    port: Port = Field(9093, description="Web interface and API.")
    password: WebPassword | None = Field(None, description="Of the user plinth. Generated and kept when absent.")
    webhook_url: SecretUrl | None = Field(None, description="Where pages go, and tickets unless they have their own.")
    webhook_token: HeaderSecret | None = Field(None, description="The bearer token that webhook_url is called with.")
    ticket_webhook_url: SecretUrl | None = Field(None, description="Where tickets go; webhook_url when absent.")
    ticket_webhook_token: HeaderSecret | None = Field(
        None, description="The bearer token that ticket_webhook_url is called with."
    )
    heartbeat_url: SecretUrl | None = Field(
        None, description="A heartbeat outside of the stack that complains when the watchdog stops calling it."
    )
    heartbeat_token: HeaderSecret | None = Field(
        None, description="The bearer token that heartbeat_url is called with."
    )
    public_urls: tuple[Literal["webhook_url", "ticket_webhook_url", "heartbeat_url"], ...] = Field(
        (), description="The addresses that hold no secret, so that Alertmanager before 0.26 may show them."
    )


class Grafana(Model):
    """Grafana, run where a binary or an image of it exists; else reported as skipped."""

    enabled: bool = Field(True, description="Deploy Grafana.")
    port: Port = Field(3000, description="Web interface and API.")
    admin_password: Secret | None = Field(None, description="Generated and kept when absent.")
    secret_key: Secret | None = Field(
        None,
        description="Encrypts the passwords of sources that were made in Grafana. Generated and kept when absent.",
    )


class Loki(Model):
    """Loki and Fluent Bit, which collects every service's output and Qdrant's audit log; off by default."""

    enabled: bool = Field(False, description="Deploy Loki and Fluent Bit; local and docker only.")
    port: Port = Field(3100, description="HTTP API.")
    agent_port: Port = Field(2020, description="Fluent Bit's metrics and health.")
    intake_port: Port = Field(24224, description="Where the Docker engine hands Fluent Bit what containers print.")
    retention_days: int = Field(15, ge=1, description="Days that logs are kept.")


class Exporters(Model):
    """Prometheus exporters for services that do not serve metrics in its format."""

    enabled: bool = Field(True, description="Deploy the exporters.")
    node_port: Port = Field(9100, description="Metrics of node_exporter.")
    redis_port: Port = Field(9121, description="Metrics of redis_exporter.")
    postgres_port: Port = Field(9187, description="Metrics of postgres_exporter.")
    plinth_port: Port = Field(9188, description="Plinth's own: collections, test searches, backups.")


class Monitoring(Model):
    """The monitoring of the stack."""

    prometheus: Prometheus = Prometheus()
    alertmanager: Alertmanager = Alertmanager()
    grafana: Grafana = Grafana()
    loki: Loki = Loki()
    exporters: Exporters = Exporters()
    runbooks_url: Url | None = Field(
        None,
        description="Where monitoring/runbooks can be read; alerts then lead there, and else name the file.",
    )


class Slo(Model):
    """The file of the latency targets."""

    file: ProjectPath = Field("load/slo.yaml", description="Relative to the project.")
