"""The accounts of this machine that services run as."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence


def first_account(candidates: Sequence[str]) -> str | None:
    """The first account of this machine among those named; None when this is not root, or none exists."""
    if os.geteuid() != 0:
        return None
    for name in candidates:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None
