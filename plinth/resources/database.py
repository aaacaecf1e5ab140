"""Postgres databases with their owners, and the role that monitoring reads with, as Pulumi resources."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, ReadResult, Resource, UpdateResult

from plinth.admin.postgres import (
    MONITOR_RIGHTS,
    Server,
    ensure_database,
    ensure_monitor,
    ensure_superuser,
    has_role,
    owner_of,
)
from plinth.errors import UserError
from plinth.resources.base import GONE, Provider, to_json


class DatabaseProvider(Provider):
    """Creates a database and its owner; delete keeps the data."""

    compared = ("server", "database", "owner", "password", "found_owner")

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Create the database, or adopt an existing one."""
        return CreateResult(props["database"], self._ensure(props))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Report a deleted database as gone, and a changed owner as a difference."""
        try:
            owner = owner_of(_server(props), props["database"])
        except UserError:
            # The server is down, which its own resource reports; that tells nothing about the data.
            return ReadResult(id_, props)
        return ReadResult(id_, {**props, "found_owner": owner}) if owner else GONE

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Set the owner and the password."""
        return UpdateResult(self._ensure(_news))

    def _ensure(self, props: dict[str, Any]) -> dict[str, Any]:
        ensure_database(_server(props), props["database"], props["owner"], props["password"])
        return {**props, "found_owner": props["owner"]}


class MonitorRoleProvider(Provider):
    """Creates the role that monitoring reads with."""

    compared = ("server", "role", "password", "rights")

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Create the role."""
        ensure_monitor(_server(props), props["role"], props["password"])
        return CreateResult(props["role"], props)

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Report a deleted role as gone."""
        try:
            return ReadResult(id_, props) if has_role(_server(props), props["role"]) else GONE
        except UserError:
            return ReadResult(id_, props)

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Set the password and the rights."""
        ensure_monitor(_server(_news), _news["role"], _news["password"])
        return UpdateResult(_news)


class SuperuserProvider(Provider):
    """Applies a password that was changed in the settings: initdb sets only the first one."""

    compared = ("server", "instance")

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Wait until the superuser can log in."""
        ensure_superuser(_server(props), None, float(props["deadline_s"]))
        return CreateResult(_server(props).user, props)

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Change the password, logging in with the previous one."""
        ensure_superuser(_server(_news), _server(_olds).password, float(_news["deadline_s"]))
        return UpdateResult(_news)


class Superuser(Resource, module="plinth", name="Superuser"):
    """The superuser's login, as in the settings, whatever the data was created with."""

    def __init__(
        self,
        server: pulumi.Input[Server],
        *,
        instance: pulumi.Input[str],
        deadline_s: float,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare the login; ``server`` is kept as a secret.

        ``instance`` changes whenever the server was restarted; ``deadline_s`` is in seconds.
        """
        super().__init__(
            SuperuserProvider(),
            "postgres-superuser",
            {"server": _secret_server(server), "instance": instance, "deadline_s": str(deadline_s)},
            opts,
        )


class Database(Resource, module="plinth", name="Database"):
    """A database and the role that owns it."""

    def __init__(
        self,
        server: pulumi.Input[Server],
        database: str,
        owner: str,
        password: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare a database; ``server`` and ``password`` are kept as secrets."""
        super().__init__(
            DatabaseProvider(),
            f"database-{database}",
            {
                "server": _secret_server(server),
                "database": database,
                "owner": owner,
                "password": pulumi.Output.secret(password),
                "found_owner": owner,
            },
            opts,
        )


class MonitorRole(Resource, module="plinth", name="MonitorRole"):
    """The role that monitoring reads with."""

    def __init__(
        self,
        server: pulumi.Input[Server],
        role: str,
        password: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare the role; ``server`` and ``password`` are kept as secrets."""
        super().__init__(
            MonitorRoleProvider(),
            f"role-{role}",
            {
                "server": _secret_server(server),
                "role": role,
                "password": pulumi.Output.secret(password),
                "rights": to_json(MONITOR_RIGHTS),
            },
            opts,
        )


def _secret_server(server: pulumi.Input[Server]) -> pulumi.Output[str]:
    return pulumi.Output.secret(pulumi.Output.from_input(server).apply(lambda known: to_json(vars(known))))


def _server(props: Mapping[str, Any]) -> Server:
    return Server(**json.loads(props["server"]))
