"""Reading PromQL as far as tests need it: the selectors of an expression."""

from __future__ import annotations

import re

_WORDS = {"and", "or", "unless", "by", "on", "without", "ignoring", "bool", "offset", "inf", "nan"}
_WORDS |= {"group_left", "group_right"}
_CLAUSE = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)")
_STRING_ARGUMENT = re.compile(r'([,(]\s*)"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r'([a-zA-Z_:][\w:]*)\s*(\{(?:[^{}"]|"(?:[^"\\]|\\.)*")*\})?(?!\s*\(|[\w:])')


def selectors(expression: str) -> set[str]:
    """Each metric with its matchers, as it is written."""
    text = _CLAUSE.sub(" ", expression)
    # Durations, what follows a number, and strings that functions are given are no names.
    text = re.sub(r"\[[^\]]*\]", "", text)
    text = _STRING_ARGUMENT.sub(r"\1", text)
    # Matchers alone are of every metric.
    text = re.sub(r"\(\{[^{}]*\}", "(", text)
    found = set()
    for match in _SELECTOR.finditer(text):
        name, matchers = match.groups()
        before = text[match.start() - 1 : match.start()]
        if name in _WORDS or before.isdigit() or before == ".":
            continue
        found.add(name + (matchers or ""))
    return found


def names(expression: str) -> set[str]:
    """The metrics alone."""
    return {selector.partition("{")[0] for selector in selectors(expression)}
