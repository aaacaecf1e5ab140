"""The password of Grafana's admin as a Pulumi resource."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from plinth.admin.grafana import change_password
from plinth.resources.base import Provider


class AdminProvider(Provider):
    """Follows a password that was changed in the settings.

    The first is Grafana's own to set, and one that was changed in its page is nobody else's as long as the settings
    stay as they are: nothing is asked then.
    """

    compared = ("password",)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Remember what the first start was given."""
        return CreateResult("grafana-admin", props)

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Change the password with the one before."""
        change_password(_news["url"], _olds["password"], _news["password"])
        return UpdateResult(_news)


class Admin(Resource, module="plinth", name="GrafanaAdmin"):
    """Grafana's admin, whose password is the settings'."""

    def __init__(self, url: str, password: pulumi.Input[str], opts: pulumi.ResourceOptions | None = None) -> None:
        """``password`` is kept as a secret."""
        super().__init__(
            AdminProvider(), "grafana-admin", {"url": url, "password": pulumi.Output.secret(password)}, opts
        )
