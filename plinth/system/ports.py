"""Ports of this machine, and the processes that listen on them."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress

import psutil

from plinth.errors import UserError


def refuse_taken(wanted: Mapping[str, int], address: str, own: Collection[int]) -> None:
    """Raise when a port is in use by a process that is not ours, naming the port, its key and the owner.

    ``wanted`` maps a settings key to a port; ``own`` holds the process ids of this environment.
    """
    for key, port in wanted.items():
        if _free(address, port):
            continue
        pid = listener(port)
        if pid is not None and _is_ours(pid, own):
            continue
        raise UserError(f"Port {port} (plinth:{key}) is taken by {_name(pid)}; stop it, or set another port.")


def _free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def listener(port: int) -> int | None:
    """Return the process that listens on a port, as far as this account can see."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            return int(connection.pid) if connection.pid else None
    return None


def _is_ours(pid: int, own: Collection[int]) -> bool:
    try:
        process = psutil.Process(pid)
        return pid in own or any(parent.pid in own for parent in process.parents())
    except psutil.NoSuchProcess:
        return True


def _name(pid: int | None) -> str:
    if pid is None:
        return "a process of another user"
    try:
        process = psutil.Process(pid)
        return f"{process.name()} (pid {pid}, user {process.username()})"
    except psutil.Error:
        return f"pid {pid}"


PORTS = range(20_000, 30_000)


def free_port() -> int:
    """Return a port of loopback that no process listens on now.

    It is outside the range that the kernel gives to outgoing connections (32768 and up by default): one of those may be
    taken again before the server binds.
    """
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise UserError(f"Every port of 127.0.0.1 from {PORTS.start} to {PORTS.stop - 1} is taken; end what listens there.")
