"""Status of an environment: every dependency probed at once, with a time limit, retries and a short cache (S0-03).

The semantics are those of a `/readyz`: PROBE_TIMEOUT_MS (300), PROBE_RETRIES (2), PROBE_CACHE_SEC (10), and
ENABLE_QDRANT=false (or any other dependency's name) to exclude one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Literal
from urllib.parse import urlsplit

from plinth.errors import UserError
from plinth.health.probes import Probe, ProbeFailed
from plinth.system.tls import Pair


@dataclass(frozen=True)
class Policy:
    """Limits of a probe: milliseconds for one attempt, further attempts, seconds for which a result is cached."""

    timeout_ms: int = 300
    retries: int = 2
    cache_sec: float = 10

    @property
    def patience_s(self) -> float:
        """Seconds for all attempts together: the longest that `status` takes, whatever is down."""
        return self.timeout_ms * (self.retries + 1) / 1000

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Policy:
        """Return the policy of PROBE_TIMEOUT_MS, PROBE_RETRIES and PROBE_CACHE_SEC."""
        return cls(
            timeout_ms=_whole(environment, "PROBE_TIMEOUT_MS", cls.timeout_ms),
            retries=_whole(environment, "PROBE_RETRIES", cls.retries),
            cache_sec=_whole(environment, "PROBE_CACHE_SEC", int(cls.cache_sec)),
        )


@dataclass(frozen=True)
class Dependency:
    """A service to probe. An excluded service has a reason and no probe."""

    name: str
    probe: Probe | None = None
    secret: str | None = None
    left_out: str | None = None
    url: str | None = None
    ca_cert: str | None = None
    client: Pair | None = None


@dataclass(frozen=True)
class Result:
    """One dependency's result; ``ok`` is None when it was not probed."""

    enabled: bool
    ok: bool | None
    skipped: bool
    latency_ms: float | None = None
    detail: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Status:
    """The results of all dependencies, and the overall status."""

    service: str
    deps: Mapping[str, Result]

    @property
    def ready(self) -> bool:
        """Whether every probed dependency is ready; false when no dependency was probed."""
        asked = [result.ok for result in self.deps.values() if not result.skipped]
        return bool(asked) and all(asked)

    @property
    def summary(self) -> str:
        """`ok`, or the failures of the dependencies that are not ready."""
        asked = {name: result for name, result in self.deps.items() if not result.skipped}
        wrong = [f"{name}: {result.detail}" for name, result in asked.items() if not result.ok]
        return "; ".join(wrong) or ("ok" if asked else "nothing was asked")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document of S0-03."""
        return {
            "service": self.service,
            "ready": self.ready,
            "summary": self.summary,
            "deps": {
                name: {key: value for key, value in asdict(result).items() if key in CORE or value is not None}
                for name, result in self.deps.items()
            },
        }


PAGES = {
    "gateway": "/readyz",
    "prometheus": "/-/ready",
    "alertmanager": "/-/ready",
    "grafana": "/api/health",
    "loki": "/ready",
    "fluent_bit": "/api/v1/health",
}
# Services that serve only their metrics: the name, and the key of the output that has the address.
METRICS_PAGES = (
    ("gateway_worker", "worker_metrics_url", "gateway"),
    ("backup", "metrics_url", "backup"),
)
# Services whose page requires the login that is in the outputs.
LOGINS = ("prometheus", "alertmanager")
CORE = ("enabled", "ok", "skipped", "latency_ms")


def dependencies(outputs: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> list[Dependency]:
    """Return the services of a deployed environment, from its outputs."""
    found = _qdrant(outputs["qdrant"])
    stores: tuple[tuple[str, Literal["postgres", "redis"]], ...] = (("pg", "postgres"), ("redis", "redis"))
    for name, key in stores:
        if key in outputs:
            where = outputs[key]
            probe = Probe(
                key, where["host"], int(where["port"]), user=where.get("user", ""), tls=where.get("tls", False)
            )
            found.append(Dependency(name, probe, where["password"]))
    if "neo4j" in outputs:
        where = outputs["neo4j"]
        parts = urlsplit(where["url"])
        probe = Probe("neo4j", parts.hostname or "127.0.0.1", parts.port or 0, user=where["user"])
        found.append(Dependency("neo4j", probe, where["password"], url=where["url"]))
    for name, path in PAGES.items():
        if name in outputs:
            where = outputs[name]
            login = {key: where[key] for key in ("user", "password") if name in LOGINS and key in where}
            probe = replace(_http(where["url"], path), user=login.get("user", ""))
            # A person wants the dashboards, not the page of the login.
            url = where.get("dashboard", where["url"])
            found.append(Dependency(name, probe, login.get("password"), url=url, **_certificates(where)))
    for name, address, service in METRICS_PAGES:
        if metrics_url := outputs.get(service, {}).get(address):
            found.append(Dependency(name, _http(metrics_url, ""), url=metrics_url))
    for name, exporter in outputs.get("exporters", {}).items():
        found.append(Dependency(f"{name}_exporter", _http(exporter["url"], ""), **_certificates(exporter)))
    found += [Dependency(name, left_out=reason) for name, reason in outputs.get("left_out", {}).items()]
    return [
        Dependency(known.name, left_out=f"ENABLE_{known.name.upper()} is false")
        if environment.get(f"ENABLE_{known.name.upper()}", "").lower() in ("false", "0", "no")
        else known
        for known in found
    ]


def check(service: str, wanted: Sequence[Dependency], policy: Policy) -> Status:
    """Probe all dependencies at once; it takes as long as the slowest, at most its time limit for each attempt."""
    with ThreadPoolExecutor(max_workers=max(1, len(wanted))) as pool:
        results = pool.map(lambda dependency: _ask(dependency, policy), wanted)
        return Status(service, dict(zip((dependency.name for dependency in wanted), results, strict=True)))


def remembered(
    path: Path, policy: Policy, names: Sequence[str], ask: Callable[[], Status], now: float | None = None
) -> Status:
    """Return the cached status of these dependencies while it is young enough; else a new one, cached at ``path``."""
    moment = time.time() if now is None else now
    try:
        known = json.loads(path.read_text())
        if 0 <= moment - known["at"] < policy.cache_sec and list(known["deps"]) == list(names):
            return Status(known["service"], {name: Result(**found) for name, found in known["deps"].items()})
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no cache, or one of another version: probe
    status = ask()
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {"at": moment, "service": status.service, "deps": {n: asdict(r) for n, r in status.deps.items()}}
    path.write_text(json.dumps(known))
    return status


def _ask(dependency: Dependency, policy: Policy) -> Result:
    if dependency.probe is None:
        return Result(enabled=False, ok=None, skipped=True, detail=dependency.left_out)
    ask = partial(
        dependency.probe.run,
        dependency.secret,
        timeout_s=policy.timeout_ms / 1000,
        ca_cert=dependency.ca_cert,
        client=dependency.client,
    )
    dependency.probe.load_client()
    words = ""
    deadline = time.perf_counter() + policy.patience_s
    for _ in range(policy.retries + 1):
        began = time.perf_counter()
        try:
            _within(deadline - began, ask)
        except ProbeFailed as failure:
            words = str(failure)
            continue
        except TimeoutError:
            words = words or f"no answer in {policy.patience_s * 1000:.0f} ms"
            break
        latency = round((time.perf_counter() - began) * 1000, 1)
        return Result(enabled=True, ok=True, skipped=False, latency_ms=latency, url=dependency.url)
    return Result(enabled=True, ok=False, skipped=False, detail=words, url=dependency.url)


def _within(seconds: float, ask: Callable[[], None]) -> None:
    """Probe within a time limit; raises :class:`TimeoutError`.

    A name server, a TLS handshake or libpq's shortest wait of two seconds takes longer than a probe may, and ignores
    our time limit: its thread is abandoned, and no exit waits for it.
    """
    outcome: SimpleQueue[Exception | None] = SimpleQueue()

    def run() -> None:
        try:
            ask()
        except Exception as error:
            outcome.put(error)
        else:
            outcome.put(None)

    Thread(target=run, daemon=True).start()
    try:
        failure = outcome.get(timeout=max(0.0, seconds))
    except Empty as error:
        raise TimeoutError from error
    if failure:
        raise failure


def _qdrant(where: Mapping[str, Any]) -> list[Dependency]:
    # The first node stands for the cluster under the service's own name; the others are probed in addition.
    first, *others = where.get("nodes", {"qdrant": where["url"]}).items()
    # The collections, not /readyz: that proves the key too, and shows a collection that fails to load.
    return [
        Dependency(
            name, replace(_http(url, ""), kind="qdrant"), where["api_key"], url=url, ca_cert=where.get("ca_cert")
        )
        for name, url in [("qdrant", first[1]), *others]
    ]


def _certificates(where: Mapping[str, Any]) -> dict[str, Any]:
    """Return the certificates to probe a service with, as arguments of :class:`Dependency`."""
    client = Pair(where["client_cert"], where["client_key"]) if "client_key" in where else None
    return {"ca_cert": where.get("ca_cert"), "client": client}


def _http(url: str, path: str) -> Probe:
    parts = urlsplit(url)
    where = f"{parts.path}{path}" or "/"
    return Probe("http", parts.hostname or "127.0.0.1", parts.port or 80, where, tls=parts.scheme == "https")


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    given = environment.get(name)
    if given is None:
        return default
    try:
        value = int(given)
    except ValueError:
        value = -1
    if value < 0:
        raise UserError(f"{name} is '{given}'; set a whole number of 0 or more, or unset it.")
    return value
