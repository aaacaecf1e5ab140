"""The process that owns one collection's shard: `python -m plinth.embedded.engine_process FD`.

It answers requests from the front one by one, flushes on a timer, and lets a child rebuild the graph on a copy.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import qdrant_edge as edge

from plinth.embedded import framing, legacy_endpoints, requests, shard_files, sparse_files, wal
from plinth.embedded.errors import MISTAKES, ApiError, internal, malformed, no_space
from plinth.embedded.operations import READS, WRITES, read, write
from plinth.embedded.strict_mode import check_read, check_write
from plinth.embedded.vectors import Vectors
from plinth.printable import log_lines
from plinth.system.atomic_files import write_whole

FREE_BYTES_MIN = 64 * 1024 * 1024
IDLE_BEFORE_OPTIMIZE_S = 0.5
LONGEST_WAIT_S = 5.0
TICK_S = 0.25


class Engine:
    """One collection's shard and its upkeep."""

    def __init__(self, directory: Path, config: dict[str, Any], indexes: dict[str, Any]) -> None:
        self.directory = directory
        self.config = config
        self.indexes = indexes
        self.vectors = Vectors(config)
        self.path = self._open_path()
        self.shard = wal.opened(self.path, config, indexes)
        self.operations = 0
        self.journal: list[tuple[str, Any]] | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self.error: str | None = None
        self._flushed_at = self._written_at = self._optimized_at = time.monotonic()
        self._dirty = False
        self._grown = True
        self._stale = shard_files.is_stale(self.path, config, indexes)

    def answer(self, operation: str, body: bytes) -> bytes:
        """Carry out one request; the answer is JSON. Raises :class:`ApiError`."""
        if operation in legacy_endpoints.BODIES:
            present, request = legacy_endpoints.translated(
                operation, requests.parse(legacy_endpoints.BODIES[operation], body)
            )
            return _json(legacy_endpoints.answered(operation, self._read(present, request)))
        if operation in READS:
            return _json(self._read(operation, requests.parse(requests.BODIES[operation], body)))
        if operation in WRITES or operation == "batch":
            return self._write(operation, requests.parse(requests.BODIES[operation], body))
        own: dict[str, Callable[[bytes], dict[str, Any]]] = {
            "info": self.info,
            "configure": self._configure,
            "snapshot": self._snapshot,
        }
        return orjson.dumps(own[operation](body))

    def upkeep(self) -> None:
        """Whatever is due: a finished or a needed rebuild, a flush."""
        now = time.monotonic()
        if self.child and (status := self.child.poll()) is not None:
            self._finish(status)
        if self._dirty and now - self._flushed_at >= self.config["optimizer_config"]["flush_interval_sec"]:
            self._flush()
        idle = now - self._written_at >= IDLE_BEFORE_OPTIMIZE_S or now - self._optimized_at >= LONGEST_WAIT_S
        if self.child is None and idle and (self._stale or (self._grown and self._unindexed())):
            self._begin()
        elif self._grown and idle and self.child is None:
            self._grown = False

    def info(self, _body: bytes = b"") -> dict[str, Any]:
        """What `GET /collections/{name}` and the metrics say of the shard."""
        found = self.shard.info()
        busy = self.child is not None or self._stale or (self._grown and self._unindexed())
        return {
            "status": "red" if self.error else "yellow" if busy else "green",
            "optimizer_status": {"error": self.error} if self.error else "ok",
            "points_count": found.points_count,
            "indexed_vectors_count": found.indexed_vectors_count,
            "segments_count": found.segments_count,
            "indexed": {field: schema.points for field, schema in found.payload_schema.items()},
            "running": int(self.child is not None),
        }

    def close(self) -> None:
        """Flush and let go; a running rebuild is given up, the next start begins it again."""
        if self.child:
            self.child.kill()
            self.child.wait()
        self.shard.flush()
        self.shard.close()

    def _read(self, operation: str, body: Any) -> Any:
        check_read(operation, body, self.config, self.indexes)
        return read(self.shard, operation, body, self.vectors)

    def _write(self, operation: str, body: Any) -> bytes:
        if shutil.disk_usage(self.directory).free < FREE_BYTES_MIN:
            raise no_space()
        check_write(operation, body, self.config)
        try:
            write(self.shard, operation, body, self.vectors)
        except Exception:
            raise
        except BaseException:
            # A panic of the wheel: its log has the write, and each start would meet it. One past it is flushed.
            self.shard.update(edge.UpdateOperation.delete_points([]))
            self._flush()
            raise
        finally:
            # Of a batch that fails the first operations may be done: a replay fails at the same place.
            if self.journal is not None:
                self.journal.append((operation, body))
            self._dirty = self._grown = True
        self.operations += 1
        self._written_at = time.monotonic()
        count = len(body["operations"]) if operation == "batch" else 1
        result = {"operation_id": self.operations, "status": "completed"}
        return orjson.dumps([result] * count if operation == "batch" else result)

    def _configure(self, body: bytes) -> dict[str, Any]:
        """Take a changed config or changed indexes; what the graph depends on leads to a rebuild."""
        wanted = orjson.loads(body)
        self.config, self.indexes = wanted["config"], wanted["indexes"]
        if shard_files.is_stale(self.path, self.config, self.indexes):
            if self.shard.info().points_count == 0 and self.child is None:
                self._replace_empty()
            else:
                self._stale = True
        return {}

    def _replace_empty(self) -> None:
        path = shard_files.following(self.path)
        fresh = shard_files.create(path, self.config, self.indexes)
        fresh.flush()
        self._swap(fresh, path)

    def _snapshot(self, body: bytes) -> dict[str, Any]:
        """Flush and pack; nothing writes meanwhile, for this thread is the only one that does."""
        wanted = orjson.loads(body)
        self._flush()
        with tarfile.open(wanted["to"], "w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(wanted["manifest"], arcname="manifest.json")
            sparse_files.add(archive, self.path, "shard")
        return {"points_count": self.shard.info().points_count}

    def _open_path(self) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        shard_files.clean(self.directory)
        path = shard_files.current(self.directory)
        if path is None:
            path = self.directory / "shard-0"
            shard = shard_files.create(path, self.config, self.indexes)
            shard.flush()
            shard.close()
            shard_files.make_current(path)
        return path

    def _unindexed(self) -> bool:
        found = self.shard.info()
        waiting = found.points_count - found.indexed_vectors_count / max(1, self.vectors.indexed)
        threshold: float = self.config["optimizer_config"]["indexing_threshold"]
        return waiting * self.vectors.kilobytes > threshold

    def _begin(self) -> None:
        self._flush()
        target = shard_files.following(self.path)
        source = target.with_name(f"{target.name}.source")
        shutil.rmtree(source, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.path, source, copy_function=sparse_files.copy)
        job = target.with_name(f"{target.name}.job.json")
        afresh = self._stale
        job.write_text(
            json.dumps(
                {
                    "source": str(source),
                    "target": str(target),
                    "config": self.config,
                    "indexes": self.indexes,
                    "afresh": afresh,
                }
            )
        )
        self.journal = []
        self._stale = self._grown = False
        self.child = subprocess.Popen(
            [sys.executable, "-m", "plinth.embedded.index_builder", str(job)], stdin=subprocess.DEVNULL, close_fds=True
        )

    def _finish(self, status: int) -> None:
        self.child = None
        journal, self.journal = self.journal or [], None
        self._optimized_at = time.monotonic()
        if status != 0:
            self.error = f"building the graph failed (exit {status}); the log of the engine says more"
            shard_files.clean(self.directory)
            return
        path = shard_files.following(self.path)
        fresh = edge.EdgeShard.load(str(path))
        for operation, body in journal:
            with contextlib.suppress(ApiError):
                write(fresh, operation, body, self.vectors)
        fresh.flush()
        self.error = None
        self._swap(fresh, path)
        self._grown = bool(journal)
        self._stale = shard_files.is_stale(path, self.config, self.indexes)

    def _swap(self, fresh: edge.EdgeShard, path: Path) -> None:
        old, self.shard, self.path = self.shard, fresh, path
        write_whole(self.directory / shard_files.CURRENT, path.name)
        old.close()
        shard_files.clean(self.directory)

    def _flush(self) -> None:
        self.shard.flush()
        self._dirty = False
        self._flushed_at = time.monotonic()


def _json(result: Any) -> bytes:
    return orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY)


def serve(connection: socket.socket, engine: Engine) -> None:
    """Answer until the front is gone."""
    while True:
        readable, _, _ = select.select([connection], [], [], TICK_S)
        if readable:
            request = framing.receive(connection)
            if request is None:
                return
            number, operation, body = request
            try:
                status, answer = 200, engine.answer(operation, body)
            except (KeyboardInterrupt, SystemExit):
                raise
            # The wheel's panic is no Exception.
            except BaseException as error:
                refusal = as_api_error(error, operation, engine.directory)
                status, answer = refusal.status, orjson.dumps(str(refusal))
            connection.sendall(framing.pack(number, status, answer))
        try:
            engine.upkeep()
        except (OSError, *MISTAKES) as error:
            engine.error = "its upkeep fails; the log of the engine says more"
            internal(error, "upkeep")
            time.sleep(TICK_S)


def as_api_error(error: BaseException, operation: str, directory: Path) -> ApiError:
    """What is answered for an error: a request never ends the process, and no answer names a file."""
    if isinstance(error, RecursionError):
        return malformed("it is nested too deeply")
    if isinstance(error, ApiError) and str(directory) not in str(error):
        return error
    return internal(error, operation)


def main() -> None:
    """Serve the collection that the first frame describes, on the inherited socket."""
    # The front decides when to end: a Ctrl-C in a terminal reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log_lines(logging.WARNING, "%(asctime)s %(levelname)s %(name)s %(message)s")
    connection = socket.socket(fileno=int(sys.argv[1]))
    request = framing.receive(connection)
    if request is None:
        return
    number, _, body = request
    opened = orjson.loads(body)
    directory = Path(opened["directory"])
    try:
        engine = Engine(directory, opened["config"], opened["indexes"])
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        refusal = as_api_error(error, "open", directory)
        connection.sendall(framing.pack(number, refusal.status, orjson.dumps(str(refusal))))
        sys.exit(1)
    connection.sendall(framing.pack(number, 200, b"{}"))
    try:
        serve(connection, engine)
    finally:
        engine.close()
        os.close(connection.detach())


if __name__ == "__main__":
    main()
