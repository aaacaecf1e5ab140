"""Read the roles of a `pg_dumpall --globals-only` that a server lacks; existing roles keep their passwords.

The script comes with the set, so it is parsed, and new statements are built from its parts: a set cannot create a
superuser or a role with access to the machine, and cannot change an existing role.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from psycopg import sql

from plinth.backup.stores.postgres.database_settings import set_to
from plinth.backup.stores.postgres.sql_tokens import Token, name_fault, statements
from plinth.backup.stores.postgres.temporary_roles import PREFIX

# Postgres' own roles that only show statistics; every other one can read or write outside of its databases.
HARMLESS = ("pg_monitor", "pg_read_all_settings", "pg_read_all_stats", "pg_stat_scan_tables")
_NEVER = ("superuser", "createrole", "replication", "bypassrls")
_FLAGS = ("login", "inherit", "createdb", *_NEVER)
_VERIFIER = re.compile(r"SCRAM-SHA-256\$\d{1,9}:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+|md5[0-9a-f]{32}")
_BOOLEANS = ("true", "false")
_MOMENT = re.compile(r"[0-9A-Za-z:+. -]{1,40}")


@dataclass
class Role:
    """A role of a script; ``settings`` are those of `ALTER ROLE ... SET`, with values as text."""

    flags: set[str] = field(default_factory=set)
    limit: int = -1
    verifier: str | None = None
    valid_until: str | None = None
    settings: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)


@dataclass(frozen=True)
class Membership:
    """The membership of a role in a group. ``options`` are those that Postgres 16 and later name."""

    group: str
    role: str
    admin: bool
    options: tuple[tuple[str, bool], ...]


@dataclass
class Globals:
    """The roles of a script by name, and their memberships."""

    roles: dict[str, Role] = field(default_factory=dict)
    memberships: list[Membership] = field(default_factory=list)


def parse(script: str) -> Globals:
    """Return the roles and memberships of a script; statements of other forms are ignored."""
    result = Globals()
    for statement in statements(script):
        texts = [token.value if token.kind == "word" else "" for token in statement]
        if texts[:2] == ["create", "role"] and len(statement) == 3 and statement[2].is_name:
            name = statement[2].value
            if name_fault(name) is None and not name.startswith(PREFIX):
                result.roles[name] = Role()
        elif texts[:2] == ["alter", "role"] and len(statement) > 4 and (role := result.roles.get(statement[2].value)):
            if texts[3] == "with":
                _attributes(role, statement[4:])
            elif texts[3] == "set":
                _setting(role, statement[4:])
        elif texts[:1] == ["grant"] and len(statement) > 3 and texts[2] == "to":
            _membership(result, statement)
    return result


def creation(
    script: Globals, missing: Collection[str], contexts: Mapping[str, str]
) -> tuple[list[sql.Composed], list[str]]:
    """Return the statements that create the ``missing`` roles, memberships last, and a message for what is left out.

    ``contexts`` are the server's settings by name, each with who may set it.
    """
    made: list[sql.Composed] = []
    left_out: list[str] = []
    for name in missing:
        role = script.roles[name]
        made.append(_create(name, role))
        never = [flag.upper() for flag in _NEVER if flag in role.flags]
        if never:
            left_out.append(f"The role {name} was {' '.join(never)} and is made without; give it that yourself.")
        if role.verifier is None and "login" in role.flags:
            left_out.append(f"The role {name} has no password in the set that a server keeps; set one.")
        for key, values in role.settings:
            value, why = set_to(key, values, contexts)
            if value is None:
                left_out.append(f"The setting {key} of the role {name} is left out: {why}.")
            else:
                made.append(sql.SQL("ALTER ROLE {} SET {}").format(sql.Identifier(name), value))
    for membership in script.memberships:
        if membership.role not in missing:
            continue
        if membership.group in missing or membership.group in HARMLESS:
            made.append(_grant(membership))
        else:
            left_out.append(
                f"The role {membership.role} is not made a member of {membership.group}, which no set may give; "
                "GRANT it yourself."
            )
    return made, left_out


def _attributes(role: Role, tokens: Sequence[Token]) -> None:
    at = 0
    while at < len(tokens):
        word, following = tokens[at].value, tokens[at + 1 : at + 4]
        if tokens[at].kind != "word":
            at += 1
        elif word in _FLAGS:
            role.flags.add(word)
        elif word == "password" and following and following[0].kind == "string":
            role.verifier = following[0].value if _VERIFIER.fullmatch(following[0].value) else None
        elif word == "until" and following and following[0].kind == "string":
            role.valid_until = following[0].value if _MOMENT.fullmatch(following[0].value) else None
        elif word == "limit" and following and following[0].kind == "number":
            role.limit = min(int(following[0].value), 2**31 - 1)
        at += 1


def _setting(role: Role, tokens: Sequence[Token]) -> None:
    """Parse `name TO 'a', 'b'`; a name may have a dot."""
    at = next((i for i, token in enumerate(tokens) if token.kind == "word" and token.value == "to"), len(tokens))
    values = [token.value for token in tokens[at + 1 :] if token.text != ","]
    role.settings.append(("".join(token.value for token in tokens[:at]), tuple(values)))


def _membership(result: Globals, statement: Sequence[Token]) -> None:
    """Parse `group TO role [WITH ADMIN OPTION, INHERIT TRUE, SET TRUE] [GRANTED BY role]`; the grantor is dropped."""
    if not (statement[1].is_name and statement[3].is_name):
        return
    words = [token.value for token in statement[4:] if token.kind == "word"]
    pairs = list(pairwise(words))
    options = tuple((key, value == "true") for key, value in pairs if key in ("inherit", "set") and value in _BOOLEANS)
    admin = ("admin", "option") in pairs or ("admin", "true") in pairs
    result.memberships.append(Membership(statement[1].value, statement[3].value, admin, options))


def _create(name: str, role: Role) -> sql.Composed:
    parts: list[sql.Composable] = [sql.SQL(f"NO{flag.upper()}") for flag in _NEVER]
    parts += [sql.SQL(flag.upper() if flag in role.flags else f"NO{flag.upper()}") for flag in _FLAGS[:3]]
    parts.append(sql.SQL("CONNECTION LIMIT {}").format(sql.Literal(role.limit)))
    if role.verifier:
        parts.append(sql.SQL("PASSWORD {}").format(sql.Literal(role.verifier)))
    if role.valid_until:
        parts.append(sql.SQL("VALID UNTIL {}").format(sql.Literal(role.valid_until)))
    return sql.SQL("CREATE ROLE {} WITH {}").format(sql.Identifier(name), sql.SQL(" ").join(parts))


def _grant(membership: Membership) -> sql.Composed:
    options = [sql.SQL("ADMIN OPTION")] if membership.admin else []
    options += [sql.SQL(f"{key.upper()} {'TRUE' if on else 'FALSE'}") for key, on in membership.options]
    tail = sql.SQL(" WITH {}").format(sql.SQL(", ").join(options)) if options else sql.SQL("")
    return sql.SQL("GRANT {} TO {}{}").format(sql.Identifier(membership.group), sql.Identifier(membership.role), tail)
