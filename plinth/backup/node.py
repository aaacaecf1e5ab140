"""A Qdrant node for backups: long requests, and files in both directions, hashed on the way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx

from plinth.backup.config import QdrantStore, secret
from plinth.embedded import ENGINE
from plinth.http_client import url_path
from plinth.qdrant.client import Qdrant, QdrantError, collection_path

# A snapshot answers when it is done: minutes for a big shard.
TIMEOUT_S = 3600.0
CONNECT_S = 5.0
CHUNK = 1 << 20


class Node(Qdrant):
    """A connection to one node."""

    def __init__(self, url: str, api_key: str | None = None, ca_cert: str | None = None) -> None:
        super().__init__(url, api_key, TIMEOUT_S, ca_cert)
        self._http.timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)

    @property
    def is_embedded(self) -> bool:
        """Whether the embedded engine answers, which has snapshots of its own format."""
        return self.banner().startswith(ENGINE.partition(" (")[0])

    @property
    def version(self) -> str:
        """The version of Qdrant's API that it speaks."""
        return self.banner().rsplit(" ", 1)[-1]

    def take(self, path: str, to: Path, journal: Journal) -> tuple[str | None, str]:
        """Make a snapshot at ``path``, fetch it, remove it; the server's own checksum and that of what came."""
        journal.asked(self, path)
        made = self.call("POST", f"{path}?wait=true")
        snapshot = f"{path}{url_path(made['name'])}"
        try:
            return made.get("checksum"), self.download(snapshot, to)
        finally:
            self.call("DELETE", f"{snapshot}?wait=true")
            journal.settled()

    def download(self, path: str, to: Path) -> str:
        """Fetch a file; its SHA-256."""
        digest = hashlib.sha256()
        try:
            with self._http.stream("GET", path) as answer, to.open("wb") as file:
                if not answer.is_success:
                    answer.read()
                    raise self._refusal("GET", path, answer)
                for chunk in answer.iter_bytes(CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return digest.hexdigest()

    def upload(self, path: str, file: Path, checksum: str) -> None:
        """Recover a snapshot from a file of ours; the server compares the checksum."""
        asked = {"priority": "snapshot", "checksum": checksum, "wait": "true"}
        try:
            with file.open("rb") as content:
                answer = self._http.post(path, params=asked, files={"snapshot": (file.name, content)})
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if not answer.is_success:
            raise self._refusal("POST", path, answer)

    def count(self, collection: str) -> int:
        """The exact number of points."""
        return int(self.call("POST", f"{collection_path(collection)}/points/count", {"exact": True})["count"])


def nodes(store: QdrantStore) -> list[Node]:
    """A connection to every node, whether it answers or not."""
    key, ca = secret(store.api_key_file), secret(store.ca_file)
    return [Node(url, key, ca) for url in store.urls]


class Journal:
    """Which snapshot a node is asked for right now, so that the next run can remove what a killed one left there."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "asked.json"

    def asked(self, node: Node, path: str) -> None:
        """Remember a request before it is sent, with the snapshots that are there already."""
        before = [snapshot["name"] for snapshot in node.call("GET", path)]
        self._file.write_text(json.dumps({"url": node.url, "path": path, "before": before}))

    def settled(self) -> None:
        """Nothing is left behind."""
        self._file.unlink(missing_ok=True)

    def clean(self, connections: list[Node]) -> str | None:
        """Remove the snapshot that a killed run asked for; a sentence when there was one.

        It is the first that was not there before the request: later ones, of other people, stay.
        """
        try:
            known = json.loads(self._file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        node = next((node for node in connections if node.url == known["url"]), None)
        if node is None:
            self.settled()
            return None
        try:
            found = [
                snapshot for snapshot in node.call("GET", known["path"]) if snapshot["name"] not in known["before"]
            ]
            left = sorted(found, key=lambda snapshot: snapshot["creation_time"] or "")[:1]
            for snapshot in left:
                node.call("DELETE", f"{known['path']}{url_path(snapshot['name'])}?wait=true")
        except QdrantError as error:
            if error.status != 404:
                raise
            left = []  # the collection is gone, and its snapshots with it
        self.settled()
        return f"removed {left[0]['name']}, which a killed run left on {node.url}" if left else None
