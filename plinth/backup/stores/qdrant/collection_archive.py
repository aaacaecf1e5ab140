"""One collection of Qdrant as a directory of snapshots, which `plinth collections drop` writes and a restore reads."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import Field, ValidationError

from plinth.backup.config import QdrantStore
from plinth.backup.manifest import Collection, Piece, QdrantPart, piece
from plinth.backup.session import BackupError, Say, full_disk_said
from plinth.backup.set_paths import folder
from plinth.backup.stores.qdrant import recreate as qdrant_recreate
from plinth.backup.stores.qdrant.backup import Taking
from plinth.backup.stores.qdrant.node_client import Journal, nodes
from plinth.backup.temporary.launcher import current
from plinth.system.atomic_files import sha256, write_whole
from plinth.system.strict_model import StrictModel

FILE = "collection.json"


class Saved(StrictModel):
    """A collection as it was saved, the aliases of its server, and the files of its shards."""

    part: QdrantPart
    pieces: tuple[Piece, ...] = Field(min_length=1)

    @property
    def collection(self) -> Collection:
        """Return the collection."""
        return self.part.collections[0]

    @property
    def aliases(self) -> tuple[str, ...]:
        """Return the aliases that pointed to the collection."""
        return tuple(alias for alias, target in sorted(self.part.aliases.items()) if target == self.collection.name)


def save(store: QdrantStore, name: str, below: Path, say: Say) -> Path:
    """Save a snapshot of every shard to a new directory ``below``, which is removed where a shard is missing."""
    connections = nodes(store)
    below.mkdir(mode=0o700, parents=True, exist_ok=True)
    for sentence in Journal(below).clean(connections):
        say(f"qdrant: {sentence}")
    directory = below / f"{folder(name)}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    with full_disk_said(below), _whole(directory):
        taking = Taking(directory, below, say, connections, only=name)
        part = taking.take()
        if taking.failures or part is None or not part.collections:
            reasons = " ".join(taking.failures) or f"there is no collection {name}."
            raise BackupError(f"{name} was not dropped, for no snapshot of it was taken: {reasons}")
        pieces = tuple(piece(directory / shard.path, directory) for shard in part.collections[0].shards)
        write_whole(directory / FILE, Saved(part=part, pieces=pieces).model_dump_json())
    return directory


def load(directory: Path) -> Saved:
    """Load what :func:`save` has written."""
    try:
        return Saved.model_validate_json((directory / FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise BackupError(
            f"{directory} is no directory that `plinth collections drop` has written; name one that has a {FILE}."
        ) from error


def restore(store: QdrantStore, directory: Path, say: Say) -> list[str]:
    """Create the collection again under its name, compare it, and point its free aliases to it. Returns these."""
    saved, connections = load(directory), nodes(store)
    first, name = connections[0], saved.collection.name
    if first.is_embedded != (saved.part.engine == "embedded"):
        raise BackupError(f"{directory} holds snapshots of another engine than answers at {first.url}; restore there.")
    if name in first.collections():
        raise BackupError(f"{name} is there already; drop it first, or point its users at it.")
    sums = {one.path: one for one in saved.pieces}
    with TemporaryDirectory(prefix=".restoring-", dir=directory) as scratch:

        def fetch(path: str) -> tuple[Path, Piece]:
            """Return a link, which its reader removes, so that the snapshot stays."""
            linked = Path(scratch) / path.replace("/", "-")
            os.link(directory / path, linked)
            if sha256(linked) != sums[path].sha256:
                raise BackupError(f"{directory / path} is not as it was written; {name} cannot be restored from it.")
            return linked, sums[path]

        if first.is_embedded:
            qdrant_recreate.recover(first, saved.collection, name, fetch, store.snapshots, current(), say)
        else:
            qdrant_recreate.rebuild(connections, saved.collection, name, fetch, say)
    wrong = qdrant_recreate.differences(first, saved.collection, name)
    if wrong:
        raise BackupError(f"{name} is there and did not come back as it was ({wrong[0]}); its aliases are not pointed.")
    taken = {*first.aliases(), *first.collections()}
    free = [alias for alias in saved.aliases if alias not in taken]
    actions = [{"create_alias": {"alias_name": alias, "collection_name": name}} for alias in free]
    if actions:
        first.call("POST", "/collections/aliases", {"actions": actions})
    return free


@contextmanager
def _whole(directory: Path) -> Iterator[None]:
    """Remove a directory again where the block fails."""
    try:
        directory.mkdir(mode=0o700)
        yield
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
