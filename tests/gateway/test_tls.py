"""TLS on both ports, where the gateway has a certificate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import httpx
import pytest

from plinth.system.ports import free_port
from plinth.system.tls import issue, make_authority
from plinth.vectors.v1 import vectors_pb2, vectors_pb2_grpc
from tests.gateway.conftest import Gateway, login


@pytest.mark.requirement("S1-07")
def test_both_ports_speak_tls_and_nothing_else(make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    authority = make_authority("tests")
    pair = issue(authority, "gateway", ["127.0.0.1"])
    files = {"cert_file": tmp_path / "cert", "key_file": tmp_path / "key"}
    files["cert_file"].write_text(pair.cert)
    files["key_file"].write_text(pair.key)
    listen = {"host": "127.0.0.1", "http_port": free_port(), "grpc_port": free_port()}
    gateway = make_gateway(listen=listen | {name: str(path) for name, path in files.items()})
    gateway.signer = authority.cert
    gateway.start()
    try:
        with httpx.Client(base_url=gateway.url, headers=login("tls"), verify=gateway.authorities()) as http:
            shared = http.get("/v1/collections").raise_for_status().json()["collections"]
        with pytest.raises(httpx.HTTPError):
            httpx.get(gateway.url.replace("https", "http"))
        credentials = grpc.ssl_channel_credentials(authority.cert.encode())
        with grpc.secure_channel(gateway.grpc_address, credentials) as channel:
            stub = vectors_pb2_grpc.VectorServiceStub(channel)
            found = stub.ListCollections(
                vectors_pb2.ListCollectionsRequest(), metadata=tuple(login("tls").items()), timeout=20
            )
        assert list(found.names) == shared
    finally:
        gateway.stop()
