"""Which addresses go by the user's proxy, by the environment alone."""

from __future__ import annotations

import socket
import ssl
from typing import NoReturn

import httpx
import psutil
import pytest

from plinth.errors import UserError
from plinth.system import http_client
from plinth.system.http_client import client_for, exempt_loopback, goes_direct, grpc_options, is_local, proxy_for
from tests.proxy import EXEMPTIONS, VARIABLES

PROXY = "http://proxy.example.com:3128"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *EXEMPTIONS):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.8.9.1", "localhost", "LocalHost.", "::1", "[::1]", "::ffff:127.0.0.1", "0.0.0.0", "::"),
        *("plinth-dev-qdrant", "qdrant", "host.docker.internal", "db.localhost"),
        *("qdrant-0.qdrant-headless", "qdrant.vectors.svc", "qdrant-0.qdrant-headless.vectors.svc.cluster.local"),
        socket.gethostname(),
        *(entry.address for entry in psutil.net_if_addrs()["lo"] if entry.family == socket.AF_INET),
    ],
)
def test_this_machine_and_its_containers_are_local(host: str) -> None:
    assert is_local(host)


def test_an_address_of_an_interface_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.system.http_client._own_addresses", lambda: frozenset({"10.20.30.40", "fe80::1"}))
    assert is_local("10.20.30.40")
    assert is_local("fe80::1%eth0")
    assert not is_local("10.20.30.41")


@pytest.mark.parametrize(
    "host", ["store.example.com", "10.20.30.40", "8.8.8.8", "localhost.example.com", "svc.example.com", "2001:db8::1"]
)
def test_every_other_host_is_not(host: str) -> None:
    assert not is_local(host)


@pytest.mark.parametrize(
    ("variable", "url", "goes"),
    [
        ("HTTP_PROXY", "http://store.example.com:6333", True),
        ("http_proxy", "http://store.example.com:6333", True),
        ("HTTPS_PROXY", "http://store.example.com:6333", False),
        ("HTTPS_PROXY", "https://store.example.com", True),
        ("https_proxy", "https://store.example.com", True),
        ("HTTP_PROXY", "https://store.example.com", False),
        ("ALL_PROXY", "http://store.example.com", True),
        ("all_proxy", "https://10.20.30.40:6333", True),
        ("ALL_PROXY", "https://127.0.0.1:6333", False),
        ("HTTP_PROXY", "http://[::1]:6333", False),
        ("HTTP_PROXY", "http://qdrant.vectors.svc:6333", False),
    ],
)
def test_a_remote_store_goes_by_the_proxy_of_its_scheme(
    monkeypatch: pytest.MonkeyPatch, variable: str, url: str, goes: bool
) -> None:
    monkeypatch.setenv(variable, PROXY)
    assert proxy_for(url) == (PROXY if goes else None)
    monkeypatch.setenv(variable, PROXY.removeprefix("http://"))
    assert proxy_for(url) == (PROXY if goes else None)


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize(
    ("entry", "url", "direct"),
    [
        ("*", "https://store.example.com", True),
        ("store.example.com", "https://store.example.com", True),
        ("example.com", "https://store.example.com", True),
        (".example.com", "https://store.example.com", True),
        ("*.example.com", "https://store.example.com", True),
        ("other.test, EXAMPLE.com ,", "https://Store.Example.com", True),
        ("store.example.com:6333", "https://store.example.com:6333", True),
        ("store.example.com:443", "https://store.example.com", True),
        ("store.example.com:6334", "https://store.example.com:6333", False),
        ("ample.com", "https://store.example.com", False),
        ("10.0.0.0/8", "http://10.20.30.40", True),
        ("10.20.30.40", "http://10.20.30.40:6333", True),
        ("10.20.30.40:6333", "http://10.20.30.40:6333", True),
        ("10.20.30.4", "http://10.20.30.40", False),
        ("192.168.0.0/16,::1", "http://10.20.30.40", False),
        ("2001:db8::/32", "https://[2001:db8::1]:6333", True),
        ("[2001:db8::1]", "https://[2001:db8::1]:6333", True),
        ("", "https://store.example.com", False),
    ],
)
def test_no_proxy_names_what_goes_straight(
    monkeypatch: pytest.MonkeyPatch, variable: str, entry: str, url: str, direct: bool
) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv(variable, entry)
    assert goes_direct(url) is direct
    assert (proxy_for(url) is None) is direct
    assert bool(grpc_options(url.partition("://")[2])) is direct or ":" in entry


@pytest.mark.parametrize("proxy", ["socks5://proxy.example.com:1080", "ftp://proxy.example.com", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_named_in_a_sentence(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(UserError, match=r"proxy for store\.example\.com cannot be used"):
        client_for("https://store.example.com")
    client_for("http://127.0.0.1:6333").close()


def test_an_address_without_tls_reads_no_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten probes at once each read every one: on a busy machine no service answered in time."""

    def read() -> NoReturn:
        raise AssertionError

    monkeypatch.setattr(httpx, "create_ssl_context", read)
    http_client._public_authorities.cache_clear()
    with client_for("http://127.0.0.1:9") as client, pytest.raises(httpx.ConnectError):
        # Nor does it trust anyone where it is led to TLS after all.
        client.get("/")
    assert http_client._nobody().get_ca_certs() == []
    assert http_client._nobody().verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(AssertionError):
        client_for("https://store.example.com")


@pytest.mark.parametrize("url", ["http://[::1", "http://h:port", "http://h:99999999"])
def test_an_address_that_is_none_is_a_sentence(url: str) -> None:
    with pytest.raises(UserError, match="no address of a server"):
        client_for(url)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {}),
        ({"HTTP_PROXY": ""}, {}),
        (
            {"HTTPS_PROXY": PROXY},
            dict.fromkeys(("no_proxy", "NO_PROXY", "no_grpc_proxy"), "localhost,127.0.0.1,::1"),
        ),
        (
            {"grpc_proxy": PROXY, "NO_PROXY": "a.test, ::1"},
            dict.fromkeys(("no_proxy", "NO_PROXY", "no_grpc_proxy"), "a.test,::1,localhost,127.0.0.1"),
        ),
        (
            {"http_proxy": PROXY, "no_proxy": "*"},
            {"no_proxy": "*", "NO_PROXY": "*", "no_grpc_proxy": "*,localhost,127.0.0.1,::1"},
        ),
        (
            {"http_proxy": PROXY, "no_proxy": "a", "NO_PROXY": "b", "no_grpc_proxy": "c"},
            {
                "no_proxy": "a,localhost,127.0.0.1,::1",
                "NO_PROXY": "b,localhost,127.0.0.1,::1",
                "no_grpc_proxy": "c,localhost,127.0.0.1,::1",
            },
        ),
    ],
)
def test_loopback_is_added_to_what_the_user_exempts(environment: dict[str, str], expected: dict[str, str]) -> None:
    changed = dict(environment)
    exempt_loopback(changed)
    assert changed == environment | expected
    again = dict(changed)
    exempt_loopback(again)
    assert again == changed
