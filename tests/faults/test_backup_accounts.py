"""Who does what where root starts a backup: its own account all of it, and a drill's stores as accounts of theirs."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.world import Backups

ACCOUNT, VARIABLE = "plinth-backup", "PLINTH_ACCOUNT"
DRILLS = {"plinth-drill-postgres", "plinth-drill-redis", "plinth-drill-qdrant"}


def exists(name: str) -> bool:
    with suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(exists, (ACCOUNT, *DRILLS))) or not Path("/usr/bin/python3").exists(),
    reason="needs root and the accounts of scripts/accounts",
)
PLANTED = {"PULUMI_CONFIG_PASSPHRASE": "planted-1", "AWS_SECRET_ACCESS_KEY": "planted-2", "OPERATOR_TOKEN": "planted-3"}


@pytest.fixture
def made(backups: Callable[..., Backups]) -> Backups:
    """Backups that root starts, with a set in them."""
    found = backups()
    done = command(found, "run")
    assert done.wait(600) == 0
    return found


def command(made: Backups, *words: str, **more: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **PLANTED, VARIABLE: ACCOUNT}
    return subprocess.Popen(made.command(*words), env=environment, **more)


@contextmanager
def seen(root: int) -> Iterator[dict[int, tuple[str, str, list[str], bytes]]]:
    """Every process below one, for as long as the block: program, account, arguments, environment."""
    found: dict[int, tuple[str, str, list[str], bytes]] = {}
    yield found
    end = time.monotonic() + 900
    process = psutil.Process(root)
    while time.monotonic() < end and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        for each in process.children(recursive=True):
            with suppress(psutil.Error, OSError):
                argv = each.cmdline()
                if argv:
                    environ = Path(f"/proc/{each.pid}/environ").read_bytes()
                    found[each.pid] = (Path(argv[0]).name, each.username(), argv, environ)
        time.sleep(0.05)


# One that every account can run.
PYTHON = "/usr/bin/python3"
STORES = ("postgres", "initdb", "redis-server")
python = Path(sys.executable).name


def is_store(argv: list[str]) -> bool:
    """Whether a process is a store, and not what starts one."""
    program = Path(argv[0].split()[0].rstrip(":")).name
    return program in STORES or ("plinth.embedded" in argv and program not in ("setpriv", "unshare"))


def test_a_run_is_made_by_the_account_and_not_by_root(made: Backups) -> None:
    owners = {path.owner() for path in (made.repository, made.work, *made.repository.rglob("*"), *made.work.rglob("*"))}
    assert owners == {ACCOUNT}
    assert made.config.state.owner() == ACCOUNT


def test_a_drills_stores_are_neither_roots_nor_the_backups_and_see_nothing_of_the_caller(made: Backups) -> None:
    process = command(made, "drill")
    with seen(process.pid) as programs:
        pass
    assert process.wait(60) == 0
    running = [each for each in programs.values() if is_store(each[2])]
    assert {each[1] for each in running} == DRILLS
    # What starts them stays, and is none of them.
    assert {each[0] for each in programs.values() if each[1] == "root"} <= {"unshare", "setpriv", python}
    workers = [each for each in programs.values() if each[0] in ("restic", "pg_restore")]
    assert {each[1] for each in workers} == {ACCOUNT}
    for name, account, argv, environ in (*running, *workers):
        for value in PLANTED.values():
            assert value.encode() not in environ, (name, account, argv)
    assert not list((made.directory / "drill").iterdir())


PLANTER = """
    import os, sys, time
    base, victim, *names = sys.argv[1:]
    stores = ("postgres", "redis", "qdrant", "neo4j")

    def places():
        # Where a drill has put its stores, and where what runs as this account works: some directories list nothing.
        yield from (os.path.join(base, way, store) for way in ("work/drill", "drill") for store in stores)
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                there = os.readlink(f"/proc/{pid}/cwd")
            except OSError:
                continue
            if there.startswith(base):
                yield from (there, os.path.dirname(there))
        for top, _, _ in os.walk(base):
            yield top

    while True:
        for place in set(places()):
            for name in names:
                path = os.path.join(place, name)
                try:
                    if os.path.isfile(path) and not os.path.islink(path):
                        os.rename(path, path + ".was")
                    os.symlink(victim, path)
                except OSError:
                    pass
        time.sleep(0.001)
"""


NAMES = ("log", "password", "redis.conf", "neo4j.conf", "config.yaml", "data", "snapshots", "storage", "given")


@contextmanager
def planting(account: str, base: Path, victim: Path, names: tuple[str, ...] = NAMES) -> Iterator[None]:
    owner = pwd.getpwnam(account)
    argv = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", "--", PYTHON, "-c"]
    process = subprocess.Popen(
        [*argv, textwrap.dedent(PLANTER), str(base), str(victim), *names], stderr=subprocess.DEVNULL, cwd="/"
    )
    try:
        yield
        assert process.poll() is None, "nothing was planted"
    finally:
        process.kill()
        process.wait()


def test_what_a_drills_account_plants_leads_root_nowhere(made: Backups) -> None:
    for number, (account, names) in enumerate(
        [
            # Alone it leaves the store to come up.
            ("plinth-drill-postgres", ("log",)),
            ("postgres", ("log",)),
            ("plinth-drill-postgres", NAMES),
            ("plinth-drill-redis", NAMES),
            ("plinth-drill-qdrant", NAMES),
        ]
    ):
        outside = made.directory / f"outside-{number}"
        outside.mkdir()
        with planting(account, made.directory, outside / "rootlog", names):
            # Whether it comes to its end or not: a store may spoil its own.
            command(made, "drill").wait(600)
        assert list(outside.iterdir()) == [], account


def test_what_the_backups_account_plants_leads_root_nowhere(made: Backups) -> None:
    outside = made.directory / "outside"
    outside.mkdir()
    with planting(ACCOUNT, made.directory, outside / "rootlog"):
        for arguments in (("restore", "--replace", "--yes"), ("verify",), ("check",), ("prune",), ("run",)):
            command(made, *arguments).wait(600)
            assert list(outside.iterdir()) == [], arguments
