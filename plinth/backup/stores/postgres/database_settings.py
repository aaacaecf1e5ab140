"""The settings of a database and the grants to connect to it, which a dump does not carry, from the manifest.

A superuser applies them, whose rights the set must not use: settings for superusers alone are left out, except those
about logging and statistics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from psycopg import sql

from plinth.backup.manifest import DatabasePart
from plinth.backup.stores.postgres.sql_tokens import names

# Settings whose values are lists of names, which the catalog has quoted already.
LISTS = ("search_path", "temp_tablespaces")
PRIVILEGES = ("CONNECT", "CREATE", "TEMPORARY")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?")
# Settings that load code or change the current role.
_NEVER = ("role", "session_authorization", "local_preload_libraries")
_OF_SUPERUSERS = re.compile(r"(log|track)_[a-z_]+|deadlock_timeout|lc_messages|temp_file_limit")
# Modules whose settings run code, or that are loaded with superuser rights; the server may not know them yet.
_MODULES = ("plperl", "plpython", "plpython3", "pltcl", "plv8", "pljava", "plr", "auto_explain", "pgaudit")


def set_to(key: str, values: Sequence[str], contexts: Mapping[str, str]) -> tuple[sql.Composed | None, str]:
    """Return `name = values` of a SET, or None and the reason.

    ``contexts`` are the server's settings by name, each with who may set it.
    """
    name = key.lower()
    if not _NAME.fullmatch(key):
        return None, "that is no setting's name"
    if any("\0" in value for value in values) or not values:
        return None, "it has no value that can be written"
    context = contexts.get(name)
    if name in _NEVER:
        return None, "no set may change that"
    if context is None and ("." not in name or name.partition(".")[0] in _MODULES):
        return None, "the server does not know it"
    if context not in (None, "user") and not (context == "superuser" and _OF_SUPERUSERS.fullmatch(name)):
        return None, "only a superuser may set it"
    parts = sql.SQL(", ").join(map(sql.Literal, values))
    return sql.SQL("{} = {}").format(sql.Identifier(*name.split(".")), parts), ""


def properties(
    saved: DatabasePart, name: str, contexts: Mapping[str, str], roles: Mapping[str, bool]
) -> tuple[list[sql.Composed], list[str]]:
    """Return the statements that give a database ``name`` its settings and grants, and messages for those left out.

    ``roles`` are the server's, each with whether it is a superuser: a superuser needs no grants and gets none.
    """
    made: list[sql.Composed] = []
    left_out: list[str] = []
    database = sql.Identifier(name)
    for role, setting in saved.settings:
        key, _, text = setting.partition("=")
        if role is not None and roles.get(role, True):
            value, why = None, f"{role} is no role of this server, or a superuser"
        else:
            value, why = _value(key, text, contexts)
        if value is None:
            left_out.append(f"The setting {key} of {saved.name} is left out: {why}.")
            continue
        whom = (
            sql.SQL("DATABASE {}").format(database)
            if role is None
            else sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(role), database)
        )
        made.append(sql.SQL("ALTER {} SET {}").format(whom, value))
    if not saved.grants:
        # The privileges of a database without any grants.
        made.append(sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO PUBLIC").format(database))
    for grantee, privilege in saved.grants:
        if privilege not in PRIVILEGES or (grantee != "PUBLIC" and grantee not in roles):
            left_out.append(
                f"The grant of {privilege} on {saved.name} to {grantee} is left out: no such role or right."
            )
            continue
        if roles.get(grantee):
            continue
        to = sql.SQL("PUBLIC") if grantee == "PUBLIC" else sql.Identifier(grantee)
        made.append(sql.SQL("GRANT {} ON DATABASE {} TO {}").format(sql.SQL(privilege), database, to))
    return made, left_out


def _value(key: str, text: str, contexts: Mapping[str, str]) -> tuple[sql.Composed | None, str]:
    if key.lower() not in LISTS:
        return set_to(key, [text], contexts)
    try:
        return set_to(key, names(text) or [""], contexts)
    except ValueError as error:
        return None, str(error)
