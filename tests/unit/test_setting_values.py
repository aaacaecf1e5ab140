"""What a setting may hold: schedules that come, addresses that are called, passwords that all read alike, paths."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from plinth import cli
from plinth.backup.config import Schedule, secret
from plinth.deployment.environment_plan import plan_environment
from plinth.deployment.preflight import refusals
from plinth.deployment.program import check
from plinth.errors import UserError
from plinth.exporter.collector import client
from plinth.exporter.config import Config as ExporterConfig
from plinth.paths import Home
from plinth.settings import Settings
from plinth.settings.loader import load_settings, parse, refuse_value
from plinth.settings.secret_keys import secret_keys
from plinth.system.secret_file import read_secret
from tests.conftest import ROOT
from tests.services import services_of

SCHEDULES = ("schedule", "check_schedule", "drill_schedule")


def local(**values: Any) -> Settings:
    return parse({"target": "local", **values}, source="x")


@pytest.mark.parametrize("key", SCHEDULES)
@pytest.mark.parametrize(
    "expression",
    [
        *("99 3 * * *", "0 4 31 2 *", "0 5 * * 8", "60 * * * *", "0 24 * * *", "0 3 0 * *", "0 3 32 * *", "0 3 * 13 *"),
        *("0 3 * 0 *", "0 3 30 2 *", "0 3 31 4,6,9,11 *", "0 3 30-31 2 *", "-1 * * * *", "1.5 * * * *", "*/0 * * * *"),
        *("0 3 5-1 * *", "0 3 * FOO *", "0 3 * * FUN", "0 5 * * 1#6", "5L/2 * * * *", "1/2/3 * * * *", ", * * * *"),
        *(
            "@daily",
            "0 3 * *",
            "0 3 * * * *",
            "",
            " ",
            "hourly",
            "0 3 * * *; rm",
            "\uff12 3 * * *",
            "0 3 ? * *",
            "2:30",
        ),
    ],
)
def test_a_cron_expression_that_is_none_or_never_comes_is_refused(key: str, expression: str) -> None:
    with pytest.raises(UserError, match=rf"plinth:backup\.{key}: .*such as '0 3 \* \* \*', got "):
        local(backup={key: expression})


@pytest.mark.parametrize("key", SCHEDULES)
@pytest.mark.parametrize(
    "expression",
    [
        "* * * * *",
        "0 3 29 2 *",
        "*/5 0-23/2 1,15 JAN-DEC mon-FRI",
        "0 5 * * sun",
        "0 5 * * 7",
        "0 3 31 2 1",
        "0 0 L * *",
    ],
)
def test_a_cron_expression_that_comes_is_taken_and_means_the_same_to_the_schedule(key: str, expression: str) -> None:
    spaced = expression.replace(" ", "\t ")
    assert getattr(local(backup={key: spaced}).backup, key) == expression
    assert Schedule(backup=spaced).backup == expression


@pytest.mark.parametrize(
    ("expression", "good"), [("0 5 * * 7", False), ("0 5 L * *", False), ("0 5 * * 1#2", False), ("0 5 * * SUN", True)]
)
def test_what_a_cron_job_of_kubernetes_does_not_know_is_refused(expression: str, good: bool) -> None:
    found = list(refusals(parse({"target": "kubernetes", "backup": {"schedule": expression}}, source="x"), {}))
    assert any("CronJob" in sentence for sentence in found) != good


URLS = (
    "monitoring.alertmanager.webhook_url",
    "monitoring.alertmanager.ticket_webhook_url",
    "monitoring.alertmanager.heartbeat_url",
)


@pytest.mark.parametrize("key", URLS)
@pytest.mark.parametrize(
    "url",
    [
        *(
            "hooks.example.org/x",
            "example.org:9000",
            "//example.org/x",
            "http:/example.org",
            "http:example.org",
            "http://",
        ),
        *("ftp://example.org", "file:///etc/passwd", "http:///x", "http://:80/", "http://h:99999/", "http://h:x/"),
        *("http://h/%zz", "http://h/%", "http://h/a%2", "http://h/?q=%q", "http://h/a b", "http://h a/", " http://h/"),
        *("http://h/ ", "http://h/\n", "http://h/\tx", "http://h\\x/", "http://[::1/", "http://{host}/", "http://a|b/"),
        *("http://h:0/", "http://h:-1/", "http://us er:pw@h/", "http://h/\u200b", "javascript:alert(1)", "None"),
    ],
)
def test_an_address_that_no_alert_reaches_is_refused_and_not_shown(key: str, url: str) -> None:
    with pytest.raises(UserError, match=rf"plinth:{key}: ") as refused:
        refuse_value(key, url)
    assert url not in str(refused.value).partition("got")[2]


@pytest.mark.parametrize("key", URLS)
@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:9/x", "https://hooks.example.org/T0/B0?token=a%20b#x", "http://[::1]:8080/", "HTTPS://h"),
        *("http://user:p%40ss@h:8/x", "http://alert_sink/", "http://münchen.example/", "https://h/${TOKEN}/ü"),
    ],
)
def test_an_address_that_is_one_is_taken(key: str, url: str) -> None:
    refuse_value(key, url)


@pytest.mark.parametrize("url", ["http://h/%zz", "runbooks", "https://", "http://h/a b"])
def test_the_address_of_the_runbooks_is_one(url: str) -> None:
    with pytest.raises(UserError, match=r"plinth:monitoring\.runbooks_url"):
        local(monitoring={"runbooks_url": url})


def keys() -> list[str]:
    return sorted(key.replace("[]", "[0]") for key in secret_keys())


@pytest.mark.parametrize("key", keys())
@pytest.mark.parametrize(
    "around",
    ["{} ", " {}", "{}\n", "{}\r\n", "\t{}", "{}\u00a0", "{}\u2003", "{}\0", "two\nlines-{}", "{}\x7f", "{}\u200b"],
)
def test_a_secret_that_one_reader_would_trim_is_refused_for_every_setting(key: str, around: str) -> None:
    good = "https://h/x" if key.endswith("_url") else "Passw0rd.-_~" * 3
    good = f"x-key={good}" if key.endswith("headers") else good
    refuse_value(key, good)
    with pytest.raises(UserError) as refused:
        refuse_value(key, around.format(good))
    assert good not in str(refused.value)


@pytest.mark.parametrize("password", ["p@ss:w/o%r$d\"q' #{{x}}", "a b", "über alles", "\\n", "'", "${HOME}", "-x"])
def test_other_passwords_stay_good_and_every_reader_takes_the_same(tmp_path: Path, password: str) -> None:
    refuse_value("redis.password", password)
    for content in (password, f"{password}\n", f"{password}\r\n"):
        file = tmp_path / "secret"
        file.write_bytes(content.encode())
        assert read_secret(file) == secret(file) == password


def test_the_exporter_reads_its_key_as_the_backups_do(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("k e y")
    config = ExporterConfig.model_validate(
        {
            "qdrant": {"url": "http://127.0.0.1:1", "api_key_file": file, "peers": 1, "memory_limit_bytes": 1},
            "listen": {"host": "127.0.0.1", "port": 1},
            "collections": (),
        }
    )
    with client(config) as made:
        assert made._http.headers["api-key"] == secret(file) == "k e y"


@pytest.mark.parametrize("key", ["qdrant.api_key", "qdrant.read_only_api_key", "monitoring.alertmanager.webhook_token"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(UserError, match="header"):
        refuse_value(key, "schlüssel")


def test_plinth_secret_refuses_before_it_encrypts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["plinth", "secret", "x", "redis.password"])
    monkeypatch.setattr("plinth.cli.secret._value", lambda _: "a-password ")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "a secret is one line" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / ".plinth").exists()


def write(root: Path, text: str) -> None:
    (root / "stacks").mkdir(parents=True)
    (root / "Pulumi.yaml").write_text("name: plinth\n")
    (root / "stacks" / "Pulumi.x.yaml").write_text(f"config:\n  plinth:target: local\n{text}")


PATHS: dict[str, str] = {
    "backup.repository": "{}",
    "backup.ca_cert": "{}",
    "collections.directory": "{}",
    "slo.file": "{}",
    "kubernetes.kubeconfig": "{}",
    "qdrant.tls": "cert: {0}, key: {0}, ca_cert: {0}",
}


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("backups", "{root}/backups"),
        ("./a/b", "{root}/a/b"),
        ("../outside", "{root}/../outside"),
        ("~/x y", "{home}/x y"),
        ("~", "{home}"),
        ("/srv/x", "/srv/x"),
        ("a~b", "{root}/a~b"),
    ],
)
def test_a_path_of_the_settings_is_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, path: str, expected: str
) -> None:
    root, user = tmp_path / "pro ject", tmp_path / "user"
    group, name = key.split(".")
    value = PATHS[key].format(f'"{path}"')
    write(root, f"  plinth:{group}:\n    {name}: {f'{{{value}}}' if ':' in PATHS[key] else value}\n")
    monkeypatch.setenv("HOME", str(user))
    found = []
    for here in (root, root / "stacks", tmp_path):
        monkeypatch.chdir(here)
        value = getattr(getattr(load_settings(root, "x"), group), name)
        found += [value] if isinstance(value, str) else list(value.model_dump().values())
    assert set(found) == {expected.format(root=root, home=user)}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("local:sets", "{root}/sets"),
        ("local:~/sets", "{home}/sets"),
        *(
            (same, same)
            for same in ("s3:https://h/b/p", "rest:https://h:8000/n", "sftp:u@h:sets", "rclone:r:p", "b2:b:p")
        ),
    ],
)
def test_a_repository_on_a_server_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, expected: str
) -> None:
    write(tmp_path, f"  plinth:backup:\n    repository: {address}\n")
    monkeypatch.setenv("HOME", "/home/somebody")
    found = load_settings(tmp_path, "x").backup.repository
    assert found == expected.format(root=tmp_path, home="/home/somebody")


def test_what_is_generated_names_the_repository_whole(tmp_path: Path) -> None:
    settings = parse({"target": "local", "backup": {"repository": "sets"}}, source="x", root=tmp_path)
    made = next(service for service in services_of(settings) if service.name == "plinth-backup")
    config: Any = made.files["config.yaml"]
    assert config.values["repository"] == str(tmp_path / "sets")


@pytest.mark.parametrize("address", ["~nobody-has-this-name/x", "", " ", "a\nb"])
def test_a_path_that_is_none_is_refused(tmp_path: Path, address: str) -> None:
    for values in ({"backup": {"repository": address}}, {"slo": {"file": address}}):
        if values == {"slo": {"file": "a\nb"}}:
            continue
        with pytest.raises(UserError):
            parse({"target": "local", **values}, source="x", root=tmp_path)


@pytest.mark.parametrize("path", ["run/sets", "run", "../engine/sets", "../backend", "../pulumi/x", "data/../run/sets"])
def test_a_repository_in_what_down_removes_is_refused(tmp_path: Path, path: str) -> None:
    place = Home(tmp_path / ".plinth", tmp_path / ".plinth" / "x")
    settings = local(backup={"repository": str(place.place / path)})
    with pytest.raises(UserError, match="`plinth down x` removes"):
        check(plan_environment(settings, ROOT, place))


def test_a_secret_that_is_encrypted_is_not_judged() -> None:
    found = local(redis={"password": "(encrypted)"}, monitoring={"alertmanager": {"webhook_url": "(encrypted)"}})
    assert found.redis.password == SecretStr("(encrypted)")


class Strict(BaseModel):
    """A model that refuses."""

    key: int


def unreadable() -> None:
    b"K\xf6ln".decode()


def unfit() -> None:
    Strict.model_validate({"key": "p4ssword"})


@pytest.mark.parametrize(("fault", "words"), [(unreadable, "is not utf-8"), (unfit, "Strict: key: Input should be")])
def test_what_no_reader_expected_is_a_sentence_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: Any, words: str
) -> None:
    monkeypatch.setattr(cli, "app", fault)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr().err
    assert ended.value.code == 1
    assert words in printed
    assert "p4ssword" not in printed


def test_a_fault_of_the_program_is_still_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(cli, "app", fault)
    with pytest.raises(ValueError, match="a bug"):
        cli.main()
