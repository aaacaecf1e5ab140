"""A server's certificate, issued by the environment's own CA and renewed before it expires."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, ReadResult, Resource, UpdateResult

from plinth.resources.base import Provider, to_json
from plinth.system.atomic_files import locked, write_whole
from plinth.system.private_directories import make_passage
from plinth.system.tls import AUTHORITY_DAYS, SERVER_DAYS, Pair, begins_ahead, is_due, issue, make_authority


def kept_authority(directory: Path, name: str) -> Pair:
    """Return the CA of a directory, created when there is none; it outlives Pulumi's state, as the data does."""
    make_passage(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / "authority.json"
    with locked(directory / "lock"):
        made = Pair(**json.loads(path.read_text())) if path.exists() else None
        if made is None or begins_ahead(made.cert):
            made = make_authority(name)
            write_whole(path, json.dumps(vars(made)))
        return made


class CertificateProvider(Provider):
    """Issues certificates; a refresh reports one that expires soon, and the next up renews it."""

    compared = ("name", "hosts", "kept_in", "due", "purpose")

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Issue the certificate."""
        return CreateResult(props["name"], _issued(props))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Report whether the certificate is due for renewal."""
        due = is_due(props["cert"]) or begins_ahead(props["ca_cert"])
        return ReadResult(id_, {**props, "due": "yes" if due else ""})

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Renew the certificate."""
        return UpdateResult(_issued(_news))


class Certificate(Resource, module="plinth", name="Certificate"):
    """A certificate for a service's host names; ``key`` is encrypted in the state."""

    cert: pulumi.Output[str]
    key: pulumi.Output[str]
    ca_cert: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        hosts: Sequence[str],
        kept_in: Path,
        purpose: str | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare a certificate; ``kept_in`` is the directory of the CA, next to the data.

        A certificate with a purpose, a key of :data:`plinth.system.tls.PURPOSES`, is for our own services alone, and is
        valid as long as the CA.
        """
        super().__init__(
            CertificateProvider(),
            f"{name}-certificate",
            {
                "name": name,
                "hosts": to_json(sorted(set(hosts))),
                "kept_in": str(kept_in),
                "due": "",
                "purpose": purpose,
                "cert": None,
                "key": None,
                "ca_cert": None,
            },
            pulumi.ResourceOptions.merge(pulumi.ResourceOptions(additional_secret_outputs=["key"]), opts),
        )


def _issued(props: dict[str, Any]) -> dict[str, Any]:
    authority = kept_authority(Path(props["kept_in"]), "Plinth")
    purpose = props.get("purpose")
    days = AUTHORITY_DAYS if purpose else SERVER_DAYS
    pair = issue(authority, props["name"], json.loads(props["hosts"]), purpose or "peer", days)
    return {**props, "due": "", "cert": pair.cert, "key": pair.key, "ca_cert": authority.cert}
