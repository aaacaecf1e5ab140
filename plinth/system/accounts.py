"""The accounts of this machine that services run as: one per service, listed in config/sysusers/plinth.conf."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping, Sequence
from functools import cache

from plinth.errors import UserError

COMMAND = "scripts/accounts"
# Names the account to continue as, for a program that root starts because its first steps need root.
VARIABLE = "PLINTH_ACCOUNT"
PACKAGES = ("postgres", "redis", "prometheus", "grafana", "loki", "neo4j", "nobody")


def first_account(candidates: Sequence[str]) -> str | None:
    """Return the first of the named accounts that exists; None when this is not root, or none exists."""
    if os.geteuid() != 0:
        return None
    for name in candidates:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None


def group_of(account: str) -> int:
    """Return the group of an account; raises :class:`UserError` where this machine has no such account."""
    try:
        return pwd.getpwnam(account).pw_gid
    except KeyError:
        raise UserError(
            f"This machine has no account {account}; make the accounts with `{COMMAND}`, and run it again."
        ) from None


def accounts_of(candidates: Mapping[str, Sequence[str]]) -> dict[str, str | None]:
    """Return each service's account among its candidates: None where it has none, and for all when this is not root.

    Raises :class:`UserError` for root where an account is missing: no service runs as root for want of one.
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


def become(account: str) -> None:
    """Drop root's rights for those of an account, for good."""
    owner = pwd.getpwnam(account)
    os.setgroups([])
    os.setgid(owner.pw_gid)
    os.setuid(owner.pw_uid)


def written_by_services(status: os.stat_result) -> bool:
    """Return whether a service's account may write a file of this status by more than the permissions of all users."""
    users, groups = _ids()
    return status.st_uid in users or bool(status.st_mode & stat.S_IWGRP and status.st_gid in groups)


@cache
def _ids() -> tuple[frozenset[int], frozenset[int]]:
    accounts = [found for found in pwd.getpwall() if found.pw_name in PACKAGES or found.pw_name.startswith("plinth-")]
    return frozenset(found.pw_uid for found in accounts), frozenset(found.pw_gid for found in accounts)
