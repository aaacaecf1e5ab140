"""Port-forwards from this machine into pods, through the Kubernetes API.

Each connection is forwarded to a pod that is ready at that moment, so pods may come and go under an open port. The
ports are open for as long as the process that opened them: the command line, or `pulumi up`'s program.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import websocket
from kubernetes.stream.ws_client import create_websocket

from plinth.errors import UserError
from plinth.kubernetes.client import Cluster, is_ready
from plinth.system.http_client import url_path
from plinth.system.ports import listener, refuse_taken

LOOPBACK = "127.0.0.1"
DATA, ERROR = 0, 1
CHUNK = 1 << 16
RETRY_S = 0.1
KEY = "kubernetes.forward_offset"


@dataclass(frozen=True)
class Route:
    """A port of this machine, and the labels and the port of the pods that it is forwarded to."""

    local: int
    selector: str
    port: int


class Forward:
    """The open ports of one environment."""

    def __init__(self, cluster: Cluster, routes: Sequence[Route], marks: Path) -> None:
        """Prepare the ports; ``marks`` is a directory in which the commands of an environment register."""
        self._cluster, self._routes, self._marks = cluster, routes, marks

    def open(self) -> None:
        """Listen on every port; refuses one that another program has.

        Another command of the same environment may have it: its ports serve this one too, and this one takes over
        when it ends.
        """
        self._marks.mkdir(parents=True, exist_ok=True)
        for old in self._marks.iterdir():
            if not psutil.pid_exists(int(old.name)):
                old.unlink(missing_ok=True)
        (self._marks / str(psutil.Process().pid)).touch()
        for route in self._routes:
            bound = _bind(route.local)
            if bound is None:
                holder = listener(route.local)
                if holder is None or not (self._marks / str(holder)).exists():
                    refuse_taken({KEY: route.local}, LOOPBACK, ())
            threading.Thread(target=self._listen, args=(route, bound), daemon=True).start()

    def _listen(self, route: Route, bound: socket.socket | None) -> None:
        while bound is None:
            time.sleep(RETRY_S)
            bound = _bind(route.local)
        while True:
            connection, _ = bound.accept()
            threading.Thread(target=self._lead, args=(route, connection), daemon=True).start()

    def _lead(self, route: Route, connection: socket.socket) -> None:
        """Forward one connection to a pod; without a pod it is closed, as by a service that is down."""
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                way = _way(self._cluster, route)
            except (UserError, websocket.WebSocketException, OSError):
                return
            threading.Thread(target=_outward, args=(connection, way), daemon=True).start()
            _inward(way, connection)


def _bind(port: int) -> socket.socket | None:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
    except OSError as error:
        listening.close()
        if error.errno != errno.EADDRINUSE:
            raise UserError(
                f"Port {port} cannot be opened on {LOOPBACK} ({error.strerror}); set plinth:kubernetes.forward_offset "
                "so that it lies where you may."
            ) from error
        return None
    listening.listen(128)
    return listening


def _way(cluster: Cluster, route: Route) -> Any:
    """Open a websocket to the port of a pod: channel 0 carries data, channel 1 error messages."""
    running = [pod for pod in cluster.pods(route.selector) if pod.status.phase == "Running"]
    running = [pod for pod in running if not pod.metadata.deletion_timestamp]
    if not running:
        raise UserError(f"No pod with {route.selector} runs in {cluster.namespace}.")
    pod = max(running, key=is_ready)
    address = cluster.server.replace("http", "ws", 1)
    pods = url_path("api", "v1", "namespaces", cluster.namespace, "pods")
    path = f"{pods}{url_path(pod.metadata.name, 'portforward')}?ports={route.port}"
    token = cluster.configuration.get_api_key_with_prefix("authorization")
    way = create_websocket(cluster.configuration, address + path, {"authorization": token} if token else {})
    way.settimeout(None)
    return way


def _outward(connection: socket.socket, way: Any) -> None:
    with suppress(websocket.WebSocketException, OSError, ssl.SSLError):
        while data := connection.recv(CHUNK):
            way.send_binary(bytes((DATA,)) + data)
    with suppress(websocket.WebSocketException, OSError, ssl.SSLError):
        way.close()


def _inward(way: Any, connection: socket.socket) -> None:
    """Forward until either side ends. The first message of each channel is the port's number and no data."""
    begun: set[int] = set()
    with suppress(websocket.WebSocketException, OSError, ssl.SSLError):
        while message := way.recv():
            channel, data = message[0], message[1:]
            if channel not in begun:
                begun.add(channel)
            elif channel == ERROR:
                break
            else:
                connection.sendall(data)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    with suppress(websocket.WebSocketException, OSError, ssl.SSLError):
        way.close()
