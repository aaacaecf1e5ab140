"""HTTP clients, and whether an address goes through the user's proxy: the one place that decides.

An address of this machine, of a container or behind a port-forward never does: its requests carry keys in plain text.
Any other address goes through the proxy of the environment, unless NO_PROXY names it. The libraries disagree on the
details (httpx knows no CIDR in NO_PROXY, the Kubernetes client forgets NO_PROXY, gRPC sends loopback to the proxy), so
none of them decides.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies

import httpx
import psutil

from plinth.errors import UserError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Names that Docker and Kubernetes give; a pod is qdrant-0.qdrant-headless to its neighbours.
CONTAINER_DOMAINS = (".localhost", ".docker.internal", ".svc", ".svc.cluster.local", "-headless")
GRPC_DIRECT = ("grpc.enable_http_proxy", 0)
_PORTS = {"http": 80, "https": 443}


class _Client(httpx.Client):
    """A client that raises httpx.HTTPError only: an address that cannot be sent is not the caller's bug."""

    def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:
        try:
            return super().build_request(method, url, **options)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise httpx.LocalProtocolError(f"the address cannot be sent: {error}") from error


def client_for(url: str, *, verify: ssl.SSLContext | None = None, **options: Any) -> httpx.Client:
    """Return a client whose requests go to ``url`` and below; ``options`` are httpx.Client's own.

    ``verify`` checks the server's certificate: public CAs, or those of SSL_CERT_FILE, when absent.
    Raises :class:`UserError` where the proxy of the environment cannot be used.
    """
    with _usable_proxy(url) as proxy:
        # With an explicit transport httpx reads no proxy from the environment.
        transport = httpx.HTTPTransport(verify=_authorities(url, verify, proxy), proxy=proxy)
        return _Client(base_url=url, transport=transport, **options)


def async_client_for(url: str, *, verify: ssl.SSLContext | None = None, **options: Any) -> httpx.AsyncClient:
    """Return the asyncio equivalent of :func:`client_for`."""
    with _usable_proxy(url) as proxy:
        transport = httpx.AsyncHTTPTransport(verify=_authorities(url, verify, proxy), proxy=proxy)
        return httpx.AsyncClient(base_url=url, transport=transport, **options)


@contextmanager
def _usable_proxy(url: str) -> Iterator[str | None]:
    proxy = None
    try:
        proxy = proxy_for(url)
        yield proxy
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        if proxy is None:
            raise UserError(f"{url} is no address of a server ({error}); correct it.") from error
        raise UserError(
            f"The proxy for {urlsplit(url).hostname} cannot be used ({error}); name an HTTP proxy in HTTPS_PROXY or "
            "HTTP_PROXY, or add the host to NO_PROXY."
        ) from error


def url_path(*parts: str) -> str:
    """Return the path of these parts, each quoted whole: `/`, `?`, `#`, `%` and control characters are literal.

    Raises :class:`UserError` for a part that quoting cannot protect: clients and gateways drop `.` and go up at `..`.
    """
    for part in parts:
        if not is_path_part(part):
            raise UserError(f"The name '{part}' cannot be part of an address; rename what has it.", exit_code=1)
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def is_path_part(text: str) -> bool:
    """Return whether a name can be part of a path, once it is quoted."""
    return text not in ("", ".", "..") and not any("\ud800" <= letter <= "\udfff" for letter in text)


def proxy_for(url: str) -> str | None:
    """Return the proxy that requests to ``url`` go through; None where they go directly."""
    if goes_direct(url):
        return None
    proxies = getproxies()
    proxy = proxies.get(urlsplit(url).scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy or None


def proxy_variables(url: str) -> dict[str, str]:
    """Return variables for a program to reach ``url`` as :func:`client_for` does; empty for a direct connection."""
    proxy = proxy_for(url)
    return {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "NO_PROXY": getproxies().get("no", "")} if proxy else {}


def goes_direct(url: str) -> bool:
    """Return whether ``url`` is never reached through a proxy: it is local, or NO_PROXY names it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or _PORTS.get(parts.scheme)
    entries = (entry.strip() for entry in getproxies().get("no", "").split(","))
    return is_local(host) or any(_names(entry.lower(), host, port) for entry in entries if entry)


def grpc_options(address: str) -> list[tuple[str, int]]:
    """Return the options of a gRPC channel to ``address`` (host:port), which would use a proxy for loopback too."""
    return [GRPC_DIRECT] if goes_direct(f"grpc://{address}") else []


def is_local(host: str) -> bool:
    """Return whether a host is this machine, or a name that only a container network or a cluster resolves."""
    host = host.rstrip(".").lower()
    if (address := _address(host)) is not None:
        return address.is_loopback or address.is_unspecified or str(address).partition("%")[0] in _own_addresses()
    return (
        # A name without a domain is a container's, or of the hosts file.
        "." not in host or host == socket.gethostname().lower() or host.endswith(CONTAINER_DOMAINS)
    )


def exempt_loopback(environment: MutableMapping[str, str]) -> None:
    """Add loopback to NO_PROXY in an environment that has a proxy, for programs that do not exempt it themselves.

    Pulumi's engine, language runtime and plugins meet over gRPC on 127.0.0.1, and gRPC sends that to the proxy.
    """
    environment.update(_loopback_exempted(environment))


def _loopback_exempted(environment: Mapping[str, str]) -> dict[str, str]:
    if not any(name.lower().endswith("_proxy") and value for name, value in environment.items()):
        return {}
    lower, upper = environment.get("no_proxy"), environment.get("NO_PROXY")
    current = {
        "no_proxy": lower or upper or "",
        "NO_PROXY": upper or lower or "",
        # gRPC reads this one instead of no_proxy where it is set, and does not know `*`.
        "no_grpc_proxy": environment.get("no_grpc_proxy") or lower or upper or "",
    }
    return {
        name: value if value.strip() == "*" and name != "no_grpc_proxy" else _with_loopback(value)
        for name, value in current.items()
    }


def _with_loopback(value: str) -> str:
    entries = [entry.strip() for entry in value.split(",") if entry.strip()]
    return ",".join([*entries, *(host for host in LOOPBACK if host not in entries)])


def _names(entry: str, host: str, port: int | None) -> bool:
    """Return whether an entry of NO_PROXY names a host: `*`, a domain, an address or a network, and perhaps a port."""
    if entry == "*":
        return True
    if (address := _address(host)) is not None:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            pass  # a name, or an address with a port
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit():
        return int(number) == port and _names(name, host, None)
    domain = entry.lstrip("*").lstrip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _authorities(url: str, verify: ssl.SSLContext | None, proxy: str | None) -> ssl.SSLContext:
    if proxy is None and urlsplit(url).scheme != "https":
        return _nobody()
    return verify or _public_authorities()


@cache
def _public_authorities() -> ssl.SSLContext:
    """Return the context of the public CAs, read once: building it takes longer than a request on loopback."""
    return httpx.create_ssl_context()


@cache
def _nobody() -> ssl.SSLContext:
    """Return a context that trusts no certificate, for addresses without TLS: else each client would read every CA."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@cache
def _own_addresses() -> frozenset[str]:
    """Return the addresses of this machine's interfaces."""
    interfaces = psutil.net_if_addrs().values()
    return frozenset(entry.address.partition("%")[0] for interface in interfaces for entry in interface)
