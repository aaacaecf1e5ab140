"""What a person sees while the engine works: a line per resource that matters, and a sentence per failure."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from pulumi.automation import EngineEvent, OpType, StepEventMetadata
from rich.console import Console

from plinth.system.console import line

VERBS = {
    OpType.CREATE: ("starting", "ready"),
    OpType.UPDATE: ("changing", "changed"),
    OpType.REPLACE: ("replacing", "replaced"),
    OpType.CREATE_REPLACEMENT: ("replacing", "replaced"),
    OpType.DELETE: ("stopping", "gone"),
    OpType.DELETE_REPLACED: ("stopping", "gone"),
}
# Of a replacement, which is listed once: as it is made again.
PARTS = (OpType.REPLACE, OpType.DELETE_REPLACED)
STEP_WORDS = {"Ready": "ready", "Process": "process"}
MADE = ("Database", "MonitorRole", "Collection", "Aliases", "Network", "Volume", "RemoteImage")
QUIET = ("docker", "GeneratedSecret", "Stack", "dynamic", "pulumi-python")
_RAISED = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Failed|Exception|Refused|Unreachable|Denied): (.+)$", re.M
)
# `sdk-v2/provider2.go:571: sdk.helper_schema: REASON: provider=docker@5.2.0`, the log line of a bridged plugin.
_LOGGED = re.compile(r"^\S+\.go:\d+: (?:sdk\.\w+: )?(?P<reason>.+)$")
# `1 error occurred: * creating urn:pulumi:...: 1 error occurred: * REASON`, its answer.
_LISTED = re.compile(r"^\d+ errors? occurred:")
_FRAME = re.compile(r": provider=\S+$|Error response from daemon: ")
_LAST_WORDS = re.compile(r"^[A-Za-z_][\w.]*: .+$", re.M)


@dataclass
class Progress:
    """Follows the engine's events.

    ``failures`` collects one sentence for each thing that failed, ``unready`` the services that did not get ready.
    ``down`` is a run that takes everything down, collections and all, where nobody has removed a file.
    """

    console: Console
    preview: bool = False
    down: bool = False
    failures: list[str] = field(default_factory=list)
    unready: list[str] = field(default_factory=list)
    changes: dict[str, int] = field(default_factory=dict)
    _began: dict[str, float] = field(default_factory=dict)
    _begun: dict[str, OpType] = field(default_factory=dict)

    def on_event(self, event: EngineEvent) -> None:
        """Take one event of the engine."""
        if event.resource_pre_event:
            metadata = event.resource_pre_event.metadata
            self._began[metadata.urn] = time.monotonic()
            self._begun[metadata.urn] = metadata.op
            if self.preview and metadata.op not in (OpType.CREATE_REPLACEMENT, OpType.DELETE_REPLACED):
                self._line(metadata, 0)
        elif event.res_outputs_event and not self.preview:
            metadata = event.res_outputs_event.metadata
            self._line(metadata, 1)
        elif event.diagnostic_event and event.diagnostic_event.severity == "error":
            self._failed(event.diagnostic_event.urn or "", event.diagnostic_event.message)
        elif event.summary_event:
            self.changes = {
                str(getattr(op, "value", op)): count for op, count in event.summary_event.resource_changes.items()
            }

    def changed(self) -> int:
        """How many resources are not as they were."""
        return sum(count for op, count in self.changes.items() if op not in ("same", "read", "refresh"))

    def _failed(self, urn: str, message: str) -> None:
        kind, _, name = urn.rpartition("::")
        sentence = failure_sentence(message, name)
        if not sentence:
            return
        if sentence not in self.failures:
            self.failures.append(sentence)
        if kind.endswith(":Ready") and (service := name.removesuffix("-ready")) not in self.unready:
            self.unready.append(service)

    def _line(self, metadata: StepEventMetadata, tense: int) -> None:
        operation, urn = metadata.op, metadata.urn
        kind = metadata.type.rsplit(":", 1)[-1]
        if operation not in VERBS or kind in QUIET or (operation in PARTS and not self.preview):
            return
        name = urn.split("::", 3)[-1]
        if kind == "Volume" and operation is OpType.DELETE:
            # The engine lets go of a volume of data and leaves it where it is; `down` names those that stay.
            return
        took = time.monotonic() - self._began.get(urn, time.monotonic())
        seconds = f"{took:6.1f} s" if tense else ""
        word = VERBS[operation][tense]
        if kind in ("Process", "Container") and operation is OpType.CREATE and tense:
            word = "started"
        elif kind == "ClusterReady":
            word = ("joining", "joined")[tense]
        elif kind in MADE and operation is OpType.CREATE:
            word = ("creating", "created")[tense]
        elif kind == "Collection" and operation is OpType.DELETE and self._begun.get(urn) is not OpType.REFRESH:
            # One that a refresh does not find is gone indeed.
            word, seconds = self._left(metadata, tense), ""
        shown = name.removesuffix("-cluster-ready").removesuffix("-ready")
        self.console.print(line("  ", _mark(operation), f" {shown:<30} {word:<10}{seconds}"))

    def _left(self, metadata: StepEventMetadata, tense: int) -> str:
        """What becomes of a collection that nothing declares any more."""
        before = (metadata.old and metadata.old.outputs) or {}
        if before.get("deletion_policy") == "delete":
            return ("dropping, as deletion_policy has it", "dropped, as deletion_policy has it")[tense]
        if self.down:
            return "its data stays"
        stack, name = (metadata.urn.split("::")[0].rpartition(":")[2], metadata.urn.rpartition("::collection-")[2])
        return f"no longer managed; its data stays. `plinth collections drop {name} {stack}` drops it"


def _mark(operation: OpType) -> tuple[str, str]:
    if operation in (OpType.CREATE,):
        return "+", "green"
    if operation in (OpType.DELETE, OpType.DELETE_REPLACED):
        return "-", "red"
    return "~", "yellow"


def failure_sentence(message: str, name: str = "") -> str:
    """The sentence in an engine diagnostic: what was raised last, without traceback, colours or a plugin's frame.

    ``name`` is the resource's, which a plugin leaves out.
    """
    plain = re.sub(r"<\{%.*?%\}>|\x1b\[[0-9;]*m", "", message).strip()
    raised = _RAISED.findall(plain)
    if raised:
        return str(raised[-1]).strip()
    _, refused, reason = plain.partition("has a problem: ")
    if refused:
        return " ".join(reason.split())
    if "Traceback" in plain:
        # What nobody foresaw: its kind tells more than its words.
        return _LAST_WORDS.findall(plain)[-1] if _LAST_WORDS.search(plain) else ""
    if "unhandled error" in plain or plain.startswith("update failed"):
        return ""
    text = " ".join(plain.split())
    if (refusal := _from_plugin(text)) is None:
        return text
    return f"{name}: {refusal.rstrip('.')}." if name else f"{refusal.rstrip('.')}."


def _from_plugin(line: str) -> str | None:
    """The reason in what a bridged plugin says, which it does twice: as a log line, and as a list in a list."""
    if logged := _LOGGED.match(line):
        reasons = [logged["reason"]]
    elif _LISTED.match(line):
        reasons = [part.strip() for part in re.split(r"\s\* ", line) if not part.strip().endswith("occurred:")]
    else:
        return None
    return "; ".join(dict.fromkeys(_FRAME.sub("", reason) for reason in reasons))
