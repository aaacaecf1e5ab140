"""Prometheus and Alertmanager as their services declare them, run on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from plinth.services.render import command, files
from plinth.services.secrets import secrets
from plinth.services.spec import Service
from plinth.services.web_config import web_config
from plinth.services.web_login import SALT, USER, web_logins
from plinth.settings import Settings
from plinth.settings.loader import parse
from tests.conftest import ROOT, free_port
from tests.services import services_of
from tests.unit.test_services import Elsewhere
from tests.waiting import wait_for

# Debian's Alertmanager is old; another one is named for what a newer one does otherwise.
NEWER = os.environ.get("PLINTH_TESTS_ALERTMANAGER")
PROGRAMS = {
    "prometheus": shutil.which("prometheus"),
    "alertmanager": shutil.which("prometheus-alertmanager") or shutil.which("alertmanager"),
}
needs_servers = pytest.mark.skipif(
    None in PROGRAMS.values(), reason="no prometheus or no alertmanager on this machine: run `make bootstrap`"
)
# An alert that fired before Prometheus had found Alertmanager is sent a minute later otherwise.
QUICKLY = {"prometheus": ("--rules.alert.resend-delay=1s",), "alertmanager": ()}
PASSWORDS = {"prometheus": "of-prometheus-alone", "alertmanager": "of-alertmanager-alone"}


def settings(**alertmanager: Any) -> Settings:
    """Both servers on free ports, and nothing else that runs here."""
    monitoring = {
        "prometheus": {"port": free_port(), "scrape_interval_sec": 5, "password": PASSWORDS["prometheus"]},
        "alertmanager": {"port": free_port(), "password": PASSWORDS["alertmanager"], **alertmanager},
        "grafana": {"enabled": False},
        "exporters": {"enabled": False},
    }
    return parse({"target": "local", "monitoring": monitoring, "backup": {"enabled": False}}, source="tests")


def secret_values(chosen: Settings) -> dict[str, str]:
    """What a deploy would have given the services."""
    values = {name: value.get_secret_value() if value else f"s-{name}" for name, value in secrets(chosen).items()}
    logins = web_logins(chosen)
    return values | {login.config: web_config(USER, values[login.password], values[SALT]) for login in logins}


class Here(Elsewhere):
    """Loopback, and a directory."""

    def __init__(self, directory: Path, running: dict[str, Service], url_files: bool = False) -> None:
        self._directory, self._running, self._url_files = directory, running, url_files

    def address(self, service: str, port: str) -> str:
        return f"127.0.0.1:{self._running[service].ports[port]}"

    def file(self, service: str, name: str) -> str:
        return str(self._directory / service / name)

    def volume(self, service: str, name: str) -> str:
        return str(self._directory / service / name)

    def takes_url_files(self) -> bool:
        return self._url_files


@contextmanager
def running(directory: Path, chosen: Settings, **program: str) -> Iterator[dict[str, str]]:
    """Both servers' addresses; ``program`` names another executable for one."""
    running = {service.name: service for service in services_of(chosen)}
    here = Here(directory, running, url_files="alertmanager" in program)
    processes, urls = [], {}
    try:
        for name in PROGRAMS:
            for path, text in files(running[name], here, secret_values(chosen), ROOT).items():
                target = directory / name / path
                target.parent.mkdir(parents=True, exist_ok=True)
                # A person is called after half a minute or five, so that what belongs together comes together.
                target.write_text(re.sub(r"group_wait: \w+", "group_wait: 0s", text))
            with (directory / f"{name}.log").open("wb") as log:
                argv = [
                    program.get(name) or str(PROGRAMS[name]),
                    *command(running[name], here).arguments,
                    *QUICKLY[name],
                ]
                processes.append(subprocess.Popen(argv, stdout=log, stderr=log))
            urls[name] = f"http://{here.address(name, 'http')}"
        for name, url in urls.items():
            wait_for(lambda url=url, name=name: is_ready(name, url), f"{name} did not start")
        yield urls
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


def login(server: str) -> tuple[str, str]:
    return USER, PASSWORDS[server]


def is_ready(server: str, url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", auth=login(server)).status_code == 200
    except httpx.HTTPError:
        return False
