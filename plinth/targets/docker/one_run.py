"""A container that runs once beside a stack's: made, given its files, followed to its end, and gone."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from plinth.errors import UserError
from plinth.system.http_client import url_path
from plinth.system.streamed_command import Interruption, LineBuffer, OnLine, ended_by_signals
from plinth.targets.docker.engine_api import Daemon
from plinth.targets.docker.execution import frames
from plinth.targets.docker.objects import Container


def run_once(
    daemon: Daemon, name: str, body: Mapping[str, Any], directory: str, files: Mapping[str, str], on_line: OnLine
) -> int:
    """Run a container to its end; its exit status, or a signal's (130, 143) where one ended it.

    ``body`` is as of the engine's API, with AutoRemove: what is left of one whose client died, the engine removes.
    ``files`` go into the volume at ``directory``, for its account alone.
    """
    identity = str(daemon.ask("POST", f"/containers/create?name={name}", body)["Id"])
    where = url_path("containers", identity)

    def end() -> None:
        with suppress(UserError), Daemon(daemon.host) as another:
            another.end(identity)

    interruption = Interruption()
    try:
        daemon.put_archive(identity, directory, _packed(files, str(body["User"])))
        buffers = {False: LineBuffer(), True: LineBuffer()}
        # Both before its start: one that ends at once would be gone before it could be asked for.
        with (
            ended_by_signals(end) as interruption,
            daemon.stream("POST", f"{where}/wait?condition=removed") as ended,
            daemon.stream("POST", f"{where}/attach?stream=1&stdout=1&stderr=1") as output,
        ):
            daemon.ask("POST", f"{where}/start")
            for is_error, content in frames(output.iter_raw()):
                for line in buffers[is_error].add(content):
                    on_line(line, is_error)
            for is_error, buffer in buffers.items():
                for line in buffer.rest():
                    on_line(line, is_error)
            code = int(json.loads(ended.read())["StatusCode"])
        return code if interruption.exit_code is None else interruption.exit_code
    finally:
        # What else ends this, such as a terminal that is closed, lets it clean up too; a second Ctrl-C does not wait.
        if interruption.number is None:
            end()
        else:
            with suppress(UserError):
                daemon.remove(Container(identity, name, "exited"), force=True)


def _packed(files: Mapping[str, str], user: str) -> bytes:
    uid, _, gid = user.partition(":")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in sorted(files.items()):
            content = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o400, int(uid), int(gid or uid)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
