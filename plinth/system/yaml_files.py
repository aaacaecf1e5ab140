"""Text and YAML that people write, read so that no two readers understand one file differently.

A file is UTF-8, with or without a byte order mark. YAML is read by the core schema of YAML 1.2, as Pulumi's own reader
does: `no`, `on` and `2:30` are text, a date is text, only `true` and `false` are booleans. A key occurs once, and is
text.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Any

import yaml

from plinth.errors import UserError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_CORE = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
)


class _Refused(yaml.YAMLError):
    """The document is valid YAML and is not accepted; the message is a sentence."""


class _Loader(yaml.SafeLoader):
    """The core schema of YAML 1.2, without duplicate keys, keys that are not text, and ambiguous numbers."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    yaml_constructors = {
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._open: set[str] = set()

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the node; refuses a node that contains itself."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent) and anchor in self._open:
            raise _Refused(f"line {_line(event)}: *{anchor} stands within itself; write it out.")
        self._open |= {anchor} if anchor else set()
        node = super().compose_node(parent, index)
        self._open.discard(anchor)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge the mappings of `<<`, after refusing keys that occur twice or are not text."""
        _refuse_keys(node)
        own = [pair for pair in node.value if pair[0].tag != _tag("merge")]
        super().flatten_mapping(node)
        names = {key.value for key, _ in own}
        merged = {key.value: (key, value) for key, value in node.value[: len(node.value) - len(own)]}
        node.value = [*(pair for name, pair in merged.items() if name not in names), *own]


def _refuse_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = _line(key)
        if not isinstance(key, yaml.ScalarNode) or key.tag not in (_tag("str"), _tag("merge")):
            name = f"'{key.value}'" if isinstance(key, yaml.ScalarNode) else "that is a list or a mapping"
            raise _Refused(f"line {line}: the key {name} is not text; put it in quotes.")
        if key.value in lines:
            raise _Refused(
                f"the key '{key.value}' is on line {lines[key.value]} and again on line {line}; keep one of them."
            )
        lines[key.value] = line


def _line(node: yaml.Node | yaml.Event) -> int:
    return node.start_mark.line + 1 if node.start_mark else 0


def _tag(kind: str) -> str:
    return f"tag:yaml.org,2002:{kind}"


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    if _LEADING_ZERO.fullmatch(node.value):
        raise _Refused(
            f"line {_line(node)}: {node.value} is octal to some readers and decimal to others; write it "
            f"without the leading zero, or in quotes where it is text."
        )
    return loader.construct_yaml_int(node)


for _kind, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(_tag(_kind), re.compile(f"^(?:{_pattern})$"), list(_first.replace("\0", "")))
_Loader.yaml_implicit_resolvers.setdefault("", []).append((_tag("null"), re.compile("^$")))
_Loader.add_constructor(_tag("int"), _whole)


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes all text: plain text here, such as 1e3, is a number to another reader."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(_tag("str"), text, style='"'))


def dump_yaml(document: Any) -> str:
    """Return the document as YAML that every reader understands alike."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def read_text(path: Path) -> str:
    """Return the text of a file that a person writes; raises :class:`UserError` if it is unreadable or not UTF-8."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; name a file that can be.") from error
    if content.startswith(_UTF16):
        raise UserError(f"{path} is UTF-16, and UTF-8 is expected; save it as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path} is not UTF-8 text (line {line}); save it as UTF-8.") from None


def parse_yaml(text: str) -> Any:
    """Return the document; raises :class:`yaml.YAMLError`."""
    try:
        # A subclass of SafeLoader.
        return yaml.load(text, _Loader)  # noqa: S506
    except RecursionError:
        raise _Refused("it is nested too deeply; write it flat.") from None
    except ValueError as error:
        raise _Refused(f"a value cannot be read: {error}.") from None


def read_yaml(path: Path) -> Any:
    """Return the document of a file that a person writes; raises :class:`UserError`."""
    text = read_text(path)
    try:
        return parse_yaml(text)
    except _Refused as refused:
        raise UserError(f"{path}: {refused}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} cannot be read: it is not YAML: {' '.join(str(error).split())}; correct it.") from None
