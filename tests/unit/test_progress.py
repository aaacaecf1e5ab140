"""What a person reads of the engine's words when a resource fails."""

from __future__ import annotations

import pytest
from pulumi.automation import DiagnosticEvent, EngineEvent
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
