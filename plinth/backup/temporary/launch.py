"""Start temporary stores, each as a separate account where this is root, and do what needs another account's rights.

:mod:`plinth.backup.temporary.launcher` does the same for a backup that runs without rights.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from uuid import uuid4

from plinth.backup.session import BackupError
from plinth.backup.temporary.recipes import ACCOUNTS, Kind
from plinth.backup.temporary.store_process import Account, Store, end_strays, start
from plinth.programs import python_runtime
from plinth.programs.python_runtime import Python
from plinth.system.accounts import accounts_of
from plinth.system.managed_process import fixed_environment
from plinth.system.private_directories import opened

COPY_S = 900.0
COPIES = Path("/var/lib/plinth/pythons")


class Launcher(Protocol):
    """The protocol of launchers: start temporary stores, and act as the accounts of the live ones."""

    def start(self, kind: Kind, directory: Path, seed: BinaryIO | None = None) -> Started:
        """Start a store in ``directory``, which is created."""

    def clear(self, directory: Path) -> None:
        """Stop what a killed run left below ``directory``, and remove it."""

    def copy_database(self, database: Path, to: BinaryIO) -> None:
        """Copy a live SQLite database as the account that owns it."""

    def place(self, snapshots: Path, file: BinaryIO) -> Path:
        """Write a file to a snapshot directory of a Qdrant, and return its path."""

    def remove(self, placed: Path) -> None:
        """Remove a file that :meth:`place` has written."""


class Started(Protocol):
    """A running temporary store. ``told`` has its port and its password."""

    @property
    def told(self) -> dict[str, Any]:
        """Return what a client of the store needs: its port and password."""

    def words(self) -> str | None:
        """Return its last output where it has ended; None while it runs."""

    def stop(self) -> None:
        """Stop it, and remove its files."""


class Here:
    """A launcher within this process: it runs stores as its own account, or as root with the accounts of a drill."""

    def __init__(
        self, reader: Account | None = None, interpreter: Python | None = None, hidden: Sequence[Path] = ()
    ) -> None:
        """Create a launcher.

        ``reader`` is the account that writes snapshots for a temporary Qdrant; this process where it is absent.
        ``interpreter`` is a Python that every account can run. ``hidden`` are directories that are kept from a store
        with this process's own account, where the kernel can.
        """
        self._reader, self._interpreter, self._hidden = reader, interpreter, hidden

    def start(self, kind: Kind, directory: Path, seed: BinaryIO | None = None) -> Store:
        """Start a store in ``directory``, which is created."""
        name = accounts_of({kind: (ACCOUNTS[kind],)})[kind]
        account = _account(name) if name else Account(os.geteuid(), os.getegid())
        directory.mkdir(parents=True)
        if self._reader is None:
            _open_way(directory)
        if kind == "embedded" and self._interpreter is None:
            self._interpreter = interpreter()
        reader = self._reader or Account(os.geteuid(), os.getegid())
        try:
            python = self._interpreter or Python(sys.executable)
            hidden = () if name else self._hidden
            return start(kind, directory, account, reader, seed, python, hidden)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def clear(self, directory: Path) -> None:
        """Stop what a killed run left below ``directory``, and remove it."""
        end_strays(directory)
        shutil.rmtree(directory, ignore_errors=True)

    def copy_database(self, database: Path, to: BinaryIO) -> None:
        """Copy a live SQLite database as the account that owns it."""
        python = self._interpreter or Python(sys.executable)
        argv = [python.executable, "-m", "plinth.grafana_snapshot.sqlite_copy", str(database)]
        # Memory is too small for a large one; another account has no other directory.
        near = {} if os.geteuid() == 0 else {"TMPDIR": str(Path(to.name).parent)}
        _act(_owner(database.parent), argv, Path("/"), {**python.environment, **near}, stdout=to)

    def place(self, snapshots: Path, file: BinaryIO) -> Path:
        """Write a file to a snapshot directory of a Qdrant, and return its path."""
        snapshots = snapshots.resolve()
        if not snapshots.exists():
            # The engine creates it with its first snapshot.
            _act(_owner(snapshots.parent), ["mkdir", "-p", "--", snapshots.name], snapshots.parent)
        name = f"restored-{uuid4()}.snapshot"
        if _is_linked(file, snapshots, name):
            return snapshots / name
        _act(_owner(snapshots), ["dd", f"of={name}", "conv=excl", "bs=1M", "status=none"], snapshots, stdin=file)
        return snapshots / name

    def remove(self, placed: Path) -> None:
        """Remove a file that :meth:`place` has written."""
        _act(_owner(placed.parent), ["rm", "-f", "--", placed.name], placed.parent)


def interpreter() -> Python:
    """Return a Python that every account can run: this one, its original, or a copy of this venv's in /var/lib."""
    own = {name: os.environ[name] for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    if os.geteuid() != 0 or own:
        return Python(sys.executable, own)
    clone = str(python_runtime.PACKAGE.parent)
    place = COPIES / hashlib.sha256(clone.encode()).hexdigest()[:8]
    python = python_runtime.python(place)
    if python.copy:
        with opened(place, COPIES.parent) as descriptor:
            # Two commands at the same time create one copy.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            python_runtime.provide(Path(python.copy))
    return python


def _act(
    account: Account,
    argv: Sequence[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
    *,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> None:
    """Run a small command to its end as an account. Raises :class:`BackupError` with its output."""
    try:
        done = subprocess.run(
            (*account.change, *argv),
            cwd=directory,
            env=fixed_environment(environment),
            # The engine of a drill reads by its group what this process writes there.
            umask=0o027,
            timeout=COPY_S,
            check=False,
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout or subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    except subprocess.TimeoutExpired:
        raise BackupError(f"{argv[0]} did not end in {COPY_S:.0f} s.") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise BackupError(said[0] if said else f"{Path(argv[0]).name} failed ({done.returncode})")


def _is_linked(file: BinaryIO, directory: Path, name: str) -> bool:
    """Hard-link a file into the snapshot directory of this process's own Qdrant; return whether that worked.

    Only that account writes there, and it may read the file.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        there, about = os.fstat(descriptor), os.fstat(file.fileno())
        if {there.st_uid, about.st_uid} != {os.geteuid()} or there.st_mode & 0o022:
            return False
        # Only with a directory descriptor is the link to an open file followed.
        os.link(f"/proc/self/fd/{file.fileno()}", name, dst_dir_fd=descriptor, follow_symlinks=True)
    except OSError:  # another disk, or one without hard links
        return False
    finally:
        os.close(descriptor)
    return True


def _owner(directory: Path) -> Account:
    about = directory.stat(follow_symlinks=False)
    return Account(about.st_uid, about.st_gid)


def _account(name: str) -> Account:
    about = pwd.getpwnam(name)
    return Account(about.pw_uid, about.pw_gid)


def _open_way(directory: Path) -> None:
    """Let another account reach its directory, through the directories above it that are root's and closed to it."""
    for above in directory.parents[:3] if os.geteuid() == 0 else ():
        about = above.stat(follow_symlinks=False)
        if about.st_uid == 0 and about.st_mode & 0o011 != 0o011:
            above.chmod(about.st_mode | 0o011)
