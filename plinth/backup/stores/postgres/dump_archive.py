"""A dump in pg_dump's custom format: its entries, those that an owner can restore, and its extensions."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plinth.backup.session import BackupError, Work, tool
from plinth.backup.stores.postgres.sql_tokens import Token, statements

CLIENT = "postgresql-client"
EXTENSION, EXTENSION_COMMENT = "EXTENSION - ", "COMMENT - EXTENSION "
# Nothing else needs these, and an owner cannot create all of them.
LAST = (
    "ACL ",
    "DEFAULT ACL ",
    "COMMENT ",
    "SECURITY LABEL ",
    "PUBLICATION",
    "SUBSCRIPTION",
    "EVENT TRIGGER ",
)
_ENTRY = re.compile(r"\d+; \d+ \d+ (?P<what>.*)")
_OWNED = (
    "TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE", "FOREIGN TABLE", "FUNCTION", "PROCEDURE", "AGGREGATE", "TYPE",
    "DOMAIN", "SCHEMA", "COLLATION", "CONVERSION", "STATISTICS", "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY", "SERVER",
)  # fmt: skip


@dataclass(frozen=True)
class Extension:
    """An extension and the schema that it is created in."""

    name: str
    schema: str


class Archive:
    """A dump, read by pg_restore without a server."""

    def __init__(self, work: Work, path: Path) -> None:
        self.path = path
        self._work = work
        self._lines = [line for line in self._output("--list").splitlines() if _ENTRY.match(line)]

    def extensions(self) -> tuple[Extension, ...]:
        """Return the extensions in the order of their creation. Raises :class:`BackupError` for another statement."""
        lines = self._lines_of(EXTENSION)
        if not lines:
            return ()
        result = []
        with self.listed(lines) as file:
            text = self._output("--file=-", f"--use-list={file}")
        for statement in statements(text):
            if [token.value for token in statement[:2]] == ["create", "extension"]:
                result.append(_extension(statement))
        if len(result) != len(lines):
            raise BackupError(f"{self.path.name} makes extensions in a way that this version cannot read.")
        return tuple(result)

    @property
    def has_servers(self) -> bool:
        """Whether the dump creates foreign servers."""
        return bool(self._lines_of("SERVER - "))

    def first(self, schemas: Iterable[str]) -> list[str]:
        """Return the entries that an owner restores in one transaction; ``schemas`` exist already."""
        there = tuple(f"SCHEMA - {schema} " for schema in schemas)
        never = (EXTENSION, *LAST, *there)
        return [line for line in self._lines if not _what(line).startswith(never)]

    def last(self) -> list[str]:
        """Return the entries that an owner restores as far as the rights of an owner allow."""
        return [
            line
            for line in self._lines
            if _what(line).startswith(LAST) and not _what(line).startswith(EXTENSION_COMMENT)
        ]

    def owners(self) -> dict[str, list[str]]:
        """Return for each role the statements that transfer its objects to it, built from their tokens."""
        result: dict[str, list[str]] = {}
        for statement in statements(self._output("--file=-", "--schema-only", "--no-privileges", "--no-comments")):
            if owned := _owned(statement):
                result.setdefault(owned[0], []).append(owned[1])
        return result

    @contextmanager
    def listed(self, lines: Iterable[str]) -> Iterator[Path]:
        """Yield a file for pg_restore's --use-list."""
        with tempfile.NamedTemporaryFile("w", prefix=".list-", dir=self.path.parent, suffix=".txt") as file:
            file.write("\n".join((*lines, "")))
            file.flush()
            yield Path(file.name)

    def _lines_of(self, start: str) -> list[str]:
        return [line for line in self._lines if _what(line).startswith(start)]

    def _output(self, *arguments: str) -> str:
        done = self._work.run([tool("pg_restore", CLIENT), *arguments, self.path])
        if done.code != 0:
            raise BackupError(f"{self.path.name} cannot be read: {done.words}")
        return done.out


def _what(line: str) -> str:
    match = _ENTRY.match(line)
    return match["what"] if match else ""


def _extension(statement: list[Token]) -> Extension:
    """Parse `CREATE EXTENSION IF NOT EXISTS name WITH SCHEMA schema`, as pg_dump writes it."""
    words = [token.value for token in statement]
    if (
        words[:5] == ["create", "extension", "if", "not", "exists"]
        and words[6:8] == ["with", "schema"]
        and len(statement) == 9
        and statement[5].is_name
        and statement[8].is_name
    ):
        return Extension(words[5], words[8])
    raise BackupError(f"A statement of the dump is no extension that this version can make: {' '.join(words)[:100]}")


def _owned(statement: list[Token]) -> tuple[str, str] | None:
    """Return the role and the statement of `ALTER kind name OWNER TO role`."""
    words = [token.value if token.kind == "word" else "" for token in statement]
    if words[:1] != ["alter"] or words[-3:-1] != ["owner", "to"] or not statement[-1].is_name:
        return None
    if not any(words[1 : 1 + len(kind.split())] == kind.lower().split() for kind in _OWNED):
        return None
    if any(token.kind == "string" for token in statement):
        return None
    return statement[-1].value, " ".join(token.text for token in statement)
