"""What a person reads of the engine's words when a resource fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from pulumi.automation import DiagnosticEvent, EngineEvent, OpType
from rich.console import Console

from plinth.progress import Progress

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
