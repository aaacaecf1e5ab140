"""Parse SQL from elsewhere, so that statements are rebuilt from its parts and never run as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["word", "name", "string", "number", "sign"]
# Maximum bytes of a name; Postgres truncates longer ones silently.
LONGEST_NAME = 63
_LETTER = r"[A-Za-z_\u0080-\U0010ffff]"
_TOKEN = re.compile(
    rf"""
    (?P<space>\s+|--[^\n]*|^\\[^\n]*)
  | (?P<string>[eE]'(?:[^'\\]|''|\\(?s:.))*'|'(?:[^']|'')*')
  | (?P<body>\$(?P<tag>{_LETTER}[\w]*)?\$(?s:.)*?\$(?(tag)(?P=tag))\$)
  | (?P<name>"(?:[^"]|"")+")
  | (?P<word>{_LETTER}[\w$]*)
  | (?P<number>[0-9]+)
  | (?P<sign>(?s:.))
    """,
    re.VERBOSE | re.MULTILINE,
)
_LIST_ITEM = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^\s",]+))\s*')


@dataclass(frozen=True)
class Token:
    """A token of SQL: its text, and the value that it stands for."""

    kind: Kind
    text: str
    value: str

    @property
    def is_name(self) -> bool:
        """Whether the token can be a name."""
        return self.kind in ("word", "name")


def statements(text: str) -> Iterator[list[Token]]:
    """Yield the statements of a script, without comments and without the commands of psql."""
    statement: list[Token] = []
    for token in _tokens(text):
        if token.kind == "sign" and token.text == ";":
            yield statement
            statement = []
        else:
            statement.append(token)


def names(value: str) -> tuple[str, ...]:
    """Return the names of a list such as `"$user", public`. Raises ValueError for another form."""
    if not value.strip():
        return ()
    result, at = [], 0
    while True:
        match = _LIST_ITEM.match(value, at)
        if match is None:
            raise ValueError(f"{value!r} is no list of names")
        quoted, plain = match.groups()
        result.append(plain.lower() if quoted is None else quoted.replace('""', '"'))
        at = match.end()
        if at == len(value):
            return tuple(result)
        if value[at] != ",":
            raise ValueError(f"{value!r} is no list of names")
        at += 1


def name_fault(name: str) -> str | None:
    """Return why a text cannot be the name of a role or a database; None for one that can."""
    if not name:
        return "it is empty"
    if "\0" in name:
        return "it has a NUL"
    if len(name.encode(errors="surrogatepass")) > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} bytes"
    return None


def _tokens(text: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(text):
        kind, written = match.lastgroup, match.group()
        if match["string"] is not None:
            yield Token("string", written, _string(written))
        elif match["body"] is not None:
            delimiter = len(match["tag"] or "") + 2
            yield Token("string", written, written[delimiter:-delimiter])
        elif kind == "name":
            yield Token("name", written, written[1:-1].replace('""', '"'))
        elif kind == "word":
            yield Token("word", written, written.lower() if written.isascii() else written)
        elif kind == "number":
            yield Token("number", written, written)
        elif kind == "sign":
            yield Token("sign", written, written)


def _string(written: str) -> str:
    if written.startswith("'"):
        return written[1:-1].replace("''", "'")
    return re.sub(r"\\(.)", r"\1", written[2:-1].replace("''", "'"), flags=re.DOTALL)
