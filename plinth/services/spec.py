"""What a service needs, said once and for every target.

A service knows its program, arguments, files, ports, volumes, secrets and health. It does not know whether it will be
a process, a container or a pod: addresses, paths and secrets are named in templates, and the target fills them in
(:mod:`plinth.services.render`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# The key of Plinth's own image, for services that run this package.
OWN_IMAGE = "plinth"


@dataclass(frozen=True)
class Container:
    """What the upstream image of a program fixes, for targets that run containers.

    ``entrypoint`` comes before the service's arguments; ``user`` is `uid:gid`. ``volumes`` are mount points by volume,
    directories that the image gives to that account. ``tmpfs`` are the other places it writes to; everything else is
    read-only. ``check`` is the health command, a template; empty where the image has nothing to run one with.
    """

    entrypoint: tuple[str, ...] = ()
    user: str = "65534:65534"
    volumes: Mapping[str, str] = field(default_factory=dict)
    tmpfs: tuple[str, ...] = ("/tmp",)  # noqa: S108 - a path inside a container of its own
    check: tuple[str, ...] = ()
    shm_mib: int = 64


@dataclass(frozen=True)
class Program:
    """What runs: a key of config/images.yaml for containers, executables to look for on a machine.

    ``version`` is the one to run where it is not the pinned one. ``variable`` is an environment variable that names the
    executable; ``search`` holds directory globs beside PATH; ``package`` is the Debian package to name when nothing is
    found; ``substitute`` is the argument vector of what serves instead. ``home`` is where packages and images have what
    the program reads beside itself, and ``landmark`` a file there: one that was unpacked elsewhere has it there.
    ``calls`` are other programs that it starts by their names.
    """

    image: str
    binaries: tuple[str, ...]
    package: str
    variable: str | None = None
    search: tuple[str, ...] = ()
    substitute: tuple[str, ...] = ()
    version: str | None = None
    container: Container = Container()
    home: str = ""
    landmark: str = ""
    calls: tuple[str, ...] = ()


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
class Limits:
    """Cores and MiB that a container or pod may take; 0 is unlimited. Processes share the machine."""

    cpus: float = 0.0
    memory_mib: int = 0


# Node n of a service is published this many ports above node n - 1.
NODE_PORT_STEP = 10


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
    limits: Limits = Limits()
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
