"""An environment on a remembered cluster, driven through the command line by the real engine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plinth.paths import home
from plinth.system.ports import PORTS
from tests.answers import Answers, close, serve
from tests.containers.stack import is_free
from tests.kubernetes.api import TOKEN, Api, serving
from tests.kubernetes.provider import KubernetesProvider
from tests.kubernetes.store import Store
from tests.nodes import Nodes
from tests.project import Environment
from tests.provider import served

HTTP, GRPC = 6333, 6334
NAMESPACE = "vectors"
OFF = {"enabled": False}


class Story:
    """One environment, its cluster, and the nodes that answer through the tunnels."""

    def __init__(
        self, environment: Environment, store: Store, api: Api, provider: KubernetesProvider, nodes: Nodes
    ) -> None:
        self.environment, self.store, self.api = environment, store, api
        self.provider, self.nodes = provider, nodes

    def up(self, *options: str, expect: int | None = 0) -> str:
        return self.environment.plinth("up", "t", "--no-verify", *options, expect=expect)

    def set(self, part: str = "qdrant", **values: Any) -> None:
        self.environment.settings[f"plinth:{part}"] = self.environment.settings.get(f"plinth:{part}", {}) | values
        self.environment.save()

    def since(self, moment: int, *verbs: str) -> list[tuple[str, str, str]]:
        return [call for call in self.store.calls[moment:] if not verbs or call[0] in verbs]


def free_offset(ports: Sequence[int], nodes: int) -> int:
    """Ports of the services and their nodes are free this much above."""
    # Two runs at once start apart from each other. What a test elsewhere may listen on at any moment is left out.
    first = 10000 + os.getpid() % 15 * 60
    claimed = [port + 10 * node for node in range(nodes) for port in (HTTP, GRPC)] + list(ports)
    candidates = range(first, first + 15000, 60)
    return next(o for o in candidates if all(o + port not in PORTS and is_free(o + port) for port in claimed))


@contextmanager
def story_of(
    root: Path, kubeconfig: Path, nodes: int, settings: Mapping[str, Any], ports: Mapping[tuple[str, int], int]
) -> Iterator[Story]:
    """Settings over a Qdrant of some nodes alone; ``ports`` are where the others' pods' ports really are."""
    store, told = Store(), Nodes("qdrant-headless", [0] * nodes)
    api, provider = Api(store), KubernetesProvider(store)
    api.ports = {(f"qdrant-{number}", HTTP): port for number, port in enumerate(told.ports)} | dict(ports)
    offset = free_offset([port for _, port in ports], nodes)
    wanted = {
        "plinth:target": "kubernetes",
        "plinth:kubernetes": {"namespace": NAMESPACE, "forward_offset": offset},
        "plinth:qdrant": {
            "nodes": nodes,
            "replication_factor": min(nodes, 2),
            "settle_timeout_sec": 20,
            "disk_gib": 10,
        },
        "plinth:postgres": OFF,
        "plinth:redis": OFF,
        "plinth:collections": {"only": []},
        "plinth:monitoring": dict.fromkeys(("prometheus", "alertmanager", "grafana", "exporters"), OFF),
    }
    for key, value in settings.items():
        wanted[key] = {**wanted.get(key, {}), **value} if key == "plinth:kubernetes" else value
    with served(provider) as debug, serving(api, kubeconfig):
        environment = Environment(root, wanted, PULUMI_DEBUG_PROVIDERS=debug, KUBECONFIG=str(kubeconfig))
        # It may lie outside of the directory, where an earlier run in one of the same name left its own.
        kept = home(root, "t").place
        shutil.rmtree(kept, ignore_errors=True)
        yield Story(environment, store, api, provider, told)
        shutil.rmtree(kept, ignore_errors=True)
        assert api.tokens == {f"Bearer {TOKEN}"}
    told.close()


class Page(Answers):
    """A page that is there."""

    def do_GET(self) -> None:
        self.reply(200)


@contextmanager
def page() -> Iterator[int]:
    """The port of a server that answers 200 to everything."""
    server = serve(Page)
    try:
        yield server.server_address[1]
    finally:
        close(server)
