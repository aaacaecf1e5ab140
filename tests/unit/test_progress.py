"""What a person reads of the engine's words when a resource fails."""

from __future__ import annotations

from io import StringIO
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pulumi.automation import DiagnosticEvent, EngineEvent, OpType
from pulumi.automation.events import ResourcePreEvent, ResOutputsEvent, StepEventMetadata
from rich.console import Console

from plinth.deployment.progress import Progress, failure_sentence

TRACEBACK = """error: Exception calling application: x
Traceback (most recent call last):
  File "supervisor.py", line 1, in stop
    raise fault
"""


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (f"{TRACEBACK}plinth.errors.UserError: Port 1 is taken; free it.", "Port 1 is taken; free it."),
        (f"{TRACEBACK}xmlrpc.client.Fault: <Fault 91: 'STILL'>", "xmlrpc.client.Fault: <Fault 91: 'STILL'>"),
        (
            f"{TRACEBACK}psutil.TimeoutExpired: timeout after 20 seconds",
            "psutil.TimeoutExpired: timeout after 20 seconds",
        ),
        ("<{%fg 1%}>no such   image<{%reset%}>", "no such image"),
        ("resource has a problem: it is\n not there", "it is not there"),
        ("update failed", None),
    ],
)
def test_a_failure_is_one_sentence_and_an_unforeseen_one_names_its_kind(message: str, sentence: str | None) -> None:
    progress = Progress(Console(quiet=True))
    event = DiagnosticEvent(message=message, color="never", severity="error")
    for _ in range(2):
        progress.on_event(EngineEvent(sequence=1, timestamp=1, diagnostic_event=event))
    assert progress.failures == ([sentence] if sentence else [])


@pytest.mark.parametrize(
    ("progress", "policy", "words"),
    [
        ({}, "keep", "no longer managed; its data stays. `plinth collections drop trades_v1 prod` drops it"),
        ({"preview": True}, "keep", "no longer managed; its data stays. `plinth collections drop trades_v1 prod`"),
        # Down takes everything down: nobody has removed a file.
        ({"down": True}, "keep", "its data stays"),
        ({"preview": True}, "delete", "dropping, as deletion_policy has it"),
        ({}, "delete", "dropped, as deletion_policy has it"),
        ({"down": True}, "delete", "dropped, as deletion_policy has it"),
    ],
)
def test_a_collection_that_no_file_declares_is_not_said_to_be_gone(
    progress: dict[str, bool], policy: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata: Any = SimpleNamespace(
        op=OpType.DELETE,
        urn="urn:pulumi:prod::plinth::plinth:index:Collection::collection-trades_v1",
        type="plinth:index:Collection",
        old=SimpleNamespace(outputs={"deletion_policy": policy}),
    )
    kind = "resource_pre_event" if progress.get("preview") else "res_outputs_event"
    event = SimpleNamespace(resource_pre_event=None, res_outputs_event=None)
    setattr(event, kind, SimpleNamespace(metadata=metadata))
    Progress(Console(width=200), **progress).on_event(cast(EngineEvent, event))  # type: ignore[arg-type]
    said = capsys.readouterr().out
    assert words in said
    assert "gone" not in said
    assert ("drops it" in said) is (policy == "keep" and not progress.get("down"))


def test_a_collection_that_a_refresh_does_not_find_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    urn, kind = "urn:pulumi:prod::plinth::plinth:index:Collection::collection-trades_v1", "plinth:index:Collection"
    begins: Any = SimpleNamespace(op=OpType.REFRESH, urn=urn, type=kind, old=None)
    ends: Any = SimpleNamespace(op=OpType.DELETE, urn=urn, type=kind, old=None)
    progress = Progress(Console(width=200))  # type: ignore[arg-type]
    for before, after in ((begins, None), (None, ends)):
        event = SimpleNamespace(
            resource_pre_event=before and SimpleNamespace(metadata=before),
            res_outputs_event=after and SimpleNamespace(metadata=after),
        )
        progress.on_event(cast(EngineEvent, event))
    said = capsys.readouterr().out
    assert "gone" in said
    assert "stays" not in said


URN = "urn:pulumi:t::plinth::docker:index/container:Container::redis"
# As the released plugin says them: each failure comes as a log line, and again as a list within a list.
LOG_LINE = "  sdk-v2/provider2.go:571: sdk.helper_schema: {}: provider=docker@5.2.0\n"
LISTED = "1 error occurred:\n\t* {verb} " + URN + ": 1 error occurred:\n\t* {reason}\n\n\n\n\n"
DAEMON = "Error response from daemon: "
REASONS = [
    'Unable to upload volume content: {}getent unable to find entry "1000:1000" in passwd database',
    "Unable to create container with image x: {}Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
    'Unable to create container with image x: {}Conflict. The container name "/plinth-t-redis" is already in use by '
    'container "4f". You have to remove (or rename) that container to be able to reuse that name.',
    "Unable to create network: {}network with name plinth-t already exists",
    "Unable to start container: {}driver failed programming external connectivity on endpoint x: Bind for 127.0.0.1:1 "
    "failed: port is already allocated",
]


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("verb", ["creating", "updating", "deleting"])
def test_a_failure_of_the_released_plugin_is_said_once_and_names_its_resource(reason: str, verb: str) -> None:
    progress = Progress(Console(quiet=True))
    raw = reason.format(DAEMON)
    for message in (LOG_LINE.format(raw), LISTED.format(verb=verb, reason=raw), "update failed\n"):
        event = DiagnosticEvent(message=message, color="never", severity="error", urn=URN)
        progress.on_event(EngineEvent(sequence=1, timestamp=1, diagnostic_event=event))
    assert progress.failures == [f"redis: {reason.format('').rstrip('.')}."]


def test_two_reasons_of_one_resource_are_one_sentence() -> None:
    assert failure_sentence("2 errors occurred:\n\t* no host\n\t* no port\n\n", "x") == "x: no host; no port."


def test_a_service_that_is_not_ready_is_remembered_by_its_name() -> None:
    progress = Progress(Console(quiet=True))
    urn = "urn:pulumi:t::plinth::docker:index/container:Container$pulumi-python:dynamic/plinth:Ready::qdrant-0-ready"
    event = DiagnosticEvent(message=f"{TRACEBACK}x.UserError: not ready", color="never", severity="error", urn=urn)
    progress.on_event(EngineEvent(sequence=1, timestamp=1, diagnostic_event=event))
    assert progress.unready == ["qdrant-0"]


STEPS = [OpType.DELETE_REPLACED, OpType.REPLACE, OpType.CREATE_REPLACEMENT]


@pytest.mark.parametrize("preview", [True, False])
@pytest.mark.parametrize("steps", [STEPS, STEPS[::-1]])
def test_a_replacement_is_listed_once(preview: bool, steps: list[OpType]) -> None:
    printed = StringIO()
    progress = Progress(Console(file=printed, width=200), preview=preview)
    for step in steps:
        metadata = StepEventMetadata(step, URN, "docker:index/container:Container", "p")
        progress.on_event(EngineEvent(1, 1, resource_pre_event=ResourcePreEvent(metadata)))
        progress.on_event(EngineEvent(1, 1, res_outputs_event=ResOutputsEvent(metadata)))
    (line,) = printed.getvalue().splitlines()
    assert ("replacing" if preview else "replaced") in line
