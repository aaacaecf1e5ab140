"""Qdrant nodes that say what a test wants them to say, one server each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http.server import ThreadingHTTPServer
from typing import Any

from tests.answers import Answers, close, serve


class Nodes:
    """A cluster whose nodes are `qdrant-N.DOMAIN` to each other; a port of 0 is any that is free.

    ``restless`` nodes have a replica that is not active; ``takes`` says whether a node lets in who shows a key, and
    ``refused`` are those whom it did not.
    """

    def __init__(self, domain: str, ports: Sequence[int]) -> None:
        self.domain = domain
        self.restless: set[int] = set()
        self.payload = ""
        self.takes: Callable[[int, str], bool] = lambda number, key: True
        self.refused: list[tuple[int, str]] = []
        self._numbers = range(len(ports))
        self._servers = [self._serve(number, port) for number, port in enumerate(ports)]
        self.ports = [server.server_address[1] for server in self._servers]

    def close(self) -> None:
        for server in self._servers:
            close(server)

    def answer(self, number: int, path: str) -> Any:
        if path == "/cluster":
            return {
                "status": "enabled",
                "peer_id": number + 1,
                "peers": {str(n + 1): {"uri": f"http://qdrant-{n}.{self.domain}:6335/"} for n in self._numbers},
                "raft_info": {"leader": 1, "pending_operations": 0, "commit": 9},
            }
        if path == "/payload":
            return self.payload
        if path == "/aliases":
            return {"aliases": []}
        if path == "/collections":
            return {"collections": [{"name": "c"}] if self.restless else []}
        if path == "/collections/c":
            return None
        states = {node: "Partial" if node in self.restless else "Active" for node in self._numbers}
        return {
            "local_shards": [{"shard_id": 0, "state": states.pop(number)}],
            "remote_shards": [{"shard_id": 0, "peer_id": n + 1, "state": state} for n, state in states.items()],
            "shard_transfers": [],
        }

    def _serve(self, number: int, port: int) -> ThreadingHTTPServer:
        nodes = self

        class Node(Answers):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                known, key = nodes.answer(number, self.path), self.headers.get("api-key", "")
                code = 404 if known is None else 200
                if key and not nodes.takes(number, key):
                    nodes.refused.append((number, key))
                    code = 401
                self.reply(code, {"result": known, "status": "ok"})

        return serve(Node, port)
