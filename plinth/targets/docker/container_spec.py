"""A service as a container: plain data, and the pure functions that make it.

Hardening is the same for every container: an unprivileged account, a read-only root, no new privileges, no
capabilities, bounded logs, memory and processors.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from plinth.services.render import command
from plinth.services.spec import Service
from plinth.settings.targets import NODE_PORT_STEP
from plinth.targets.docker.naming import CGROUPS, READ_CGROUPS, Layout, node_names

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Options:
    """What an environment sets for its containers.

    ``published`` are the addresses at which ports are published, by service; ``nofile`` and ``nproc`` bound open files
    and processes.
    """

    published: Mapping[str, str] = field(default_factory=dict)
    nofile: int = 65536
    nproc: int = 4096

    def address(self, service: str) -> str:
        """Where a service's ports are published: on loopback, unless it is named."""
        return self.published.get(service, LOOPBACK)


@dataclass(frozen=True)
class Mount:
    """A named volume in a container."""

    volume: str
    path: str
    read_only: bool = False


@dataclass(frozen=True)
class Logs:
    """Where the engine puts what a container prints."""

    driver: str
    options: Mapping[str, str]


# Bounded; `docker logs` reads it.
KEPT = Logs("json-file", {"max-size": "10m", "max-file": "3"})


@dataclass(frozen=True)
class Port:
    """A port of a container, and where it is published."""

    inside: int
    outside: int
    address: str


@dataclass(frozen=True)
class Declared:
    """One container, whole but for its image, its files and its health command's being heard.

    ``networks`` are names with the aliases that the container has in each. ``check`` is empty where the image cannot
    run one. ``seen`` are directories of the engine's machine that it reads, with where they are in the container.
    ``cgroup`` is the one above its own. ``groups`` are those that it is in beside its account's. Memory and shared
    memory are MiB, times seconds.
    """

    name: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    user: str
    environment: tuple[str, ...]
    networks: Mapping[str, tuple[str, ...]]
    ports: tuple[Port, ...]
    mounts: tuple[Mount, ...]
    tmpfs: Mapping[str, str]
    check: tuple[str, ...]
    start_period_s: int
    stop_signal: str
    stop_grace_s: int
    cpus: float
    memory_mib: int
    shm_mib: int
    nofile: int
    nproc: int
    cgroup: str
    seen: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    logs: Logs = KEPT
    labels: Mapping[str, str] = field(default_factory=dict)


def declare(service: Service, names: Layout, options: Options) -> Declared:
    """Return the container of one node of a service."""
    image = service.program.container
    filled = command(service, names)
    intake = service.takes_output.port if service.takes_output else None
    entrypoint, arguments = image.entrypoint, filled.arguments
    if filled.initialise:
        entrypoint, arguments = initialising(
            names.volume(service.name, next(iter(service.volumes))), filled.initialise, (*entrypoint, *arguments)
        )
    return Declared(
        name=names.container(service),
        entrypoint=entrypoint,
        command=arguments,
        user=image.user,
        environment=tuple(f"{name}={value}" for name, value in sorted(filled.environment.items())),
        networks=names.networks(service),
        ports=tuple(
            # The engine alone sends to an intake, from where it runs.
            Port(port, outside(port, names.node), LOOPBACK if name == intake else options.address(service.name))
            for name, port in service.ports.items()
        ),
        mounts=(*_own(service, names), *_shared(service, names), *_others(service, names)),
        tmpfs={path: tmpfs_options(image.user) for path in image.tmpfs},
        check=filled.check,
        start_period_s=round(service.health.deadline_s),
        stop_signal=f"SIG{service.stop_signal}",
        stop_grace_s=service.stop_grace_s,
        cpus=service.limits.cpus,
        memory_mib=service.limits.memory_mib,
        shm_mib=image.shm_mib,
        nofile=options.nofile,
        nproc=options.nproc,
        cgroup=names.cgroup(service),
        seen={CGROUPS: READ_CGROUPS} if service.reads_cgroups else {},
        groups=tuple(sorted({_group(names.services[other]) for other, _ in service.reads} - {_group(service)})),
        logs=logs(service, names),
        labels={"plinth.stack": names.stack, "plinth.service": service.name},
    )


def logs(service: Service, names: Layout) -> Logs:
    """To who takes it, where somebody does.

    Asynchronous: a container starts, runs and stops whether or not anybody listens. Acknowledged: else whatever is
    written between the agent's end and the engine's notice of it is lost, some lines at each restart of the agent.
    `docker logs` reads what the engine keeps beside it.
    """
    takers = ((found, found.takes_output) for found in names.services.values() if found.takes_output)
    taker, intake = next(takers, (None, None))
    if taker is None or intake is None or service.name in intake.but_of:
        return KEPT
    return Logs(
        "fluentd",
        {
            "fluentd-address": f"tcp://{LOOPBACK}:{taker.ports[intake.port]}",
            "fluentd-async": "true",
            "fluentd-request-ack": "true",
            "fluentd-sub-second-precision": "true",
            "tag": f"{service.name}.{node_names(service)[names.node]}",
            "cache-max-size": KEPT.options["max-size"],
            "cache-max-file": KEPT.options["max-file"],
        },
    )


def _own(service: Service, names: Layout) -> Iterator[Mount]:
    for volume in service.volumes:
        yield Mount(names.volume_name(service, volume), service.program.container.volumes[volume])


def _shared(service: Service, names: Layout) -> Iterator[Mount]:
    for other, volume in service.shares.items():
        wanted = names.services[other]
        yield Mount(names.volume_name(wanted, volume), wanted.program.container.volumes[volume])


def _others(service: Service, names: Layout) -> Iterator[Mount]:
    for other, volume in service.reads:
        for number, path in enumerate(names.read(other, volume).values()):
            node = Layout(names.stack, names.services, number)
            yield Mount(node.volume_name(names.services[other], volume), path, read_only=True)


def _group(service: Service) -> str:
    """Return the group that a service's files are open to."""
    uid, _, gid = service.program.container.user.partition(":")
    return gid or uid


def outside(port: int, node: int) -> int:
    """Return the published port of a node."""
    return port + node * NODE_PORT_STEP


def initialising(
    volume: str, initialise: tuple[str, ...], program: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Entrypoint and command that fill an empty volume and then become the program.

    Beside the directory and renamed, so that one that was interrupted leaves nothing that looks like data; by `exec`,
    so that the program is process 1 and hears the stop signal.
    """
    partial = f"{volume}.partial"
    fill = shlex.join(word.replace(volume, partial) for word in initialise)
    script = f'set -eu; [ -d {volume} ] || {{ rm -rf {partial}; {fill}; mv {partial} {volume}; }}; exec "$@"'
    return ("sh", "-c", script, program[0]), program


def tmpfs_options(user: str) -> str:
    """Mount options of a scratch directory that its account alone can use, and nothing can be run from."""
    uid, _, gid = user.partition(":")
    return f"rw,noexec,nosuid,nodev,size=64m,mode=0700,uid={uid},gid={gid or uid}"


def go_duration(seconds: int) -> str:
    """Seconds as the engine writes them back (`5m0s`); any other spelling would read as drift."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"


def decimal(cpus: float) -> str:
    """Cores as the provider reads them back: `1.0`, `0.25`, `10.`; any other spelling would read as drift."""
    text = f"{cpus:.9f}".rstrip("0")
    return f"{text}0" if text.endswith(".") and "0" not in text else text
