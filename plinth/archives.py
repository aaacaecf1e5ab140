"""Archives from elsewhere, unpacked by hand: Debian's Python 3.11.2 has no extraction filter.

Only plain files and directories are taken, by names that stay below. No link is made, no owner, mode or time is kept.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath


class UnsafeArchive(Exception):
    """An archive with a member that is refused."""


def _private(_: tarfile.TarInfo) -> int:
    return 0o600


def unpack(archive: tarfile.TarFile, directory: Path, mode: Callable[[tarfile.TarInfo], int] = _private) -> None:
    """Unpack a whole archive into ``directory``, which is made; raises :class:`UnsafeArchive`.

    ``mode`` is the mode of a file.
    """
    directory.mkdir()
    for member in archive:
        target = directory.joinpath(*parts(member))
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            copy(archive, member, target, mode(member))


def parts(member: tarfile.TarInfo) -> tuple[str, ...]:
    """A member's path below; raises :class:`UnsafeArchive` for any other and for what is no plain file or directory."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise UnsafeArchive(f"its member {member.name!r} would lie outside")
    if not (member.isdir() or is_plain(member)):
        raise UnsafeArchive(f"its member {member.name!r} is neither a plain file nor a directory")
    return path.parts


def is_plain(member: tarfile.TarInfo) -> bool:
    """Whether a member is a file whose bytes are all in the archive: no link, no device, no sparse file."""
    return member.isreg() and not member.issparse()


def copy(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, mode: int = 0o600) -> None:
    """Write one member to a file that is not there yet."""
    content = archive.extractfile(member)
    if content is None:
        raise UnsafeArchive(f"its member {member.name!r} has no content")
    with content, target.open("xb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
    target.chmod(mode)
