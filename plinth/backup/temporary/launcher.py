"""A root process that serves an unprivileged backup: it starts temporary stores and acts as the stores' accounts.

`python -m plinth.backup`, started by root with an account in PLINTH_ACCOUNT, stays root in one process that reads no
set and no repository. It starts itself again as that account, permanently, with one end of a socket. Over the socket
come JSON messages with at most one descriptor, each a request of :class:`plinth.backup.temporary.launch.Launcher`: its
kind, and never a path that this process would open, except those that its own configuration names.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel

from plinth.backup.config import Config, Stores
from plinth.backup.repository import reachability
from plinth.backup.session import BackupError
from plinth.backup.temporary.launch import Here, Launcher, interpreter
from plinth.backup.temporary.recipes import ACCOUNTS, Kind
from plinth.backup.temporary.store_process import Account, Store
from plinth.errors import UserError
from plinth.system.accounts import COMMAND, VARIABLE
from plinth.system.managed_process import fixed_environment
from plinth.system.private_directories import PRIVATE, Access, give, make_volume, opened

LARGEST = 1 << 16
# What an operator may set about where programs are, and about the proxy to a repository.
PASSED = (
    "PATH",
    "JAVA_HOME",
    "PLINTH_QDRANT",
    "PLINTH_NEO4J",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "https_proxy",
    "http_proxy",
    "all_proxy",
    "no_proxy",
)
_current: list[Launcher] = [Here()]


def passed() -> dict[str, str]:
    """Return the variables of this process's environment that its workers need."""
    return {name: os.environ[name] for name in PASSED if name in os.environ}


def current() -> Launcher:
    """Return the launcher of this process: its own, or the root process that started it."""
    return _current[-1]


def use(descriptor: int) -> None:
    """Send requests to the root process at the other end of an inherited socket from now on."""
    _current.append(Asking(socket.socket(fileno=descriptor)))


def hide(config: Config, file: Path, target: Stores | None) -> None:
    """Keep stores that run as this same account out of its secrets, and out of its other backup files."""
    stores = (config, *([target] if target else []))
    parts = [part for each in stores for part in (each.qdrant, each.postgres, each.redis, each.neo4j, each.grafana)]
    hidden = {file, config.directory, *_repository(config), *_files(config.repository, *parts)}
    _current.append(Here(hidden=sorted(hidden)))


def _files(*models: BaseModel | None) -> list[Path]:
    """Return the secret files that parts of a configuration name."""
    named = [value for model in models if model for name, value in model if name.endswith(("_file", "_files"))]
    return [each for value in named for each in (value.values() if isinstance(value, dict) else [value]) if each]


def account() -> str | None:
    """Return the account that does the work in place of this process, or None where it does the work itself."""
    return os.environ.get(VARIABLE) if os.geteuid() == 0 else None


def serve(name: str, config: Config, target: Stores | None, arguments: Sequence[str]) -> int:
    """Run the command as an account, serve it until it ends, and return its exit code."""
    account = _account(name)
    _give_over(config, name, account)
    stores = (config, *([target] if target else []))
    python = interpreter()
    serving = _Serving(Here(account, python), config.directory.parent, stores)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        worker = subprocess.Popen(
            [
                *("setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups", "--no-new-privs"),
                *("--inh-caps=-all", "--bounding-set=-all", "--pdeathsig=TERM", "--"),
                *(python.executable, "-m", "plinth.backup", "--launcher", str(theirs.fileno()), *arguments),
            ],
            cwd="/",
            env=fixed_environment({**passed(), **python.environment}, config.directory),
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            umask=0o077,
        )
        theirs.close()
        # Ctrl-C reaches the worker directly; this process ends when the worker has.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: worker.send_signal(signal.SIGTERM))
        try:
            while message := _receive(ours):
                _send(ours, serving.answer(*message))
        finally:
            serving.stop()
            code = worker.wait()
    return code if code >= 0 else 128 - code


class _Serving:
    """The requests to root, each checked by itself."""

    def __init__(self, here: Here, directory: Path, stores: Sequence[Stores]) -> None:
        """Create a server; the first start of a store creates its directory in ``directory``."""
        self._here, self._directory = here, directory
        self._snapshots = {each.qdrant.snapshots for each in stores if each.qdrant and each.qdrant.snapshots}
        self._databases = {
            each.grafana.database for each in stores if each.grafana and hasattr(each.grafana, "database")
        }
        self._running: dict[int, Store] = {}
        self._placed: set[Path] = set()

    def answer(self, asked: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        """Answer one request, and close its descriptor."""
        file: BinaryIO | None = None
        try:
            if descriptor is not None:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise ValueError
                file = os.fdopen(descriptor, "rb" if asked.get("reads") else "wb")
            return {"answer": self._act(asked, file)}
        except (UserError, OSError) as error:
            return {"error": str(error)}
        except (LookupError, TypeError, ValueError):
            return {"error": "The request is none that is served."}
        finally:
            if file:
                file.close()
            elif descriptor is not None:
                os.close(descriptor)

    def stop(self) -> None:
        """Stop every store."""
        for number in list(self._running):
            self._running.pop(number).stop()

    def _act(self, asked: Mapping[str, Any], file: BinaryIO | None) -> Any:
        match asked["request"]:
            case "start":
                return self._start(asked["kind"], file)
            case "words":
                return self._running[asked["store"]].words()
            case "stop":
                return self._running.pop(asked["store"]).stop()
            case "clear":
                self.stop()
                return self._here.clear(self._place())
            case "copy" if file and (database := Path(asked["database"])) in self._databases:
                return self._here.copy_database(database, file)
            case "place" if file and (snapshots := Path(asked["snapshots"])) in self._snapshots:
                self._placed.add(placed := self._here.place(snapshots, file))
                return str(placed)
            case "remove" if (placed := Path(asked["placed"])) in self._placed:
                self._placed.remove(placed)
                return self._here.remove(placed)
        raise ValueError

    def _place(self) -> Path:
        place = self._directory / "drill"
        with opened(place, self._directory):
            return place

    def _start(self, kind: Kind, seed: BinaryIO | None) -> dict[str, Any]:
        if kind not in ACCOUNTS:
            raise ValueError
        place = self._place()
        number = max(self._running, default=0) + 1
        self._running[number] = store = self._here.start(kind, place / f"{kind}-{secrets.token_hex(4)}", seed)
        return {"store": number, "told": store.told}


class Asking:
    """A launcher at the other end of a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._asking = threading.Lock()

    def start(self, kind: Kind, _directory: Path, seed: BinaryIO | None = None) -> AskedStore:
        """Start a store in a directory that the launcher chooses."""
        return AskedStore(self, self.ask({"request": "start", "kind": kind, "reads": True}, seed))

    def clear(self, _directory: Path) -> None:
        """Stop what a killed run left, and remove it."""
        self.ask({"request": "clear"})

    def copy_database(self, database: Path, to: BinaryIO) -> None:
        """Copy a live SQLite database as the account that owns it."""
        self.ask({"request": "copy", "database": str(database)}, to)

    def place(self, snapshots: Path, file: BinaryIO) -> Path:
        """Write a file to a snapshot directory of a Qdrant; this process does it where it may, in a drill's own."""
        if os.access(snapshots, os.W_OK):
            return Here().place(snapshots, file)
        return Path(self.ask({"request": "place", "snapshots": str(snapshots), "reads": True}, file))

    def remove(self, placed: Path) -> None:
        """Remove a file that :meth:`place` has written."""
        if os.access(placed.parent, os.W_OK):
            Here().remove(placed)
        else:
            self.ask({"request": "remove", "placed": str(placed)})

    def ask(self, request: Mapping[str, Any], file: BinaryIO | None = None) -> Any:
        """Return the answer to a request. Raises :class:`BackupError` with the reason where it is refused."""
        if file:
            file.flush()
        with self._asking:
            _send(self._connection, request, [file.fileno()] if file else [])
            message = _receive(self._connection)
        if message is None:
            raise BackupError("What starts throw-away stores has ended; run it again.")
        if "error" in message[0]:
            raise BackupError(str(message[0]["error"]))
        return message[0].get("answer")


class AskedStore:
    """A store that the launcher runs."""

    def __init__(self, launcher: Asking, answer: Mapping[str, Any]) -> None:
        self._launcher, self._number = launcher, answer["store"]
        self.told: dict[str, Any] = answer["told"]

    def words(self) -> str | None:
        """Return its last output where it has ended; None while it runs."""
        words: str | None = self._launcher.ask({"request": "words", "store": self._number})
        return words

    def stop(self) -> None:
        """Stop it, and remove its files."""
        self._launcher.ask({"request": "stop", "store": self._number})


def _send(connection: socket.socket, told: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    socket.send_fds(connection, [json.dumps(told).encode()], list(descriptors))


def _receive(connection: socket.socket) -> tuple[dict[str, Any], int | None] | None:
    """Return a message and its descriptor, or None when the other end is closed."""
    text, descriptors, _, _ = socket.recv_fds(connection, LARGEST, 4)
    for more in descriptors[1:]:
        os.close(more)
    if not text:
        return None
    try:
        read = json.loads(text)
    except ValueError:
        read = {}
    return (read if isinstance(read, dict) else {}), (descriptors[0] if descriptors else None)


def _account(name: str) -> Account:
    try:
        about = pwd.getpwnam(name)
    except KeyError:
        raise UserError(
            f"This machine has no account {name}, and no backup is made as root; make it with `{COMMAND}`, and "
            "run it again."
        ) from None
    return Account(about.pw_uid, about.pw_gid)


def _give_over(config: Config, name: str, account: Account) -> None:
    """Give the account the backup directories, which belonged to root before there was an account."""
    own = config.directory.parent
    if own.is_dir() and own.stat().st_uid == account.uid:
        return  # that account creates all of it
    access = Access(account.uid, account.gid, PRIVATE)
    with opened(own, own) as parent:
        repository = _repository(config)
        for path in (config.directory, config.state.parent, *repository):
            if path.parent == own and make_volume(parent, path.name, access):
                continue
            if not path.exists() and path not in repository:
                continue  # of another command's
            if not path.exists():
                raise UserError(f"There is no {path}; `install -d -m 0700 -o {name} {path}`, and run it again.")
            owner = path.stat(follow_symlinks=False).st_uid
            if owner == 0 and path.parent == own:
                give(parent, path.name, access, path)
            elif owner != account.uid:
                raise UserError(
                    f"{path} is not {name}'s, which makes the backups; `chown -hR {name}: {path}`, and run it again."
                )


def _repository(config: Config) -> list[Path]:
    path = reachability.directory(config.repository.location)
    return [path] if path else []
