"""A changed secret starts the pods anew that mount it, and no others."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.charts.rendering import needs_helm, text

pytestmark = needs_helm

VALUES: dict[str, Any] = {
    "login": {"existingSecret": "logins"},
    "qdrant": {"targets": ["qdrant-0:6333"], "existingSecret": "keys", "caSecret": "ca", "tls": True},
    "grafana": {
        "existingSecret": "grafana",
        "copy": {"enabled": True, "image": {"repository": "registry.test/plinth"}, "passwordKey": "copy-password"},
    },
    "alertmanager": {"existingSecret": "alerts", "webhookKey": "webhook-url"},
    "redisExporter": {"enabled": True, "existingSecret": "redis", "address": "redis:6379"},
    "postgresExporter": {"enabled": True, "existingSecret": "postgres", "address": "postgres:5432"},
    "plinthExporter": {
        "enabled": True,
        "url": "https://qdrant:6333",
        "image": {"repository": "registry.test/plinth"},
    },
}


def annotations(marks: dict[str, str]) -> dict[str, dict[str, str]]:
    """The annotations of each part's pods."""
    rendered = yaml.safe_load_all(text("monitoring", yaml.safe_dump(VALUES | {"secretMarks": marks})))
    return {
        each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"]["template"][
            "metadata"
        ]["annotations"]
        for each in rendered
        if each and each["kind"] in ("StatefulSet", "Deployment")
    }


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("logins/prometheus-password", {"prometheus", "grafana"}),
        ("logins/prometheus-web.yml", {"prometheus"}),
        ("logins/alertmanager-password", {"prometheus", "alertmanager"}),
        ("logins/alertmanager-web.yml", {"alertmanager"}),
        ("keys/read-only-api-key", {"prometheus", "plinth-exporter"}),
        ("ca/ca.crt", {"prometheus", "plinth-exporter"}),
        ("grafana/admin-password", {"grafana"}),
        ("grafana/copy-password", {"grafana"}),
        ("alerts/webhook-url", {"alertmanager"}),
        ("redis/passwords.json", {"redis-exporter"}),
        ("postgres/monitor-password", {"postgres-exporter"}),
        ("redis/another", set()),
        ("another/passwords.json", set()),
    ],
)
def test_a_changed_secret_starts_its_own_pods_anew(key: str, parts: set[str]) -> None:
    before, after = annotations({key: "1"}), annotations({key: "2"})
    assert len(before) == 6
    assert {part for part in before if before[part] != after[part]} == parts


def test_a_chart_without_marks_has_no_annotation_of_them() -> None:
    assert not [part for part, each in annotations({}).items() if "checksum/secrets" in each]
