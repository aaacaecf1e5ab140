"""Archives from elsewhere, unpacked by hand: Debian's Python 3.11.2 has no extraction filter.

Only plain files and directories are taken, by names that stay below. No link is made, no owner, mode or time is kept.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any


class UnsafeArchive(Exception):
    """An archive with a member that is refused."""


def _private(_: tarfile.TarInfo) -> int:
    return 0o600


def unpack(
    archive: tarfile.TarFile,
    directory: Path,
    mode: Callable[[tarfile.TarInfo], int] = _private,
    *,
    holes: bool = False,
) -> None:
    """Unpack a whole archive into ``directory``, which is made; raises :class:`UnsafeArchive`.

    ``mode`` is the mode of a file. With ``holes`` sparse files are taken too: their holes need no room on the disk.
    """
    directory.mkdir()
    for member in archive:
        target = directory.joinpath(*parts(member, holes=holes))
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            copy(archive, member, target, mode(member))


def parts(member: tarfile.TarInfo, *, holes: bool = False) -> tuple[str, ...]:
    """A member's path below; raises :class:`UnsafeArchive` for any other and for what is no plain file or directory."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise UnsafeArchive(f"its member {member.name!r} would lie outside")
    if not (member.isdir() or is_plain(member) or (holes and member.isreg() and member.issparse())):
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
        if member.issparse():
            _copy_extents(content, file, member)
        else:
            shutil.copyfileobj(content, file, 1 << 20)
    target.chmod(mode)


def _copy_extents(content: IO[bytes], file: IO[bytes], member: tarfile.TarInfo) -> None:
    # typeshed has a number here.
    extents: Any = member.sparse
    for offset, length in extents or ():
        content.seek(offset)
        file.seek(offset)
        while length > 0:
            part = content.read(min(length, 1 << 20))
            if not part:
                raise UnsafeArchive(f"its member {member.name!r} is shorter than it says")
            file.write(part)
            length -= len(part)
    file.truncate(member.size)
