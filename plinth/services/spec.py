"""The requirements of a service, declared once for every target.

A service knows its program, arguments, files, ports, volumes, secrets and health. It does not know whether it will be
a process, a container or a pod: addresses, paths and secrets are named in templates, and the target fills them in
(:mod:`plinth.services.render`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from plinth.programs.spec import Limits, Program


@dataclass(frozen=True)
class Peers:
    """The nodes of a service that form one cluster, and the ports that only they may reach."""

    count: int
    ports: Mapping[str, int]


@dataclass(frozen=True)
class File:
    """A file that a service reads: a Jinja template of the project's config/ or monitoring/, with its values."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Copy:
    """A file of the project that a service reads unrendered: alert rules have braces of their own.

    ``replaced`` maps strings in it to their replacements.
    """

    source: str
    replaced: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Health:
    """The readiness check of a service.

    ``http``: GET of ``path`` answers 200. ``postgres``, ``redis`` and ``neo4j``: a login and a query. ``secret`` is the
    password's name, ``user`` whose it is. ``deadline_s`` is how long a start may take, in seconds. ``ca`` is the secret
    of the CA certificate; the system trust store without it. ``mutual`` is TLS with a client certificate.
    """

    kind: Literal["http", "postgres", "redis", "neo4j"]
    port: str
    path: str = "/"
    secret: str | None = None
    user: str = ""
    deadline_s: float = 60.0
    tls: bool = False
    ca: str | None = None
    mutual: bool = False


@dataclass(frozen=True)
class Scrape:
    """A metrics page: its address, the secret that opens it, the secret of its CA certificate.

    The secret is the password of ``user``, or a bearer token without a user. ``mutual`` is set where the page requires
    a client certificate.
    """

    port: str
    path: str = "/metrics"
    secret: str | None = None
    user: str = ""
    scheme: str = "http"
    ca: str | None = None
    mutual: bool = False


@dataclass(frozen=True)
class Intake:
    """The port of a service that collects log output, and the services whose output would loop."""

    port: str
    but_of: tuple[str, ...]


@dataclass(frozen=True)
class Service:
    """One service.

    ``arguments``, ``environment`` and ``initialise`` are templates. ``initialise`` runs once on an empty first volume,
    where the image does not do that by itself. ``secret_files`` become files of one secret each. ``shares`` are volumes
    of other services, by service, that this one uses too; ``reads`` are those that it only reads, each as the service
    and the volume. ``run_as`` lists accounts; the first that exists is used when the target starts as root. A
    ``launcher`` starts as the user that started the target, and drops root's rights by itself for the account that
    PLINTH_ACCOUNT names. ``written_by_root`` are volumes that it only reads: the user that runs Plinth writes them. A
    service that ``starts_others`` gets the programs' paths of all services. ``optional`` services are skipped, with the
    reason in the outputs, where their program is not available. ``peers`` is set for a service that may run as several
    nodes, each with volumes of its own and the same files. ``reads_cgroups`` is set for a service that measures what
    containers use of the machine. ``identity`` is set for a service that has a certificate of
    :mod:`plinth.services.mutual_tls`.
    """

    name: str
    program: Program
    arguments: tuple[str, ...]
    health: Health
    ports: Mapping[str, int]
    files: Mapping[str, File | Copy] = field(default_factory=dict)
    secret_files: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, int] = field(default_factory=dict)
    shares: Mapping[str, str] = field(default_factory=dict)
    initialise: tuple[str, ...] = ()
    scrape: Scrape | None = None
    limits: Limits = field(default_factory=Limits)
    needs: tuple[str, ...] = ()
    run_as: tuple[str, ...] = ()
    launcher: bool = False
    written_by_root: tuple[str, ...] = ()
    starts_others: bool = False
    stop_signal: str = "TERM"
    stop_grace_s: int = 30
    optional: bool = False
    peers: Peers | None = None
    takes_output: Intake | None = None
    reads: tuple[tuple[str, str], ...] = ()
    reads_cgroups: bool = False
    identity: Literal["server", "client", "peer"] | None = None
