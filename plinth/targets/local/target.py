"""Target `local`: every service a process on this machine, loopback only, kept up by supervisord."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pulumi

from plinth.errors import UserError
from plinth.paths import Home
from plinth.programs.executables import Found, beside, home, version
from plinth.programs.python_runtime import Python, python, reachable
from plinth.services import Service
from plinth.services.render import command, files
from plinth.services.webhooks import URL_FILES_SINCE
from plinth.system.accounts import VARIABLE, accounts_of
from plinth.system.managed_process import PATH
from plinth.targets.base import Node, Placed
from plinth.targets.local.executables import locate
from plinth.targets.local.process import ProcessSpec
from plinth.targets.local.resource import Process
from plinth.targets.local.supervisor import Supervisor


class LocalTarget:
    """Turns services into supervised processes."""

    def __init__(self, home: Home, root: Path, bind: str, services: Sequence[Service]) -> None:
        """Find every program and account first: what is missing is named before anything starts."""
        self._home = home
        self._root = root
        self._bind = bind
        self._variables = {service.name: service.program.variable for service in services}
        self._ports = {service.name: service.ports for service in services}
        self._programs, self.left_out = locate(list(services))
        served = [service for service in services if service.name in self._programs]
        self._accounts = accounts_of({service.name: service.run_as for service in served})
        self._readers = {
            self.volume(*volume): account
            for service in served
            for volume in (*service.reads, *((service.name, volume) for volume in service.written_by_root))
            if (account := self._accounts[service.name])
        }
        self._python = python(home.run) if any(self._accounts.values()) else Python(sys.executable)
        _refuse_out_of_reach(self._programs, self._accounts)

    @property
    def stack(self) -> str:
        """The environment's name."""
        return self._home.env

    @property
    def bind(self) -> str:
        """The loopback address."""
        return self._bind

    @property
    def node(self) -> int:
        """A process has no peers here."""
        return 0

    def nodes(self, service: Service) -> Sequence[Node]:
        """One process each."""
        return [Node(service.name)]

    def address(self, service: str, port: str) -> str:
        """`host:port` of another service."""
        return f"{self._bind}:{self._ports[service][port]}"

    def addresses(self, service: str, port: str) -> Sequence[str]:
        """The one address of a service."""
        return [self.address(service, port)]

    def peer(self, service: str, _node: int, port: str) -> str:
        """The service's own address: it is its only peer."""
        return self.address(service, port)

    def hosts(self, _service: str) -> Sequence[str]:
        """The loopback address, by number and by name."""
        return [self._bind, "localhost"]

    def reach(self, service: str, port: str, _node: int = 0) -> str:
        """The same from this machine as from its services."""
        return self.address(service, port)

    def file(self, service: str, name: str) -> str:
        """The path of a service's config file."""
        return str(self._home.run / "config" / service / name)

    def volume(self, service: str, name: str) -> str:
        """The path of a service's volume."""
        return str(self._home.data / service / name)

    @property
    def output(self) -> str:
        """The files in which supervisord keeps what each program prints."""
        return str(Supervisor(self._home.run).logs / "*.log")

    @property
    def cgroups(self) -> None:
        """Processes are found by their ports."""

    def read(self, service: str, name: str) -> Mapping[str, str]:
        """The volume itself."""
        return {service: self.volume(service, name)}

    def place(
        self,
        service: Service,
        node: Node,
        secrets: Mapping[str, pulumi.Output[str]],
        needs: Sequence[pulumi.Resource],
    ) -> Placed:
        """Declare the process of a service."""
        process = Process(
            node.name,
            self._spec(service, self._programs[service.name]),
            pulumi.Output.all(**secrets).apply(lambda known: files(service, self, known, self._root)),
            pulumi.ResourceOptions(depends_on=list(needs)),
        )
        return Placed(node.name, process, process.instance)

    def serving(self, service: str) -> str:
        """The command that runs a service."""
        return " ".join(self._programs[service].argv)

    def version(self, service: str) -> tuple[int, ...] | None:
        """The version of a service's program; None where it says none."""
        return version(self._programs[service])

    def takes_url_files(self) -> bool:
        """Debian 12's Alertmanager does not."""
        return (self.version("alertmanager") or ()) >= URL_FILES_SINCE

    def is_substituted(self, service: str) -> bool:
        """Whether something else than its own program serves a service."""
        return self._programs[service].substitute

    def _surroundings(self, service: Service) -> dict[str, str]:
        """Where the programs are that a service starts by itself."""
        programs = {name: found for name, found in self._programs.items() if not found.substitute}
        others = programs if service.starts_others else {}
        named = {variable: found.argv[0] for name, found in others.items() if (variable := self._variables[name])}
        return {**_path(service.program.calls, list(others.values())), **named}

    def _spec(self, service: Service, found: Found) -> ProcessSpec:
        at_home = replace(service.program, home=home(service.program, found))
        filled = command(replace(service, program=at_home), self)
        initialise = filled.initialise
        if initialise:
            initialise = (beside(found, initialise[0]), *initialise[1:])
        account = self._accounts[service.name]
        # Its own program is where it was found; a Python is one that its account reaches.
        is_python = found.argv[0] == sys.executable and account is not None
        used = self._python if is_python else Python(found.argv[0])
        launched = {VARIABLE: account} if service.launcher and account else {}
        volumes = tuple(self.volume(service.name, name) for name in service.volumes)
        return ProcessSpec(
            name=service.name,
            run=str(self._home.run),
            config=self.file(service.name, "").rstrip("/"),
            argv=(used.executable, *found.argv[1:], *filled.arguments),
            volumes=volumes,
            initialise=initialise,
            environment={**self._surroundings(service), **filled.environment, **used.environment, **launched},
            user=None if service.launcher else account,
            owner=account,
            readers={volume: self._readers[volume] for volume in volumes if volume in self._readers},
            runtime=used.copy,
            stop_signal=service.stop_signal,
            stop_grace_s=service.stop_grace_s,
        )


def _path(calls: Sequence[str], programs: Sequence[Found]) -> dict[str, str]:
    """The fixed path, and behind it where the programs are that lie elsewhere on this user's."""
    located = [Path(path) for name in calls if (path := shutil.which(name))]
    directories = dict.fromkeys(str(path.parent) for path in (*located, *(Path(found.argv[0]) for found in programs)))
    further = [directory for directory in directories if directory not in PATH.split(os.pathsep)]
    return {"PATH": os.pathsep.join((PATH, *further))} if further else {}


def refuse_closed(place: Path) -> None:
    """Refuse a place that services cannot get to, where they run as accounts of their own."""
    if os.geteuid() != 0:
        return
    closed = [above for above in place.parents if above.exists() and not above.stat().st_mode & stat.S_IXOTH]
    if closed:
        raise UserError(
            f"{closed[-1]} is closed to the accounts that services run as, and their files lie below it; let them "
            f"through (chmod o+x {closed[-1]}) or move the project."
        )


def _refuse_out_of_reach(programs: Mapping[str, Found], accounts: Mapping[str, str | None]) -> None:
    for service, found in programs.items():
        program = Path(found.argv[0])
        if accounts.get(service) and str(program) != sys.executable and not reachable(program):
            raise UserError(
                f"{accounts[service]}, the account of {service}, cannot reach {program}; put the program where every "
                "account can go, such as /usr/local/bin, or open the directories above it (chmod o+x)."
            )
