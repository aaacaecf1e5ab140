"""The superuser's password follows the settings on a real server whose data was made with another."""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from plinth.admin.postgres import Server, ensure_database, ensure_monitor, ensure_superuser
from plinth.backup.temporary import instances
from plinth.errors import UserError

pytestmark = pytest.mark.skipif(
    not (shutil.which("postgres") or list(Path("/usr/lib/postgresql").glob("*/bin/postgres"))),
    reason="no Postgres on this machine: run `make bootstrap`",
)


def test_the_old_password_is_changed_once_and_lets_nobody_in_afterwards() -> None:
    # Not pytest's own directory: no other account may enter that, and Postgres does not run as root.
    with (
        tempfile.TemporaryDirectory(prefix="plinth-") as directory,
        instances.postgres(Path(directory) / "work" / "postgres") as old,
    ):
        new = replace(old, password="another one's 'password'")
        with pytest.raises(UserError, match="its data was made with an older one"):
            ensure_superuser(new, None, 5)
        ensure_superuser(new, old.password, 5)
        new.connect().close()
        ensure_superuser(new, None, 5)
        with pytest.raises(UserError, match="has another password"):
            ensure_superuser(old, "a wrong one", 5)


def test_a_server_that_does_not_answer_is_waited_for_until_the_deadline() -> None:
    with pytest.raises(UserError, match="does not let postgres in"):
        ensure_superuser(Server("127.0.0.1", 1, "postgres", "x"), None, 0.5)


def test_an_owner_enters_its_own_database_and_no_other() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="plinth-") as directory,
        instances.postgres(Path(directory) / "work" / "postgres") as server,
    ):
        for name in ("first", "second"):
            ensure_database(server, name, name, "of-the-owner")
        owner = replace(server, user="first", password="of-the-owner")
        owner.connect("first").close()
        for other in ("second", "postgres", "template1"):
            with pytest.raises(UserError, match=f'permission denied for database "{other}"'):
                owner.connect(other)
        # A database's owner decides what is found there first, and the superuser looks past it.
        with owner.connect("first") as connection:
            connection.execute("ALTER DATABASE first SET search_path = public, pg_catalog")
        with server.connect("first") as connection:
            assert connection.execute("SHOW search_path").fetchone() == ("pg_catalog, pg_temp",)


def test_databases_and_the_monitor_are_made_at_once_again_and_again() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="plinth-") as directory,
        instances.postgres(Path(directory) / "work" / "postgres") as server,
        ThreadPoolExecutor(8) as pool,
    ):
        for _ in range(5):
            made = [pool.submit(ensure_database, server, f"d{number}", f"d{number}", "x") for number in range(6)]
            made += [pool.submit(ensure_monitor, server, "watcher", "x") for _ in range(2)]
            for each in made:
                each.result()
