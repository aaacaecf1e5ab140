"""Files that people write: each key once, one reading of each value, and any encoding is a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from plinth import cli
from plinth.deployment.environment_plan import plan_environment
from plinth.deployment.program import check
from plinth.errors import UserError
from plinth.load.slo import load_slo
from plinth.paths import home
from plinth.qdrant.spec import load_spec, load_specs
from plinth.services.monitoring import RULES
from plinth.settings.loader import load_settings, parse
from plinth.system.yaml_files import dump_yaml, parse_yaml
from tests.conftest import ROOT

SETTINGS = "config:\n  plinth:target: local\n"
COLLECTION = "name: c\nvectors: {size: 4, distance: Cosine}\n"


def settings(directory: Path, content: str | bytes) -> Path:
    (directory / "stacks").mkdir()
    (directory / "Pulumi.yaml").write_text("name: plinth\n")
    file = directory / "stacks" / "Pulumi.x.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.mark.parametrize(
    ("text", "key", "first", "again"),
    [
        (f"{SETTINGS}  plinth:qdrant: {{http_port: 1}}\n  plinth:qdrant: {{grpc_port: 2}}\n", "plinth:qdrant", 3, 4),
        (f"{SETTINGS}  plinth:target: docker\n", "plinth:target", 2, 3),
        (f"{SETTINGS}  'plinth:target': docker\n", "plinth:target", 2, 3),
        (f"{SETTINGS}config: {{}}\n", "config", 1, 3),
        (f"{SETTINGS}  plinth:qdrant:\n    tls: {{}}\n    nodes: 3\n    tls: {{}}\n", "tls", 4, 6),
        (f"{SETTINGS}  plinth:qdrant: {{nodes: 1, nodes: 3}}\n", "nodes", 3, 3),
        (f"{SETTINGS}  plinth:postgres:\n    databases:\n      - name: a\n        name: b\n", "name", 5, 6),
        (f"{SETTINGS}  plinth:qdrant:\n    <<: {{nodes: 1}}\n    <<: {{nodes: 3}}\n", "<<", 4, 5),
    ],
)
def test_a_key_that_stands_twice_is_named_with_both_lines(
    tmp_path: Path, text: str, key: str, first: int, again: int
) -> None:
    file = settings(tmp_path, text)
    with pytest.raises(UserError) as refused:
        load_settings(tmp_path, "x")
    assert (
        str(refused.value) == f"{file}: the key '{key}' is on line {first} and again on line {again}; keep one of them."
    )


def test_every_kind_of_file_refuses_a_key_that_stands_twice(tmp_path: Path) -> None:
    twice = "is on line 1 and again on line 2"
    file = tmp_path / "a.yaml"
    file.write_text("vectors: {size: 384, distance: Cosine}\nvectors: {size: 768, distance: Dot}\nname: c\n")
    readers: list[Callable[[], object]] = [
        lambda: load_spec(file),
        lambda: load_specs(tmp_path),
        lambda: load_slo(file),
    ]
    for read in readers:
        with pytest.raises(UserError, match=twice):
            read()


def test_alert_rules_with_a_key_that_stands_twice_are_refused_before_anything_runs(tmp_path: Path) -> None:
    for name in ("config", "monitoring", "load"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "monitoring").unlink()
    for source in (ROOT / "monitoring").iterdir():
        (tmp_path / "monitoring").mkdir(exist_ok=True)
        (tmp_path / "monitoring" / source.name).symlink_to(source)
    (tmp_path / "monitoring" / "prometheus").unlink()
    (tmp_path / RULES).mkdir(parents=True)
    (tmp_path / "monitoring/prometheus/prometheus.yml.j2").symlink_to(ROOT / "monitoring/prometheus/prometheus.yml.j2")
    (tmp_path / RULES / "own.yml").write_text("groups:\n  - name: a\n    rules: []\n    name: b\n")
    with pytest.raises(UserError, match=r"own\.yml: the key 'name' is on line 2 and again on line 4"):
        check(plan_environment(parse({"target": "local"}, source="x"), tmp_path, home(tmp_path, "x")))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("NO", "NO"),
        ("on", "on"),
        ("Off", "Off"),
        ("yes", "yes"),
        ("y", "y"),
        ("2:30", "2:30"),
        ("1:30:00", "1:30:00"),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01 10:00:00", "2024-01-01 10:00:00"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("=", "="),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0", 0),
        ("1e3", 1000.0),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ('"no"', "no"),
    ],
)
def test_a_value_is_read_by_the_core_schema(text: str, value: object) -> None:
    assert parse_yaml(f"key: {text}\n") == {"key": value}


@pytest.mark.parametrize("text", ["010", "-07", "0900", "00", "0123456"])
def test_a_number_with_a_leading_zero_is_refused_in_its_line(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match=f"line 2: {text} is octal to some"):
        parse_yaml(f"a: 1\nkey: {text}\n")
    assert parse_yaml(f"key: '{text}'\n") == {"key": text}


@pytest.mark.parametrize("port", ["2:30", "0o7777777", "010", "1e9", "yes", ".inf", "0b1", "on"])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    settings(tmp_path, f"{SETTINGS}  plinth:qdrant: {{http_port: {port}}}\n")
    with pytest.raises(UserError):
        load_settings(tmp_path, "x")


def test_words_for_truth_are_still_truth_where_truth_is_expected(tmp_path: Path) -> None:
    settings(tmp_path, f"{SETTINGS}  plinth:redis: {{enabled: no}}\n  plinth:postgres: {{enabled: off}}\n")
    found = load_settings(tmp_path, "x")
    assert not found.redis.enabled
    assert not found.postgres.enabled


def test_norway_stays_norway_in_a_collection(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"{COLLECTION}metadata: {{country: no, since: 2024-01-01}}\npayload_indexes: {{on: keyword}}\n")
    spec = load_spec(file)
    assert spec.metadata == {"country": "no", "since": "2024-01-01"}
    assert list(spec.payload_indexes) == ["on"]


def test_merges_and_anchors_still_work() -> None:
    text = "base: &base {a: 1, b: 2}\none: {<<: *base, b: 3}\ntwo: {<<: [{a: 7}, *base], c: 4}\n"
    document = parse_yaml(text)
    assert document["one"] == {"a": 1, "b": 3}
    assert document["two"] == {"a": 7, "b": 2, "c": 4}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"{SETTINGS}# für Köln\n".encode("latin-1"), "is not UTF-8 text (line 3)"),
        (f"{SETTINGS}# für Köln\n".encode("cp1252"), "is not UTF-8 text (line 3)"),
        (SETTINGS.encode("utf-16"), "is UTF-16"),
        (b"\xfe\xff" + SETTINGS.encode("utf-16-be"), "is UTF-16"),
        (SETTINGS.encode("utf-16-le"), "is not YAML"),
        (SETTINGS.encode("utf-32"), "is UTF-16"),
        (f"{SETTINGS}a: \0".encode(), "is not YAML"),
        (b"\x00\xff\xfe binary", "is not UTF-8"),
        (b"config: {5: x}\n", "line 1: the key '5' is not text"),
        (b"config: {true: x}\n", "the key 'true' is not text"),
        (b"config: {~: x}\n", "the key '~' is not text"),
        (b"config: {1.5: x}\n", "the key '1.5' is not text"),
        (b"config:\n  ? [a, b]\n  : x\n", "line 2: the key that is a list or a mapping"),
        (b"config: &a {plinth:target: *a}\n", "*a stands within itself"),
        (b"config: !!binary aGVsbG8=\n", "is not YAML"),
        (b"config: !!python/object/apply:os.system [id]\n", "is not YAML"),
        (b"config: " + b"[" * 5000, "nested too deeply"),
        (b"config: {plinth:target: " + b"9" * 5000 + b"}", "a value cannot be read"),
        (b"- a\n", "no `config:` mapping"),
        (b"just text", "no `config:` mapping"),
        (b"", "no `config:` mapping"),
        (b"config: {}\n---\nconfig: {}\n", "is not YAML"),
    ],
)
def test_no_file_is_a_traceback(
    tmp_path: Path, content: bytes, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings(tmp_path, content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["plinth", "preview", "x"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2
    assert words in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
def test_a_terminal_of_another_encoding_shows_what_it_can(tmp_path: Path, variables: dict[str, str]) -> None:
    image = "registry.test/schlüssel:1.0"
    text = f"config:\n  plinth:target: docker\n  plinth:docker: {{images: {{qdrant: '{image}'}}}}\n"
    settings(tmp_path, f"# für Köln\n{text}")
    (tmp_path / "config").symlink_to(ROOT / "config")
    (tmp_path / "monitoring").symlink_to(ROOT / "monitoring")
    command = [sys.executable, "-c", "from plinth.cli import main; main()", "images", "list", "x"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    environment = {**kept, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = {image.encode(), image.encode("latin-1"), image.encode("ascii", "backslashreplace")}
    assert any(spelling in done.stdout for spelling in shown)


@pytest.mark.parametrize(
    "content", [COLLECTION.encode("utf-8-sig"), COLLECTION.replace("\n", "\r\n").encode(), COLLECTION.encode()]
)
def test_a_mark_and_line_ends_of_windows_change_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    assert [spec.name for spec in load_specs(tmp_path)] == ["c"]


def test_a_file_that_may_not_be_read_or_is_a_directory_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        load_specs(tmp_path)


@pytest.mark.parametrize(
    "text", ["1e3", "0o17", "0x1f", "no", "2:30", "1_000", "010", ".5", "~", "", "a: b", "ü", "#x"]
)
def test_text_that_is_written_for_pulumi_is_text_to_every_reader(text: str) -> None:
    written = dump_yaml({"config": {"plinth:backup": {"name": text, "port": 5, "enabled": True}}})
    assert f'"name": "{text}"' in written
    assert parse_yaml(written) == yaml.safe_load(written)
