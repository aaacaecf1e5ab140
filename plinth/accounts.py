"""The accounts of this machine that services run as: one a service, listed in config/sysusers/plinth.conf."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence

from plinth.errors import UserError

COMMAND = "scripts/accounts"


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


def accounts_of(candidates: Mapping[str, Sequence[str]]) -> dict[str, str | None]:
    """The account of each service among its candidates: None where it has none, and for all when this is not root.

    Raises :class:`UserError` for root where one is missing: no service runs as root for want of an account.
    """
    accounts = {service: first_account(names) for service, names in candidates.items()}
    if os.geteuid() != 0:
        return accounts
    missing = {service: names[-1] for service, names in candidates.items() if names and accounts[service] is None}
    if missing:
        raise UserError(
            f"This machine has no account {', '.join(missing.values())} for {', '.join(missing)}, and no service runs "
            f"as root; make the accounts with `{COMMAND}`, and run it again."
        )
    return accounts
