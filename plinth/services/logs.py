"""Loki, and Fluent Bit, which ships it the services' output and the audit logs (S4-08); always deployed together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from plinth.programs.qdrant import AUDIT
from plinth.programs.spec import Container, Limits, Program
from plinth.services import gateway
from plinth.services.mutual_tls import CA, Identity
from plinth.services.spec import Copy, File, Health, Intake, Scrape, Service
from plinth.settings import Settings

LOKI, AGENT = "loki", "fluent-bit"
INTAKE = "intake"


@dataclass(frozen=True)
class AuditFiles:
    """A service's audit log: the files in one of its volumes, and the parser of their lines."""

    service: str
    volume: str
    pattern: str
    parser: str


def audit_logs(settings: Settings, left_out: Collection[str] = ()) -> tuple[AuditFiles, ...]:
    """Return the audit logs that the environment's services write, without those of skipped services."""
    qdrant = (AuditFiles("qdrant", AUDIT, "audit.*.log", "audit"),)
    # A full one is renamed, and read to its end under its new name.
    own = (AuditFiles(name, gateway.AUDIT, "audit.jsonl", "gateway_audit") for name in (gateway.NAME, gateway.WORKER))
    found = (*(qdrant if settings.audited else ()), *(own if settings.gateway.enabled else ()))
    return tuple(audit for audit in found if audit.service not in left_out)


def services(settings: Settings, left_out: Collection[str] = ()) -> list[Service]:
    """Return Loki and the agent, which reads nothing of skipped services."""
    return [_loki(settings), _agent(settings, audit_logs(settings, left_out))]


def _loki(settings: Settings) -> Service:
    wanted = settings.monitoring.loki
    return Service(
        name=LOKI,
        program=Program(
            image=LOKI,
            binaries=("loki",),
            package="",
            variable="PLINTH_LOKI",
            container=Container(entrypoint=("/usr/bin/loki",), user="10001:10001", volumes={"data": "/loki"}),
        ),
        arguments=("-config.file={{ file('loki.yaml') }}",),
        files={
            "loki.yaml": File(
                "config/loki/loki.yaml.j2", {"retention_days": wanted.retention_days, "identity": Identity(LOKI)}
            )
        },
        secret_files=Identity(LOKI).files,
        ports={"http": wanted.port},
        volumes={"data": settings.size.prometheus_disk_gib},
        health=Health("http", "http", "/ready", tls=True, ca=CA, mutual=True),
        scrape=Scrape("http", scheme="https", ca=CA, mutual=True),
        # Its components talk to one another as peers.
        identity="peer",
        limits=Limits(1, 512),
        run_as=("loki", "plinth-loki"),
        optional=True,
    )


def _agent(settings: Settings, audits: tuple[AuditFiles, ...]) -> Service:
    wanted = settings.monitoring.loki
    return Service(
        name=AGENT,
        program=Program(
            image=AGENT,
            binaries=("fluent-bit",),
            package="",
            variable="PLINTH_FLUENT_BIT",
            search=("/opt/fluent-bit/bin",),
            # A distroless image: its one account owns its home, and there is nothing to run a health command with.
            container=Container(
                entrypoint=("/fluent-bit/bin/fluent-bit",), user="65532:65532", volumes={"state": "/home/nonroot"}
            ),
        ),
        arguments=("--config={{ file('fluent-bit.yaml') }}",),
        files={
            "fluent-bit.yaml": File(
                "config/fluent-bit/fluent-bit.yaml.j2",
                {"audits": audits, "identity": Identity(AGENT)},
            ),
            "label.lua": Copy("config/fluent-bit/label.lua"),
        },
        secret_files=Identity(AGENT).files,
        identity="client",
        ports={"http": wanted.agent_port, INTAKE: wanted.intake_port},
        volumes={"state": 1},
        health=Health("http", "http", "/api/v1/health"),
        scrape=Scrape("http", "/api/v2/metrics/prometheus"),
        limits=Limits(0.25, 128),
        needs=(LOKI, *(audit.service for audit in audits)),
        # The files that it reads are open to it alone, by its group.
        run_as=("plinth-fluent-bit",),
        optional=True,
        takes_output=Intake(INTAKE, but_of=(LOKI, AGENT)),
        reads=tuple((audit.service, audit.volume) for audit in audits),
    )
