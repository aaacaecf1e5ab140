"""Directories that only their owner writes: opened step by step, by descriptor, and never through a link.

Root starts services that may be compromised. Whatever root opens, creates or gives away is reached through a
descriptor of a directory that no service's account can write, so that no service can choose what it is.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from plinth.errors import UserError
from plinth.system.accounts import written_by_services
from plinth.system.atomic_files import EXCLUSIVE

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A service's account may pass through to its own files, and may not list the directory.
PASSAGE, PRIVATE = 0o711, 0o700


@dataclass(frozen=True)
class Access:
    """The owner of new entries, and their mode as a directory; a file's is the same without search permission."""

    uid: int
    gid: int
    mode: int


@contextmanager
def opened(path: Path, within: Path, mode: int = PASSAGE) -> Iterator[int]:
    """Yield a descriptor of a directory of this user's own, created where it is missing.

    ``within`` and all below it down to ``path`` must be this user's; ``path`` gets ``mode``, those above it get 0711,
    whatever the umask. Above ``within`` links are followed, where no service can change them. Raises
    :class:`UserError` for an entry that another user could have put there.
    """
    if not within.is_absolute():
        raise ValueError(f"{within} is not an absolute path")
    real = within.parent.resolve() / within.name
    descriptor = os.open("/", FLAGS)
    walked = Path("/")
    try:
        for part in (*real.parts[1:], *path.relative_to(within).parts):
            walked /= part
            above, (descriptor, made) = descriptor, _step(descriptor, walked)
            os.close(above)
            if made or walked.is_relative_to(real):
                _belongs(descriptor, walked)
                _set_mode(descriptor, mode if walked == real / path.relative_to(within) else PASSAGE)
            else:
                _refuse_shared(descriptor, walked)
        yield descriptor
    finally:
        os.close(descriptor)


def make_passage(path: Path, mode: int = PASSAGE) -> None:
    """Create a directory and those above it, all with mode 0711 whatever the umask; existing ones stay as they are."""
    if not path.is_dir():
        make_passage(path.parent, mode)
        with suppress(FileExistsError):
            path.mkdir(mode=PRIVATE)
            path.chmod(mode)


def replace_tree(parent: int, name: str, files: Mapping[str, str], access: Access) -> None:
    """Replace the directory of that name by one with these files, by relative path.

    It is written under an unpredictable name and renamed, so that a reader sees the old one or the new one.
    """
    partial = f".{name}.{secrets.token_hex(8)}"
    os.mkdir(partial, PRIVATE, dir_fd=parent)
    try:
        _fill(parent, partial, files, access)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True, dir_fd=parent)
        raise
    remove_tree(parent, name)
    os.rename(partial, name, src_dir_fd=parent, dst_dir_fd=parent)


def remove_tree(parent: int, name: str) -> None:
    """Remove a directory and all in it, links as links; a missing one is ignored."""
    gone = f".{name}.{secrets.token_hex(8)}"
    with suppress(FileNotFoundError):
        os.rename(name, gone, src_dir_fd=parent, dst_dir_fd=parent)
        if stat.S_ISDIR(os.stat(gone, dir_fd=parent, follow_symlinks=False).st_mode):
            shutil.rmtree(gone, dir_fd=parent)
        else:
            os.unlink(gone, dir_fd=parent)


def purge(descriptor: int) -> None:
    """Remove entries that are not this user's from its own directory, which was open to others once."""
    for name in os.listdir(descriptor):
        with suppress(FileNotFoundError):
            if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_uid != os.geteuid():
                remove_tree(descriptor, name)


def make_volume(parent: int, name: str, access: Access) -> bool:
    """Create a directory for a service to write in; return whether it was missing."""
    with suppress(FileExistsError):
        os.mkdir(name, PRIVATE, dir_fd=parent)
        with _entered(parent, name) as volume:
            os.fchown(volume, access.uid, access.gid)
            os.fchmod(volume, access.mode)
        return True
    return False


def has_access(parent: int, name: str, access: Access) -> bool:
    """Return whether a directory has its owner; it is given away last, so then all in it has too."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    return (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (access.uid, access.gid, access.mode)


def give(parent: int, name: str, access: Access, path: Path) -> None:
    """Give a volume and all in it to its owner, while others may write in it; resumes an interrupted run.

    Links are given as links. A file with a second name may be another user's file: it is refused, with its path.
    """
    with _entered(parent, name) as volume:
        for directory, directories, files, descriptor in os.fwalk(".", topdown=False, dir_fd=volume):
            for entry in (*directories, *files):
                _give_entry(descriptor, entry, access, path / directory / entry)
        os.fchown(volume, access.uid, access.gid)
        os.fchmod(volume, access.mode)


def _give_entry(parent: int, name: str, access: Access, path: Path) -> None:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            raise UserError(
                f"{path} has another name elsewhere (a hard link), so it is not given to the service's account; look "
                "what it is, copy it over itself or remove it, and run up again.",
                exit_code=1,
            )
        this = f"/proc/self/fd/{descriptor}"
        os.chown(this, access.uid, access.gid)
        if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
            Path(this).chmod(stat.S_IMODE(status.st_mode) & 0o777 | _of_group(access.mode, status.st_mode))
    finally:
        os.close(descriptor)


def _of_group(mode: int, entry: int) -> int:
    """Return the group's permissions for an entry of a directory of that mode."""
    if not mode & stat.S_IRGRP:
        return 0
    return stat.S_ISGID | stat.S_IRGRP | stat.S_IXGRP if stat.S_ISDIR(entry) else stat.S_IRGRP


def _step(parent: int, path: Path) -> tuple[int, bool]:
    """Return a descriptor of a directory in another, and whether it was created."""
    made = False
    try:
        with suppress(FileExistsError):
            os.mkdir(path.name, PRIVATE, dir_fd=parent)
            made = True
        descriptor = os.open(path.name, FLAGS, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise UserError(
                f"{path} is a link or a file where a directory must be; remove it, and run it again.", exit_code=1
            ) from error
        error.filename = str(path)
        raise
    return descriptor, made


def _set_mode(descriptor: int, mode: int) -> None:
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        os.fchmod(descriptor, mode)


def _belongs(descriptor: int, path: Path) -> None:
    owner = os.fstat(descriptor).st_uid
    if owner != os.geteuid():
        raise UserError(
            f"{path} belongs to another user (uid {owner}); remove it, or run this as that user.", exit_code=1
        )


def _refuse_shared(descriptor: int, path: Path) -> None:
    status = os.fstat(descriptor)
    by_all = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
    if os.geteuid() == 0 and (by_all or written_by_services(status)):
        raise UserError(
            f"{path} can be written by others than root, so root keeps no service's files below it; close it "
            f"(`chown root {path}; chmod go-w {path}`) or move the project.",
            exit_code=1,
        )


def _fill(parent: int, name: str, files: Mapping[str, str], access: Access) -> None:
    with _entered(parent, name) as directory:
        for path in sorted({above for file in files for above in PurePosixPath(file).parents} - {PurePosixPath(".")}):
            os.mkdir(str(path), PRIVATE, dir_fd=directory)
            with _entered(directory, str(path)) as below:
                _hand_over(below, access, access.mode)
        for file, content in files.items():
            descriptor = os.open(file, EXCLUSIVE, 0o600, dir_fd=directory)
            with os.fdopen(descriptor, "w") as written:
                written.write(content)
                written.flush()
                os.fsync(descriptor)
                _hand_over(descriptor, access, access.mode & 0o666)
        _hand_over(directory, access, access.mode)


def _hand_over(descriptor: int, access: Access, mode: int) -> None:
    os.fchown(descriptor, access.uid, access.gid)
    os.fchmod(descriptor, mode)


@contextmanager
def _entered(parent: int, name: str) -> Iterator[int]:
    descriptor = os.open(name, FLAGS, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
