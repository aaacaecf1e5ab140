"""The Docker engine itself, over its API: what is asked before a deploy, and images as files.

Pulumi's plugin makes the resources. This asks first, so that what cannot work is a sentence and not half a stack.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from plinth.errors import UserError
from plinth.http_client import client_for, url_path
from plinth.images import by_digest, repository, without_digest

DEFAULT = "unix:///var/run/docker.sock"
STACK_LABEL = "plinth.stack"
CARRIER_LABEL = "plinth.carries"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Found:
    """A container on the engine; ``state`` in the engine's word: created, running, exited and others."""

    id: str
    name: str
    state: str


class Daemon:
    """A connection to one engine; raises :class:`UserError` where it does not do as asked."""

    def __init__(self, host: str | None = None, timeout_s: float = 30.0) -> None:
        """``host`` is `unix://PATH` or `tcp://HOST:PORT`; DOCKER_HOST or the usual socket when absent."""
        self.host = host or os.environ.get("DOCKER_HOST") or DEFAULT
        scheme, _, where = self.host.partition("://")
        if scheme == "unix":
            self._http = httpx.Client(
                transport=httpx.HTTPTransport(uds=where), base_url="http://docker", timeout=timeout_s
            )
        elif scheme in ("tcp", "http"):
            self._http = client_for(f"http://{where}", timeout=timeout_s)
        else:
            raise UserError(
                f"plinth:docker.host is {self.host}, which Plinth cannot ask; name a unix:// or tcp:// address, "
                "such as that of a forwarded socket."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def is_here(self) -> bool:
        """Whether the engine runs on this machine, so that its ports are this machine's."""
        return self.host.startswith("unix://")

    def version(self) -> str:
        """The engine's version; the cheapest proof that it answers."""
        return str(self._json("GET", "/version")["Version"])

    def has_image(self, reference: str) -> bool:
        """Whether an image is on the engine."""
        return self._ask("GET", f"{_path('images', reference)}/json", missing=True) is not None

    def local_name(self, reference: str) -> str:
        """The name by which the engine has a pinned image, or is to pull it.

        What came as a file, or was built here, has no registry's digest: its tag names it. All else goes by the digest.
        """
        tagged, exact = without_digest(reference), by_digest(reference)
        if exact == tagged or self.has_image(exact):
            return exact
        answer = self._ask("GET", f"{_path('images', tagged)}/json", missing=True)
        return exact if answer is None or answer.json().get("RepoDigests") else tagged

    def digest_of(self, reference: str) -> str:
        """The digest that a registry has for a tag today; raises :class:`UserError` where it cannot be asked."""
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
        said = ""
        with self._stream("POST", "/build", params=params, content=context, headers=headers) as answer:
            for line in answer.iter_lines():
                document = json.loads(line) if line.strip() else {}
                words = document.get("error") or (document.get("message") if answer.is_error else None)
                if words:
                    raise _unbuilt(reference, said, words)
                said = document.get("stream", "").strip() or said
                yield document.get("stream", "")

    def labels(self, reference: str) -> dict[str, str]:
        """The labels of an image; none of one that is not there."""
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

    def containers(self, stack: str) -> list[Found]:
        """The containers of a stack, running or not, but for those that only carry files."""
        filters = json.dumps({"label": [f"{STACK_LABEL}={stack}"]})
        return [
            Found(container["Id"], container["Names"][0].lstrip("/"), container["State"])
            for container in self._json("GET", "/containers/json", params={"all": "true", "filters": filters})
            if CARRIER_LABEL not in container["Labels"]
        ]

    def remove(self, container: Found) -> None:
        """Remove a container that does not run."""
        self._ask("DELETE", url_path("containers", container.id), missing=True)

    def volumes(self, stack: str) -> list[str]:
        """The names of a stack's volumes."""
        filters = json.dumps({"label": [f"{STACK_LABEL}={stack}"]})
        found = self._json("GET", "/volumes", params={"filters": filters})["Volumes"] or []
        return sorted(volume["Name"] for volume in found)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What the engine answers to a request; None where that is nothing."""
        with self._sentences():
            answer = self._http.request(method, path, json=body)
        if answer.is_error:
            raise self._refusal(method, path, answer)
        return answer.json() if answer.content else None

    @contextmanager
    def stream(self, method: str, path: str, **request: Any) -> Iterator[httpx.Response]:
        """An answer that is read as it comes; whoever asks may read that there is no such thing (404)."""
        with self._stream(method, path, **request) as answer:
            if answer.is_error and answer.status_code != httpx.codes.NOT_FOUND:
                raise self._refusal(method, path, answer)
            yield answer

    def _json(self, method: str, path: str, params: Mapping[str, Any] | None = None) -> Any:
        answer = self._ask(method, path, params=params)
        return answer.json() if answer is not None else None

    def _ask(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, missing: bool = False
    ) -> httpx.Response | None:
        with self._sentences():
            answer = self._http.request(method, path, params=params)
        if missing and answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.is_error:
            raise self._refusal(method, path, answer)
        return answer

    @contextmanager
    def _stream(self, method: str, path: str, **request: Any) -> Iterator[httpx.Response]:
        # Pulling and packing take as long as they take.
        with self._sentences(), self._http.stream(method, path, timeout=None, **request) as answer:
            yield answer

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"The Docker engine at {self.host} does not answer ({words}); start it (`systemctl start docker`), "
                "or name another with plinth:docker.host.",
                exit_code=1,
            ) from error

    def _refusal(self, method: str, path: str, answer: httpx.Response) -> UserError:
        answer.read()
        try:
            words = answer.json()["message"]
        except (ValueError, KeyError, TypeError):
            words = answer.text[:300]
        return UserError(f"The Docker engine at {self.host} answered {answer.status_code} to {method} {path}: {words}")


def _path(kind: str, reference: str) -> str:
    """The path of an image; its reference has slashes of its own."""
    return url_path(kind, *reference.split("/"))


def _unbuilt(reference: str, said: str, words: str) -> UserError:
    """The last words of a step say more than that it failed."""
    last = f"{' '.join(said.split())}; " if said else ""
    return UserError(
        f"The image {reference} could not be built ({last}{' '.join(words.split())}). The build needs a Python package "
        "index and a mirror of the base's distribution: let the engine reach them, or name a directory of wheels with "
        "--wheels and a base that has restic, Postgres and Redis with plinth:docker.images.python.",
        exit_code=1,
    )


def _failure(answer: httpx.Response) -> str | None:
    """What went wrong in an answer that is a stream of JSON objects, one a line; None when nothing did."""
    words = None
    for line in answer.iter_lines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        words = said.get("error") or (said.get("message") if answer.is_error else None) or words
    return " ".join(words.split()) if words else None
