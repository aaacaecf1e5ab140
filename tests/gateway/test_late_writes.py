"""A Qdrant that hangs for a while: what timed out meanwhile does not land after what was acknowledged."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import Server
from tests.gateway.clients import PROTOCOLS, ApiError, connect
from tests.gateway.conftest import Gateway, login


@contextmanager
def hanging(qdrant: Server) -> Iterator[None]:
    """It takes what it is sent, and does nothing, within the block."""
    assert qdrant.process is not None
    qdrant.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        qdrant.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_write_that_timed_out_never_undoes_the_next(
    gateway: Gateway, qdrant: Server, protocol: str, organisation: str
) -> None:
    client = connect(gateway, protocol, organisation)
    client.create_collection("late", 4, "Cosine")

    def point(version: str) -> dict[str, object]:
        return {"id": "1", "vector": [1.0, 0, 0, 0], "payload": {"version": version}}

    client.upsert("late", point("before"))
    with gateway.http(organisation) as impatient:
        with hanging(qdrant):
            headers = login(organisation) | {"x-request-timeout-ms": "300"}
            answer = impatient.put(
                "/v1/collections/late/points", json={"points": [point("timed out")]}, headers=headers
            )
            assert answer.json()["code"] == "DEADLINE_EXCEEDED"
            second: list[ApiError] = []

            def write() -> None:
                try:
                    client.upsert("late", point("acknowledged"))
                except ApiError as error:
                    second.append(error)

            writing = threading.Thread(target=write)
            writing.start()
            writing.join(0.5)
            assert writing.is_alive()
        writing.join(30)
    assert not second
    assert [stored["payload"]["version"] for stored in client.get("late", ["1"])] == ["acknowledged"]
    client.delete_collection("late")
    client.close()
