"""A client of one restic repository, with options that both 0.14 and 0.18 accept.

Exit codes carry the reason from 0.17 on (10 no repository, 11 locked, 12 wrong password); before that only the message
on stderr does. An unknown code is a failure.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from io import BufferedReader, BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, cast

from plinth.backup.config import Keep, secret
from plinth.backup.manifest import NAME, Piece
from plinth.backup.repository import reachability
from plinth.backup.repository.restic_output import (
    COMPLETE,
    INCOMPLETE,
    Snapshot,
    damage,
    is_absent,
    is_locked,
    is_wrong_password,
    json_lines,
    lock_holder,
    packs_read,
    snapshot_of,
)
from plinth.backup.session import BackupError, Done, Work, tool
from plinth.backup.wait_limits import PATIENCE_S, Patience
from plinth.settings.repository_address import HIDDEN, login_in, masked
from plinth.system.atomic_files import pattern_of
from plinth.system.managed_process import fixed_environment

_SECRET_IN_URL = re.compile(r"://[^/@\s]+@")
CHUNK = 1 << 20
LARGEST_MANIFEST = 512 << 20


class Restic:
    """The repository of an environment. Every call needs the lock of ``work``."""

    def __init__(self, work: Work, lock_wait_s: float = PATIENCE_S) -> None:
        """Create a client; ``lock_wait_s`` is how long to wait for a lock of another machine, in seconds."""
        self._work = work
        self._patience = Patience(lock_wait_s, work.say)
        self._settings = work.config.repository
        # One host name for all machines and containers that back up: restic applies retention per host.
        self._host = self._plan = work.config.name

    @property
    def location(self) -> str:
        """Return the address of the repository for display, without a secret."""
        return masked(self._settings.location)

    @cached_property
    def version(self) -> tuple[int, int]:
        """Return the version of restic, major and minor."""
        said = self._work.run([tool("restic", "restic"), "version"]).out
        found = re.search(r"restic (\d+)\.(\d+)", said)
        if found is None:
            raise BackupError(f"restic says '{said.strip()}' of its version; reinstall it: apt-get install restic.")
        return int(found[1]), int(found[2])

    def open_or_make(self) -> None:
        """Open the repository, or create it if it certainly does not exist yet."""
        if self.is_absent():
            self.make()
        else:
            self.open()

    def is_absent(self) -> bool:
        """Whether the repository certainly does not exist yet. One that existed before is never created again."""
        if self._pinned():
            return False
        config = self._config()
        if config.code != 0 and self._is_absent(config):
            return True
        self._accept(config)
        return False

    def make(self) -> None:
        """Create the repository and record its id."""
        self._succeed("init")
        self.open()

    def open(self) -> None:
        """Open the repository, and refuse one whose id differs from the recorded one."""
        self._accept(self._config())

    def open_and_list(self) -> list[Snapshot]:
        """Open the repository and list its sets.

        For a directory both run at the same time, because each start of restic derives the key again.
        """
        if reachability.directory(self._settings.location) is None:
            self.open()
            return self.snapshots()
        with ThreadPoolExecutor(1) as pool:
            listing = pool.submit(self.snapshots)
            self.open()
            return listing.result()

    def _accept(self, found: Done) -> None:
        pinned = self._pinned()
        if pinned and found.code != 0 and self._is_absent(found):
            raise BackupError(
                f"The repository {self.location} is gone: {pinned} was there before. Bring it back, or delete "
                f"{self._pin_file} to begin a new one."
            )
        self._refuse(found, "cat config")
        identity = str(json.loads(found.out)["id"])
        if pinned and pinned != identity:
            raise BackupError(
                f"The repository {self.location} is {identity[:8]} and was {pinned[:8]}: somebody has put another in "
                f"its place. Find out who; delete {self._pin_file} to accept it."
            )
        if not pinned:
            self._pin_file.write_text(json.dumps({"repository": self._settings.location, "id": identity}) + "\n")

    def is_there(self) -> bool:
        """Whether the repository exists. Raises where that cannot be determined."""
        found = self._config()
        if found.code != 0 and self._is_absent(found):
            return False
        self._refuse(found, "cat config")
        return True

    def save(self, directory: Path, *, complete: bool) -> tuple[str, int]:
        """Store a directory as one snapshot; return its id and the number of new bytes."""
        said = self._succeed(
            "backup",
            "--json",
            "--host",
            self._host,
            "--tag",
            f"{self._plan},{COMPLETE if complete else INCOMPLETE}",
            *self._upload_limit(),
            "--",
            str(directory),
        )
        summary = next((line for line in json_lines(said) if line.get("message_type") == "summary"), None)
        if summary is None or not summary.get("snapshot_id"):
            raise BackupError("restic ended well and named no snapshot; nothing of it counts. Run it again.")
        return str(summary["snapshot_id"]), int(summary["data_added"])

    def snapshots(self) -> list[Snapshot]:
        """Return every set of this environment, oldest first."""
        said = self._succeed("snapshots", "--json", "--host", self._host, "--tag", self._plan)
        found = map(snapshot_of, json.loads(said.out or "[]") or [])
        return sorted((each for each in found if each), key=lambda snapshot: snapshot.at)

    def saved(self, snapshot_id: str) -> tuple[Snapshot, dict[str, int]]:
        """Return a set and its files by an id, which an old restic gives only in part."""
        entries = json_lines(self._succeed("ls", "--json", "--", snapshot_id))
        snapshot = next(filter(None, map(snapshot_of, entries)), None)
        if snapshot is None or not snapshot.id.startswith(snapshot_id):
            raise BackupError(
                f"The repository does not list the snapshot {snapshot_id[:8]} that was just stored in it."
            )
        return snapshot, self._files(snapshot, entries)

    def listed(self, snapshot: Snapshot) -> dict[str, int]:
        """Return the files of a set: bytes by relative path."""
        return self._files(snapshot, json_lines(self._succeed("ls", "--json", "--", snapshot.id)))

    @staticmethod
    def _files(snapshot: Snapshot, nodes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        prefix = f"{snapshot.path}/"
        return {
            str(node["path"]).removeprefix(prefix): int(node.get("size", 0))
            for node in nodes
            if node.get("struct_type") == "node" and node["type"] == "file"
        }

    def manifest(self, snapshot: Snapshot) -> str:
        """Return the text of a set's manifest."""
        text = BytesIO()
        self._dump(snapshot, NAME, LARGEST_MANIFEST, text)
        return text.getvalue().decode(errors="replace")

    def fetch(self, snapshot: Snapshot, piece: Piece, to: BinaryIO | None) -> str:
        """Read a whole file of a set, write it to ``to`` if given, and return its SHA-256.

        Reading stops where the file is longer than its manifest entry.
        """
        return self._dump(snapshot, piece.path, piece.size, to)

    def restore(
        self, snapshot: Snapshot, paths: Sequence[str], target: Path, is_over: Callable[[], bool] | None = None
    ) -> Done:
        """Write files of a set below ``target``, at their paths in the snapshot, and return how restic ended.

        It reads several packs in parallel, which a dump does not. restic is killed once ``is_over`` returns true.
        """
        chosen = [f"--include={pattern_of(f'{snapshot.path}/{path}')}" for path in paths]
        done = self._run("restore", f"--target={target}", *chosen, "--", snapshot.id, is_over=is_over)
        if done.code != 0:
            self._refuse_opening(done)
        return replace(done, err=self._clean(done.err))

    @contextmanager
    def stream(self, *arguments: str) -> Iterator[BufferedReader]:
        """Yield the output of restic as it is written.

        Raises where restic fails, and stops it at the end of the block.
        """
        with TemporaryFile() as errors:
            process, output = self._begin(arguments, errors)
            refused = False
            try:
                yield output
                while output.read(CHUNK):
                    pass
            except BackupError:
                refused = True
                raise
            finally:
                output.close()
                # A restic that still writes is stopped by a closed pipe.
                code = process.wait()
                if not refused and code != -signal.SIGPIPE:
                    errors.seek(0)
                    self._refuse(Done(code, "", errors.read().decode(errors="replace")), " ".join(arguments[:1]))

    def _begin(self, arguments: Sequence[str], errors: BinaryIO) -> tuple[subprocess.Popen[bytes], BufferedReader]:
        """Start a restic that writes output, and return it with its output.

        It is started again while the repository is locked, which restic reports before any output.
        """
        process, output = self._start(arguments, errors)
        done = self._without_output(process, output, errors)
        if done and is_locked(done):
            for _ in self._moments(done):
                self._unlock()
                output.close()
                errors.truncate(0)
                process, output = self._start(arguments, errors)
                done = self._without_output(process, output, errors)
                if not (done and is_locked(done)):
                    break
        return process, output

    def _start(self, arguments: Sequence[str], errors: BinaryIO) -> tuple[subprocess.Popen[bytes], BufferedReader]:
        errors.seek(0)
        process = subprocess.Popen(
            self._argv(*arguments),
            env=fixed_environment(self._environment()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=(self._work.lock,),
        )
        output = cast(BufferedReader, process.stdout)
        # restic reads on while a chunk is written. A user with many such pipes gets no larger one.
        with suppress(OSError):
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, CHUNK)
        return process, output

    @staticmethod
    def _without_output(process: subprocess.Popen[bytes], output: BufferedReader, errors: BinaryIO) -> Done | None:
        """Return how a program without output ended, or None as soon as it writes."""
        if output.peek(1):
            return None
        code = process.wait()
        errors.seek(0)
        return Done(code, "", errors.read().decode(errors="replace"))

    def _dump(self, snapshot: Snapshot, path: str, most: int, to: BinaryIO | None) -> str:
        digest, size, chunk = hashlib.sha256(), 0, memoryview(bytearray(CHUNK))
        with self.stream("dump", "--", snapshot.id, f"{snapshot.path}/{path}") as content:
            while read := content.readinto(chunk):
                size += read
                if size > most:
                    raise BackupError(
                        f"{path} of set {snapshot.short} is longer than its manifest says; take another set."
                    )
                digest.update(chunk[:read])
                if to:
                    to.write(chunk[:read])
        return digest.hexdigest()

    def forget(self, keep: Keep, sets: Sequence[Snapshot] | None = None) -> bool:
        """Delete expired sets; return False where ``sets`` are all there are and too few to expire.

        Incomplete sets are counted apart, so that they never expire a complete one. Everything within 24 hours of the
        newest set is retained, so that a backup after a data loss cannot expire this morning's.
        """
        ages = (
            "--keep-within",
            "1d",
            "--keep-daily",
            str(keep.daily),
            "--keep-weekly",
            str(keep.weekly),
            "--keep-monthly",
            str(keep.monthly),
        )
        some = False
        for kind, rule, always in ((COMPLETE, ages, 1), (INCOMPLETE, ("--keep-last", str(keep.daily)), keep.daily)):
            if sets is not None and sum(each.complete == (kind == COMPLETE) for each in sets) <= always:
                continue
            some = True
            self._succeed("forget", "--host", self._host, "--tag", f"{self._plan},{kind}", "--group-by", "tags", *rule)
        return some

    def drop(self, snapshot_id: str) -> None:
        """Forget a snapshot that failed verification."""
        self._succeed("forget", "--", snapshot_id)

    def prune(self) -> None:
        """Free the data that no set uses."""
        self._succeed("prune")

    def check(self, part: int | None = None, parts: int = 1) -> str:
        """Check the repository's structure, and read one of ``parts`` parts of its data.

        All parts in turn read everything. Returns restic's own count of what it read, such as `53 of 210 packs`; empty
        where it gives none.
        """
        subset = (f"--read-data-subset={part}/{parts}",) if part else ()
        done = self._run("check", *(subset if parts > 1 else ("--read-data",) * bool(part)))
        if done.code != 0:
            self._refuse_opening(done)
            raise BackupError(
                f"The repository {self.location} is damaged: {self._clean(damage(done))}. Make a backup into another "
                "one first (plinth:backup.repository), then repair this one or retire it."
            )
        return packs_read(done)

    def _config(self) -> Done:
        """Return the repository's configuration. Raises where its server does not answer."""
        if said := reachability.silence(self._settings.location, self.location, self._settings.ca_file):
            raise BackupError(said)
        argv = self._argv("cat", "config")
        found = reachability.opened(self._work, argv, self._environment(), self._settings.location, self._is_absent)
        return self._run("cat", "config") if is_locked(found) else found

    def _run(self, *arguments: str, is_over: Callable[[], bool] | None = None) -> Done:
        """Run restic; where the repository is locked, remove stale locks and retry.

        Removing them is safe: we hold the local lock, so no other run of this environment is active on this machine.
        restic recognizes a lock whose process is gone; a live lock of another machine is waited for.
        """
        done = self._work.run(self._argv(*arguments), self._environment(), is_over=is_over)
        if is_locked(done):
            for _ in self._moments(done):
                self._unlock()
                done = self._work.run(self._argv(*arguments), self._environment(), is_over=is_over)
                if not is_locked(done):
                    break
        return done

    def _moments(self, done: Done) -> Iterator[None]:
        holder = f"{lock_holder(done)}, which holds the lock of {self.location}"
        return self._patience.moments(lambda: holder)

    def _unlock(self) -> None:
        done = self._work.run(self._argv("unlock"), self._environment())
        self._refuse(done, "unlock")

    def _succeed(self, *arguments: str) -> Done:
        done = self._run(*arguments)
        self._refuse(done, arguments[0])
        return done

    def _argv(self, *arguments: str) -> list[str]:
        options = [word for option in self._settings.options for word in ("-o", option)]
        # restic 0.14 does not read RESTIC_CACERT.
        trusted = ("--cacert", str(ca)) if (ca := self._settings.ca_file) else ()
        return [tool("restic", "restic"), *trusted, *options, *arguments]

    def _environment(self) -> dict[str, str]:
        settings = self._settings
        secrets = {name: secret(path) or "" for name, path in settings.environment_files.items()}
        environment = {**settings.environment, **secrets}
        return {
            **reachability.way(settings.location),
            **environment,
            "RESTIC_REPOSITORY": reachability.with_login(settings.location, environment),
            "RESTIC_PASSWORD_FILE": str(settings.password_file),
            "RESTIC_CACHE_DIR": str(self._work.cache),
            "TMPDIR": str(self._work.temporary),
            "RESTIC_PROGRESS_FPS": "0.02",
        }

    def _upload_limit(self) -> Sequence[str]:
        limit = self._settings.limit_upload_kib
        return () if limit is None else ("--limit-upload", str(limit))

    @property
    def _pin_file(self) -> Path:
        return self._work.config.directory / "repository.json"

    def _pinned(self) -> str | None:
        try:
            known: Mapping[str, str] = json.loads(self._pin_file.read_text())
        except FileNotFoundError:
            return None
        # A new address is a choice of the settings; a different repository at the same address is not.
        return known["id"] if known["repository"] == self._settings.location else None

    def _is_absent(self, done: Done) -> bool:
        return is_absent(done, self.version)

    def _refuse(self, done: Done, what: str) -> None:
        if done.code == 0:
            return
        self._refuse_opening(done)
        raise BackupError(f"restic {what} failed on {self.location} (exit {done.code}): {self._clean(done.words)}")

    def _refuse_opening(self, done: Done) -> None:
        if refused := reachability.refusal(self.location, done.err):
            raise BackupError(refused)
        if is_wrong_password(done):
            raise BackupError(
                f"The password does not open the repository {self.location}; set plinth:backup.password to the one "
                "that it was made with."
            )
        if self._is_absent(done):
            raise BackupError(
                f"There is no repository at {self.location}; make a first backup, or correct plinth:backup.repository."
            )
        if is_locked(done):
            raise BackupError(
                f"The repository {self.location} is still locked by {lock_holder(done)}; wait until it has ended "
                "there, or run `restic unlock` if it is dead."
            )

    def _clean(self, words: str) -> str:
        """Return a message of restic with the repository's address as :attr:`location` shows it."""
        given = self._environment()["RESTIC_REPOSITORY"]
        for address in (given, self._settings.location):
            words = words.replace(address, masked(address))
            if login := login_in(address):
                words = words.replace(login, HIDDEN)
        return _SECRET_IN_URL.sub("://***@", words)
