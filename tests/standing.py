"""Services as Plinth renders them, started for real: files, arguments and environment are the product's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from plinth.programs.executables import find
from plinth.services import Service, mutual_tls
from plinth.services.render import command, files
from plinth.settings.loader import parse
from plinth.system.tls import Pair, issue, make_authority, trusting
from tests.conftest import ROOT, free_port
from tests.services import services_of


class Stack:
    """The services of some settings on this machine, each with a directory of its own below ``root``."""

    stack, bind, node, output, cgroups = "t", "127.0.0.1", 0, None, None

    def __init__(self, root: Path, secrets: Mapping[str, str], **given: Any) -> None:
        self.root = root
        self.pid = 0
        self.settings = parse({"target": "local", **given}, source="x")
        self.services = {service.name: service for service in services_of(self.settings)}
        self.secrets = {**secrets, **issued(list(self.services.values()))}

    def port(self, service: str, port: str) -> int:
        return self.services[service].ports[port]

    def address(self, service: str, port: str) -> str:
        return f"127.0.0.1:{self.port(service, port)}"

    def addresses(self, service: str, port: str) -> Sequence[str]:
        return [self.address(service, port)]

    def peer(self, service: str, _node: int, port: str) -> str:
        return self.address(service, port)

    def file(self, service: str, name: str) -> str:
        return str(self.root / service / "config" / name)

    def volume(self, service: str, name: str) -> str:
        return str(self.root / service / name)

    def read(self, service: str, name: str) -> Mapping[str, str]:
        return {service: self.volume(service, name)}

    def takes_url_files(self) -> bool:
        return True

    def contents(self, service: str) -> dict[str, str]:
        return files(self.services[service], self, self.secrets, ROOT)

    def client(self, service: str, who: str | None = None) -> httpx.Client:
        """What asks a service; ``who`` is whose certificate is shown, where anybody's is."""
        page = self.services[service].scrape
        assert page
        identity = mutual_tls.Identity(who or "")
        shown = Pair(self.secrets[identity.cert], self.secrets[identity.key]) if who else None
        context = trusting(self.secrets.get(mutual_tls.CA), shown)
        url = f"{page.scheme}://{self.address(service, page.port)}"
        return httpx.Client(base_url=url, verify=context, timeout=30, trust_env=False)

    def get(self, service: str, path: str, who: str | None = None, **asked: str) -> httpx.Response:
        """Ask a service once."""
        with self.client(service, who) as http:
            return http.get(path, params=asked)

    @contextmanager
    def running(self, service: str) -> Iterator[subprocess.Popen[bytes]]:
        """The real program with its rendered files; ended afterwards."""
        wanted: Service = self.services[service]
        program = find(wanted.program)
        assert program, service
        for name, text in self.contents(service).items():
            path = Path(self.file(service, name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for volume in wanted.volumes:
            Path(self.volume(service, volume)).mkdir(parents=True, exist_ok=True)
        filled = command(wanted, self)
        directory = self.root / service
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [*program.argv, *filled.arguments],
                cwd=directory,
                env={**os.environ, **filled.environment},
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=60)

    def log(self, service: str) -> str:
        return (self.root / service / "log").read_text()


def issued(services: Sequence[Service]) -> dict[str, str]:
    """The certificates of services that ask for some, as a deployment issues them."""
    authority = make_authority("test")
    secrets = {mutual_tls.CA: authority.cert}
    for name, role in mutual_tls.identities(services).items():
        identity, made = mutual_tls.Identity(name), issue(authority, name, ["127.0.0.1", "localhost"], role)
        secrets |= {identity.cert: made.cert, identity.key: made.key}
    return secrets


def ports(*names: str) -> dict[str, int]:
    """A free port for each of some settings."""
    return {name: free_port() for name in names}
