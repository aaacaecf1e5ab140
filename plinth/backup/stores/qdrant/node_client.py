"""A client of one Qdrant node for backups: long requests, uploads, and downloads that are hashed as they arrive."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from plinth.backup.config import QdrantStore, secret
from plinth.backup.manifest import Measure
from plinth.embedded import ENGINE
from plinth.errors import UserError
from plinth.qdrant.client import Qdrant, QdrantError, collection_path
from plinth.system.http_client import url_path

# A snapshot request answers when it is done: minutes for a large shard.
TIMEOUT_S = 3600.0
CONNECT_S = 5.0
CHUNK = 1 << 20


class Node(Qdrant):
    """A connection to one node."""

    def __init__(self, url: str, api_key: str | None = None, ca_cert: str | None = None) -> None:
        super().__init__(url, api_key, TIMEOUT_S, ca_cert)
        self._given_up = False
        self._http.timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)

    @property
    def is_embedded(self) -> bool:
        """Whether the node is the embedded engine, whose snapshots have a format of their own."""
        return self.banner().startswith(ENGINE.partition(" (")[0])

    @property
    def version(self) -> str:
        """Return the version of Qdrant's API on this node."""
        return self.banner().rsplit(" ", 1)[-1]

    def take(
        self, path: str, to: Path, journal: Journal, stands: Callable[[], None] = lambda: None
    ) -> tuple[str | None, Measure]:
        """Create a snapshot at ``path``, download it and delete it.

        Returns the server's own checksum, and the measure of the file. // ``stands`` is called once the snapshot is
        created, before it is downloaded.
        """
        journal.asked(self, path)
        made = self.call("POST", f"{path}?wait=true")
        where = f"{path}{_part(made['name'])}"
        try:
            stands()
            return made.get("checksum"), self.download(where, to)
        finally:
            self.call("DELETE", f"{where}?wait=true")
            journal.settled(self, path)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request; an invalid address and an invalid response are errors of the server too."""
        try:
            return super().call(method, path, body)
        except (httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
            raise QdrantError(f"Qdrant at {self.url} cannot be asked {method} {path[:200]!a}: {error}") from error

    def collections(self) -> list[str]:
        """Return the names of all physical collections."""
        try:
            return [str(name) for name in super().collections()]
        except (LookupError, TypeError) as error:
            raise QdrantError(f"Qdrant at {self.url} lists its collections as no Qdrant does: {error!r}") from error

    def download(self, path: str, to: Path) -> Measure:
        """Download a file, and measure it as it arrives."""
        measure = Measure()
        try:
            with self._http.stream("GET", path) as answer, to.open("wb") as file:
                if not answer.is_success:
                    answer.read()
                    raise self._refusal("GET", path, answer)
                for chunk in _in_chunks(answer.iter_bytes()):
                    if self._given_up:
                        raise QdrantError(f"The download from {self.url} was given up.")
                    measure.add(chunk)
                    file.write(chunk)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except httpx.InvalidURL as error:
            raise QdrantError(f"Qdrant at {self.url} cannot be asked for {path[:200]!a}: {error}") from error
        return measure

    def give_up(self) -> None:
        """Abort a download of another thread."""
        self._given_up = True

    def upload(self, path: str, file: Path, checksum: str) -> None:
        """Upload a snapshot file and recover it; the server compares the checksum."""
        asked = {"priority": "snapshot", "checksum": checksum, "wait": "true"}
        try:
            with file.open("rb") as content:
                answer = self._http.post(path, params=asked, files={"snapshot": (file.name, content)})
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if not answer.is_success:
            raise self._refusal("POST", path, answer)

    def count(self, collection: str) -> int:
        """Return the exact number of points."""
        return int(self.call("POST", f"{collection_path(collection)}/points/count", {"exact": True})["count"])


def nodes(store: QdrantStore) -> list[Node]:
    """Return a connection to every node, whether it answers or not."""
    key, ca = secret(store.api_key_file), secret(store.ca_file)
    return [Node(url, key, ca) for url in store.urls]


class Journal:
    """The snapshots that are requested of nodes, so that those of a failed attempt or a killed run are removed."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "asked.json"

    def asked(self, node: Node, path: str) -> None:
        """Record a request before it is sent, with the snapshots that exist already."""
        before = [str(snapshot["name"]) for snapshot in node.call("GET", path)]
        self._write([*self._entries(), {"url": node.url, "path": path, "before": before}])

    def settled(self, node: Node, path: str) -> None:
        """Clear the record of a pending snapshot."""
        self._write([each for each in self._entries() if (each["url"], each["path"]) != (node.url, path)])

    def clean(self, connections: Sequence[Node]) -> list[str]:
        """Remove the snapshots that were requested and not used, and return a message for each.

        The first one that did not exist before the request is removed; later ones may be other people's and stay. The
        next run retries what cannot be removed now.
        """
        left, sentences = [], []
        by_url = {node.url: node for node in connections}
        for entry in self._entries():
            node = by_url.get(entry["url"])
            try:
                if node and (name := _remove_first(node, entry["path"], entry["before"])):
                    sentences.append(f"removed {name!a}, which a try that failed left on {node.url}")
            except QdrantError as error:
                # Without its collection the snapshots are gone too.
                if error.status != 404:
                    left.append(entry)
                    sentences.append(f"a snapshot of {entry['path']} may be left on {entry['url']}: {error}")
        self._write(left)
        return sentences

    def _entries(self) -> list[dict[str, Any]]:
        try:
            read = json.loads(self._file.read_text())
        except (FileNotFoundError, ValueError):
            return []
        # A run of an older version recorded a single snapshot.
        return [read] if isinstance(read, dict) else list(read)

    def _write(self, entries: list[dict[str, Any]]) -> None:
        if entries:
            self._file.write_text(json.dumps(entries))
        else:
            self._file.unlink(missing_ok=True)


def _remove_first(node: Node, path: str, before: Sequence[str]) -> str | None:
    new = [snapshot for snapshot in node.call("GET", path) if snapshot["name"] not in before]
    for snapshot in sorted(new, key=lambda snapshot: snapshot["creation_time"] or "")[:1]:
        node.call("DELETE", f"{path}{_part(snapshot['name'])}?wait=true")
        return str(snapshot["name"])
    return None


def _in_chunks(parts: Iterable[bytes]) -> Iterator[bytes | bytearray]:
    """Yield the same bytes in chunks of one size, except the last, in one buffer that is overwritten each time."""
    buffer, held = bytearray(CHUNK), 0
    view = memoryview(buffer)
    for part in parts:
        rest = memoryview(part)
        while rest:
            fitting = rest[: CHUNK - held]
            view[held : held + len(fitting)] = fitting
            held, rest = held + len(fitting), rest[len(fitting) :]
            if held == CHUNK:
                yield buffer
                held = 0
    if held:
        yield bytes(view[:held])


def _part(name: str) -> str:
    """Return a snapshot's name for an address. Raises :class:`QdrantError` for one that no address can hold."""
    try:
        return url_path(name)
    except UserError as error:
        raise QdrantError(str(error)) from error
