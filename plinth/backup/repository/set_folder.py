"""Read a whole folder of a set with one start of restic: each start derives the key of the repository again."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Sequence
from io import BufferedReader
from typing import cast

from plinth.backup.manifest import Piece
from plinth.backup.repository.restic import Restic
from plinth.backup.repository.restic_output import Snapshot
from plinth.backup.session import BackupError
from plinth.printable import visible

# Larger buffers are allocated by the kernel each time, which costs more than it saves.
PART = 1 << 18


def digests_of(restic: Restic, snapshot: Snapshot, folder: str, pieces: Sequence[Piece]) -> dict[str, str]:
    """Read a folder of a set, and return the SHA-256 of each of its ``pieces`` that is there.

    Reading stops at a file that is not among them, or that is longer than its entry.
    """
    by_path = {piece.path: piece for piece in pieces}
    digests: dict[str, str] = {}
    arguments = ("dump", "--archive", "tar", "--", snapshot.id, f"{snapshot.path}/{folder}")
    try:
        with restic.stream(*arguments) as stream, tarfile.open(fileobj=stream, mode="r|", bufsize=PART) as archive:
            for member in archive:
                if member.isdir():
                    continue
                path = _path(member.name, snapshot, folder)
                piece = by_path.pop(path, None) if member.isreg() else None
                content = archive.extractfile(member) if piece else None
                if piece is None or content is None or member.size > piece.size:
                    raise BackupError(
                        f"{visible(path)} of set {snapshot.short} is not what its manifest says; take another set."
                    )
                digests[path] = hashlib.file_digest(cast(BufferedReader, content), "sha256").hexdigest()
    except tarfile.TarError as error:
        raise BackupError(
            f"{folder} of set {snapshot.short} cannot be read ({error}); see `plinth backup verify`."
        ) from error
    return digests


def _path(name: str, snapshot: Snapshot, folder: str) -> str:
    """Return the path of a member within the set; versions of restic name it from the root or from the folder."""
    name = name.lstrip("/")
    root = f"{snapshot.path}/".lstrip("/")
    return name.removeprefix(root) if name.startswith(root) else f"{folder}/{name}"
