"""A Qdrant cluster of real nodes, each a process."""

from __future__ import annotations

import time
from pathlib import Path

import yaml

from plinth.backup.stores.qdrant.node_client import Node
from tests.conftest import KEY, READ_ONLY_KEY, Server, free_port, real_qdrant


class Cluster:
    """Nodes of a real server, each a process."""

    def __init__(self, directory: Path, count: int) -> None:
        self.directory = directory
        self.p2p = [free_port() for _ in range(count)]
        self.servers = [self._server(number) for number in range(count)]
        for server in self.servers:
            server.start()
        end = time.monotonic() + 60
        while any(len(node.call("GET", "/cluster")["peers"]) < count for node in self.nodes):
            assert time.monotonic() < end
            time.sleep(0.2)

    @property
    def nodes(self) -> list[Node]:
        return [Node(server.url, KEY) for server in self.servers]

    def stop(self) -> None:
        for server in self.servers:
            if server.process and server.process.poll() is None:
                server.stop()

    def _server(self, number: int) -> Server:
        directory = self.directory / str(number)
        directory.mkdir(parents=True)
        port = free_port()
        service = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port()}
        config = {
            "log_level": "WARN",
            "telemetry_disabled": True,
            "service": {**service, "api_key": KEY, "read_only_api_key": READ_ONLY_KEY},
            "storage": {"storage_path": str(directory / "s"), "snapshots_path": str(directory / "snapshots")},
            "cluster": {"enabled": True, "p2p": {"port": self.p2p[number]}},
        }
        path = directory / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        own, first = (f"http://127.0.0.1:{port}" for port in (self.p2p[number], self.p2p[0]))
        joining = ["--uri", own] if number == 0 else ["--bootstrap", first, "--uri", own]
        return Server([str(real_qdrant()), "--config-path", str(path), *joining], directory, port, 0)
