"""Files below a directory by an untrusted path: opened part by part, without following links.

Only the directory itself is trusted. A link, a missing part or an invalid path raises OSError.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, BufferedWriter
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def is_plain(path: str) -> bool:
    """Return whether a path is relative and normal: no empty part, no `.` or `..`, no control character."""
    return all(part not in ("", ".", "..") for part in path.split("/")) and path.isprintable()


def create(root: Path, path: str, mode: int = 0o600) -> BufferedWriter:
    """Create a file at ``path`` below ``root``, with the directories above it, and return it open for writing."""
    with _parent(root, path, make=True) as (parent, name):
        return os.fdopen(os.open(name, _NEW, mode, dir_fd=parent), "wb")


def read(root: Path, path: str) -> BufferedReader:
    """Open the file at ``path`` below ``root``."""
    with _parent(root, path) as (parent, name):
        return os.fdopen(os.open(name, _READ, dir_fd=parent), "rb")


def move(root: Path, path: str, to: str) -> None:
    """Move an entry from ``path`` below ``root`` to another path below it, with the directories above that."""
    with _parent(root, path) as (parent, name), _parent(root, to, make=True) as (new_parent, new_name):
        os.rename(name, new_name, src_dir_fd=parent, dst_dir_fd=new_parent)


def remove(root: Path, path: str) -> None:
    """Remove the file at ``path`` below ``root``, if it exists."""
    with suppress(FileNotFoundError), _parent(root, path) as (parent, name):
        os.unlink(name, dir_fd=parent)


@contextmanager
def _parent(root: Path, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """Yield the descriptor of the directory that holds a path's last part, and that part."""
    if not is_plain(path):
        raise OSError(errno.EINVAL, "not a path below a directory", path)
    *directories, name = path.split("/")
    if make:
        root.mkdir(parents=True, exist_ok=True)
    here = os.open(root, _DIRECTORY)
    try:
        for part in directories:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=here)
            there = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = there
        yield here, name
    finally:
        os.close(here)
