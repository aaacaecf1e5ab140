"""Parse the Cypher that creates a constraint or an index, and write it again with each name quoted.

A set's manifest is text that anyone with the repository's password may have written: it is never run as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_TOKEN = re.compile(
    r"""\s*(?:(?P<name>`(?:[^`]|``)+`)|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE]-?[0-9]+)?)
    |(?P<text>'[^'"\\\x00-\x1f]*'|"[^'"\\\x00-\x1f]*")|(?P<sign>::|->|<-|[-()\[\]{}:,.|<>]))""",
    re.VERBOSE,
)
# Some servers read it as a backtick before they read the name.
_ESCAPED = re.compile(r"\\u", re.IGNORECASE)
INDEXES = ("RANGE", "TEXT", "POINT", "FULLTEXT", "VECTOR")
_TYPES = re.compile(
    r"BOOLEAN|STRING|INTEGER|FLOAT|DATE|LOCAL|ZONED|TIME|DATETIME|DURATION|POINT|LIST|VECTOR|NOT|NULL|ANY",
    re.IGNORECASE,
)
LONGEST = 1 << 16


class NotCypher(ValueError):
    """A statement that does not create a known kind of constraint or index."""


@dataclass(frozen=True)
class Creation:
    """The creation of a constraint or an index.

    ``kind`` is an index's, ``rule`` what a constraint requires; ``options`` are Cypher. ``labels`` are those of a node,
    or the types of a relationship.
    """

    what: Literal["CONSTRAINT", "INDEX"]
    name: str
    kind: str
    of: Literal["node", "relationship"]
    labels: tuple[str, ...]
    properties: tuple[str, ...]
    rule: str = ""
    options: str = ""

    def __str__(self) -> str:
        """Return the statement, which consists of quoted names and Cypher keywords alone."""
        names = "|".join(map(quoted, self.labels))
        pattern = f"(n:{names})" if self.of == "node" else f"()-[n:{names}]-()"
        listed = ", ".join(f"n.{quoted(each)}" for each in self.properties)
        if self.what == "CONSTRAINT":
            made = f"REQUIRE ({listed}) {self.rule}"
        else:
            made = f"ON EACH [{listed}]" if self.kind == "FULLTEXT" else f"ON ({listed})"
        kind = f"{self.kind} " if self.kind else ""
        options = f" OPTIONS {self.options}" if self.options else ""
        return f"CREATE {kind}{self.what} {quoted(self.name)} FOR {pattern} {made}{options}"


def quoted(name: str) -> str:
    """Quote a name for Cypher. Raises :class:`NotCypher` for a name that cannot be quoted."""
    if not name or _ESCAPED.search(name) or "\x00" in name:
        raise NotCypher(f"{name[:80]!a} is no name that Plinth gives to Neo4j")
    return "`" + name.replace("`", "``") + "`"


def parse(statement: str) -> Creation:
    """Parse the `createStatement` of `SHOW CONSTRAINTS` and `SHOW INDEXES`. Raises :class:`NotCypher`."""
    try:
        made = _Reader(statement).creation()
        str(made)
    except RecursionError:
        raise NotCypher(f"{statement[:80]!a} is nested too deep") from None
    return made


class _Reader:
    """The tokens of one statement, each with its kind."""

    def __init__(self, statement: str) -> None:
        self._statement = statement
        self._tokens: list[tuple[str, str]] = []
        self._at = 0
        at, text = 0, statement.rstrip()
        while at < len(text) and len(text) <= LONGEST:
            token = _TOKEN.match(text, at)
            if token is None or token.lastgroup is None:
                break
            self._tokens.append((token.lastgroup, token[token.lastgroup]))
            at = token.end()
        if at < len(text):
            raise self._refused()

    def creation(self) -> Creation:
        self._word("CREATE")
        kind = self._any_word(*INDEXES, "CONSTRAINT", "INDEX")
        what: Literal["CONSTRAINT", "INDEX"] = "CONSTRAINT" if kind == "CONSTRAINT" else "INDEX"
        if kind in INDEXES:
            self._word("INDEX")
        name = self._name()
        self._word("FOR")
        of, variable, labels = self._pattern()
        if what == "CONSTRAINT":
            self._word("REQUIRE")
            properties, rule = self._properties("()", variable), self._rule()
        else:
            self._word("ON")
            each = kind == "FULLTEXT" and bool(self._word("EACH"))
            properties, rule = self._properties("[]" if each else "()", variable), ""
        options = self._map() if self._is_word("OPTIONS") else ""
        if self._at < len(self._tokens):
            raise self._refused()
        return Creation(what, name, kind if kind in INDEXES else "", of, labels, properties, rule, options)

    def _pattern(self) -> tuple[Literal["node", "relationship"], str, tuple[str, ...]]:
        self._signs("(")
        if not self._is_sign(")"):
            variable, labels = self._labels()
            self._signs(")")
            return "node", variable, labels
        self._signs("-", "[")
        variable, labels = self._labels()
        self._signs("]", "-", "(", ")")
        return "relationship", variable, labels

    def _labels(self) -> tuple[str, tuple[str, ...]]:
        variable = self._name()
        self._signs(":")
        return variable, tuple(self._listed(self._name, "|"))

    def _properties(self, brackets: str, variable: str) -> tuple[str, ...]:
        # A single property may stand without parentheses.
        within = self._is_sign(brackets[0])

        def one() -> str:
            if self._name() != variable:
                raise self._refused()
            self._signs(".")
            return self._name()

        properties = tuple(self._listed(one, ",")) if within else (one(),)
        if within:
            self._signs(brackets[1])
        return properties

    def _rule(self) -> str:
        self._word("IS")
        if self._is_sign("::"):
            return f"IS :: {self._type()}"
        word = self._any_word("UNIQUE", "NODE", "RELATIONSHIP", "KEY", "NOT", "TYPED")
        if word == "TYPED":
            return f"IS :: {self._type()}"
        if word in ("NODE", "RELATIONSHIP"):
            return f"IS {word} {self._any_word('KEY', 'UNIQUE')}"
        return f"IS NOT {self._word('NULL')}" if word == "NOT" else f"IS {word}"

    def _type(self) -> str:
        parts: list[str] = []
        while self._at < len(self._tokens) and self._tokens[self._at] != ("word", "OPTIONS"):
            kind, text = self._tokens[self._at]
            if not _TYPES.fullmatch(text) and text not in "<>|()" and kind != "number":
                raise self._refused()
            parts.append(text)
            self._at += 1
        return " ".join(parts)

    def _map(self) -> str:
        self._signs("{")
        if self._is_sign("}"):
            return "{}"

        def entry() -> str:
            key = self._name()
            self._signs(":")
            return f"{quoted(key)}: {self._value()}"

        entries = self._listed(entry, ",")
        self._signs("}")
        return "{" + ", ".join(entries) + "}"

    def _value(self) -> str:
        if self._is_sign("["):
            values = [] if self._next() == ("sign", "]") else self._listed(self._value, ",")
            self._signs("]")
            return "[" + ", ".join(values) + "]"
        if self._next() == ("sign", "{"):
            return self._map()
        kind, text = self._next()
        if kind in ("number", "text") or (kind == "word" and text.lower() in ("true", "false")):
            self._at += 1
            return f"'{text[1:-1]}'" if kind == "text" else text
        raise self._refused()

    def _listed(self, one: Callable[[], str], sign: str) -> list[str]:
        read = [one()]
        while self._is_sign(sign):
            read.append(one())
        return read

    def _name(self) -> str:
        kind, text = self._next()
        if kind not in ("name", "word"):
            raise self._refused()
        self._at += 1
        return text[1:-1].replace("``", "`") if kind == "name" else text

    def _any_word(self, *allowed: str) -> str:
        kind, text = self._next()
        if kind != "word" or text.upper() not in allowed:
            raise self._refused()
        self._at += 1
        return text.upper()

    def _word(self, word: str) -> str:
        return self._any_word(word)

    def _is_word(self, word: str) -> bool:
        kind, text = self._next()
        there = kind == "word" and text.upper() == word
        self._at += there
        return there

    def _signs(self, *signs: str) -> None:
        for sign in signs:
            if not self._is_sign(sign):
                raise self._refused()

    def _is_sign(self, sign: str) -> bool:
        there = self._next() == ("sign", sign)
        self._at += there
        return there

    def _next(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _refused(self) -> NotCypher:
        return NotCypher(f"{self._statement[:80]!a} makes no constraint and no index that Plinth knows")
