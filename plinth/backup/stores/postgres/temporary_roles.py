"""Roles that log in to one database for one task and are removed after it.

The owner of a database decides what code is evaluated in it: casts, checks, index expressions, views, triggers. Such
code can take over a superuser that works there, and `SET ROLE` or `SET SESSION AUTHORIZATION` does not help, because
the code can switch back to the role that logged in. So no superuser connects: these roles do, with only the rights of
their task.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import psycopg
from psycopg import sql

from plinth.admin.postgres import Server, verifier
from plinth.errors import UserError

PREFIX = "plinth_tmp_"
# They log in at once. The role of a killed run can no longer log in, and the next run removes it.
LIFETIME = "1 hour"
_BARE = sql.SQL("LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION INHERIT")
_LEFT = """
SELECT rolname FROM pg_roles r WHERE starts_with(rolname, %s) AND rolvaliduntil < now()
AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.usesysid = r.oid)
"""
_MEMBERSHIPS = """
SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles x ON x.oid = m.member
WHERE x.rolname = %s
"""


@contextmanager
def reader(server: Server, database: str) -> Iterator[Server]:
    """Yield a login that reads every table and large object of a database, past its policies, and changes nothing."""
    with _temporary(server, sql.SQL("BYPASSRLS")) as login:
        name = sql.Identifier(login.user)
        with closing(server.connect()) as connection:
            connection.execute(sql.SQL("GRANT pg_read_all_data TO {}").format(name))
            connection.execute(sql.SQL("ALTER ROLE {} SET lo_compat_privileges = on").format(name))
            connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(database), name))
        yield login


@contextmanager
def member(server: Server, database: str, roles: Sequence[str]) -> Iterator[Server]:
    """Yield a login with the rights of ``roles`` in a database; the caller knows that none is a superuser.

    Objects that the login creates belong to the first role.
    """
    with _temporary(server, sql.SQL("NOBYPASSRLS")) as login:
        name = sql.Identifier(login.user)
        with closing(server.connect()) as connection:
            for role in roles:
                connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), name))
        try:
            yield login
        finally:
            with suppress(UserError, psycopg.Error), closing(login.connect(database)) as connection:
                connection.execute(sql.SQL("REASSIGN OWNED BY {} TO {}").format(name, sql.Identifier(roles[0])))
                connection.execute(sql.SQL("DROP OWNED BY {}").format(name))


@contextmanager
def _temporary(server: Server, attributes: sql.SQL) -> Iterator[Server]:
    login = replace(server, user=f"{PREFIX}{secrets.token_hex(8)}", password=secrets.token_urlsafe(32))
    with closing(server.connect()) as connection:
        for (role,) in connection.execute(_LEFT, (PREFIX,)).fetchall():
            _remove(connection, str(role))
        row = connection.execute("SELECT (now() + %s::interval)::text", (LIFETIME,)).fetchone()
        connection.execute(
            sql.SQL("CREATE ROLE {} WITH {} {} PASSWORD {} VALID UNTIL {}").format(
                sql.Identifier(login.user),
                _BARE,
                attributes,
                verifier(connection, login.user, login.password),
                sql.Literal(str(row[0]) if row else ""),
            )
        )
    try:
        yield login
    finally:
        # If the server is down the role stays until a later run removes it, and nobody can log in as it.
        with suppress(UserError, psycopg.Error), closing(server.connect()) as connection:
            _remove(connection, login.user)


def _remove(connection: psycopg.Connection[tuple[object, ...]], role: str) -> None:
    """Revoke all rights of a role, and drop the role where no database holds an object of it."""
    name = sql.Identifier(role)
    connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN NOBYPASSRLS PASSWORD NULL").format(name))
    connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (role,))
    for (granted,) in connection.execute(_MEMBERSHIPS, (role,)).fetchall():
        connection.execute(sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(str(granted)), name))
    # Its rights in this database and in shared objects; it owns nothing here.
    connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
    with suppress(psycopg.errors.DependentObjectsStillExist):
        connection.execute(sql.SQL("DROP ROLE {}").format(name))
