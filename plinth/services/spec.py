"""What a service needs, said once and for every target.

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
    """The nodes of a service that form one cluster, and the ports that nobody else may reach."""

    count: int
    ports: Mapping[str, int]


@dataclass(frozen=True)
class File:
    """A file that a service reads: a Jinja template of the project's config/ or monitoring/, with its values."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Copy:
    """A file of the project that a service reads as it is: alert rules have braces of their own.

    ``replaced`` maps words of it to those that take their place.
    """

    source: str
    replaced: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Health:
    """How to tell that a service serves.

    ``http``: GET of ``path`` answers 200. ``postgres``, ``redis`` and ``neo4j``: a login and a query. ``secret`` is the
    password's name, ``user`` whose it is. ``deadline_s`` is how long a start may take, in seconds. ``ca`` is the secret
    of who signed the certificate, the machine's authorities where there is none. ``mutual`` is TLS with a client
    certificate.
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
    """A metrics page: where it is, the secret that opens it, the secret that says who signed it.

    The secret is the password of ``user``, or a bearer token where there is none. ``mutual`` is set where the page asks
    for a client certificate.
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
    """The port at which a service takes what others print, and those whose words would go in circles."""

    port: str
    but_of: tuple[str, ...]


@dataclass(frozen=True)
class Service:
    """One service, whole.

    ``arguments``, ``environment`` and ``initialise`` are templates. ``initialise`` runs once on an empty first
    volume, where the image does not do that by itself. ``secret_files`` become files of one secret each.
    ``shares`` are volumes of other services, by service, that this one uses too; ``reads`` are those that it only
    reads, each as the service and the volume. ``run_as`` lists accounts, the first that exists is used when the target
    starts as root. A ``launcher`` starts as who started the target, and gives root's rights up by itself for the
    account that PLINTH_ACCOUNT names. ``written_by_root`` are volumes that it only reads: who runs Plinth writes them.
    One that ``starts_others`` is told where the programs of all services are. ``optional`` services are left out, with
    the reason in the outputs, where their program cannot be had. ``peers`` is set for a service that may run as several
    nodes, each with volumes of its own and the same files.
    ``reads_cgroups`` is set for one that tells what containers take of the machine. ``identity`` is set for one that
    has a certificate of :mod:`plinth.services.mutual_tls`.
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
