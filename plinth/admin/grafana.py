"""Grafana's admin: its first start alone takes the password of the settings, its API changes it. No Pulumi here."""

from __future__ import annotations

import httpx

from plinth.errors import UserError
from plinth.system.http_client import client_for

USER = "admin"
TIMEOUT_S = 10


def change_password(url: str, before: str, after: str) -> None:
    """Make ``after`` the admin's password, where it is ``before`` or is so already.

    Raises :class:`UserError` where Grafana takes neither, or refuses the new one.
    """
    try:
        with client_for(url, timeout=TIMEOUT_S) as client:
            # By hand, or by a run that was cut short. Asked first: a wrong one brings Grafana's lockout nearer.
            if client.get("/api/user", auth=(USER, after)).is_success:
                return
            body = {"oldPassword": before, "newPassword": after, "confirmNew": after}
            changed = client.put("/api/user/password", json=body, auth=(USER, before))
    except httpx.HTTPError as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"Grafana at {url} does not answer ({words}); see its log.", exit_code=1) from error
    if changed.status_code == httpx.codes.UNAUTHORIZED:
        raise UserError(
            f"Grafana at {url} lets its {USER} in neither with the password of the settings nor with the one before; "
            "it was changed in its page: set plinth:monitoring.grafana.admin_password to that one, or change it there "
            "(after five wrong ones Grafana takes none for five minutes: then wait, and run up again).",
            exit_code=1,
        )
    if changed.is_error:
        raise UserError(
            f"Grafana at {url} refuses the password of plinth:monitoring.grafana.admin_password "
            f"({_message(changed)}); set another.",
            exit_code=1,
        )


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return str(answer.status_code)
