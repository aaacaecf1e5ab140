"""The server of gRPC: its limits, its certificate, its health and reflection, and how it ends."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from plinth.errors import UserError
from plinth.gateway.audit import AuditLog
from plinth.gateway.grpc_api.handler import VectorServiceHandler
from plinth.gateway.grpc_api.methods import SERVICE
from plinth.gateway.metrics import GatewayMetrics
from plinth.gateway.operations import Operations
from plinth.gateway.tokens import TokenVerifier
from plinth.gateway.tracing import Tracing

log = logging.getLogger("plinth.gateway.grpc")

CALLS_MAX = 256
# Of one connection.
STREAMS_MAX = 128
METADATA_BYTES = 16 * 1024


@dataclass(frozen=True)
class Tls:
    """The files of a certificate with its chain, and of its key, both in PEM."""

    cert_file: Path
    key_file: Path


@dataclass(frozen=True)
class GrpcServer:
    """A server that serves. ``port`` is the one that it listens on."""

    server: Any
    port: int
    health: Any

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and give those that run this many seconds to end."""
        await self.health.enter_graceful_shutdown()
        await self.server.stop(grace_s)


async def serve_grpc(
    operations: Operations,
    verifier: TokenVerifier,
    audit: AuditLog,
    metrics: GatewayMetrics,
    address: str,
    *,
    tls: Tls | None = None,
    request_s: float = 30.0,
    message_bytes: int = 32 * 2**20,
    calls: int = CALLS_MAX,
    reuse_port: bool = False,
    tracing: Tracing | None = None,
) -> GrpcServer:
    """Serve on an address, such as `127.0.0.1:8001`; port 0 is any that is free.

    ``request_s`` is the longest that a call may take, ``message_bytes`` the size of a request and of an answer at most,
    ``calls`` how many calls are served at once, ``reuse_port`` whether other processes may share the port.
    Raises :class:`UserError` where the address cannot be had.
    """
    handler = VectorServiceHandler(
        operations,
        verifier,
        audit,
        metrics,
        request_s=request_s,
        message_bytes=message_bytes,
        calls=calls,
        tracing=tracing,
    )
    server = grpc.aio.server(
        options=_options(message_bytes, reuse_port=reuse_port),
        # Those beyond ``calls`` are refused in our words; past this nothing is even looked at.
        maximum_concurrent_rpcs=2 * calls,
    )
    server.add_generic_rpc_handlers((handler.rpc_handlers(),))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in ("", SERVICE.full_name):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection((SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    port = _listen(server, address, tls)
    await server.start()
    return GrpcServer(server, port, servicer)


def _listen(server: Any, address: str, tls: Tls | None) -> int:
    try:
        if tls is None:
            port: int = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials(tls))
    except OSError as error:
        raise UserError(
            f"gRPC's certificate cannot be used: {error.strerror or error}; is its key the other file?"
        ) from None
    except RuntimeError:
        raise UserError(f"gRPC cannot listen on {address}; is another server there?") from None
    return port


def credentials(tls: Tls) -> Any:
    """The server's certificate, read again at the next connection after its file has changed."""
    configuration, stamp = _certificate(tls), _stamp(tls)

    def renewed() -> Any:
        nonlocal stamp
        try:
            current = _stamp(tls)
            if current == stamp:
                return None
            loaded = _certificate(tls)
        except OSError as error:
            log.error(
                "the certificate cannot be read again; the one that is loaded serves on: %s", error.strerror or error
            )
            return None
        stamp = current
        return loaded

    return grpc.dynamic_ssl_server_credentials(configuration, renewed)


def _certificate(tls: Tls) -> Any:
    # Raises where the two do not belong together: one of them may be in the middle of its renewal.
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert_file, tls.key_file)
    return grpc.ssl_server_certificate_configuration([(tls.key_file.read_bytes(), tls.cert_file.read_bytes())])


def _stamp(tls: Tls) -> tuple[int, int]:
    return tls.cert_file.stat().st_mtime_ns, tls.key_file.stat().st_mtime_ns


def _options(message_bytes: int, *, reuse_port: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        # A compressed message is as large as its sender likes once it is not compressed any more.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.max_concurrent_streams", STREAMS_MAX),
        ("grpc.so_reuseport", int(reuse_port)),
        # A peer that is gone is found out; one that asks too often whether we are here is sent away.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.max_connection_idle_ms", 300_000),
        # Connections move to processes and nodes that are new.
        ("grpc.max_connection_age_ms", 1_800_000),
        ("grpc.max_connection_age_grace_ms", 60_000),
    ]
