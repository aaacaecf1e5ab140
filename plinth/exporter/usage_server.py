"""Read the usage of services in a process with the rights to do so, for an exporter without them.

Processes and volumes belong to the accounts of the services. If root starts the exporter, root reads them, and all else
runs as the exporter's account: it asks root only for these two figures, of the services that root's file names.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from plinth.exporter import process_usage
from plinth.exporter.process_usage import Use
from plinth.system.accounts import VARIABLE, become


class Figures(Protocol):
    """The usage figures by service."""

    def uses(self) -> dict[str, Use]:
        """Return the usage of each service's processes."""

    def sizes(self) -> dict[str, int]:
        """Return each service's bytes on disk."""


class Machine:
    """Usage figures that this process reads itself."""

    def __init__(self, ports: Mapping[str, int], volumes: Mapping[str, Sequence[Path]]) -> None:
        self._ports, self._volumes = ports, volumes

    def uses(self) -> dict[str, Use]:
        """Return the usage by the ports that services listen on."""
        return process_usage.uses(self._ports)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the volumes that this process can read."""
        return process_usage.sizes(self._volumes)


class Asked:
    """Usage figures from the process at the other end of a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._lines = connection.makefile("rw", encoding="utf-8")
        # Rounds and scrapes may run in different threads.
        self._lock = threading.Lock()

    def uses(self) -> dict[str, Use]:
        """Return the usage as the other process reads it."""
        return {name: Use(**use) for name, use in json.loads(self._ask("uses")).items()}

    def sizes(self) -> dict[str, int]:
        """Return the sizes as the other process reads them."""
        sizes: dict[str, int] = json.loads(self._ask("sizes"))
        return sizes

    def _ask(self, figure: str) -> str:
        with self._lock:
            self._lines.write(f"{figure}\n")
            self._lines.flush()
            return self._lines.readline() or _leave()


def figures(machine: Machine) -> Figures:
    """Return the figures for this process.

    Root with an account to serve under starts that account's process, which continues from here; root's process answers
    it, and ends with it.
    """
    account = os.environ.get(VARIABLE)
    if account is None or os.geteuid() != 0:
        return machine
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child:
        theirs.close()
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
        answer(ours, machine)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.exit(code if code >= 0 else 128 - code)
    ours.close()
    become(account)
    return Asked(theirs)


def answer(connection: socket.socket, machine: Machine) -> None:
    """Answer requests until the other end is closed."""
    with connection.makefile("rw", encoding="utf-8") as lines:
        for line in lines:
            looked = (
                {name: asdict(use) for name, use in machine.uses().items()} if line == "uses\n" else machine.sizes()
            )
            lines.write(json.dumps(looked) + "\n")
            lines.flush()


def _leave() -> str:
    # Root's process is gone, and no other process stops this one.
    os.kill(os.getpid(), signal.SIGTERM)
    return "{}"
