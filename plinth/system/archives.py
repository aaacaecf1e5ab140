"""Archives from elsewhere, unpacked in Python code: Debian's Python 3.11.2 has no extraction filter.

Only plain files and directories are unpacked, under names that stay below the directory. No link is made, and no owner,
mode or time is restored.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any


class UnsafeArchive(Exception):
    """The archive has a member that is refused."""


def _private(_: tarfile.TarInfo) -> int:
    return 0o600


def unpack(
    archive: tarfile.TarFile,
    directory: Path,
    mode: Callable[[tarfile.TarInfo], int] = _private,
    *,
    holes: bool = False,
) -> None:
    """Unpack a whole archive into ``directory``, which is created; raises :class:`UnsafeArchive`.

    ``mode`` is the mode of a file. With ``holes`` sparse files are accepted too: their holes need no space on the disk.
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
    """Return the parts of a member's path; raises :class:`UnsafeArchive` for an outside path or a special file."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise UnsafeArchive(f"its member {member.name!r} would lie outside")
    if not (member.isdir() or is_plain(member) or (holes and member.isreg() and member.issparse())):
        raise UnsafeArchive(f"its member {member.name!r} is neither a plain file nor a directory")
    return path.parts


def is_plain(member: tarfile.TarInfo) -> bool:
    """Return whether a member is a file whose bytes are all in the archive: no link, no device, no sparse file."""
    return member.isreg() and not member.issparse()


def copy(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, mode: int = 0o600) -> None:
    """Write one member to a file that must not exist yet."""
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
