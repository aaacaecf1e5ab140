"""The password of Grafana's admin as a Pulumi resource."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from plinth.admin.grafana import change_password
from plinth.resources.base import Provider


class AdminProvider(Provider):
    """Applies a password that was changed in the settings.

    Grafana sets the first one itself. A password that was changed in its page stays as long as the settings stay as
    they are: Grafana is not called then.
    """

    compared = ("password",)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Record the password that the first start was given."""
        return CreateResult("grafana-admin", props)

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Change the password, logging in with the previous one."""
        change_password(_news["url"], _olds["password"], _news["password"])
        return UpdateResult(_news)


class Admin(Resource, module="plinth", name="GrafanaAdmin"):
    """Grafana's admin, with the password of the settings."""

    def __init__(self, url: str, password: pulumi.Input[str], opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the admin; ``password`` is kept as a secret."""
        super().__init__(
            AdminProvider(), "grafana-admin", {"url": url, "password": pulumi.Output.secret(password)}, opts
        )
