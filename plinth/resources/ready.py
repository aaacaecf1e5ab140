"""`Ready`: the gate between a service that was started and those that need it.

It polls in create and in update, so that a run after a failed one polls again: a hook that failed once is never called
a second time.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from plinth.errors import UserError
from plinth.health.probes import Probe, ProbeFailed
from plinth.resources.base import Provider, optional_secret, to_json
from plinth.system.tls import Pair

INTERVAL_S = 0.25
ATTEMPT_TIMEOUT_S = 5.0


def wait_ready(
    service: str,
    probe: Probe,
    password: str | None,
    deadline_s: float,
    ca_cert: str | None = None,
    client: Pair | None = None,
) -> None:
    """Poll until the probe passes; past the deadline raise with its last error."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            probe.run(password, timeout_s=ATTEMPT_TIMEOUT_S, ca_cert=ca_cert, client=client)
        except ProbeFailed as failure:
            if time.monotonic() > end:
                raise UserError(
                    f"{service} is not ready after {deadline_s:.0f} s: {failure}; "
                    "read its log, mend the cause, and run up again.",
                    exit_code=1,
                ) from failure
        else:
            return
        time.sleep(INTERVAL_S)


class ReadyProvider(Provider):
    """Polls a service's health whenever its instance or its probe changed."""

    compared = ("probe", "instance", "deadline_s")

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Wait until the service is ready."""
        _wait(props)
        return CreateResult(props["service"], props)

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Wait until the new instance is ready."""
        _wait(_news)
        return UpdateResult(_news)


class Ready(Resource, module="plinth", name="Ready"):
    """Exists once a service is ready; resources that need the service depend on this."""

    def __init__(
        self,
        service: str,
        probe: Probe,
        *,
        instance: pulumi.Input[str],
        deadline_s: float,
        password: pulumi.Input[str] | None = None,
        ca_cert: pulumi.Input[str] | None = None,
        client_cert: pulumi.Input[str] | None = None,
        client_key: pulumi.Input[str] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare the gate; ``deadline_s`` is in seconds; ``instance`` changes whenever the service was restarted."""
        super().__init__(
            ReadyProvider(),
            f"{service}-ready",
            {
                "service": service,
                "probe": to_json(probe.to_dict()),
                "deadline_s": str(deadline_s),
                "instance": instance,
                "password": optional_secret(password),
                "ca_cert": ca_cert,
                "client_cert": client_cert,
                "client_key": optional_secret(client_key),
            },
            opts,
        )


def _wait(props: dict[str, Any]) -> None:
    probe = Probe(**json.loads(props["probe"]))
    cert, key = props.get("client_cert"), props.get("client_key")
    client = Pair(cert, key) if cert and key else None
    wait_ready(props["service"], probe, props.get("password"), float(props["deadline_s"]), props.get("ca_cert"), client)
