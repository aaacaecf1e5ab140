"""The Docker engine itself, over its API: what is asked before a deploy, and images as files.

Pulumi's plugin makes the resources. This asks first, so that what cannot work is a sentence and not half a stack.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import httpx

from plinth.errors import UserError
from plinth.system.http_client import url_path
from plinth.targets.docker.connection import Connection, json_filter, reason_of
from plinth.targets.docker.objects import Capacity, Container, Network
from plinth.targets.images import by_digest, repository, without_digest

STACK_LABEL = "plinth.stack"
CARRIER_LABEL = "plinth.carries"
CHUNK = 1 << 20


class Daemon(Connection):
    """One engine's images, and what a stack has there; raises :class:`UserError` where it does not do as asked."""

    def has_image(self, reference: str) -> bool:
        """Whether an image is on the engine."""
        return self._ask("GET", f"{_path('images', reference)}/json", missing=True) is not None

    def local_name(self, reference: str) -> str:
        """Return the name by which the engine has a pinned image, or is to pull it.

        An image that came as a file, or was built here, has no registry's digest: its tag names it. All others go by
        digest.
        """
        tagged, exact = without_digest(reference), by_digest(reference)
        if exact == tagged or self.has_image(exact):
            return exact
        answer = self._ask("GET", f"{_path('images', tagged)}/json", missing=True)
        return exact if answer is None or answer.json().get("RepoDigests") else tagged

    def digest_of(self, reference: str) -> str:
        """Return a registry's current digest of a tag; raises :class:`UserError` where the registry does not answer."""
        return str(self._json("GET", f"{_path('distribution', reference)}/json")["Descriptor"]["digest"])

    def tag(self, name: str, reference: str) -> None:
        """Give an image that is on the engine the tag of a reference too."""
        to = without_digest(reference)
        self._ask("POST", f"{_path('images', name)}/tag", params={"repo": repository(to), "tag": to.rpartition(":")[2]})

    def pull(self, reference: str) -> None:
        """Fetch an image from its registry."""
        with self._stream("POST", "/images/create", params={"fromImage": reference}) as answer:
            words = _failure(answer)
        if words:
            raise UserError(
                f"The image {reference} is not on this engine and could not be pulled ({words}); check the network, "
                "name a registry that can be reached with plinth:docker.registry_mirror, or bring the images in as "
                "a file with `plinth images load`.",
                exit_code=1,
            )

    def build(
        self, context: bytes, dockerfile: str, reference: str, arguments: Mapping[str, str], labels: Mapping[str, str]
    ) -> Iterator[str]:
        """Build an image from an archive; gives what the engine says. The arguments are in the build's steps alone."""
        params = {
            "dockerfile": dockerfile,
            "t": reference,
            "buildargs": json.dumps(dict(arguments)),
            "labels": json.dumps(dict(labels)),
            "rm": "true",
            "forcerm": "true",
        }
        headers = {"content-type": "application/x-tar"}
        printed = ""
        with self._stream("POST", "/build", params=params, content=context, headers=headers) as answer:
            for line in answer.iter_lines():
                document = json.loads(line) if line.strip() else {}
                failure = document.get("error") or (document.get("message") if answer.is_error else None)
                if failure:
                    raise _unbuilt(reference, printed, failure)
                output = _printed(document.get("stream", ""))
                printed = output or printed
                yield document.get("stream", "")

    def labels(self, reference: str) -> dict[str, str]:
        """Return the labels of an image; empty for a missing image."""
        answer = self._ask("GET", f"{_path('images', reference)}/json", missing=True)
        return (answer.json()["Config"].get("Labels") or {}) if answer else {}

    def save(self, references: Sequence[str], path: Path) -> None:
        """Write images to a file that :meth:`load` reads."""
        with self._stream("GET", "/images/get", params={"names": list(references)}) as answer:
            if answer.status_code != httpx.codes.OK:
                raise self._refusal("GET", "/images/get", answer)
            partial = path.with_name(f"{path.name}.partial")
            try:
                with partial.open("wb") as file:
                    for chunk in answer.iter_bytes(CHUNK):
                        file.write(chunk)
                partial.replace(path)
            except OSError as error:
                partial.unlink(missing_ok=True)
                raise UserError(f"{path} cannot be written: {error.strerror}; name another file.") from error

    def load(self, path: Path) -> None:
        """Take the images of a file."""

        def chunks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk

        if not path.is_file():
            raise UserError(f"{path} is no file; write one with `plinth images save` where the images are.")
        with self._stream("POST", "/images/load", content=chunks()) as answer:
            words = _failure(answer)
        if words:
            raise UserError(f"{path} could not be loaded ({words}); is it a file of `plinth images save`?", exit_code=1)

    def published(self) -> dict[int, tuple[str, str | None]]:
        """Every published port, with the container's name and the stack that it belongs to."""
        found: dict[int, tuple[str, str | None]] = {}
        for container in self._json("GET", "/containers/json"):
            owner = (container["Names"][0].lstrip("/"), container["Labels"].get(STACK_LABEL))
            found |= {port["PublicPort"]: owner for port in container["Ports"] if "PublicPort" in port}
        return found

    def containers(self, stack: str, label: str = STACK_LABEL) -> list[Container]:
        """Return the containers of a stack by their label, running or not."""
        params = {"all": "true", "filters": json_filter(label=[f"{label}={stack}"])}
        return [
            Container(entry["Id"], entry["Names"][0].lstrip("/"), entry["State"], CARRIER_LABEL in entry["Labels"])
            for entry in self._json("GET", "/containers/json", params)
        ]

    def networks(self, stack: str) -> list[Network]:
        """Return the networks of a stack."""
        params = {"filters": json_filter(label=[f"{STACK_LABEL}={stack}"])}
        return [Network(entry["Id"], entry["Name"]) for entry in self._json("GET", "/networks", params)]

    def remove(self, container: Container, *, force: bool = False) -> None:
        """Remove a container with its anonymous volumes; ``force`` stops one that runs."""
        params = {"v": "true", **({"force": "true"} if force else {})}
        self._ask("DELETE", url_path("containers", container.id), params=params, missing=True)

    def end(self, identity: str) -> None:
        """Ask a container to end, wait for as long as its own grace, and remove it; one that is gone is well."""
        with self.stream("POST", f"{url_path('containers', identity)}/stop") as answer:
            answer.read()
        # An engine that removes it by itself refuses where it has begun.
        with suppress(UserError):
            self.remove(Container(identity, identity, "exited"), force=True)

    def remove_network(self, network: Network) -> None:
        """Remove a network that nothing is attached to."""
        self._ask("DELETE", url_path("networks", network.id), missing=True)

    def capacity(self) -> Capacity:
        """Return the engine's capacity for containers."""
        info = self._json("GET", "/info")
        return Capacity(int(info["NCPU"]), int(info["MemTotal"]), bool(info.get("MemoryLimit", True)))

    def mounted(self, container: Container, path: str) -> str:
        """Return the name of the volume that a container has at a path; empty where it has none."""
        mounts = self._inspected(container).get("Mounts", [])
        return next((mount["Name"] for mount in mounts if mount["Destination"] == path and "Name" in mount), "")

    def limits(self, container: Container) -> dict[str, int]:
        """Return the ulimits that a container was created with, by their names."""
        bounds = self._inspected(container).get("HostConfig", {}).get("Ulimits") or []
        return {bound["Name"]: bound["Hard"] for bound in bounds}

    def _inspected(self, container: Container) -> dict[str, Any]:
        answer = self._ask("GET", f"{url_path('containers', container.id)}/json", missing=True)
        return dict(answer.json()) if answer else {}

    def files(self, container: Container, directory: str) -> dict[str, str]:
        """Return the text files of a directory in a container, by relative path; empty where it cannot be read."""
        path = f"{url_path('containers', container.id)}/archive"
        answer = self._ask("GET", path, params={"path": f"{directory}/."}, missing=True)
        if answer is None:
            return {}
        with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
            return {
                str(PurePosixPath(entry.name)): content.read().decode(errors="replace")
                for entry in tar
                if (content := tar.extractfile(entry)) is not None
            }

    def put_archive(self, identity: str, directory: str, content: bytes) -> None:
        """Unpack a tar archive into a directory of a container, which runs or not."""
        path = f"{url_path('containers', identity)}/archive"
        headers = {"content-type": "application/x-tar"}
        with self.stream("PUT", path, params={"path": directory}, content=content, headers=headers) as answer:
            if answer.is_error:
                raise self._refusal("PUT", path, answer)

    def last_lines(self, name: str, count: int) -> list[str]:
        """Return the last lines of a container's output; empty for a missing container."""
        params = {"stdout": "true", "stderr": "true", "tail": str(count)}
        answer = self._ask("GET", f"{url_path('containers', name)}/logs", params=params, missing=True)
        return [line for line in _unframed(answer.content).splitlines() if line.strip()] if answer else []

    def refused_start(self, name: str, image: str, limits: Mapping[str, int], labels: Mapping[str, str]) -> str:
        """Start a container that does nothing under some limits; the engine's reason where it is the limits.

        What it would run is no program of any image: that the engine misses it says that it gave the limits.
        """
        created = self._json(
            "POST",
            "/containers/create",
            {"name": name},
            {
                "Image": image,
                "Entrypoint": ["/plinth-tries-limits"],
                "Labels": dict(labels),
                "NetworkDisabled": True,
                "HostConfig": {
                    "NetworkMode": "none",
                    "Ulimits": [{"Name": key, "Soft": bound, "Hard": bound} for key, bound in limits.items()],
                },
            },
        )
        made = Container(str(created["Id"]), name, "created")
        try:
            with self._sentences():
                answer = self._http.post(f"{url_path('containers', made.id)}/start")
            reason = reason_of(answer) if answer.is_error else ""
            return reason if "rlimit" in reason else ""
        finally:
            self.remove(made, force=True)

    def volumes(self, stack: str) -> list[str]:
        """Return the names of a stack's volumes."""
        filters = json_filter(label=[f"{STACK_LABEL}={stack}"])
        found = self._json("GET", "/volumes", params={"filters": filters})["Volumes"] or []
        return sorted(volume["Name"] for volume in found)


def _unframed(stream: bytes) -> str:
    """Text of a log stream: each piece has a header of eight bytes, the last four its length."""
    pieces, position = [], 0
    while position + 8 <= len(stream):
        end = position + 8 + int.from_bytes(stream[position + 4 : position + 8])
        pieces.append(stream[position + 8 : end])
        position = end
    return b"".join(pieces).decode(errors="replace")


def _path(kind: str, reference: str) -> str:
    """Return the API path of an image; its reference has slashes of its own."""
    return url_path(kind, *reference.split("/"))


# What the classic builder writes of its own doings, between what the steps print.
_BUILDER = re.compile(r"^(Step \d+/\d+ : .*|Removing intermediate container .*|-+> .*|Successfully (built|tagged) .*)$")


def _printed(stream: str) -> str:
    """Return the last line that a step of a build printed; empty where the builder reports on itself."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in stream.splitlines()]
    return next((line for line in reversed(lines) if line and not _BUILDER.match(line)), "")


def _unbuilt(reference: str, printed: str, failure: str) -> UserError:
    """Return the error for a failed build, with the last line of its step, which tells more than the failure."""
    last = f"{' '.join(printed.split())}; " if printed else ""
    return UserError(
        f"The image {reference} could not be built ({last}{' '.join(failure.split())}). The build needs a Python "
        "package index and a mirror of the base's distribution: let the engine reach them, or name a directory of "
        "wheels with --wheels and a base that has restic, Postgres and Redis with plinth:docker.images.python.",
        exit_code=1,
    )


def _failure(answer: httpx.Response) -> str | None:
    """Return the error in a response that is a stream of JSON objects, one per line; None on success."""
    words = None
    for line in answer.iter_lines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        words = said.get("error") or (said.get("message") if answer.is_error else None) or words
    return " ".join(words.split()) if words else None
