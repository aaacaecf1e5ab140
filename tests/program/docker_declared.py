"""What a program declared of containers, read from its recorder."""

from __future__ import annotations

from typing import Any

import yaml

from tests.conftest import ROOT
from tests.containers.wire import to_plain
from tests.program.recorder import Recorder

ENVIRONMENTS = ["dev", "cluster"]
NODES = {"dev": 1, "cluster": 3}
PINS = yaml.safe_load((ROOT / "config" / "images.yaml").read_text())["images"]


def containers(recorder: Recorder) -> dict[str, dict[str, Any]]:
    """Those that run; not those that carry files."""
    return {name: to_plain(inputs) for name, inputs in recorder.of("Container").items() if inputs.get("start", True)}


def carriers(recorder: Recorder) -> dict[str, dict[str, Any]]:
    return {name: inputs for name, inputs in recorder.of("Container").items() if not inputs.get("start", True)}


def networks_of(container: dict[str, Any]) -> dict[str, list[str]]:
    return {network["name"]: network["aliases"] for network in container["networksAdvanced"]}


def files_of(recorder: Recorder, carrier: str) -> dict[str, str]:
    return {upload["file"]: upload["content"] for upload in to_plain(recorder.of("Container")[carrier])["uploads"]}
