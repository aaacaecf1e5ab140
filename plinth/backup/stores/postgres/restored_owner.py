"""Choose the owner of a restored database: the saved owner, unless the code of a set must not run with its rights."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from plinth.backup.manifest import DatabasePart
from plinth.backup.session import BackupError

# The owner of what a superuser owned. It cannot log in.
STAND_IN = "plinth_restored"
# These roles give access to the files and programs of the machine.
_BEYOND = ["pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"]
_UNPRIVILEGED = """
SELECT NOT (r.rolsuper OR r.rolcreaterole OR r.rolreplication OR EXISTS (
  SELECT 1 FROM pg_roles g
  WHERE (g.rolsuper OR g.rolcreaterole OR g.rolname = ANY(%s)) AND pg_has_role(r.oid, g.oid, 'MEMBER')
)) FROM pg_roles r WHERE r.rolname = %s
"""


def roles_of(connection: psycopg.Connection[Any]) -> dict[str, bool]:
    """Return the roles of a server, each with whether it is a superuser."""
    return dict(connection.execute("SELECT rolname, rolsuper FROM pg_roles").fetchall())


def unprivileged(connection: psycopg.Connection[Any], role: str) -> bool:
    """Whether a role exists, and neither it nor any role it is a member of has rights beyond its databases."""
    row = connection.execute(_UNPRIVILEGED, (_BEYOND, role)).fetchone()
    return bool(row and row[0])


def safe_owner(connection: psycopg.Connection[Any], saved: DatabasePart) -> tuple[str, list[str]]:
    """Return the role that restores and owns a database, and a message where it is not the saved owner."""
    if unprivileged(connection, saved.owner):
        return saved.owner, []
    if saved.owner not in roles_of(connection):
        raise BackupError(
            f"The database {saved.name} belongs to {saved.owner}, and neither the server nor the set has that role; "
            "make the role, and run it again."
        )
    if STAND_IN not in roles_of(connection):
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(STAND_IN)))
    if not unprivileged(connection, STAND_IN):
        raise BackupError(f"The role {STAND_IN} has more rights than a restore may have; take them from it.")
    if not saved.tables:
        return STAND_IN, []
    return STAND_IN, [
        f"{saved.owner} has more rights than what a set holds may be run with, so {STAND_IN} owns the database and all "
        "in it, and nobody can log in as it; look at it, then ALTER DATABASE ... OWNER TO."
    ]
