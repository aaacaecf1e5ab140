"""Ids of points from the keys of rows: the same key always gives the same id, and two keys never share one."""

from __future__ import annotations

import json
import re
import uuid

from plinth.migrate.model import Key

NAMESPACE = uuid.UUID("0d5b8f0e-7a53-5b0e-9f5c-2f4f3f1c9a61")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LARGEST = 2**64 - 1


def kept(key: Key) -> bool:
    """Whether Qdrant accepts a key as it is: a whole number from 0, or a UUID in its usual form."""
    if isinstance(key, int):
        return 0 <= key <= LARGEST
    return isinstance(key, str) and UUID.fullmatch(key) is not None


def point_id(key: Key, namespace: str) -> int | str:
    """Return the key if Qdrant accepts it, else the UUIDv5 of the source's name and the key.

    JSON keeps 7 and "7" apart, and ("a", "bc") from ("ab", "c").
    """
    if not isinstance(key, tuple) and kept(key):
        return key
    return str(uuid.uuid5(NAMESPACE, f"{namespace}/{json.dumps(key)}"))
