"""Who asks: an organisation, a user of it, and what they may do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from plinth.gateway.errors import ErrorKind, GatewayError

ORGANISATION_MAX = 64
USER_MAX_BYTES = 255
_ORGANISATION = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9_-]{{0,{ORGANISATION_MAX - 1}}})", re.ASCII)


class Scope(StrEnum):
    """What a token allows: to search and to get, to write and delete points, to create and delete collections."""

    read = "read"
    write = "write"
    admin = "admin"


@dataclass(frozen=True)
class Caller:
    """An organisation and one of its users, both from a signed token and from nowhere else."""

    organisation: str
    user: str
    scopes: frozenset[Scope]

    def require(self, scope: Scope) -> None:
        """Raise where the token does not allow this."""
        if scope not in self.scopes:
            raise GatewayError(ErrorKind.permission_denied, f"the token does not have the scope '{scope}'")


def is_organisation(text: str) -> bool:
    """Whether a text can name an organisation: letters and digits of ASCII, `-` and `_`, 64 at most."""
    return bool(_ORGANISATION.fullmatch(text))


def is_user(text: str) -> bool:
    """Whether a text can name a user: one line of printable signs, 255 bytes at most."""
    return bool(text) and text.isprintable() and len(text.encode(errors="replace")) <= USER_MAX_BYTES
