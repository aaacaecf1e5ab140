"""Grafana's admin: only its first start uses the password of the settings; later the API changes it. Free of Pulumi."""

from __future__ import annotations

import httpx

from plinth.errors import UserError
from plinth.system.http_client import client_for

USER = "admin"
TIMEOUT_S = 10


def change_password(url: str, before: str, after: str) -> None:
    """Set the admin's password to ``after`` where it is ``before`` or already ``after``.

    Raises :class:`UserError` where Grafana rejects both, or refuses the new one.
    """
    try:
        with client_for(url, timeout=TIMEOUT_S) as client:
            # Changed by hand, or by an interrupted run. Tried first: a wrong password counts towards Grafana's lockout.
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
