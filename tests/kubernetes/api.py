"""The API server of a remembered cluster, over HTTP: what Plinth asks beside Pulumi's provider, and no more."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.kubernetes.store import Store

TOKEN = "token-for-tests"


class Api:
    """``ports`` are where a pod's port really is, by pod name and port."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ports: dict[tuple[str, int], int] = {}
        self.tokens: set[str] = set()
        core, namespaced = "/api/v1", "/api/v1/namespaces/{namespace}"
        sets = "/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}"
        batch = "/apis/batch/v1/namespaces/{namespace}"
        self.app = Starlette(
            routes=[
                Route("/version/", self.version),
                Route(f"{core}/namespaces/{{name}}", self.namespace),
                Route(f"{namespaced}/pods", self.pods),
                WebSocketRoute(f"{namespaced}/pods/{{name}}/portforward", self.forward),
                Route(f"{namespaced}/persistentvolumeclaims", self.claims),
                Route(f"{namespaced}/persistentvolumeclaims/{{name}}", self.claim, methods=["GET", "PATCH", "DELETE"]),
                Route(f"{namespaced}/pods/{{name}}/log", self.log),
                Route(f"{batch}/cronjobs/{{name}}", self.cronjob),
                Route(f"{batch}/jobs", self.jobs, methods=["POST"]),
                Route(f"{batch}/jobs/{{name}}", self.job, methods=["GET", "DELETE"]),
                Route(sets, self.stateful_set, methods=["GET", "PATCH", "DELETE"]),
                Route("/apis/storage.k8s.io/v1/storageclasses", self.classes),
                Route("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self.review, methods=["POST"]),
            ]
        )

    async def version(self, request: Request) -> JSONResponse:
        keys = ("buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion", "platform")
        return JSONResponse(dict.fromkeys(keys, "x") | {"gitVersion": "v1.36.0", "major": "1", "minor": "36"})

    async def namespace(self, request: Request) -> JSONResponse:
        self.tokens.add(request.headers.get("authorization", ""))
        return found(self.store.get("Namespace", "", request.path_params["name"]))

    async def pods(self, request: Request) -> JSONResponse:
        wanted = dict(part.split("=") for part in request.query_params["labelSelector"].split(","))
        with self.store.lock:
            items = [
                self.store.pod_view(pod)
                for pod in self.store.list_pods().values()
                if wanted.items() <= pod["metadata"]["labels"].items()
            ]
        if "job-name" in wanted:
            if self.store.jobs.is_away():
                return JSONResponse({"kind": "Status", "status": "Failure", "code": 503}, status_code=503)
            items = [pod for pod in self.store.jobs.views() if wanted.items() <= pod["metadata"]["labels"].items()]
        return JSONResponse({"kind": "PodList", "items": items})

    async def log(self, request: Request) -> StreamingResponse | JSONResponse:
        if "get pods/log" in self.store.denied:
            return JSONResponse({"kind": "Status", "status": "Failure", "code": 403}, status_code=403)
        pods = [pod for pod in self.store.jobs.pods.values() if pod.name == request.path_params["name"]]
        return StreamingResponse(pods[0].log()) if pods else found(None)

    async def cronjob(self, request: Request) -> JSONResponse:
        cronjob = self.store.get("CronJob", request.path_params["namespace"], request.path_params["name"])
        return found(cronjob and {**cronjob, "status": self.store.jobs.cronjob_status})

    async def jobs(self, request: Request) -> JSONResponse:
        manifest = await request.json()
        self.store.jobs.create(manifest)
        return JSONResponse(manifest, status_code=201)

    async def job(self, request: Request) -> JSONResponse:
        name = request.path_params["name"]
        if request.method == "DELETE":
            return found({"kind": "Status", "status": "Success"} if self.store.jobs.delete(name) else None)
        pod = self.store.jobs.pods.get(name)
        return found(pod and pod.manifest)

    async def claims(self, request: Request) -> JSONResponse:
        return JSONResponse({"items": [self.claim_view(name) for name in self.store.of("PersistentVolumeClaim")]})

    def claim_view(self, name: str) -> dict[str, Any]:
        claim = self.store.of("PersistentVolumeClaim")[name]
        phase = "Pending" if name in self.store.unbound else "Bound"
        version = str(claim["metadata"].get("generation", 1))
        return {
            **claim,
            "metadata": {**claim["metadata"], "resourceVersion": version},
            "status": {**claim["status"], "phase": phase},
        }

    async def claim(self, request: Request) -> JSONResponse:
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        if request.method == "DELETE":
            body = await request.json()
            assert body["preconditions"] == {"resourceVersion": self.claim_view(name)["metadata"]["resourceVersion"]}
            self.store.delete(("PersistentVolumeClaim", namespace, name))
            return JSONResponse({"kind": "Status", "status": "Success"})
        if request.method == "PATCH":
            body = await request.json()
            self.store.expand(namespace, name, body["spec"]["resources"]["requests"]["storage"])
        return found(self.store.get("PersistentVolumeClaim", namespace, name))

    async def stateful_set(self, request: Request) -> JSONResponse:
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        if request.method == "PATCH":
            body = await request.json()
            self.store.set_partition(namespace, name, body["spec"]["updateStrategy"]["rollingUpdate"]["partition"])
        known = self.store.get("StatefulSet", namespace, name)
        if request.method == "DELETE" and known:
            body = await request.json()
            self.store.delete(("StatefulSet", namespace, name), orphan=body["propagationPolicy"] == "Orphan")
            return JSONResponse({"kind": "Status", "status": "Success"})
        return found(known)

    async def classes(self, request: Request) -> JSONResponse:
        fast = {"metadata": {"name": "fast"}, "provisioner": "x", "allowVolumeExpansion": self.store.expandable}
        return JSONResponse({"items": [fast]})

    async def review(self, request: Request) -> JSONResponse:
        body = await request.json()
        asked = body["spec"]["resourceAttributes"]
        what = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        allowed = f"{asked['verb']} {what}" not in self.store.denied
        return JSONResponse({**body, "status": {"allowed": allowed}})

    async def forward(self, way: WebSocket) -> None:
        """The protocol of port forwarding: channel 0 carries data, 1 errors; each begins with the port's number."""
        port = int(way.query_params["ports"])
        await way.accept(subprotocol="v4.channel.k8s.io")
        number = port.to_bytes(2, "little")
        await way.send_bytes(b"\0" + number)
        await way.send_bytes(b"\1" + number)
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.ports.get((way.path_params["name"], port), 1)
            )
        except OSError as error:
            await way.send_bytes(b"\1" + str(error).encode())
            await way.close()
            return
        inward = asyncio.create_task(_inward(reader, way))
        try:
            while True:
                writer.write((await way.receive_bytes())[1:])
                await writer.drain()
        except (WebSocketDisconnect, OSError, RuntimeError):
            writer.close()
            inward.cancel()


async def _inward(reader: asyncio.StreamReader, way: WebSocket) -> None:
    while data := await reader.read(1 << 16):
        await way.send_bytes(b"\0" + data)
    await way.close()


def found(known: dict[str, Any] | None) -> JSONResponse:
    if known is None:
        return JSONResponse({"kind": "Status", "status": "Failure", "code": 404}, status_code=404)
    return JSONResponse(known)


@contextmanager
def serving(api: Api, kubeconfig: Path) -> Iterator[str]:
    """Serve on loopback, and write a kubeconfig that leads there with a token."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(api.app, log_level="error", ws="wsproto", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "tests",
                "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
                "clusters": [{"name": "tests", "cluster": {"server": address}}],
                "users": [{"name": "tests", "user": {"token": TOKEN}}],
            }
        )
    )
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(10)
