"""SQL that comes with a set: it is taken apart and made again, whatever is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from plinth.backup.manifest import DatabasePart
from plinth.backup.session import BackupError
from plinth.backup.stores.postgres.database_settings import PRIVILEGES, properties, set_to
from plinth.backup.stores.postgres.dump_archive import _extension, _owned
from plinth.backup.stores.postgres.roles import HARMLESS, creation, parse
from plinth.backup.stores.postgres.sql_tokens import name_fault, names, statements

VERIFIER = "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"
CONTEXTS = {
    "work_mem": "user",
    "search_path": "user",
    "role": "user",
    "log_statement": "superuser",
    "port": "postmaster",
}
CONTEXTS |= {
    "session_preload_libraries": "superuser",
    "local_preload_libraries": "user",
    "session_authorization": "user",
}
# Names that a pasted statement would fall apart at.
ODD = st.text(st.sampled_from("ab\"'\\;-$=%{}\n\r\t\x1b \x7f.,é\u202e/*"), min_size=1, max_size=20)
GLOBALS = f"""
\\restrict abc
CREATE ROLE core;
ALTER ROLE core WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS PASSWORD '{VERIFIER}';
CREATE ROLE "odd ""name";
ALTER ROLE "odd ""name" WITH NOLOGIN CONNECTION LIMIT 3;
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER LOGIN PASSWORD '{VERIFIER}';
ALTER ROLE core SET search_path TO '$user', 'it''s';
ALTER ROLE core SET session_preload_libraries TO 'evil';
GRANT pg_monitor TO core WITH INHERIT TRUE GRANTED BY postgres;
GRANT "odd ""name" TO core WITH ADMIN OPTION;
"""


def text_of(statement: sql.Composable) -> str:
    # psycopg puts a space before a literal that begins with E or a minus.
    return re.sub(r" ( -?\d| E')", r"\1", statement.as_string(None))


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def test_only_missing_roles_are_made_and_no_password_of_an_existing_one_is_touched() -> None:
    script = parse(GLOBALS)
    assert list(script.roles) == ["core", 'odd "name', "postgres"]
    made, left_out = creation(script, ["core"], CONTEXTS)
    assert [text_of(statement) for statement in made] == [
        'CREATE ROLE "core" WITH NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS LOGIN INHERIT NOCREATEDB '
        f"CONNECTION LIMIT -1 PASSWORD '{VERIFIER}'",
        """ALTER ROLE "core" SET "search_path" = '$user', 'it''s'""",
        'GRANT "pg_monitor" TO "core" WITH INHERIT TRUE',
    ]
    assert [note.partition(" ")[0] for note in left_out] == ["The", "The"]
    assert "session_preload_libraries" in left_out[0]
    assert 'not made a member of odd "name' in left_out[1]
    both, _ = creation(script, ["core", 'odd "name'], CONTEXTS)
    assert text_of(both[-1]) == 'GRANT "odd ""name" TO "core" WITH ADMIN OPTION'
    assert creation(script, [], CONTEXTS) == ([], [])


@pytest.mark.parametrize("attribute", ["SUPERUSER", "REPLICATION", "BYPASSRLS", "CREATEROLE"])
def test_a_set_makes_no_role_that_is_more_than_its_databases(attribute: str) -> None:
    script = parse(f"CREATE ROLE a; ALTER ROLE a WITH {attribute} LOGIN PASSWORD '{VERIFIER}';")
    made, left_out = creation(script, ["a"], {})
    assert f"NO{attribute}" in text_of(made[0])
    assert f" {attribute}" not in text_of(made[0]).replace(f"NO{attribute}", "")
    assert left_out == [f"The role a was {attribute} and is made without; give it that yourself."]


@pytest.mark.parametrize(
    "group", ["pg_execute_server_program", "pg_write_server_files", "pg_read_all_data", "postgres", "core"]
)
def test_a_set_makes_nobody_a_member_of_what_is_there(group: str) -> None:
    made, left_out = creation(parse(f"CREATE ROLE a; GRANT {group} TO a;"), ["a"], {})
    assert len(made) == 1
    assert group in left_out[0]


def test_a_set_changes_no_role_that_is_there() -> None:
    script = parse(f"CREATE ROLE core; ALTER ROLE core WITH SUPERUSER PASSWORD '{VERIFIER}'; GRANT x TO core;")
    assert creation(script, [], {}) == ([], [])
    never_made = parse(
        f"ALTER ROLE core WITH SUPERUSER PASSWORD '{VERIFIER}'; DROP ROLE core; CREATE ROLE b SUPERUSER;"
    )
    assert never_made.roles == {}


@pytest.mark.parametrize("password", ["", "plain", "SCRAM-SHA-256$4096:x", "md5xyz", "md5" + "A" * 32])
def test_a_password_is_what_a_server_keeps_or_none(password: str) -> None:
    made, left_out = creation(parse(f"CREATE ROLE a; ALTER ROLE a WITH LOGIN PASSWORD '{password}';"), ["a"], {})
    assert "PASSWORD" not in text_of(made[0])
    assert "no password" in left_out[0]


@given(st.text(st.sampled_from("ab;'\"$-\\ \nCREATEROLSUP/*"), max_size=80))
def test_no_text_of_a_set_makes_another_kind_of_statement(text: str) -> None:
    script = parse(
        text + f"\nCREATE ROLE a; ALTER ROLE a WITH {text} LOGIN; ALTER ROLE a SET {text} TO '{text}'; {text}"
    )
    made, _ = creation(script, list(script.roles), CONTEXTS)
    for statement in made:
        (tokens,) = list(statements(text_of(statement) + ";"))
        start = " ".join(token.value for token in tokens[:2])
        assert start in ("create role", "alter role") or tokens[0].value == "grant"
        assert not {"superuser", "createrole", "replication", "bypassrls"} & {
            token.value for token in tokens if token.kind == "word"
        }


@given(ODD)
def test_a_name_comes_back_as_one_name(name: str) -> None:
    script = parse(f"CREATE ROLE {quoted(name)};")
    if name_fault(name):
        assert script.roles == {}
        return
    assert list(script.roles) == [name]
    (statement,), _ = creation(script, [name], {})
    assert text_of(statement).startswith(f"CREATE ROLE {quoted(name)} WITH NOSUPERUSER")


@given(st.lists(ODD, min_size=1, max_size=4))
def test_a_list_of_names_is_made_from_its_names(listed: list[str]) -> None:
    assert names(", ".join(map(quoted, listed))) == tuple(listed)
    saved = part(settings=[(None, f"search_path={', '.join(map(quoted, listed))}")])
    made, left_out = properties(saved, "d", CONTEXTS, {})
    literals = ", ".join(text_of(sql.Literal(name)).strip() for name in listed)
    assert (text_of(made[0]), left_out) == (f'ALTER DATABASE "d" SET "search_path" = {literals}', [])


@pytest.mark.parametrize("text", ['"a', "a b", "a,", "a,,b", 'a"b"', "; DROP DATABASE x"])
def test_what_is_no_list_of_names_is_left_out(text: str) -> None:
    made, left_out = properties(part(settings=[(None, f"search_path={text}")]), "d", CONTEXTS, {})
    assert "is no list of names" in left_out[0]
    assert len(made) == 1


@pytest.mark.parametrize(
    ("key", "contexts", "allowed"),
    [
        ("work_mem", CONTEXTS, True),
        ("WORK_MEM", CONTEXTS, True),
        ("log_statement", CONTEXTS, True),
        ("app.tenant", CONTEXTS, True),
        ("role", CONTEXTS, False),
        ("session_authorization", CONTEXTS, False),
        ("session_preload_libraries", CONTEXTS, False),
        ("local_preload_libraries", CONTEXTS, False),
        ("port", CONTEXTS, False),
        ("unheard_of", CONTEXTS, False),
        ("plperl.on_init", CONTEXTS, False),
        ("auto_explain.log_min_duration", {"auto_explain.log_min_duration": "superuser"}, False),
        ("work_mem = '1'; DROP DATABASE x; --", CONTEXTS, False),
        ('a"b', CONTEXTS, False),
        ("a.b.c", CONTEXTS, False),
        ("", CONTEXTS, False),
    ],
)
def test_what_a_set_may_set(key: str, contexts: Mapping[str, str], *, allowed: bool) -> None:
    value, why = set_to(key, ["x'y\\"], contexts)
    assert (value is not None) == allowed == (not why)
    assert value is None or text_of(value).endswith(r"= E'x''y\\'")


@given(ODD, st.sampled_from([*PRIVILEGES, "ALL", "CONNECT; DROP", "SUPERUSER"]), st.booleans())
def test_a_grant_is_of_a_right_there_is_to_a_role_there_is(grantee: str, privilege: str, there: bool) -> None:
    roles = {grantee: False} if there else {}
    made, left_out = properties(part(grants=[(grantee, privilege)]), "d", CONTEXTS, roles)
    if there and privilege in PRIVILEGES:
        assert text_of(made[0]) == f'GRANT {privilege} ON DATABASE "d" TO {quoted(grantee)}'
    else:
        assert (made, len(left_out)) == ([], 1)


def test_nothing_is_given_to_a_superuser_nor_set_for_one() -> None:
    saved = part(settings=[("postgres", "search_path=evil")], grants=[("postgres", "CREATE")])
    made, left_out = properties(saved, "d", CONTEXTS, {"postgres": True})
    assert (made, len(left_out)) == ([], 1)


@pytest.mark.parametrize("name", ["", "a\0b", "a" * 64, "é" * 32])
def test_what_is_no_name_of_postgres_makes_no_manifest(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of Postgres"):
        part(name=name)
    assert part(name="a=b \n'\"").name == "a=b \n'\""


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE EXTENSION IF NOT EXISTS x WITH SCHEMA public CASCADE",
        "CREATE EXTENSION x",
        "CREATE EXTENSION IF NOT EXISTS 'x' WITH SCHEMA public",
        "CREATE EXTENSION IF NOT EXISTS x WITH SCHEMA public VERSION '1'",
    ],
)
def test_an_extension_is_made_from_its_name_and_schema_alone(statement: str) -> None:
    with pytest.raises(BackupError, match="no extension that this version can make"):
        _extension(next(statements(statement + ";")))


def test_a_body_of_a_function_gives_nothing_away() -> None:
    text = """CREATE FUNCTION f() AS $_$ BEGIN; ALTER TABLE public.t OWNER TO victim; END $_$;
    ALTER TABLE public.t OWNER TO b; ALTER ROLE x OWNER TO b; ALTER TABLE 'x' OWNER TO c; SELECT 'x OWNER TO b';
    COMMENT ON TABLE t IS 'a; ALTER TABLE public.t OWNER TO victim;';"""
    assert [owned for statement in statements(text) if (owned := _owned(statement))] == [
        ("b", "ALTER TABLE public . t OWNER TO b")
    ]


def part(**more: object) -> DatabasePart:
    """A database's part of a manifest."""
    own = {"name": "core", "owner": "core", "encoding": "UTF8", "collate": "C", "ctype": "C", "tables": []}
    default = {
        "path": "postgres/p.dump",
        "extensions": {},
        "grants": [("PUBLIC", "CONNECT")] if "grants" not in more else [],
    }
    return DatabasePart.model_validate(own | default | more)


def test_the_harmless_groups_are_those_of_monitoring() -> None:
    assert all(group.startswith("pg_") and not group.endswith(("_data", "_files", "_program")) for group in HARMLESS)
