"""An engine that has a Docker engine make what it is told, call for call as the real provider does."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import docker.errors
import pytest
from docker.types import EndpointConfig, Healthcheck, LogConfig, Mount, Ulimit

from tests.containers.engine import why_not
from tests.containers.provider import DockerProvider, HalfMade, Refused
from tests.provider import served

NANO = 10**9
UNITS = {"s": 1, "m": 60, "h": 3600}


WHY_NOT = why_not()
needs_containers = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


@contextmanager
def provided(client: docker.DockerClient) -> Iterator[dict[str, str]]:
    """The variables by which the Pulumi engine finds a docker provider: pulumi-docker's own where it is on PATH."""
    if shutil.which("pulumi-resource-docker"):
        yield {}
        return
    with served(DockerProvider(Applied(client))) as address:
        yield {"PULUMI_DEBUG_PROVIDERS": address}


class Applied:
    """Real networks, volumes and containers; images must be there, for there is no registry."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client
        self.creates: list[str] = []

    def create(self, kind: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        make = {
            "network": self._network,
            "volume": self._volume,
            "remoteImage": self._image,
            "container": self._container,
        }[kind]
        try:
            made = make(inputs)
        except docker.errors.APIError as error:
            raise Refused(error.explanation or str(error)) from error
        self.creates.append(inputs["name"])
        return made

    def read(self, kind: str, id_: str, known: dict[str, Any]) -> dict[str, Any] | None:
        try:
            if kind == "container":
                container = self.client.containers.get(id_)
                running = container.status in ("running", "restarting")
                return {"mustRun": False} if known.get("mustRun") and not running else {}
            {"network": self.client.networks, "volume": self.client.volumes, "remoteImage": self.client.images}[
                kind
            ].get(id_)
        except docker.errors.NotFound:
            return None
        return {}

    def update(self, kind: str, id_: str, inputs: dict[str, Any]) -> None:
        assert kind == "container"
        self.client.containers.get(id_).start()

    def delete(self, kind: str, id_: str, known: dict[str, Any]) -> None:
        try:
            if kind == "container":
                container = self.client.containers.get(id_)
                container.stop(timeout=int(known.get("destroyGraceSeconds", 0)))
                container.remove(v=True, force=True)
            elif kind == "network":
                self.client.networks.get(id_).remove()
            elif kind == "volume":
                self.client.volumes.get(id_).remove()
            elif not known.get("keepLocally"):
                self.client.images.remove(id_)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            raise Refused(error.explanation or str(error)) from error

    def _network(self, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        made = self.client.networks.create(
            inputs["name"],
            driver=inputs["driver"],
            internal=inputs.get("internal", False),
            check_duplicate=True,
            labels=_labels(inputs),
        )
        return str(made.id), {}

    def _volume(self, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return str(self.client.volumes.create(inputs["name"], labels=_labels(inputs)).id), {}

    def _image(self, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        try:
            found = str(self.client.images.get(inputs["name"]).id)
        except docker.errors.ImageNotFound:
            raise Refused(f"Unable to read Docker image {inputs['name']}: it is not here, nor any registry") from None
        return found, {"imageId": found}

    def _container(self, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        api = self.client.api
        ports = inputs.get("ports", [])
        networks = {
            network["name"]: EndpointConfig(api._version, aliases=network.get("aliases"))
            for network in inputs.get("networksAdvanced", [])
        }
        host = api.create_host_config(
            binds=None,
            port_bindings={f"{p['internal']}/{p['protocol']}": (p.get("ip", "0.0.0.0"), p["external"]) for p in ports},
            restart_policy={"Name": inputs["restart"]} if "restart" in inputs else None,
            cap_drop=inputs.get("capabilities", {}).get("drops"),
            cap_add=inputs.get("capabilities", {}).get("adds"),
            security_opt=inputs.get("securityOpts"),
            group_add=inputs.get("groupAdds"),
            read_only=inputs.get("readOnly"),
            tmpfs=inputs.get("tmpfs"),
            mounts=[
                Mount(m["target"], m.get("source"), type=m["type"], read_only=m.get("readOnly", False))
                for m in inputs.get("mounts", [])
            ],
            ulimits=[Ulimit(name=u["name"], soft=u["soft"], hard=u["hard"]) for u in inputs.get("ulimits", [])],
            log_config=LogConfig(type=inputs["logDriver"], config=inputs.get("logOpts"))
            if "logDriver" in inputs
            else None,
            mem_limit=f"{inputs['memory']}m" if "memory" in inputs else None,
            memswap_limit=f"{inputs['memorySwap']}m" if "memorySwap" in inputs else None,
            nano_cpus=round(float(inputs["cpus"]) * NANO) if "cpus" in inputs else None,
            shm_size=f"{inputs['shmSize']}m" if "shmSize" in inputs else None,
            network_mode=inputs.get("networkMode"),
            cgroup_parent=inputs.get("cgroupParent"),
        )
        first = next(iter(networks.items()), None)
        created = api.create_container(
            inputs["image"],
            command=inputs.get("command"),
            entrypoint=inputs.get("entrypoints"),
            name=inputs["name"],
            hostname=inputs.get("hostname"),
            user=inputs.get("user"),
            environment=inputs.get("envs"),
            labels=_labels(inputs),
            healthcheck=_health(inputs.get("healthcheck")),
            stop_signal=inputs.get("stopSignal"),
            stop_timeout=inputs.get("stopTimeout"),
            ports=[(p["internal"], p["protocol"]) for p in ports],
            host_config=host,
            networking_config=api.create_networking_config(dict([first])) if first else None,
        )
        id_ = str(created["Id"])
        for name in list(networks)[1:]:
            aliases = next(n.get("aliases") for n in inputs["networksAdvanced"] if n["name"] == name)
            api.connect_container_to_network(id_, name, aliases=aliases)
        for upload in inputs.get("uploads", []):
            # To the root, as the real one does: an engine refuses that where the root is read-only.
            self._upload(id_, upload)
        if inputs.get("start", True):
            try:
                api.start(id_)
            except docker.errors.APIError as error:
                raise HalfMade(f"Unable to start container: {error.explanation}", id_) from error
        return id_, {}

    def _upload(self, container: str, upload: dict[str, Any]) -> None:
        """As the real one: an owner or a group in an upload asks the engine to keep owners."""
        params = {"path": "/"} | ({"copyUIDGID": "true"} if {"owner", "group"} & upload.keys() else {})
        api = self.client.api
        answer = api._put(api._url("/containers/{0}/archive", container), params=params, data=_archive(upload))
        try:
            api._raise_for_status(answer)
        except docker.errors.APIError as error:
            raise HalfMade(f"Unable to upload volume content: {error.explanation}", container) from error


def _archive(upload: dict[str, Any]) -> bytes:
    content = upload["content"].encode()
    entry = tarfile.TarInfo(upload["file"].lstrip("/"))
    entry.size, entry.mode = len(content), int(upload["permissions"], 8)
    entry.uid, entry.gid = int(upload.get("owner", 0)), int(upload.get("group", 0))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _health(check: dict[str, Any] | None) -> Any:
    if check is None:
        return None
    times = {key: _nanoseconds(check[given]) for key, given in HEALTH_TIMES.items()}
    return Healthcheck(test=check["tests"], retries=check["retries"], **times)


HEALTH_TIMES = {"interval": "interval", "timeout": "timeout", "start_period": "startPeriod"}


def _nanoseconds(duration: str) -> int:
    number, total = "", 0
    for letter in duration:
        if letter in UNITS:
            total, number = total + int(number) * UNITS[letter], ""
        else:
            number += letter
    return total * NANO


def _labels(inputs: dict[str, Any]) -> dict[str, str]:
    return {label["label"]: label["value"] for label in inputs.get("labels", [])}
