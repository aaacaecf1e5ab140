"""restic: one repository, asked in the words that both 0.14 and 0.18 understand.

Exit codes tell more from 0.17 on (10 no repository, 11 locked, 12 wrong password); before that there are only the words
on stderr. A code that is not known is a failure.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from plinth.backup import remote
from plinth.backup.config import Keep, secret
from plinth.backup.manifest import NAME, Piece
from plinth.backup.work import BackupError, Done, Work, tool
from plinth.child import fixed_environment
from plinth.repository_address import HIDDEN, login_in, masked

COMPLETE, INCOMPLETE = "complete", "incomplete"
NO_REPOSITORY, LOCKED, WRONG_PASSWORD = 10, 11, 12
_ABSENT = re.compile(
    r"unable to open config file: ((stat|lstat) .*(no such file|does not exist)|<config/> does not exist)"
    r"|The specified key does not exist"
    r"|Fatal: repository does not exist",
    re.IGNORECASE | re.DOTALL,
)
_WRONG_PASSWORD = re.compile(r"wrong password or no key found", re.IGNORECASE)
_LOCKED = re.compile(r"repository is already locked|unable to create lock", re.IGNORECASE)
_SECRET_IN_URL = re.compile(r"://[^/@\s]+@")
# Whoever knows the password may have written a snapshot's words: they are arguments, and no options.
_ID, _STAGED = re.compile(r"[0-9a-f]{64}"), re.compile(r"/[^\x00-\x1f\x7f]*")
CHUNK = 1 << 20
LARGEST_MANIFEST = 512 << 20


@dataclass(frozen=True)
class Snapshot:
    """A set in the repository. ``path`` is where it was staged, which is where it lies within the snapshot."""

    id: str
    at: float
    path: str
    complete: bool

    @property
    def short(self) -> str:
        """What people name it by."""
        return self.id[:8]


class Restic:
    """The repository of an environment. Every call is made under the lock of ``work``."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._settings = work.config.repository
        # One name for all machines and containers that take turns: what is kept is counted for each host.
        self._host = self._plan = work.config.name

    @property
    def location(self) -> str:
        """The repository for people, without a secret in its address."""
        return masked(self._settings.location)

    @cached_property
    def version(self) -> tuple[int, int]:
        """The version of restic itself, major and minor."""
        said = self._work.run([tool("restic", "restic"), "version"]).out
        found = re.search(r"restic (\d+)\.(\d+)", said)
        if found is None:
            raise BackupError(f"restic says '{said.strip()}' of its version; reinstall it: apt-get install restic.")
        return int(found[1]), int(found[2])

    def open_or_make(self) -> None:
        """Open the repository, and make it where there surely is none yet."""
        if not self._pinned() and not self.is_there():
            self._succeed("init")
        self.open()

    def open(self) -> None:
        """Find the repository, and refuse another than before.

        What a killed run left locked is freed: the lock of this machine is ours, so nobody of ours is at work.
        """
        found = self._config()
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
        self._succeed("unlock")

    def is_there(self) -> bool:
        """Whether there is a repository yet; raises where that cannot be told."""
        found = self._config()
        if found.code != 0 and self._is_absent(found):
            return False
        self._refuse(found, "cat config")
        return True

    def save(self, directory: Path, *, complete: bool) -> tuple[str, int]:
        """Store a directory as one snapshot; its id, and how many bytes were new."""
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
        summary = next((line for line in _json_lines(said) if line.get("message_type") == "summary"), None)
        if summary is None or not summary.get("snapshot_id"):
            raise BackupError("restic ended well and named no snapshot; nothing of it counts. Run it again.")
        return str(summary["snapshot_id"]), int(summary["data_added"])

    def snapshots(self) -> list[Snapshot]:
        """Every set of this environment, oldest first."""
        said = self._succeed("snapshots", "--json", "--host", self._host, "--tag", self._plan)
        found = map(_snapshot, json.loads(said.out or "[]") or [])
        return sorted((each for each in found if each), key=lambda snapshot: snapshot.at)

    def listed(self, snapshot: Snapshot) -> dict[str, int]:
        """The files of a set, bytes by relative path."""
        nodes = _json_lines(self._succeed("ls", "--json", "--", snapshot.id))
        prefix = f"{snapshot.path}/"
        return {
            str(node["path"]).removeprefix(prefix): int(node.get("size", 0))
            for node in nodes
            if node.get("struct_type") == "node" and node["type"] == "file"
        }

    def manifest(self, snapshot: Snapshot) -> str:
        """The text of a set's manifest."""
        text = BytesIO()
        self._dump(snapshot, NAME, LARGEST_MANIFEST, text)
        return text.getvalue().decode(errors="replace")

    def fetch(self, snapshot: Snapshot, piece: Piece, to: BinaryIO | None) -> str:
        """Read a file of a set whole, into ``to`` where it is given; its SHA-256. It ends where it is longer."""
        return self._dump(snapshot, piece.path, piece.size, to)

    def _dump(self, snapshot: Snapshot, path: str, most: int, to: BinaryIO | None) -> str:
        digest, size = hashlib.sha256(), 0
        argv = self._argv("dump", "--", snapshot.id, f"{snapshot.path}/{path}")
        with TemporaryFile() as errors:
            process = subprocess.Popen(
                argv,
                env=fixed_environment(self._environment()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=(self._work.lock,),
            )
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            try:
                while size <= most and (chunk := process.stdout.read(CHUNK)):
                    size += len(chunk)
                    digest.update(chunk)
                    if to:
                        to.write(chunk)
            finally:
                process.stdout.close()
                code = process.wait()
            if size > most:
                raise BackupError(f"{path} of set {snapshot.short} is longer than its manifest says; take another set.")
            errors.seek(0)
            words = errors.read().decode(errors="replace")
        self._refuse(Done(code, "", words), f"dump {path}")
        return digest.hexdigest()

    def forget(self, keep: Keep) -> None:
        """Let old sets go. Incomplete ones are counted apart, so that they never push a complete one out.

        Nor does one of what was lost today push out this morning's: all of the newest's last 24 hours stay.
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
        for kind, rule in ((COMPLETE, ages), (INCOMPLETE, ("--keep-last", str(keep.daily)))):
            self._succeed("forget", "--host", self._host, "--tag", f"{self._plan},{kind}", "--group-by", "tags", *rule)

    def drop(self, snapshot_id: str) -> None:
        """Let one snapshot go that turned out to be none."""
        self._succeed("forget", "--", snapshot_id)

    def prune(self) -> None:
        """Free what no set needs any more."""
        self._succeed("prune")

    def check(self, part: int | None = None, parts: int = 1) -> None:
        """Prove the repository's structure, and read one part of its data; all parts in turn read everything."""
        subset = (f"--read-data-subset={part}/{parts}",) if part else ()
        done = self._run("check", *subset)
        if done.code != 0:
            self._refuse_opening(done)
            raise BackupError(
                f"The repository {self.location} is damaged: {self._clean(_damage(done))}. Make a backup into another "
                "one first (plinth:backup.repository), then repair this one or retire it."
            )

    def _config(self) -> Done:
        """What the repository says of itself; raises where its server does not answer."""
        if said := remote.silence(self._settings.location, self.location, self._settings.ca_file):
            raise BackupError(said)
        argv = self._argv("cat", "config")
        return remote.opened(self._work, argv, self._environment(), self._settings.location, self._is_absent)

    def _run(self, *arguments: str) -> Done:
        return self._work.run(self._argv(*arguments), self._environment())

    def _succeed(self, *arguments: str) -> Done:
        done = self._run(*arguments)
        self._refuse(done, arguments[0])
        return done

    def _argv(self, *arguments: str) -> list[str]:
        # 0.16 learned to wait for a lock.
        patience = ("--retry-lock", "10m") if self.version >= (0, 16) else ()
        options = [word for option in self._settings.options for word in ("-o", option)]
        # 0.14 does not read RESTIC_CACERT.
        trusted = ("--cacert", str(ca)) if (ca := self._settings.ca_file) else ()
        return [tool("restic", "restic"), *patience, *trusted, *options, *arguments]

    def _environment(self) -> dict[str, str]:
        settings = self._settings
        secrets = {name: secret(path) or "" for name, path in settings.environment_files.items()}
        environment = {**settings.environment, **secrets}
        return {
            **remote.way(settings.location),
            **environment,
            "RESTIC_REPOSITORY": remote.with_login(settings.location, environment),
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
        # Another address is a decision of the settings; another repository at the same one is not.
        return known["id"] if known["repository"] == self._settings.location else None

    def _is_absent(self, done: Done) -> bool:
        if self.version >= (0, 17):
            return done.code == NO_REPOSITORY
        return bool(_ABSENT.search(done.err))

    def _refuse(self, done: Done, what: str) -> None:
        if done.code == 0:
            return
        self._refuse_opening(done)
        raise BackupError(f"restic {what} failed on {self.location} (exit {done.code}): {self._clean(done.words)}")

    def _refuse_opening(self, done: Done) -> None:
        if refused := remote.refusal(self.location, done.err):
            raise BackupError(refused)
        if done.code == WRONG_PASSWORD or _WRONG_PASSWORD.search(done.err):
            raise BackupError(
                f"The password does not open the repository {self.location}; set plinth:backup.password to the one "
                "that it was made with."
            )
        if self._is_absent(done):
            raise BackupError(
                f"There is no repository at {self.location}; make a first backup, or correct plinth:backup.repository."
            )
        if done.code == LOCKED or _LOCKED.search(done.err):
            raise BackupError(
                f"The repository {self.location} is locked by another machine; wait until it has ended there, or run "
                "`restic unlock` if it is dead."
            )

    def _clean(self, words: str) -> str:
        """What restic says, with the repository's address as :attr:`location` shows it."""
        given = self._environment()["RESTIC_REPOSITORY"]
        for address in (given, self._settings.location):
            words = words.replace(address, masked(address))
            if login := login_in(address):
                words = words.replace(login, HIDDEN)
        return _SECRET_IN_URL.sub("://***@", words)


def _json_lines(done: Done) -> list[dict[str, Any]]:
    found = []
    for line in done.out.splitlines():
        try:
            parsed = json.loads(line)
        except ValueError:
            continue  # a warning among the lines
        if isinstance(parsed, dict):
            found.append(parsed)
    return found


def _snapshot(entry: Mapping[str, Any]) -> Snapshot | None:
    """A set as the repository lists it; None for what no version of Plinth has stored."""
    try:
        at = datetime.fromisoformat(_whole_microseconds(entry["time"])).timestamp()
        found = Snapshot(entry["id"], at, entry["paths"][0], COMPLETE in entry.get("tags", ()))
    except (LookupError, TypeError, ValueError, OverflowError):
        return None
    return found if _ID.fullmatch(found.id) and _STAGED.fullmatch(found.path) else None


def _whole_microseconds(time: str) -> str:
    """RFC 3339 with nanoseconds, as Go writes it, in what Python reads."""
    return re.sub(r"(\.\d{1,6})\d*", r"\1", time)


def _damage(done: Done) -> str:
    lines = [line.strip() for line in f"{done.err}\n{done.out}".splitlines()]
    told = [line for line in lines if re.search(r"error|pack|blob|missing|damaged|corrupt", line, re.IGNORECASE)]
    return " / ".join((told or lines)[:3])
