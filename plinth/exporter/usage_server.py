"""What services take of the machine, looked up by a process that may see it, for one that may not and serves the page.

Processes and volumes are their accounts' own. Where root starts the exporter, root looks, and all else is done under
the exporter's account: it asks root for nothing but these two figures of the services that root's file names.
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
    """By service."""

    def uses(self) -> dict[str, Use]:
        """What its processes take."""

    def sizes(self) -> dict[str, int]:
        """Bytes on disk."""


class Machine:
    """Looked up by this process."""

    def __init__(self, ports: Mapping[str, int], volumes: Mapping[str, Sequence[Path]]) -> None:
        self._ports, self._volumes = ports, volumes

    def uses(self) -> dict[str, Use]:
        """By the ports that services listen on."""
        return process_usage.uses(self._ports)

    def sizes(self) -> dict[str, int]:
        """Of the volumes that can be seen from here."""
        return process_usage.sizes(self._volumes)


class Asked:
    """Looked up by the process at the other end of a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._lines = connection.makefile("rw", encoding="utf-8")
        # Rounds and scrapes may be in different threads.
        self._lock = threading.Lock()

    def uses(self) -> dict[str, Use]:
        """As the other process sees them."""
        return {name: Use(**use) for name, use in json.loads(self._ask("uses")).items()}

    def sizes(self) -> dict[str, int]:
        """As the other process sees them."""
        sizes: dict[str, int] = json.loads(self._ask("sizes"))
        return sizes

    def _ask(self, figure: str) -> str:
        with self._lock:
            self._lines.write(f"{figure}\n")
            self._lines.flush()
            return self._lines.readline() or _leave()


def figures(machine: Machine) -> Figures:
    """The figures for this process; for root with an account to serve under, that account's process goes on from here.

    Root's process answers it, and ends with it.
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
    """Answer until the other end is closed."""
    with connection.makefile("rw", encoding="utf-8") as lines:
        for line in lines:
            looked = (
                {name: asdict(use) for name, use in machine.uses().items()} if line == "uses\n" else machine.sizes()
            )
            lines.write(json.dumps(looked) + "\n")
            lines.flush()


def _leave() -> str:
    # Root's process is gone, and nobody else ends this one.
    os.kill(os.getpid(), signal.SIGTERM)
    return "{}"
