"""Databases of several owners, with extensions and rights: what comes back whose, and what is said to be otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from plinth.admin.postgres import Server, ensure_database
from plinth.backup import drill, inspection, restore
from plinth.backup import run as backup_run
from plinth.backup.manifest import DatabasePart, Manifest, parse
from plinth.backup.restore_source import Wish
from plinth.backup.session import BackupError
from plinth.backup.stores.postgres.recreate import compared, contents, holds_rows, make_roles, not_compared
from plinth.backup.stores.postgres.restored_owner import STAND_IN
from plinth.backup.stores.postgres.temporary_roles import PREFIX, member, reader
from plinth.backup.temporary.instances import postgres
from plinth.errors import UserError
from tests.databases import enter
from tests.faults.world import Backups

pytestmark = pytest.mark.timeout(400)
BY_SUPERUSER = """
CREATE SCHEMA extensions; CREATE EXTENSION hstore SCHEMA extensions; CREATE EXTENSION pg_trgm;
ALTER SCHEMA extensions OWNER TO alice; GRANT CREATE, USAGE ON SCHEMA public TO bob;
CREATE TABLE public.of_superuser AS SELECT 1 AS a; GRANT SELECT ON public.of_superuser TO alice
"""
BY_ALICE = """
CREATE TABLE public.rows (id serial PRIMARY KEY, word text, h text GENERATED ALWAYS AS (upper(word)) STORED);
INSERT INTO public.rows (word) SELECT md5(n::text) FROM generate_series(1, 50) n;
CREATE INDEX ON public.rows USING gin (word public.gin_trgm_ops);
COMMENT ON TABLE public.rows IS 'it''s; "odd"'; GRANT SELECT ON public.rows TO carol WITH GRANT OPTION;
GRANT SELECT (id) ON public.rows TO bob; ALTER TABLE public.rows ENABLE ROW LEVEL SECURITY;
CREATE POLICY odd ON public.rows FOR SELECT TO carol USING (id % 2 = 1);
CREATE FUNCTION public.secret() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
REVOKE EXECUTE ON FUNCTION public.secret() FROM PUBLIC; GRANT EXECUTE ON FUNCTION public.secret() TO carol;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO carol;
CREATE TABLE public."Odd ""name"" -- x" ("a;b" int, "c d" text);
INSERT INTO public."Odd ""name"" -- x" VALUES (1, E'\\t\\n\\\\');
CREATE TABLE public.nothing (); INSERT INTO public.nothing DEFAULT VALUES; INSERT INTO public.nothing DEFAULT VALUES;
CREATE FUNCTION public.gains() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
  BEGIN EXECUTE 'SET ROLE bob'; EXCEPTION WHEN insufficient_privilege THEN RETURN true; END;
  RAISE 'it has the rights of bob'; END $$;
CREATE TABLE public.waiting (a int CHECK (public.gains())); INSERT INTO public.waiting VALUES (1);
CREATE TABLE public.of_extension AS SELECT 'a=>1'::extensions.hstore AS h;
SELECT lo_from_bytea(4711, 'large')
"""
BY_BOB = """
CREATE TABLE public.of_bob AS SELECT generate_series(1, 9) AS n; GRANT SELECT ON public.of_bob TO carol;
CREATE FUNCTION public.of_bob(int) RETURNS int LANGUAGE sql AS 'SELECT $1'
"""
RIGHTS = """
SELECT 'relation', relname::text, pg_get_userbyid(relowner)::text, relacl::text, relrowsecurity
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S', 'v')
UNION ALL SELECT 'function', proname, pg_get_userbyid(proowner), proacl::text, prosecdef FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND oid NOT IN (SELECT objid FROM pg_depend WHERE deptype = 'e')
UNION ALL SELECT 'schema', nspname, pg_get_userbyid(nspowner), nspacl::text, NULL FROM pg_namespace
WHERE nspname IN ('public', 'extensions')
UNION ALL SELECT 'defaults', '', pg_get_userbyid(defaclrole), defaclacl::text, NULL FROM pg_default_acl
UNION ALL SELECT 'comment', '', '', description, NULL FROM pg_description WHERE objoid = 'public.rows'::regclass
UNION ALL SELECT 'policy', polname, '', pg_get_expr(polqual, polrelid), NULL FROM pg_policy
UNION ALL SELECT 'extension', extname, '', extnamespace::regnamespace::text, NULL FROM pg_extension
UNION ALL SELECT 'sequence', '', '', last_value::text, NULL FROM public.rows_id_seq
UNION ALL SELECT 'object', loid::text, '', convert_from(data, 'UTF8'), NULL FROM pg_largeobject
ORDER BY 1, 2, 3, 4
"""


@dataclass(frozen=True)
class OnlyPostgres:
    """Stores of which only Postgres is one."""

    server: Server
    secret: Path

    def stores(self) -> dict[str, Any]:
        self.secret.write_text(self.server.password)
        own = {"host": self.server.host, "port": self.server.port, "user": self.server.user}
        return {"postgres": {**own, "password_file": str(self.secret)}}


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    with ExitStack() as stack:
        yield stack.enter_context(postgres(place / "owners" / "postgres"))


@pytest.fixture(scope="module")
def made(place: Path, server: Server) -> Backups:
    """A set of a database of several, of one that is a superuser's, and of one whose owner may run programs."""
    ensure_database(server, "shared", "alice", "a")
    ensure_database(server, "runners", "runner", "a")
    with enter(server, "postgres") as connection:
        connection.execute("CREATE ROLE bob LOGIN PASSWORD 'b'; CREATE ROLE carol LOGIN PASSWORD 'c'")
        connection.execute(
            "GRANT CONNECT, TEMP ON DATABASE shared TO bob; ALTER ROLE carol IN DATABASE shared SET jit = off"
        )
        connection.execute("GRANT pg_execute_server_program TO runner; ALTER DATABASE shared SET log_statement = 'ddl'")
        connection.execute("CREATE DATABASE superusers")
    for database in ("superusers", "runners"):
        with enter(server, database) as connection:
            connection.execute("CREATE TABLE public.t AS SELECT 1 AS a")
    for user, password, script in (
        (server.user, server.password, BY_SUPERUSER),
        ("alice", "a", BY_ALICE),
        ("bob", "b", BY_BOB),
    ):
        with enter(replace(server, user=user, password=password), "shared") as connection:
            connection.execute(script.encode())
    backups = Backups(place / "of-owners", OnlyPostgres(server, place / "owners-secret"))
    # Another machine's run is at work meanwhile.
    with reader(server, "shared"):
        taken = backup_run.run(backups.config, backups.say)
    assert taken.manifest.complete
    assert PREFIX not in taken.manifest.model_dump_json()
    return backups


def rights(server: Server, database: str) -> list[tuple[Any, ...]]:
    with enter(server, database) as connection:
        return connection.execute(RIGHTS.encode()).fetchall()


def run(made: Backups, wish: Wish) -> list[str]:
    return restore.run(made.config, made.config, wish, made.say).done


def databases(server: Server) -> set[str]:
    with enter(server, "postgres") as connection:
        return {str(row[0]) for row in connection.execute("SELECT datname FROM pg_database").fetchall()}


def owner(server: Server, database: str) -> str:
    with enter(server, "postgres") as connection:
        row = connection.execute(
            "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = %s", (database,)
        ).fetchone()
    return str(row[0]) if row else ""


def test_rights_and_owners_come_back_but_for_a_superusers_which_is_said(made: Backups, server: Server) -> None:
    before, there = rights(server, "shared"), databases(server)
    notes = run(made, Wish(databases=("shared",), beside=True))
    (copy,) = databases(server) - there
    after = rights(server, copy)
    lost = [row for row in before if row not in after]
    assert [row[:3] for row in lost] == [("relation", "of_superuser", "postgres")]
    assert [row[:3] for row in after if row not in before] == [("relation", "of_superuser", "alice")]
    assert any("What was postgres's is alice's now: TABLE public.of_superuser." in note for note in notes), notes
    assert contents(server, copy) == contents(server, "shared")
    assert owner(server, copy) == "alice"
    with enter(server, "postgres") as connection:
        settings = (
            "SELECT setrole::regrole::text, setconfig FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase"
        )
        found = [
            connection.execute(f"{settings} WHERE datname = %s ORDER BY 1".encode(), (name,)).fetchall()
            for name in ("shared", copy)
        ]
        grants = "SELECT datacl::text FROM pg_database WHERE datname = %s"
        acls = [set(str(connection.execute(grants, (name,)).fetchone()).split(",")) for name in ("shared", copy)]
    assert found[0] == found[1] != []
    assert acls[0] == acls[1]


def test_a_drill_of_them_is_as_it_was_saved(made: Backups) -> None:
    drilled = drill.run(made.config, made.say)
    assert (drilled.result, drilled.problems) == ("ok", {"postgres": ()})


@pytest.mark.parametrize(("database", "was"), [("superusers", "postgres"), ("runners", "runner")])
def test_what_may_do_more_than_its_database_owns_nothing_that_is_restored(
    made: Backups, server: Server, database: str, was: str
) -> None:
    there = databases(server)
    notes = run(made, Wish(databases=(database,), beside=True))
    (copy,) = databases(server) - there
    assert owner(server, copy) == STAND_IN
    assert any(f"{was} has more rights than what a set holds" in note for note in notes)
    with enter(server, copy) as connection:
        assert connection.execute("SELECT tableowner, a FROM pg_tables, public.t WHERE tablename = 't'").fetchall() == [
            (STAND_IN, 1)
        ]
        role = connection.execute(
            "SELECT rolcanlogin, rolsuper FROM pg_roles WHERE rolname = %s", (STAND_IN,)
        ).fetchone()
    assert role == (False, False)


def test_an_extension_that_reaches_out_is_refused_by_name_before_anything_is_touched(
    place: Path, made: Backups, server: Server
) -> None:
    ensure_database(server, "linked", "alice", "a")
    with enter(server, "linked") as connection:
        connection.execute("CREATE EXTENSION dblink; CREATE TABLE public.t AS SELECT 1 AS a")
    backups = Backups(place / "of-linked", made.live)
    assert backup_run.run(backups.config, backups.say).manifest.complete
    there = databases(server)
    for wish in (Wish(databases=("linked",), beside=True), Wish(replace=True)):
        with pytest.raises(BackupError, match=r"linked needs the extension dblink, .*Nothing was touched"):
            run(backups, wish)
    assert databases(server) == there
    drilled = drill.run(backups.config, backups.say)
    assert "needs the extension dblink" in drilled.problems["postgres"][0]
    with enter(server, "postgres") as connection:
        connection.execute("DROP DATABASE linked")
    # The manifest may leave it out; the dump then says it.
    (each,) = inspection.sets(backups.config, backups.say)
    assert each.manifest
    assert "dblink" in part(each.manifest, "linked").extensions


def part(manifest: Manifest, name: str) -> DatabasePart:
    assert manifest.postgres
    return next(saved for saved in manifest.postgres.databases if saved.name == name)


def test_a_set_of_an_older_version_is_compared_by_its_rows_and_says_so(made: Backups, server: Server) -> None:
    (each,) = inspection.sets(made.config, made.say)
    assert each.manifest
    text = each.manifest.model_dump_json(exclude={"postgres": {"databases": {"__all__": {"checksum_kind"}}}})
    saved = part(parse(text, "an older set"), "shared")
    assert saved.checksum_kind == "sql-md5"
    assert compared(server, saved, "shared") == []
    assert "their values are not compared" in str(not_compared(saved))
    fewer = replace_rows(saved, 1)
    assert "rows and had" in compared(server, fewer, "shared")[0]
    now = part(each.manifest, "shared")
    assert not_compared(now) is None
    other = now.model_copy(update={"tables": tuple(t.model_copy(update={"checksum": "0"}) for t in now.tables)})
    assert "other values" in compared(server, other, "shared")[0]


def replace_rows(saved: DatabasePart, more: int) -> DatabasePart:
    tables = tuple(table.model_copy(update={"rows": table.rows + more}) for table in saved.tables)
    return saved.model_copy(update={"tables": tables})


def test_a_login_of_a_run_may_do_no_more_than_it_needs_and_is_gone_after_it(made: Backups, server: Server) -> None:
    with reader(server, "shared") as login:
        with enter(login, "shared") as connection:
            connection.execute("SET row_security = off")
            assert connection.execute("SELECT count(*) FROM public.rows").fetchone() == (50,)
            for forbidden in (
                "DELETE FROM public.rows",
                "CREATE TABLE public.x ()",
                "SET ROLE alice",
                "SET ROLE postgres",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(forbidden.encode())
        with pytest.raises(UserError, match="does not let"):
            login.connect("runners")
    with member(server, "shared", ["alice"]) as other, enter(other, "shared") as connection:
        # What is left in its own name would keep it.
        connection.execute("CREATE TABLE public.left_behind (); GRANT SELECT ON public.rows TO CURRENT_USER")
    with enter(server, "shared") as connection:
        row = connection.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'left_behind'").fetchone()
        assert row == ("alice",)
        connection.execute("DROP TABLE public.left_behind")
        assert connection.execute("SELECT 1 FROM pg_roles WHERE starts_with(rolname, %s)", (PREFIX,)).fetchone() is None
    for gone in (login, other):
        with pytest.raises(UserError, match="does not let"):
            gone.connect("shared")


@pytest.mark.usefixtures("made")
def test_what_a_killed_run_left_lets_nobody_in_and_goes_with_a_later_one(server: Server) -> None:
    left = f"{PREFIX}0123456789abcdef"
    with enter(server, "postgres") as connection:
        connection.execute(f"CREATE ROLE {left} LOGIN PASSWORD 'x' VALID UNTIL '2020-01-01'".encode())
        connection.execute(f"GRANT CONNECT ON DATABASE shared TO {left}; GRANT alice TO {left}".encode())
    with pytest.raises(UserError, match="password authentication failed"):
        replace(server, user=left, password="x").connect("shared")
    with reader(server, "shared"):
        pass
    with enter(server, "postgres") as connection:
        assert connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (left,)).fetchone() is None


@pytest.mark.parametrize("name", ["a=b", 'odd "name', "o'; --", "x\ny\t", "\\'", "é" * 31, "$user", "public x"])
def test_roles_of_odd_names_are_made_as_they_were_and_nothing_else_is(server: Server, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    script = f"""CREATE ROLE {quoted}; ALTER ROLE {quoted} WITH SUPERUSER LOGIN BYPASSRLS CONNECTION LIMIT 3;
    ALTER ROLE {quoted} SET search_path TO 'it''s', '$user'; ALTER ROLE {quoted} SET role TO 'postgres';
    GRANT pg_monitor TO {quoted}; GRANT pg_execute_server_program TO {quoted}; GRANT postgres TO {quoted};
    ALTER ROLE postgres WITH NOLOGIN; DROP DATABASE postgres; CREATE TABLE x ();"""
    notes = make_roles(server, script)
    with enter(server, "postgres") as connection:
        role = connection.execute(
            "SELECT rolsuper, rolbypassrls, rolcanlogin, rolconnlimit, rolconfig FROM pg_roles WHERE rolname = %s",
            (name,),
        ).fetchone()
        groups = connection.execute(
            "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = %s::regrole", (quoted,)
        ).fetchall()
        connection.execute(f"DROP ROLE {quoted}".encode())
    assert role == (False, False, True, 3, ['search_path="it\'s", "$user"'])
    assert groups == [("pg_monitor",)]
    for refused in ("SUPERUSER BYPASSRLS", "The setting role", "pg_execute_server_program", "member of postgres"):
        assert any(refused in note for note in notes), refused


SEEING = """
CREATE TABLE public.seen (who name); GRANT INSERT ON public.seen TO PUBLIC;
CREATE FUNCTION public.see() RETURNS int LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.seen VALUES (current_user); RETURN 0; END $$;
CREATE FUNCTION public.folded() RETURNS int LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM public.see(); RETURN 0; END $$;
CREATE TABLE public.many AS SELECT generate_series(1, 100000) AS n;
CREATE INDEX ON public.many ((n + public.folded()));
TRUNCATE public.seen
"""


def test_who_reads_every_table_runs_nothing_of_an_owners(server: Server) -> None:
    ensure_database(server, "seeing", "alice", "a")
    with enter(replace(server, user="alice", password="a"), "seeing") as connection:
        connection.execute(SEEING.encode())

    def seen() -> int:
        return {table.name: table.rows for table in contents(server, "seeing")}["seen"]

    assert holds_rows(server, "seeing")
    assert seen() == 0
    with reader(server, "seeing") as login, enter(login, "seeing") as connection:
        # Planning alone is enough.
        connection.execute("SELECT count(*) FROM public.many")
    assert seen() > 0
    with enter(server, "postgres") as connection:
        connection.execute("DROP DATABASE seeing")
    ensure_database(server, "seeing", "alice", "a")
    assert not holds_rows(server, "seeing")
    with enter(server, "postgres") as connection:
        connection.execute("DROP DATABASE seeing")
