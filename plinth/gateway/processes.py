"""Several server processes of one gateway, which share its ports: an event loop of Python uses one core.

The parent starts them and waits. It is what the supervisor knows: told to stop it tells them, and where one of them
ends by itself it ends all, so that the supervisor starts the gateway again.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from plinth.errors import UserError
from plinth.gateway.config import Listen

PR_SET_PDEATHSIG = 1
log = logging.getLogger("plinth.gateway.processes")


@dataclass(frozen=True)
class ServerProcess:
    """One of several: its number from 0 on, and the directory where they find one another."""

    number: int
    directory: Path


def run_processes(config_path: Path, listen: Listen) -> int:
    """Run ``listen.processes`` servers until one ends or this process is told to stop; returns the exit status."""
    _check_free(listen)
    with tempfile.TemporaryDirectory(prefix="plinth-gateway-") as directory:
        children = [_started(config_path, number, directory) for number in range(listen.processes)]
        is_stopping = False

        def stop(*_: object) -> None:
            nonlocal is_stopping
            is_stopping = True
            for child in children:
                child.terminate()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        status = 0
        running = {child.pid for child in children}
        while running:
            pid, ended = os.wait()
            if pid not in running:
                continue
            running.discard(pid)
            if not is_stopping:
                log.error("a server process ended with status %s; the others are stopped", ended)
                status = 1
                stop()
        return status


def join(process: ServerProcess) -> None:
    """End with the parent, however that ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1 and not process.directory.exists():
        sys.exit("plinth gateway: the parent of this process has ended")


def shared_socket(host: str, port: int) -> socket.socket:
    """A socket on a port that all of them listen on; the kernel hands each connection to one of them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048, reuse_port=True)


def _check_free(listen: Listen) -> None:
    """Another program that shares its port too would be given half of the connections."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    for port in (listen.http_port, listen.grpc_port):
        try:
            socket.create_server((listen.host, port or 0), family=family).close()
        except OSError as error:
            raise UserError(f"{listen.host}:{port} cannot be listened on: {error.strerror}") from None


def _started(config_path: Path, number: int, directory: str) -> subprocess.Popen[bytes]:
    own = ["--process", str(number), "--directory", directory]
    return subprocess.Popen([sys.executable, "-m", "plinth.gateway", "server", "--config-path", str(config_path), *own])
