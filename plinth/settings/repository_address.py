"""Addresses of restic repositories, and secrets in them: detected, masked, refused.

    /srv/backups, local:/srv/backups, sftp:user@host:/srv/backups, sftp://user@host:22//srv/backups
    rest:https://[USER:PASSWORD@]host:8000/name, s3:https://host/bucket/prefix, s3:[KEY:SECRET@]host/bucket
    b2:bucket:prefix, azure:container:/, gs:bucket:/, swift:container:/, rclone:remote[,pass=SECRET]:path

restic reads a login from the address for `rest:` alone, but prints and stores the whole address of every kind.
"""

from __future__ import annotations

import re
from pathlib import Path

HIDDEN = "***"
_KIND = re.compile(r"(local|sftp|rest|s3|b2|azure|gs|swift|rclone):")
_SCHEME = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//|https?:", re.IGNORECASE)
# Up to the first slash; where that cuts a secret with a slash in it, what is before has a colon and no port behind it.
_LOGIN = re.compile(r"([^/@]*@)+|[^/@:]+:(?!\d+/)[^@]*[^/@][^@]*@")
_SFTP_LOGIN = re.compile(r"[^/@:]*:[^/@]*@")
_RCLONE_OPTIONS = re.compile(r":?[^:,/]*,.*")
_QUERY = re.compile(r"\?.*")


def masked(address: str) -> str:
    """Return the address for display: `***` for a login, for rclone's options and for a query."""
    span = _secret(address)
    return address if span is None else f"{address[: span[0]]}{HIDDEN}{address[span[1] :]}"


def holds_secret(address: str) -> bool:
    """Return whether an address holds a login, a key, a token or options; the user of sftp is not a secret."""
    return _secret(address) is not None


def directory(address: str) -> str | None:
    """Return the path of a repository in a directory; None for a repository on a server."""
    kind = _KIND.match(address)
    if kind:
        return address[kind.end() :] if kind[1] == "local" else None
    return None if "://" in address else address


def anchored(address: str, root: Path) -> str:
    """Return the address, a directory's path made absolute from ``root``; raises RuntimeError for unknown `~name`."""
    path = directory(address)
    return address if path is None else str(root / Path(path).expanduser())


def login_in(address: str) -> str | None:
    """Return the part of an address that :func:`masked` hides."""
    span = _secret(address)
    return None if span is None else address[span[0] : span[1]]


def _secret(address: str) -> tuple[int, int] | None:
    kind = _KIND.match(address)
    start = kind.end() if kind else 0
    if (not kind and "://" not in address) or (kind and kind[1] == "local"):
        return None
    if kind and kind[1] == "rclone":
        options = _RCLONE_OPTIONS.match(address, start)
        return (address.index(",", start) + 1, options.end()) if options else None
    if scheme := _SCHEME.match(address, start):
        start = scheme.end()
    login = (_SFTP_LOGIN if kind and kind[1] == "sftp" else _LOGIN).match(address, start)
    if login and login.end() > start:
        return start, login.end() - 1
    query = _QUERY.search(address, start) if kind and kind[1] in ("rest", "s3") else None
    return (query.start() + 1, query.end()) if query else None


_SERVER = re.compile(r"^(?:s3:(?:(https?):)?(?://)?|rest:(https?)://)([^/@]+)")


def server(location: str) -> str | None:
    """Return the URL of a repository's server; None for a directory, and for a protocol other than HTTP."""
    login = login_in(location)
    found = _SERVER.match(location.replace(f"{login}@", "") if login else location)
    return f"{found[1] or found[2] or 'https'}://{found[3]}" if found else None
