"""The server of gRPC over operations that do what a test needs: how it fails, fills up, ends and shows itself."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from plinth.errors import UserError
from plinth.gateway.audit import AuditLog
from plinth.gateway.grpc_api.server import GrpcServer, Tls, serve_grpc
from plinth.gateway.metrics import GatewayMetrics
from plinth.gateway.tokens import SharedKey, TokenVerifier
from plinth.system.tls import Pair, issue, make_authority
from plinth.vectors.v1 import vectors_pb2 as pb
from plinth.vectors.v1 import vectors_pb2_grpc
from tests.gateway.clients import ApiError
from tests.gateway.conftest import SIGNING_KEY, login

METADATA = tuple(login("acme").items())


class Operations:
    """Lists collections when it is allowed to, or fails."""

    def __init__(self, error: Exception | None = None, names: tuple[str, ...] = ("documents",)) -> None:
        self.error = error
        self.names = names
        self.begun = asyncio.Event()
        self.allowed = asyncio.Event()

    async def list_collections(self, _call: Any) -> list[str]:
        self.begun.set()
        if self.error:
            raise self.error
        await self.allowed.wait()
        return list(self.names)


@asynccontextmanager
async def serving(operations: Any, audit: Path, **options: Any) -> AsyncIterator[GrpcServer]:
    verifier = TokenVerifier(SharedKey(SIGNING_KEY))
    server = await serve_grpc(operations, verifier, AuditLog(audit), GatewayMetrics(), "127.0.0.1:0", **options)
    try:
        yield server
    finally:
        await server.stop(0)


async def listed(channel: Any) -> list[str]:
    stub = vectors_pb2_grpc.VectorServiceStub(channel)
    try:
        answer = await stub.ListCollections(pb.ListCollectionsRequest(), metadata=METADATA, timeout=20)
    except grpc.aio.AioRpcError as error:
        raise ApiError(error.code().name, error.details() or "") from None
    return list(answer.names)


async def is_open(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


def channel_to(server: GrpcServer) -> Any:
    return grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")


def test_a_fault_says_nothing_of_the_insides_and_is_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> ApiError:
        operations = Operations(RuntimeError("the text of a caller, password=hunter2"))
        async with serving(operations, tmp_path / "audit") as server, channel_to(server) as channel:
            with pytest.raises(ApiError) as caught:
                await listed(channel)
            return caught.value

    with caplog.at_level(logging.ERROR):
        error = asyncio.run(run())
    assert (error.kind, error.message) == ("INTERNAL", "internal error")
    (record,) = (record for record in caplog.records if record.name == "plinth.gateway.grpc")
    assert "RuntimeError at test_grpc_server.py:" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert "hunter2" not in caplog.text
    assert json.loads((tmp_path / "audit").read_text())["outcome"] == "INTERNAL"


def test_beyond_as_many_calls_as_it_serves_a_call_is_refused_and_told_when_to_try_again(tmp_path: Path) -> None:
    async def run() -> None:
        operations = Operations()
        async with serving(operations, tmp_path / "audit", calls=1) as server, channel_to(server) as channel:
            first = asyncio.create_task(listed(channel))
            await operations.begun.wait()
            stub = vectors_pb2_grpc.VectorServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListCollections(pb.ListCollectionsRequest(), metadata=METADATA, timeout=20)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "grpc-status-details-bin" in dict(caught.value.trailing_metadata())
            # Who asks for its health is answered all the same.
            health = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=20)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            operations.allowed.set()
            assert await first == ["documents"]
            assert await listed(channel) == ["documents"]

    asyncio.run(run())


def test_an_answer_that_is_too_large_is_refused_with_what_to_do(tmp_path: Path) -> None:
    async def run(names: tuple[str, ...]) -> list[str]:
        operations = Operations(names=names)
        operations.allowed.set()
        async with (
            serving(operations, tmp_path / "audit", message_bytes=1024) as server,
            channel_to(server) as channel,
        ):
            return await listed(channel)

    assert asyncio.run(run(("x" * 1000,))) == ["x" * 1000]
    with pytest.raises(ApiError) as caught:
        asyncio.run(run(("x" * 1100,)))
    assert (caught.value.kind, caught.value.message) == (
        "RESOURCE_EXHAUSTED",
        "the answer is larger than 1024 bytes; ask for fewer points, or without vectors",
    )


def test_a_stop_takes_no_more_and_finishes_what_it_took(tmp_path: Path) -> None:
    async def run() -> None:
        operations = Operations()
        async with serving(operations, tmp_path / "audit") as server, channel_to(server) as channel:
            call = asyncio.create_task(listed(channel))
            await operations.begun.wait()
            stop = asyncio.create_task(server.stop(20))
            async with asyncio.timeout(20):
                while await is_open(server.port):
                    await asyncio.sleep(0.01)
            operations.allowed.set()
            assert await call == ["documents"]
            await stop

    asyncio.run(run())


def test_a_port_that_another_has_is_a_sentence(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(Operations(), tmp_path / "audit") as server:
            with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{server.port}"):
                await serve_grpc(
                    Operations(),  # type: ignore[arg-type]
                    TokenVerifier(SharedKey(SIGNING_KEY)),
                    AuditLog(tmp_path / "audit"),
                    GatewayMetrics(),
                    f"127.0.0.1:{server.port}",
                )

    asyncio.run(run())


def write(tls: Tls, pair: Pair) -> None:
    tls.cert_file.write_text(pair.cert)
    tls.key_file.write_text(pair.key)


def test_a_certificate_that_is_renewed_is_shown_without_a_restart(tmp_path: Path) -> None:
    first, second = make_authority("first"), make_authority("second")
    tls = Tls(tmp_path / "cert.pem", tmp_path / "key.pem")
    write(tls, issue(first, "gateway", ["127.0.0.1"], "server"))

    async def run() -> None:
        operations = Operations()
        operations.allowed.set()
        async with serving(operations, tmp_path / "audit", tls=tls) as server:

            async def trusts(ca: Pair) -> bool:
                credentials = grpc.ssl_channel_credentials(ca.cert.encode())
                async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials) as channel:
                    try:
                        return await listed(channel) == ["documents"]
                    except ApiError as error:
                        return {"UNAVAILABLE": False}[error.kind]

            assert await trusts(first)
            assert not await trusts(second)
            renewed = issue(second, "gateway", ["127.0.0.1"], "server")
            # Its key is not there yet.
            tls.cert_file.write_text(renewed.cert)
            assert await trusts(first)
            write(tls, renewed)
            assert await trusts(second)
            async with channel_to(server) as plain:
                with pytest.raises(ApiError):
                    await listed(plain)

    asyncio.run(run())


def test_a_certificate_without_its_key_is_a_sentence(tmp_path: Path) -> None:
    ca = make_authority("ca")
    tls = Tls(tmp_path / "cert.pem", tmp_path / "key.pem")
    write(tls, Pair(issue(ca, "a", ["127.0.0.1"]).cert, issue(ca, "b", ["127.0.0.1"]).key))

    async def run() -> None:
        async with serving(Operations(), tmp_path / "audit", tls=tls):
            pass

    with pytest.raises(UserError, match="gRPC's certificate cannot be used"):
        asyncio.run(run())
