"""The umask of the files that Plinth creates: only this user may access them, except those that the user names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

PRIVATE_UMASK = 0o077
_users_umask = PRIVATE_UMASK


def close_umask() -> None:
    """Make new files private to this user; code that opens one to others sets its mode explicitly."""
    global _users_umask
    _users_umask = os.umask(PRIVATE_UMASK)


@contextmanager
def users_umask() -> Iterator[None]:
    """Restore the user's own umask, for a file that the user names."""
    before = os.umask(_users_umask)
    try:
        yield
    finally:
        os.umask(before)
