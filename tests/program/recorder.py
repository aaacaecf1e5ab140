"""The program under Pulumi's mocks: every resource with its inputs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime.stack import run_pulumi_func, wait_for_rpcs

from plinth.deployment.program import deploy
from plinth.settings import Settings
from tests.services import plan_of

SECRET = "generated-by-the-mock"


class Recorder(pulumi.runtime.Mocks):
    """Remembers every resource with its inputs, and those alone of a kind by `of`."""

    def __init__(self) -> None:
        self.resources: dict[str, tuple[str, dict[str, Any]]] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        assert args.name not in self.resources, f"two resources are named {args.name}"
        self.resources[args.name] = (args.typ.rsplit(":", 1)[-1], dict(args.inputs))
        outputs = dict(args.inputs)
        if "value" in outputs or args.typ.endswith("GeneratedSecret"):
            outputs["value"] = SECRET
        if args.typ.endswith("Certificate"):
            outputs |= {"cert": "a certificate", "key": SECRET, "ca_cert": "a signer"}
        if args.typ.endswith("Process"):
            outputs["instance"] = "1@2"
        if args.typ.endswith("RemoteImage"):
            outputs["imageId"] = f"sha256:{args.name}"
        return f"{args.name}-id", outputs

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[Any, Any]:
        return {}

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        return {name: inputs for name, (found, inputs) in self.resources.items() if found == kind}


def declare(settings: Settings, directory: Path, *, preview: bool = False, env: str = "test") -> Recorder:
    recorder = Recorder()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    pulumi.runtime.set_mocks(recorder, project="plinth", stack=env, preview=preview)
    plan = plan_of(settings, directory, env)

    async def program() -> None:
        await run_pulumi_func(lambda: deploy(plan))
        await wait_for_rpcs()

    try:
        loop.run_until_complete(program())
    finally:
        loop.close()
    return recorder
