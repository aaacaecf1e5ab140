"""The control socket of supervisord: asked only where it is this user's, and this user or root answers."""

from __future__ import annotations

import http.client
import os
import socket
import struct
import xmlrpc.client
from pathlib import Path
from typing import Any, ClassVar

from supervisor.xmlrpc import SupervisorTransport

from plinth.system.private_directories import FLAGS

CREDENTIALS = struct.Struct("3i")


class Control:
    """The way to the daemon of a run directory."""

    NAME: ClassVar[str] = "supervisor.sock"

    def __init__(self, run: Path) -> None:
        self._run = run

    def rpc(self) -> Any:
        """The daemon's methods; each raises :class:`OSError` where none of this user's answers."""
        transport: Any = SupervisorTransport(None, None, f"unix://{self.NAME}")
        transport._get_connection = lambda: _Connection(self._run)
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor


class _Connection(http.client.HTTPConnection):
    def __init__(self, run: Path) -> None:
        super().__init__("localhost")
        self._run = run

    def connect(self) -> None:
        """Connect by a descriptor of the directory, so that its path may be long, and look who is there."""
        directory = os.open(self._run, FLAGS)
        try:
            _refuse_foreign(os.fstat(directory).st_uid, "the run directory")
            _refuse_foreign(os.stat(Control.NAME, dir_fd=directory, follow_symlinks=False).st_uid, "the control socket")
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.connect(f"/proc/self/fd/{directory}/{Control.NAME}")
        finally:
            os.close(directory)
        credentials = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        _refuse_foreign(CREDENTIALS.unpack(credentials)[1], "who answers at the control socket")


def _refuse_foreign(uid: int, what: str) -> None:
    if uid not in (0, os.geteuid()):
        raise PermissionError(f"{what} is of another user (uid {uid})")
