"""A root that serves a backup without rights: it starts throw-away stores for it, and acts as the stores' accounts.

`python -m plinth.backup`, started by root with an account in PLINTH_ACCOUNT, stays root in one process that reads no
set and no repository. It starts itself again as that account, for good, with one end of a socket. Over
it come JSON messages with at most one descriptor, each a request of
:class:`plinth.backup.temporary.launch.Launcher`: its kind,
and never a path that this process would open, but for those that its own configuration names.
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
# What an operator may have said of where programs are, and the way out to a repository.
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
    """What of this process's environment those that do its work are to know."""
    return {name: os.environ[name] for name in PASSED if name in os.environ}


def current() -> Launcher:
    """The launcher of this process: its own, or the root that started it."""
    return _current[-1]


def use(descriptor: int) -> None:
    """Ask the root at the other end of an inherited socket from now on."""
    _current.append(Asking(socket.socket(fileno=descriptor)))


def hide(config: Config, file: Path, target: Stores | None) -> None:
    """Keep stores that run as this very account out of its secrets, and out of its other files of backups."""
    stores = (config, *([target] if target else []))
    parts = [part for each in stores for part in (each.qdrant, each.postgres, each.redis, each.neo4j, each.grafana)]
    hidden = {file, config.directory, *_repository(config), *_files(config.repository, *parts)}
    _current.append(Here(hidden=sorted(hidden)))


def _files(*models: BaseModel | None) -> list[Path]:
    """The files of secrets that parts of a configuration name."""
    named = [value for model in models if model for name, value in model if name.endswith(("_file", "_files"))]
    return [each for value in named for each in (value.values() if isinstance(value, dict) else [value]) if each]


def account() -> str | None:
    """Who is to do the work in this process's place; None where it does it itself."""
    return os.environ.get(VARIABLE) if os.geteuid() == 0 else None


def serve(name: str, config: Config, target: Stores | None, arguments: Sequence[str]) -> int:
    """Run the command as an account, and serve it until it ends; its exit code."""
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
        # A Ctrl-C reaches the worker by itself; this one ends when the worker has.
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
    """What is asked of root, each request judged by itself."""

    def __init__(self, here: Here, directory: Path, stores: Sequence[Stores]) -> None:
        """``directory`` is where stores get a place, when the first is started."""
        self._here, self._directory = here, directory
        self._snapshots = {each.qdrant.snapshots for each in stores if each.qdrant and each.qdrant.snapshots}
        self._databases = {
            each.grafana.database for each in stores if each.grafana and hasattr(each.grafana, "database")
        }
        self._running: dict[int, Store] = {}
        self._placed: set[Path] = set()

    def answer(self, asked: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        """The answer to one request; the descriptor is closed with it."""
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
        """End every store."""
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
        """A store, in a directory that the launcher chooses."""
        return AskedStore(self, self.ask({"request": "start", "kind": kind, "reads": True}, seed))

    def clear(self, _directory: Path) -> None:
        """End what a killed run left, and remove it."""
        self.ask({"request": "clear"})

    def copy_database(self, database: Path, to: BinaryIO) -> None:
        """A copy of a living SQLite database, made by the account that it is of."""
        self.ask({"request": "copy", "database": str(database)}, to)

    def place(self, snapshots: Path, file: BinaryIO) -> Path:
        """Put a file into a directory of a Qdrant's; this process does it where it may, in a drill's own."""
        if os.access(snapshots, os.W_OK):
            return Here().place(snapshots, file)
        return Path(self.ask({"request": "place", "snapshots": str(snapshots), "reads": True}, file))

    def remove(self, placed: Path) -> None:
        """Take it away again."""
        if os.access(placed.parent, os.W_OK):
            Here().remove(placed)
        else:
            self.ask({"request": "remove", "placed": str(placed)})

    def ask(self, request: Mapping[str, Any], file: BinaryIO | None = None) -> Any:
        """The answer to a request; raises :class:`BackupError` with what stands against it."""
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
        """Its last words where it has ended; None while it runs."""
        words: str | None = self._launcher.ask({"request": "words", "store": self._number})
        return words

    def stop(self) -> None:
        """End it, and remove what it was made of."""
        self._launcher.ask({"request": "stop", "store": self._number})


def _send(connection: socket.socket, told: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    socket.send_fds(connection, [json.dumps(told).encode()], list(descriptors))


def _receive(connection: socket.socket) -> tuple[dict[str, Any], int | None] | None:
    """A message and its descriptor; None when the other end is closed."""
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
    """Give the backups' own directories, which root had until there was an account, to that account."""
    own = config.directory.parent
    if own.is_dir() and own.stat().st_uid == account.uid:
        return  # all of it is made by that account
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
