"""Databases and roles on a Postgres server: created when absent, corrected when present. Free of Pulumi."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from plinth.errors import UserError

CONNECT_TIMEOUT_S = 10
INTERVAL_S = 0.25
# As the server writes it: in English, for initdb's locale is C.
REFUSED = "password authentication failed"
# A database's owner may set another one for whoever enters, whose functions and operators would then be its owner's.
SEARCH_PATH = "SET search_path = pg_catalog, pg_temp"
# What an owner loses that everybody has: the databases that every server has are its superuser's alone. Of a server
# that someone else runs they are theirs to close.
SERVERS_OWN = (
    "SELECT datname FROM pg_database WHERE datname IN ('postgres', 'template1') AND pg_has_role(datdba, 'USAGE')"
)
RIGHTS_LOCK = int.from_bytes(b"plinth.g", "big")
# What the monitor role gets and what everybody loses, in SQL with the role in braces. charts/postgres has the same.
MONITOR_RIGHTS = (
    "ALTER ROLE {} CONNECTION LIMIT 5",
    "ALTER ROLE {} SET statement_timeout = '10s'",
    "ALTER ROLE {} SET lock_timeout = '2s'",
    "ALTER ROLE {} SET idle_in_transaction_session_timeout = '10s'",
    "ALTER ROLE {} SET default_transaction_read_only = on",
    "ALTER ROLE {} SET search_path = pg_catalog",
    "GRANT pg_monitor TO {}",
    "REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC",
    "GRANT CONNECT ON DATABASE postgres TO {}",
)


@dataclass(frozen=True)
class Server:
    """A server's address and a login, by default its superuser's.

    The superuser must not connect to a database whose owner is another role and may have put something into it: what is
    evaluated there would run with every right (:mod:`plinth.backup.stores.postgres.temporary_roles`).
    """

    host: str
    port: int
    user: str
    password: str

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """Return an autocommit connection that resolves names without a schema to Postgres' own objects only.

        Raises :class:`UserError` naming the server when it cannot connect.
        """
        try:
            connection = psycopg.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self.password,
                dbname=database,
                connect_timeout=CONNECT_TIMEOUT_S,
                autocommit=True,
            )
            connection.execute(SEARCH_PATH)
            return connection
        except psycopg.OperationalError as error:
            words = " ".join(str(error).split())
            raise UserError(
                f"Postgres at {self.host}:{self.port} does not let {self.user} in: {words}; "
                "see `plinth status` and the server's log.",
                exit_code=1,
            ) from error


def ensure_superuser(server: Server, before: str | None, deadline_s: float) -> None:
    """Wait until the superuser can log in; if the server still has the password ``before``, change it first.

    Raises :class:`UserError` when the server rejects both passwords.
    """
    end = time.monotonic() + deadline_s
    while True:
        try:
            server.connect().close()
            return
        except UserError as error:
            if REFUSED in str(error):
                _change_password(server, before)
            elif time.monotonic() > end:
                raise
            else:
                time.sleep(INTERVAL_S)


def _change_password(server: Server, before: str | None) -> None:
    try:
        if before is None:
            raise UserError("no other password of it is known")
        with replace(server, password=before).connect() as connection:
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(server.user), verifier(connection, server.user, server.password)
                )
            )
    except UserError as error:
        raise UserError(
            f"Postgres at {server.host}:{server.port} has another password for {server.user} than the settings: its "
            "data was made with an older one; set plinth:postgres.superuser_password to that, or change it there with "
            f"ALTER ROLE ({error}).",
            exit_code=1,
        ) from error


def ensure_database(server: Server, name: str, owner: str, password: str) -> None:
    """Create or correct a database that only its owner and the superuser enter; its owner enters no other (S1-01)."""
    with server.connect() as connection:
        _lock(connection)
        _ensure_role(connection, owner, password)
        exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
        verb = "ALTER DATABASE {} OWNER TO {}" if exists else "CREATE DATABASE {} OWNER {}"
        connection.execute(sql.SQL(verb).format(sql.Identifier(name), sql.Identifier(owner)))
        closed = [name, *(str(row[0]) for row in connection.execute(SERVERS_OWN).fetchall())]
        for each in closed:
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(each)))


def ensure_monitor(server: Server, role: str, password: str) -> None:
    """Create or correct a role that may read the server's statistics only, and enter the database `postgres` only."""
    with server.connect() as connection:
        _lock(connection)
        _ensure_role(connection, role, password)
        for statement in MONITOR_RIGHTS:
            connection.execute(sql.SQL(statement).format(sql.Identifier(role)))


def _lock(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Serialise changes of rights until the connection ends: Postgres refuses two at once on the same database.

    Pulumi creates several databases and the monitor role at once, and each closes the server's own databases.
    """
    connection.execute("SELECT pg_advisory_lock(%s)", (RIGHTS_LOCK,))


def owner_of(server: Server, name: str) -> str | None:
    """Return a database's owner, or None when there is no such database."""
    with server.connect() as connection:
        row = connection.execute(
            "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = %s", (name,)
        ).fetchone()
    return str(row[0]) if row else None


def has_role(server: Server, role: str) -> bool:
    """Return whether a role exists."""
    with server.connect() as connection:
        return connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is not None


def _ensure_role(connection: psycopg.Connection[tuple[object, ...]], role: str, password: str) -> None:
    exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    connection.execute(
        sql.SQL("{} ROLE {} WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {}").format(
            sql.SQL("ALTER" if exists else "CREATE"), sql.Identifier(role), verifier(connection, role, password)
        )
    )


def verifier(connection: psycopg.Connection[tuple[object, ...]], role: str, password: str) -> sql.Literal:
    """Return a password's SCRAM verifier, computed here so that the password is in no statement that may be logged."""
    return sql.Literal(connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode())
