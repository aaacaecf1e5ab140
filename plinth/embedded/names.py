"""Names that callers choose, and the file names that are made of them.

A collection's name is text of any kind. On disk a plain one is itself and any other a digest, so that none is a path of
meaning, too long, or another's where the file system does not tell capitals.
"""

from __future__ import annotations

import re
from hashlib import sha256

from plinth.embedded.errors import ApiError, malformed

FORBIDDEN = frozenset('<>:"/\\|?*\0\x1f')
"""What a real server (v1.18) takes in no name of a collection or a vector."""
COLLECTION_CHARACTERS_MAX = 255
VECTOR_BYTES_MAX = 200
PLAIN, DIGEST = re.compile(r"[a-z0-9_][a-z0-9_-]{0,99}"), "collection-"
_READABLE_CHARACTERS = 64


def check_collection(name: str) -> None:
    """Refuse what a real server refuses, and the two names that every HTTP client takes out of a path."""
    _check_characters("collection name", name)
    if not 1 <= len(name) <= COLLECTION_CHARACTERS_MAX:
        raise _invalid(f"collection name has {len(name)} characters, must have from 1 to {COLLECTION_CHARACTERS_MAX}")
    if name in (".", ".."):
        raise _invalid(f'collection name cannot be "{name}": no URL leads to it')


def check_vector(name: str) -> None:
    """Refuse the name of a vector that a real server refuses: the engine makes a directory of it."""
    _check_characters("vector name", name)
    if len(name.encode()) > VECTOR_BYTES_MAX:
        raise _invalid(f"vector name must be at most {VECTOR_BYTES_MAX} bytes long")


def alias(value: object) -> str:
    """The name of an alias, which never becomes a file; raises :class:`ApiError`."""
    if not isinstance(value, str):
        raise malformed(f"an alias is named by text, got {value!r}")
    if not 1 <= len(value) <= COLLECTION_CHARACTERS_MAX:
        raise _invalid(f"alias name has {len(value)} characters, must have from 1 to {COLLECTION_CHARACTERS_MAX}")
    return value


def directory(name: str) -> str:
    """The name of a collection's directory."""
    if PLAIN.fullmatch(name) and not name.startswith(DIGEST):
        return name
    return f"{DIGEST}{sha256(name.encode()).hexdigest()[:40]}"


def readable(name: str) -> str:
    """A hint of a collection's name that may be part of a file's; it is not unique."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_READABLE_CHARACTERS]


def _check_characters(what: str, name: str) -> None:
    forbidden = sorted(FORBIDDEN & set(name))
    if forbidden:
        raise _invalid(f"{what} cannot contain {forbidden[0]!r}")


def _invalid(message: str) -> ApiError:
    return ApiError(422, f"Validation error: {message}")
