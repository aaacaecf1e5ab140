"""Copying an SQLite database while it is written. Standard library only: a small container runs this.

`python -m plinth.grafana_snapshot.sqlite_copy DATABASE` writes the copy to standard output, as the user that owns the
database.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

# A writer holds the lock for as long as one write takes.
LOCKED_S = 60.0
# Often: between two writes there may be little time.
TRIED_AGAIN_S = 0.02


def copy(database: Path, to: Path, locked_s: float = LOCKED_S) -> None:
    """Copy a database, and check the copy; raises :class:`sqlite3.Error`.

    The original is only read: its directory may be mounted read-only. A locked database is waited for, up to
    ``locked_s`` seconds.
    """
    end = time.monotonic() + locked_s

    def waited(status: int, _remaining: int, _pages: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > end:
            raise sqlite3.OperationalError(f"it was locked for {locked_s:.0f} s")

    with (
        closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=0)) as source,
        closing(sqlite3.connect(to)) as copied,
    ):
        source.backup(copied, progress=waited, sleep=TRIED_AGAIN_S)
    check(to)


def check(database: Path) -> None:
    """Read a whole database; raises :class:`sqlite3.Error` where it is damaged or not a database."""
    with closing(sqlite3.connect(database)) as opened:
        found = opened.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(f"it is damaged ({found})")


def main() -> None:
    """Copy the database given as argument to standard output."""
    try:
        with TemporaryDirectory() as directory:
            copied = Path(directory) / "copy"
            copy(Path(sys.argv[1]), copied)
            with copied.open("rb") as content:
                shutil.copyfileobj(content, sys.stdout.buffer)
    except (OSError, sqlite3.Error) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
