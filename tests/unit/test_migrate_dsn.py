"""A connection string whose password is read otherwise than it was meant: no part of it is ever shown."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from plinth.errors import UserError
from plinth.migrate.sources.pg_connect import DSN_VARIABLE, connect, conninfo
from plinth.settings.loader import parse

SECRET = "tops3cret"
AT = "127.0.0.1:1/app"


def said(text: str) -> str:
    """What a person reads who hands a connection string over, to a server that is not there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DSN_VARIABLE, text)
        with pytest.raises(UserError) as refused:
            connect(conninfo(None))
    return str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://u:p@{SECRET}@{AT}",
        f"postgresql://u:p@@{SECRET}@{AT}",
        f"postgres://u:p@q@{SECRET}@{AT}",
        f"POSTGRESQL://u:p@{SECRET}@{AT}",
        f"postgresql://u:p/{SECRET}@{AT}",
        f"postgresql://u:p/q@{SECRET}@{AT}",
        f"postgresql://u:p?{SECRET}@{AT}",
        f"postgresql://u:p#{SECRET}@{AT}",
        f"postgresql://u:p%{SECRET}@{AT}",
        f"postgresql://u:p%zz{SECRET}@{AT}",
        f"postgresql://u:p:{SECRET}@{AT}",
        f"postgresql://u:p[{SECRET}@{AT}",
        f"postgresql://u:p {SECRET}@{AT}",
        f"postgresql://u:{SECRET}@{AT}",
        f"postgresql://u:{SECRET}@[127.0.0.1:1/app",
        f"postgresql://u:{SECRET}@{AT}?nonsense=1",
        f"postgresql://u:{SECRET}@127.0.0.1:port/app",
        f"postgresql://u@{AT}?password={SECRET}",
        f"host=127.0.0.1 port=1 user=u password={SECRET}",
        f"host=127.0.0.1 port=1 user=u password=p {SECRET}",
        f"host=127.0.0.1 port=1 user=u password=p@{SECRET}@h",
        f"host=127.0.0.1 port=1 user=u password='p {SECRET}",
        f"host=127.0.0.1 port=1 user=u password='p'{SECRET}'",
        f"host=127.0.0.1 port=1 user=u password=p {SECRET}=1",
        f"host={SECRET}x.invalid user=u password={SECRET}x",
        f"u:{SECRET}@{AT}",
        SECRET,
    ],
)
def test_no_part_of_a_password_is_shown(text: str) -> None:
    assert SECRET not in said(text)


@given(st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=3, max_size=12))
def test_a_password_that_is_not_encoded_is_refused_or_understood_whole(password: str) -> None:
    text = f"postgresql://u:{SECRET}{password}{SECRET}@127.0.0.1:1/app"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DSN_VARIABLE, text)
        try:
            parts = conninfo_to_dict(conninfo(None))
        except UserError as refused:
            assert SECRET not in str(refused)  # noqa: PT017
            return
    assert {parts.get(key) for key in ("host", "port", "dbname")} == {"127.0.0.1", "1", "app"}
    assert SECRET not in said(text)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12))
def test_a_password_that_is_encoded_is_taken_as_it_is(password: str) -> None:
    text = f"postgresql://u:{quote(password, safe='')}@db.example:5432/app"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DSN_VARIABLE, text)
        assert conninfo_to_dict(conninfo(None))["password"] == password


def test_a_file_is_held_to_the_same(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text(f"postgresql://u:p@{SECRET}@{AT}\n")
    with pytest.raises(UserError, match=r"dsn holds a connection string with more than one @.*%40") as refused:
        conninfo(str(file))
    assert SECRET not in str(refused.value)


def test_libpq_itself_would_show_it() -> None:
    with pytest.raises(psycopg.OperationalError, match=SECRET):
        psycopg.connect(f"postgresql://u:p@{SECRET}@{AT}", connect_timeout=2)


@pytest.mark.parametrize("login", [f"u:{SECRET}", f":{SECRET}", f"u:p@{SECRET}", f"u:p/{SECRET}", f"{SECRET}@"])
@pytest.mark.parametrize("key", ["qdrant", "postgres", "redis"])
def test_a_url_of_the_settings_is_refused_without_its_login(key: str, login: str) -> None:
    scheme = {"qdrant": "https", "postgres": "postgresql", "redis": "rediss"}[key]
    managed = {f"{key}_url": f"{scheme}://{login}@db.example:5432"}
    with pytest.raises(UserError, match=f"plinth:kubernetes.managed.{key}_url: .*://.*@db.example") as refused:
        parse({"target": "kubernetes", "kubernetes": {"managed": managed}}, source="x")
    assert SECRET not in str(refused.value)
