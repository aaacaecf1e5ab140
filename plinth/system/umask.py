"""The mask of the files that Plinth makes: this user's alone, but for those that the user names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

PRIVATE_UMASK = 0o077
_users_umask = PRIVATE_UMASK


def close_umask() -> None:
    """Make what Plinth writes this user's alone: that others get at some of it is said where it is made."""
    global _users_umask
    _users_umask = os.umask(PRIVATE_UMASK)


@contextmanager
def users_umask() -> Iterator[None]:
    """For a file that the user names: its mode is as the user has it."""
    before = os.umask(_users_umask)
    try:
        yield
    finally:
        os.umask(before)
