"""A docker provider of our own, served to the real Pulumi engine over PULUMI_DEBUG_PROVIDERS; for tests alone.

It speaks the engine's protocol and takes the properties of pulumi_docker. What becomes of them is its engine's
business: one remembers (`recorded.py`), one has real containers made (`applied.py`).
"""

from __future__ import annotations

from typing import Any, Protocol

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2, status_pb2

from tests.containers.wire import UNKNOWN, from_struct, to_plain, to_struct
from tests.provider import Provider

# What the real provider changes in place; all else is replaced, the old one first, since each has its name given.
IN_PLACE = {"restart", "memory", "memorySwap", "cpuShares", "cpuSet", "mustRun", "destroyGraceSeconds"}
# It says the same of these and then leaves them as they were.
LEFT = {"healthcheck", "labels", "mounts", "tmpfs"}


class Refused(Exception):
    """The engine's refusal, in its own words."""


class HalfMade(Refused):
    """Made and then refused: it is there under an id, and is not what it should be."""

    def __init__(self, reason: str, id_: str) -> None:
        super().__init__(reason)
        self.id = id_


class Engine(Protocol):
    """What makes, finds and removes things. Kinds are `network`, `volume`, `remoteImage` and `container`."""

    def create(self, kind: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]: ...

    def read(self, kind: str, id_: str, known: dict[str, Any]) -> dict[str, Any] | None: ...

    def update(self, kind: str, id_: str, inputs: dict[str, Any]) -> None: ...

    def delete(self, kind: str, id_: str, known: dict[str, Any]) -> None: ...


class DockerProvider(Provider):
    """What is docker's own of the protocol."""

    name, version = "docker", "5.2.0"

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def Diff(self, request: Any, context: Any) -> Any:
        olds, news = to_plain(from_struct(request.olds)), to_plain(from_struct(request.news))
        before = to_plain(from_struct(request.old_inputs))
        changed = [
            key
            for key in sorted(news.keys() | before.keys())
            if olds.get(key) != news.get(key) or UNKNOWN in str(news.get(key))
        ]
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=changed,
            replaces=[key for key in changed if key not in IN_PLACE | LEFT],
            deleteBeforeReplace=True,
        )

    def Create(self, request: Any, context: Any) -> Any:
        kind, inputs = _kind(request.type or request.urn), from_struct(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=to_struct({**inputs, **_unknown(kind)}))
        self.requests.append((kind, inputs))
        try:
            id_, found = self._asked(context, lambda: self.engine.create(kind, to_plain(inputs)))
        except HalfMade as half:
            detail = provider_pb2.ErrorResourceInitFailed(
                id=half.id, properties=to_struct(inputs), reasons=[str(half)], inputs=to_struct(inputs)
            )
            status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(half))
            status.details.add().Pack(detail)
            context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
            context.abort(grpc.StatusCode.UNKNOWN, str(half))
        return provider_pb2.CreateResponse(id=id_, properties=to_struct({**inputs, **found}))

    def Read(self, request: Any, context: Any) -> Any:
        known = from_struct(request.properties)
        found = self.engine.read(_kind(request.type or request.urn), request.id, to_plain(known))
        if found is None:
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(id=request.id, properties=to_struct({**known, **found}), inputs=request.inputs)

    def Update(self, request: Any, context: Any) -> Any:
        news = from_struct(request.news)
        kind = _kind(request.type or request.urn)
        if not request.preview:
            self._asked(context, lambda: self.engine.update(kind, request.id, to_plain(news)))
        return provider_pb2.UpdateResponse(properties=to_struct({**from_struct(request.olds), **news}))

    def Delete(self, request: Any, context: Any) -> Any:
        kind, known = _kind(request.type or request.urn), to_plain(from_struct(request.properties))
        self._asked(context, lambda: self.engine.delete(kind, request.id, known))
        return empty_pb2.Empty()

    @staticmethod
    def _asked(context: Any, ask: Any) -> Any:
        try:
            return ask()
        except HalfMade:
            raise
        except Refused as refused:
            context.abort(grpc.StatusCode.UNKNOWN, str(refused))


def _kind(type_or_urn: str) -> str:
    """`container` of `docker:index/container:Container`, alone or within a URN."""
    return type_or_urn.rpartition("docker:index/")[2].partition(":")[0]


def _unknown(kind: str) -> dict[str, Any]:
    return {"imageId": UNKNOWN} if kind == "remoteImage" else {}
