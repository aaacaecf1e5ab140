"""A real Grafana on a live stack: its dashboards, what it asks, its marks, its password, and a backup put back."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from plinth.services.monitoring import LOGS_BOARD, OVERVIEW
from tests.conftest import ROOT, free_port, real_qdrant
from tests.engine.watched import Live, is_absent, watched
from tests.grafana import Grafana, errors, needs_grafana
from tests.project import needs_prometheus, needs_pulumi
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.engine,
    needs_pulumi,
    needs_prometheus,
    needs_grafana,
]
BOARDS = sorted(
    path for path in (ROOT / "monitoring" / "grafana" / "dashboards").glob("*.json") if path.name != LOGS_BOARD
)
SOURCE = "plinth-prometheus"
# In an INI file each of these would begin a comment, name a variable or end a quotation.
PASSWORD = """a;b #c "d' `e` $f ${HOME} $__env{HOME} %(http_port)s ü"""


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with watched("server" if real_qdrant() else "embedded", grafana={"port": free_port()}) as found:
        yield found


@pytest.fixture
def grafana(live: Live) -> Grafana:
    return Grafana(live.project.outputs()["grafana"])


def log(live: Live) -> str:
    return (live.project.root / ".plinth" / "t" / "run" / "logs" / "grafana.log").read_text()


@pytest.mark.requirement("S1-05")
def test_it_is_healthy_listens_on_loopback_alone_and_lets_nobody_in_without_a_name(
    live: Live, grafana: Grafana
) -> None:
    assert grafana.get("/api/health")["database"] == "ok"
    port = int(grafana.url.rpartition(":")[2])
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port]
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
    process = psutil.Process(listening[0].pid)
    own = [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN and c.laddr.ip != "127.0.0.1"]
    assert not own
    for path in ("/api/search", "/api/org", f"/api/dashboards/uid/{OVERVIEW}"):
        assert grafana.answer("GET", path).status_code == httpx.codes.UNAUTHORIZED
    assert grafana.answer("GET", "/api/org", auth=("admin", "admin")).status_code == httpx.codes.UNAUTHORIZED
    status = json.loads(live.project.plinth("status", "t", "--json", PROBE_TIMEOUT_MS="3000"))
    assert status["deps"]["grafana"]["ok"] is True


def test_it_is_told_to_ask_nobody_outside(grafana: Grafana) -> None:
    told = grafana.get("/api/admin/settings")
    off = {
        "analytics": ("reporting_enabled", "check_for_updates", "check_for_plugin_updates", "feedback_links_enabled"),
        "news": ("news_feed_enabled",),
        "snapshots": ("external_enabled",),
        "auth.anonymous": ("enabled",),
        "users": ("allow_sign_up",),
    }
    on = {
        "plugins": ("preinstall_disabled", "public_key_retrieval_disabled"),
        "security": ("disable_gravatar",),
    }
    assert {told[section][key] for section, keys in off.items() for key in keys} == {"false"}
    assert {told[section][key] for section, keys in on.items() for key in keys} == {"true"}


@pytest.mark.requirement("S1-05")
def test_every_dashboard_is_there_under_its_uid_in_one_folder_and_cannot_be_saved_over(
    live: Live, grafana: Grafana
) -> None:
    files = {board["uid"]: board for board in (json.loads(path.read_text()) for path in BOARDS)}
    found = grafana.boards()
    assert {uid: board["title"] for uid, board in found.items()} == {uid: b["title"] for uid, b in files.items()}
    assert {board["folderTitle"] for board in found.values()} == {"Plinth"}
    for uid, file in files.items():
        board = grafana.get(f"/api/dashboards/uid/{uid}")
        assert board["meta"]["provisioned"] is True
        shown = [(panel["id"], panel["type"], panel.get("title", "")) for panel in board["dashboard"]["panels"]]
        assert shown == [(panel["id"], panel["type"], panel.get("title", "")) for panel in file["panels"]]
        body = {"dashboard": {**board["dashboard"], "title": "mine"}, "overwrite": True}
        refused = grafana.answer("POST", "/api/dashboards/db", json=body, auth=(grafana.user, grafana.password))
        assert refused.is_client_error, uid
    home = grafana.get("/api/dashboards/home")
    assert home["dashboard"]["title"] == files[OVERVIEW]["title"]


def test_the_link_that_is_printed_leads_to_the_overview(live: Live, grafana: Grafana) -> None:
    link = live.outputs["grafana"]["dashboard"]
    assert link in live.project.plinth("status", "t", PROBE_TIMEOUT_MS="3000")
    board = grafana.get(f"/api/dashboards/uid/{link.rpartition('/')[2]}")
    assert link == f"{grafana.url}{board['meta']['url']}".rpartition("/")[0]


def test_every_panel_is_of_a_kind_that_it_has(grafana: Grafana) -> None:
    kinds = {plugin["id"] for plugin in grafana.get("/api/plugins", type="panel", embedded="0")} | {"row"}
    used = {panel["type"] for path in BOARDS for panel in json.loads(path.read_text())["panels"]}
    assert used <= kinds


def test_its_source_is_well_and_only_the_files_can_change_it(grafana: Grafana) -> None:
    assert grafana.get(f"/api/datasources/uid/{SOURCE}/health")["status"] == "OK"
    assert grafana.get(f"/api/datasources/uid/{SOURCE}")["readOnly"] is True


@pytest.mark.requirement("S1-05")
@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_panel_shows_something(live: Live, grafana: Grafana, path: Path) -> None:
    board, empty = json.loads(path.read_text()), []
    for panel in board["panels"]:
        queries = [filled(target) for target in panel.get("targets", ())]
        rows = grafana.rows(queries) if queries else {}
        empty += [
            f"{panel['title']}: {query['expr']}"
            for query in queries
            if not rows[query["refId"]] and not is_absent(live, query["expr"])
        ]
    assert not empty, "\n".join(empty)


def filled(target: dict[str, Any]) -> dict[str, Any]:
    """A query as the page sends it, with every choice at `All`."""
    return {**target, "expr": re.sub(r"\$(node|collection)\b", ".*", target["expr"])}


def test_a_choice_has_its_values(live: Live, grafana: Grafana) -> None:
    for path in BOARDS:
        for variable in json.loads(path.read_text())["templating"].get("list", []):
            metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
            place = f"/api/datasources/uid/{SOURCE}/resources/api/v1/label/{label}/values"
            assert grafana.get(place, **{"match[]": metric})["data"], f"{path.stem}: {variable['name']}"


@pytest.mark.requirement("S2-01")
def test_a_load_run_leaves_its_mark_with_the_verdict(live: Live, grafana: Grafana) -> None:
    slo = yaml.safe_load((ROOT / "load" / "slo.yaml").read_text())
    slo["profiles"]["tiny"] = {**slo["profiles"]["smoke"], "duration_s": 4, "warmup_s": 1}
    slo["profiles"]["tiny"] |= {"min_samples": 3, "rate_per_s": 20, "rounds": 1, "mix": {"search": 1}}
    slo["profiles"]["tiny"]["data"] = {"source": "wordnet", "points": 300, "queries": 30}
    (live.project.root / "load" / "slo.yaml").write_text(yaml.safe_dump(slo))
    said = live.project.run("from plinth.cli import main; main()", "load", "t", "--profile", "tiny", expect=None)
    assert "Grafana" not in said
    (word,) = re.findall(r"Verdict: (\w+)", said)
    (mark,) = grafana.get("/api/annotations", tags="load")
    assert set(mark["tags"]) == {"plinth", "load", word}
    assert mark["text"].startswith(f"Load gate tiny: {word}.")
    assert 3_000 < mark["timeEnd"] - mark["time"] < 300_000


def test_nothing_fails_in_its_log(live: Live) -> None:
    assert "HTTP Server Listen" in log(live)
    assert not errors(log(live))


def test_a_second_up_changes_nothing(live: Live) -> None:
    assert "nothing to change" in live.project.up()


@pytest.mark.requirement("S1-14")
def test_a_changed_password_is_the_admins_and_nowhere_else(live: Live, grafana: Grafana) -> None:
    before = grafana.password
    live.project.settings["plinth:monitoring"]["grafana"]["admin_password"] = PASSWORD
    live.project.save()
    live.project.up()
    now = Grafana(live.project.outputs()["grafana"])
    assert now.password == PASSWORD
    assert set(now.boards()) == set(grafana_uids())
    assert now.answer("GET", "/api/org", auth=("admin", before)).status_code == httpx.codes.UNAUTHORIZED
    assert "nothing to change" in live.project.up()
    for secret in (before, PASSWORD):
        assert secret not in log(live)
        assert secret not in live.project.plinth("outputs", "t")


def grafana_uids() -> list[str]:
    return [json.loads(path.read_text())["uid"] for path in BOARDS]


@pytest.mark.requirement("S1-05")
def test_a_deploy_and_a_load_run_are_marked_in_every_dashboard(grafana: Grafana) -> None:
    boards = [json.loads(path.read_text()) for path in BOARDS]
    notes = {(note["name"], note["expr"]) for board in boards for note in board["annotations"]["list"]}
    assert {name for name, _ in notes} == {"Deploys", "Load runs"}
    for name, expression in notes:
        query = {"refId": "A", "datasource": {"type": "prometheus", "uid": SOURCE}, "expr": expression, "range": True}
        wait_for(lambda query=query: grafana.rows([query])["A"], name)  # type: ignore[misc]


@pytest.mark.requirement("S1-06")
def test_a_backup_holds_its_database_and_it_can_be_put_back(live: Live, grafana: Grafana) -> None:
    body = {"time": 1_700_000_000_000, "tags": ["kept"], "text": "by hand"}
    made = grafana.ask("POST", "/api/annotations", json=body)["id"]
    assert live.project.json("backup", "run", "t")["complete"] is True
    grafana.ask("DELETE", f"/api/annotations/{made}")
    said = live.project.plinth("backup", "restore", "t", "--store", "grafana", "--replace", "--yes")
    (file,) = re.findall(r"its database is in (\S+);", said)
    live.project.plinth("down", "t", "--yes")
    shutil.copyfile(file, live.project.root / ".plinth" / "t" / "data" / "grafana" / "data" / "grafana.db")
    live.project.up()
    (mark,) = grafana.get("/api/annotations", tags="kept")
    assert mark["text"] == "by hand"
    assert set(grafana.boards()) == set(grafana_uids())


@pytest.mark.requirement("S1-14")
def test_a_database_of_a_password_that_nobody_gave_is_a_sentence(live: Live, grafana: Grafana) -> None:
    body = {"oldPassword": grafana.password, "newPassword": "by hand", "confirmNew": "by hand"}
    grafana.ask("PUT", "/api/user/password", json=body)
    live.project.settings["plinth:monitoring"]["grafana"]["admin_password"] = "another"
    live.project.save()
    assert "lets its admin in neither with" in live.project.up(expect=1)
    # After five wrong ones Grafana takes none for five minutes, and the tests before have given some.
    wait_for(lambda: grafana.answer("GET", "/api/org", auth=("admin", "by hand")).is_success, seconds=330)
    live.project.settings["plinth:monitoring"]["grafana"]["admin_password"] = "by hand"
    live.project.save()
    live.project.up()
    assert grafana.answer("GET", "/api/org", auth=("admin", "by hand")).is_success
