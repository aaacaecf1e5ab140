"""A database's owner against the superuser who backs it up, drills it, restores it and migrates from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from plinth.admin.postgres import Server
from plinth.backup import drill, inspection, restore
from plinth.backup import run as backup_run
from plinth.backup.inspection import manifest_of
from plinth.backup.manifest import Table
from plinth.backup.repository.restic import Restic
from plinth.backup.restore_source import Wish
from plinth.backup.run import newest
from plinth.backup.session import working
from plinth.backup.stores.postgres.recreate import contents, rebuild
from plinth.backup.stores.postgres.restored_owner import STAND_IN
from plinth.backup.stores.postgres.temporary_roles import PREFIX
from plinth.backup.temporary.instances import postgres
from plinth.errors import UserError
from plinth.migrate.sources.pg_connect import DSN_VARIABLE
from plinth.migrate.sources.postgres import PostgresOptions, open_postgres
from tests.faults.hostile import ATTACKS, HONEST_ROWS, OWNER, PASSWORD, Attack, entered, make, version
from tests.faults.world import Backups

DATABASE, PROOF = "hostile", "proof"
pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True)
class OnlyPostgres:
    """Stores of which only Postgres is one."""

    server: Server
    secret: Path

    def stores(self) -> dict[str, Any]:
        self.secret.write_text(self.server.password)
        own = {"host": self.server.host, "port": self.server.port, "user": self.server.user}
        return {"postgres": {**own, "password_file": str(self.secret), "extensions": ["postgres_fdw"]}}


@dataclass
class Cycle:
    """What a backup, a drill and two restores of a hostile database came to."""

    server: Server
    marked: frozenset[str]
    before: tuple[Table, ...]
    set_is_complete: bool
    problems: tuple[str, ...]
    drilled: dict[str, tuple[str, ...]]
    restored: list[str]
    aside: str


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    with ExitStack() as stack:
        yield stack.enter_context(postgres(place / "hostile" / "postgres"))


def marks_of(place: Path) -> set[str]:
    return {path.name for path in (place / "marks").iterdir()}


def marks_in(place: Path, name: str) -> Path:
    made = place / name
    made.mkdir()
    made.chmod(0o777)
    return made


@pytest.fixture(scope="module")
def cycle(place: Path, server: Server) -> Cycle:
    """The whole cycle, once; the tests look at what it left."""
    marks = marks_in(place, "marks")
    make(server, DATABASE, marks)
    assert list(marks.iterdir()) == []
    made = Backups(place / "of-hostile", OnlyPostgres(server, place / "hostile-secret"))
    before = contents(server, DATABASE)
    taken = backup_run.run(made.config, made.say)
    verified = inspection.verify(made.config, made.say)
    drilled = drill.run(made.config, made.say)
    wish = Wish(databases=(DATABASE,), beside=True)
    restored = restore.run(made.config, made.config, wish, made.say).done
    restored += restore.run(made.config, made.config, Wish(databases=(DATABASE,), replace=True), made.say).done
    forge(made, server)
    # Before a test enters as the superuser, which is what no command does.
    marked = frozenset(path.name for path in marks.iterdir())
    aside = next(name for name in names(server) if "__before_" in name)
    return Cycle(server, marked, before, taken.manifest.complete, verified.problems, drilled.problems, restored, aside)


def forge(made: Backups, server: Server) -> None:
    """Restore the hostile dump as a set would have it that says it is a superuser's."""
    with working(made.config, made.say) as work:
        restic = Restic(work)
        restic.open()
        snapshot = newest(restic, restic.snapshots())
        manifest = manifest_of(restic, snapshot)
        part = manifest.postgres
        assert part
        saved = next(saved for saved in part.databases if saved.name == DATABASE)
        dump = work.config.directory / "forged.dump"
        with dump.open("wb") as file:
            restic.fetch(snapshot, manifest.piece(saved.path), file)
        rebuild(work, server, saved.model_copy(update={"owner": server.user}), dump, "forged")


def names(server: Server) -> list[str]:
    with entered(server, "postgres") as connection:
        return [str(row[0]) for row in connection.execute("SELECT datname FROM pg_database").fetchall()]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_what_an_owner_wrote_never_runs_as_a_superuser(cycle: Cycle, attack: Attack) -> None:
    if attack.since > version(cycle.server):
        pytest.skip(f"of Postgres {attack.since} and later")
    assert attack.name not in cycle.marked


def test_the_honest_data_comes_back_equal_and_no_attack_breaks_a_backup(cycle: Cycle) -> None:
    assert cycle.set_is_complete
    assert cycle.problems == ()
    assert cycle.drilled == {"postgres": ()}
    assert {table.name: table.rows for table in cycle.before}["honest"] == HONEST_ROWS
    # Row security hides rows from their own owner, and from no backup.
    assert {table.name: table.rows for table in cycle.before}["policy_t"] == 5
    for name in (DATABASE, cycle.aside):
        assert contents(cycle.server, name) == cycle.before


def test_what_is_restored_is_its_owners_and_whole_but_for_what_is_named(cycle: Cycle) -> None:
    kinds = """
    SELECT 'relation', relname, pg_get_userbyid(relowner), relkind::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'function', proname, pg_get_userbyid(proowner), '' FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND proname NOT LIKE 'postgres_fdw%'
    UNION ALL SELECT 'policy', polname, '', '' FROM pg_policy
    UNION ALL SELECT 'publication', pubname, pg_get_userbyid(pubowner), '' FROM pg_publication
    UNION ALL SELECT 'statistics', stxname, pg_get_userbyid(stxowner), '' FROM pg_statistic_ext
    UNION ALL SELECT 'cast', castfunc::regproc::text, '', '' FROM pg_cast WHERE oid >= 16384
    UNION ALL SELECT 'server', srvname, pg_get_userbyid(srvowner), '' FROM pg_foreign_server ORDER BY 1, 2
    """
    found = []
    for name in (DATABASE, cycle.aside):
        with entered(cycle.server, name) as connection:
            found.append(connection.execute(kinds).fetchall())
            owner = connection.execute("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", (name,))
            assert owner.fetchone() == (OWNER,)
    assert found[0] == found[1]
    assert {row[2] for row in found[0]} == {OWNER, ""}
    assert any("EVENT TRIGGER" in note and "permission denied" in note for note in cycle.restored)


def test_a_set_that_names_a_superuser_as_the_owner_gets_none(cycle: Cycle) -> None:
    owners = """
    SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname IN ('act', 'payload')
    UNION SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'forged'
    """
    assert contents(cycle.server, "forged") == cycle.before
    with entered(cycle.server, "forged") as connection:
        assert {row[0] for row in connection.execute(owners).fetchall()} <= {STAND_IN, OWNER}
        assert connection.execute(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'forged'"
        ).fetchone() == (STAND_IN,)


def test_no_login_of_a_run_is_left(cycle: Cycle) -> None:
    with entered(cycle.server, "postgres") as connection:
        left = connection.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", (PREFIX,)).fetchall()
    assert left == []


def login(server: Server, user: str, password: str) -> str:
    return f"postgresql://{user}:{quote(password, safe='')}@{server.host}:{server.port}/{DATABASE}"


@pytest.mark.parametrize("table", ["public.honest", "public.view_v", "public.folded_t"])
def test_a_migration_is_refused_to_a_superuser(
    place: Path, cycle: Cycle, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DSN_VARIABLE, login(cycle.server, cycle.server.user, cycle.server.password))
    source = open_postgres(PostgresOptions(table=table, key=("id",), vector="e"))
    with pytest.raises(UserError, match=r"postgres is a superuser, .* GRANT pg_read_all_data TO reader"):
        source.__enter__()
    assert marks_of(place) <= {"login"}


@pytest.mark.parametrize("user", [OWNER, "reader"])
@pytest.mark.parametrize("table", ["public.honest", "public.view_v"])
def test_a_migration_by_others_reads_every_row_and_leaves_no_mark(
    place: Path, cycle: Cycle, user: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with entered(cycle.server, "postgres") as connection:
        connection.execute("DROP OWNED BY reader; DROP ROLE reader" if "reader" in roles(cycle.server) else "SELECT 1")
        connection.execute("CREATE ROLE reader LOGIN BYPASSRLS PASSWORD 'r'; GRANT pg_read_all_data TO reader")
        connection.execute(f"GRANT CONNECT ON DATABASE {DATABASE} TO reader".encode())
    monkeypatch.setenv(DSN_VARIABLE, login(cycle.server, user, PASSWORD if user == OWNER else "r"))
    with open_postgres(PostgresOptions(table=table, key=("id",), vector="e")) as source:
        assert source.count() == HONEST_ROWS
        assert sum(len(page) for page in source.pages(None)) == HONEST_ROWS
    assert marks_of(place) <= {"login"}


def roles(server: Server) -> set[str]:
    with entered(server, "postgres") as connection:
        return {str(row[0]) for row in connection.execute("SELECT rolname FROM pg_roles").fetchall()}


@pytest.fixture(scope="module")
def proof(place: Path, server: Server, cycle: Cycle) -> Path:
    """The same attacks in a database that a superuser goes into."""
    marks = marks_in(place, "proofs")
    make(server, PROOF, marks)
    return marks


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_each_attack_would_have_left_its_mark(server: Server, proof: Path, attack: Attack) -> None:
    if attack.since > version(server):
        pytest.skip(f"of Postgres {attack.since} and later")
    (proof / attack.name).unlink(missing_ok=True)
    with entered(server, PROOF) as connection:
        for statement in attack.proof.split("; "):
            connection.execute(statement.encode())
    assert (proof / attack.name).exists()


@pytest.mark.parametrize("way", ["SET ROLE mallory", "SET SESSION AUTHORIZATION mallory"])
def test_a_superuser_who_only_changes_the_role_would_be_had(server: Server, proof: Path, way: str) -> None:
    (proof / "way").unlink(missing_ok=True)
    with entered(server, PROOF) as connection:
        connection.execute(way.encode())
        with pytest.raises(psycopg.Error):
            connection.execute("COPY (SELECT 1) TO PROGRAM 'true'")
        connection.execute("SELECT public.payload('way')")
    assert (proof / "way").exists()
