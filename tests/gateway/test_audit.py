"""The audit log (BR-008): a line for each operation, refusals too, and nothing of what it was about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from plinth.gateway import audit
from plinth.gateway.audit import AuditLog, AuditRecord
from plinth.gateway.caller import Caller, Scope
from plinth.gateway.errors import ErrorKind, GatewayError
from tests.gateway.conftest import Gateway, login

RECORD = AuditRecord("search", "r", Caller("o", "u", frozenset(Scope)), "c", 1, "OK", 1.5, "rest")


def lines_of(gateway: Gateway, organisation: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in gateway.audit.read_text().splitlines()]
    return [line for line in lines if line["org_id"] == organisation]


@pytest.mark.requirement("S4-08")
def test_br008_every_operation_leaves_a_line_and_no_content(gateway: Gateway, organisation: str) -> None:
    with gateway.http(organisation, "ann") as http:
        point = {"id": "secret-id", "vector": [0.123456] * 384, "payload": {"word": "secret-payload"}}
        http.put("/v1/collections/embeddings/points", json={"points": [point]}).raise_for_status()
        condition = {"match": {"word": "secret-filter"}}
        http.post("/v1/collections/embeddings/search", json={"vector": [0.123456] * 384, "filter": condition})
        http.get("/v1/collections/none")
        http.post("/v1/collections/embeddings/search", json={"text": "secret-text", "top_k": 0})
    lines = lines_of(gateway, organisation)
    assert [(line["operation"], line["outcome"], line["count"]) for line in lines] == [
        ("upsert", "OK", 1),
        ("search", "OK", 1),
        ("get_collection", "NOT_FOUND", 0),
        ("refused", "INVALID_ARGUMENT", 0),
    ]
    assert {line["user_id"] for line in lines} == {"ann"}
    assert [line["collection"] for line in lines] == ["embeddings", "embeddings", "none", "embeddings"]
    assert all(line["duration_ms"] >= 0 and line["request_id"] and line["time"] for line in lines)
    assert "secret" not in gateway.audit.read_text()
    assert "0.123456" not in gateway.audit.read_text()


def test_who_is_refused_leaves_a_line_without_a_token(gateway: Gateway) -> None:
    request_id = "refused-for-its-token"
    headers = {"authorization": "Bearer secret.token.of", "x-request-id": request_id}
    answer = httpx.get(f"{gateway.url}/v1/collections", headers=headers)
    assert answer.headers["x-request-id"] == request_id
    (line,) = [json.loads(each) for each in gateway.audit.read_text().splitlines() if request_id in each]
    assert (line["operation"], line["outcome"], line["org_id"]) == ("refused", "UNAUTHENTICATED", None)
    assert "secret.token" not in gateway.audit.read_text()


def test_a_request_id_that_would_break_a_line_is_replaced(gateway: Gateway) -> None:
    answer = httpx.get(f"{gateway.url}/v1/collections", headers=login("lines") | {"x-request-id": 'a" b'})
    assert answer.headers["x-request-id"] != 'a" b'


def test_a_log_that_cannot_be_written_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "none" / "audit.jsonl")
    log.write(RECORD)
    log.admit()
    assert log.failures == 1
    (tmp_path / "none").mkdir()
    log.write(RECORD)
    assert (tmp_path / "none" / "audit.jsonl").read_text().count("\n") == 1


def test_a_required_log_refuses_until_it_can_be_written(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "none" / "audit.jsonl", required=True)
    log.admit()
    log.write(RECORD)
    with pytest.raises(GatewayError) as refused:
        log.admit()
    assert refused.value.kind is ErrorKind.unavailable
    (tmp_path / "none").mkdir()
    log.admit()


def test_no_link_is_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "audit.jsonl").symlink_to(target)
    log = AuditLog(tmp_path / "audit.jsonl")
    log.write(RECORD)
    assert log.failures == 1
    assert not target.exists()


def test_a_full_file_is_renamed_and_so_is_one_that_others_rotate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "FILE_MAX_BYTES", 500)
    monkeypatch.setattr(audit, "FILES_MAX", 3)
    log = AuditLog(tmp_path / "audit.jsonl")
    for _ in range(30):
        log.write(RECORD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(path.stat().st_size < 1000 for path in tmp_path.iterdir())
    (tmp_path / "audit.jsonl").rename(tmp_path / "elsewhere")
    log.write(RECORD)
    assert (tmp_path / "audit.jsonl").read_text().count("\n") == 1
