"""The Pulumi resource of a supervised process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, ReadResult, Resource, UpdateResult

from plinth.resources.base import GONE, Provider, to_json
from plinth.targets.local.process import ProcessSpec, running, start, stop


class ProcessProvider(Provider):
    """Starts, restarts on a changed definition or file, reads whether it runs, stops."""

    compared = ("spec", "files")

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Start the process."""
        spec = _spec(props)
        return CreateResult(spec.name, {**props, "instance": str(start(spec, json.loads(props["files"])))})

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Gone when no process runs under its name; one that was restarted is a new instance."""
        instance = running(_spec(props))
        return ReadResult(id_, {**props, "instance": str(instance)}) if instance else GONE

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Restart with the new definition and files."""
        return UpdateResult({**_news, "instance": str(start(_spec(_news), json.loads(_news["files"])))})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Stop the process; its volumes stay."""
        stop(_spec(_props))


class Process(Resource, module="plinth", name="Process"):
    """A process that supervisord keeps up; ``instance`` is its process id and start time."""

    instance: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        spec: ProcessSpec,
        files: pulumi.Input[Mapping[str, str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """``files`` are contents by path relative to the spec's config directory; they are kept as a secret."""
        super().__init__(
            ProcessProvider(),
            name,
            {
                "spec": to_json(spec.to_dict()),
                "files": pulumi.Output.secret(pulumi.Output.from_input(files).apply(to_json)),
                "instance": None,
            },
            opts,
        )


def _spec(props: Mapping[str, Any]) -> ProcessSpec:
    return ProcessSpec.from_dict(json.loads(props["spec"]))
