"""The program of a service, its container, and the limits of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# The key of Plinth's own image, for services that run this package.
OWN_IMAGE = "plinth"


@dataclass(frozen=True)
class Container:
    """The properties of a program's upstream image, for targets that run containers.

    ``entrypoint`` comes before the service's arguments; ``user`` is `uid:gid`. ``volumes`` are mount points by volume,
    directories that the image gives to that account. ``tmpfs`` are the other paths it writes to; everything else is
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
    """A program to run: a key of config/images.yaml for containers, executables to look for on a machine.

    ``version`` is the one to run instead of the pinned one. ``variable`` is an environment variable that names the
    executable; ``search`` holds directory globs that are searched in addition to PATH; ``package`` is the Debian
    package to name when there is no executable; ``substitute`` is the argument vector of the program that serves
    instead. ``home`` is where packages and images have the files that the program reads, and ``landmark`` one of those
    files: an installation that was unpacked elsewhere has it there. ``calls`` are other programs that it starts by
    their names.
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
class Limits:
    """Cores and MiB that a container or pod may use; 0 is unlimited. Processes share the machine."""

    cpus: float = 0.0
    memory_mib: int = 0
