"""The login of Prometheus and Alertmanager, which have no accounts: each of their paths requires it (S1-09).

The servers read a web configuration with a bcrypt hash of the password, their clients the password itself. The
configuration is computed from the password while deploying (:mod:`plinth.services.web_config`), so it is no secret of
the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from plinth.settings import Settings

USER = "plinth"
SALT = "web_config_salt"


@dataclass(frozen=True)
class WebLogin:
    """The secrets of one server by name: the password, and the web configuration that holds its hash."""

    password: str
    config: str

    @property
    def password_file(self) -> str:
        """A template of the password file's path."""
        return "{{ secret_file('" + self.password + "') }}"

    @property
    def argument(self) -> str:
        """The server's argument, a template."""
        return "--web.config.file={{ secret_file('" + self.config + "') }}"


PROMETHEUS = WebLogin("prometheus_password", "prometheus_web_config")
ALERTMANAGER = WebLogin("alertmanager_password", "alertmanager_web_config")


def web_logins(settings: Settings) -> list[WebLogin]:
    """Return the logins of the servers that are enabled."""
    monitoring = settings.monitoring
    servers = ((PROMETHEUS, monitoring.prometheus.enabled), (ALERTMANAGER, monitoring.alertmanager.enabled))
    return [login for login, enabled in servers if enabled]


def passwords(settings: Settings) -> Mapping[str, SecretStr | None]:
    """Return the secrets that the web configurations are computed from; None for one that is to be generated."""
    monitoring = settings.monitoring
    given = {PROMETHEUS: monitoring.prometheus.password, ALERTMANAGER: monitoring.alertmanager.password}
    logins = web_logins(settings)
    return {login.password: given[login] for login in logins} | ({SALT: None} if logins else {})
